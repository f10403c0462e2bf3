"""Splits the time of a command into phases, such as training or the report."""

from collections import Counter
from collections.abc import Callable, Iterator
import contextlib
import threading
import time

START, COMPILING = 'start', 'compiling'
# Phases that sum the time over all runs.
BEGINNING, TRAINING, EVALUATION, CHECKPOINTS, LABELLING = (
  'beginning of runs', 'training', 'evaluation', 'checkpoints', 'labelling'
)  # fmt: skip
FEATURES, PROBES, REPORT = 'features', 'linear probes', 'report'

# A program is cached for later processes if its compilation takes at least this
# many seconds.
LEAST_KEPT = 0.1


class Phases:
  """Measures the seconds that a process spends in each phase.

  If phases are nested, the time counts only for the innermost phase.

  Attributes:
    seconds: seconds by phase; `so_far` adds the time since its last call.
    steps: number of training steps taken, summed over the runs.
    compiled_again: seconds of tracing and compiling, in all threads, that the
      next process will need again. That process only reads the cached programs.
      Each of them counts as `LEAST_KEPT` seconds.
  """

  def __init__(self, clock: Callable[[], float] = time.time):
    self.seconds: Counter[str] = Counter()
    self.steps = 0
    self.compiled_again = 0.0
    self._clock = clock
    self._open = [START]
    self._since = clock()
    self._lock = threading.Lock()
    self._spans = threading.local()
    # Disjoint intervals that count as `COMPILING`, in ascending order.
    self._compiled: list[tuple[float, float]] = []

  @contextlib.contextmanager
  def __call__(self, name: str) -> Iterator[None]:
    """Context manager and decorator that counts the time inside for a phase.

    Outside the main thread it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
      yield
      return
    self.so_far()
    self._open.append(name)
    try:
      yield
    finally:
      self.so_far()
      self._open.pop()

  def so_far(self) -> dict[str, float]:
    """Returns the seconds of all phases until now."""
    with self._lock:
      now = self._clock()
      self.seconds[self._open[-1]] += now - self._since
      self._since = now
      found = Counter(self.seconds)
      # A span may have begun before the phase that it was taken from.
      found[COMPILING] += sum(s for s in found.values() if s < 0)
      return {name: s for name, s in found.items() if s > 0}

  def watch_compiler(self) -> None:
    """Counts JAX's tracing and compiling as `COMPILING` from now on.

    Tracing in other threads is included, because it holds Python's lock (GIL)
    and so the main thread has to wait. Compiling in other threads is not
    included.
    """
    import jax  # Only some commands need it.

    jax.monitoring.register_event_time_span_listener(self._add_span)

  def _add_span(
    self, event: str, start: float, end: float, **unused: object
  ) -> None:
    if not event.startswith('/jax/core/compile/'):
      return
    # A span is reported when it ends, so the spans inside it are already known.
    spans, seconds = vars(self._spans).setdefault('known', []), end - start
    while spans and spans[-1][0] >= start:
      seconds -= spans.pop()[1]
    spans.append((start, end - start))
    holds_lock = 'backend_compile' not in event
    is_kept = not holds_lock and end - start >= LEAST_KEPT
    is_main = threading.current_thread() is threading.main_thread()
    with self._lock:
      self.compiled_again += LEAST_KEPT if is_kept else seconds
      if is_main or holds_lock:
        new = self._cover(start, end)
        self.seconds[COMPILING] += new
        self.seconds[self._open[-1]] -= new

  def _cover(self, start: float, end: float) -> float:
    """Adds an interval to `_compiled`; returns the seconds that are new.

    Threads compile at the same time, and each second counts only once.
    """
    new, later = end - start, []
    while self._compiled and self._compiled[-1][1] >= start:
      first, last = self._compiled.pop()
      if first > end:
        later.append((first, last))
        continue
      new -= min(end, last) - max(start, first)
      start, end = min(start, first), max(end, last)
    self._compiled += [(start, end), *reversed(later)]
    return new


# The phases of this process, measured from the import of this module.
phase = Phases()
