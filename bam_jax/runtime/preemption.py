"""Preemption signals: save the state, leave, be started again.

Cloud TPUs, GKE and Slurm send SIGTERM some time before they take a machine
away; a Slurm job may ask for SIGUSR1 instead (`--signal=USR1@120`). Ctrl-C
sends SIGINT. A signal handler that raises an exception does so anywhere, also
where Python drops it (in a destructor, in a callback of the garbage collector)
or a library turns it into an error of its own. So the handler only notes it.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import os
import select
import signal
import sys
import threading
import time
import types
from typing import NoReturn
from typing import Self

from bam_jax import errors

# Of a process that did not finish and is to be started again: EX_TEMPFAIL of
# sysexits.h.
EXIT_CODE = 75

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
# Exit status of a shell's command that Ctrl-C ended.
_INTERRUPTED = 130

# Seconds in which the main thread may come to a check, and leave in order,
# before the process is ended wherever it is.
_PATIENCE = 3.0
_LOOK = 0.1  # seconds between two looks at what the main thread does


class Preempted(BaseException):
  """Raised by `Notice.check` once a signal has come.

  It is no `Exception`, like KeyboardInterrupt: nothing that handles errors may
  take it for one.

  Attributes:
    exit_code: the status that the process is to end with.
    is_agreed: whether all processes of the run stop, and know it.
  """

  def __init__(self, number: int, is_agreed: bool = False):
    how = f'stopped by {signal.Signals(number).name}'
    if number == signal.SIGINT:
      how = 'interrupted'
    super().__init__(f'{how}; the same command goes on')
    self.exit_code = _INTERRUPTED if number == signal.SIGINT else EXIT_CODE
    self.is_agreed = is_agreed


class Notice:
  """Notes a preemption signal, as a context manager that listens for one.

  The first signal is noted, and `check` raises `Preempted` from then on. A
  second signal ends the process at once.

  Not every long call can check. A process that has nothing to lose but what it
  is doing right now may be ended at any moment, since every file is written
  atomically: `ends_process` does so a few seconds after the signal, unless the
  main thread is inside of `held` or has come to a check by itself.
  """

  def __init__(self):
    self._signal: int | None = None
    self._before: dict[int, object] = {}
    self._elsewhere = False
    # Guards what follows: the process is not ended while one of them changes.
    self._lock = threading.Lock()
    self._holds = 0
    self._leaving = False
    self._last: list[Callable[[], None]] = []

  def __enter__(self) -> Self:
    for number in _SIGNALS:
      self._before[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *unused_exception: object) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _handle(self, number: int, frame: types.FrameType | None) -> None:
    """Runs between any two instructions of the main thread: takes no lock."""
    del frame
    self._signal = number
    for each in _SIGNALS:
      signal.signal(each, signal.SIG_DFL)

  def give(self) -> None:
    """Acts as if SIGTERM came, unless a signal did; called by any thread."""
    self._signal = self._signal or signal.SIGTERM

  @property
  def has_come(self) -> bool:
    """Whether a signal came."""
    return self._signal is not None

  def check(self) -> None:
    """Raises `Preempted` if a signal came."""
    if self._signal is not None:
      with self._lock:
        self._leaving = True
      raise Preempted(self._signal)

  @contextlib.contextmanager
  def held(self, checks_at_end: bool = True) -> Iterator[None]:
    """In here only `check` reacts to a signal."""
    with self._lock:
      self._holds += 1
    try:
      yield
    finally:
      with self._lock:
        self._holds -= 1
    if checks_at_end:
      self.check()

  @contextlib.contextmanager
  def last(self, function: Callable[[], None]) -> Iterator[None]:
    """In here a function is called before `ends_process` ends the process.

    Args:
      function: called in another thread, while the main one goes on; may raise
        `errors.UserError` or `RetryError`. Of several the one of the innermost
        context is called first.
    """
    with self._lock:
      self._last.append(function)
    try:
      yield
    finally:
      with self._lock:
        self._last.remove(function)

  @contextlib.contextmanager
  def left_to(
    self,
    handler: Callable[[int, types.FrameType | None], None],
    *numbers: int,
  ) -> Iterator[None]:
    """In here signals go to a handler that needs nothing of this notice.

    Args:
      handler: takes what a signal handler takes.
      *numbers: of the signals; none: all that this one listens for.
    """
    self._elsewhere = True
    before = {
      number: signal.signal(number, handler) for number in numbers or _SIGNALS
    }
    try:
      self.check()  # One may just have come.
      yield
    finally:
      for number, previous in before.items():
        signal.signal(number, previous)
      self._elsewhere = False

  def ends_process(self) -> None:
    """From now on a signal ends the process, wherever the main thread is."""
    ready, sent = os.pipe()
    os.set_blocking(sent, False)
    # It is written to at once, also while the main thread is in a long call
    # that runs no Python, and the handler has to wait.
    signal.set_wakeup_fd(sent, warn_on_full_buffer=False)
    threading.Thread(
      target=self._watch, args=(ready,), name='notice', daemon=True
    ).start()

  def _watch(self, ready: int) -> None:
    seen = 0
    since = time.monotonic()
    while True:
      if select.select([ready], [], [], _LOOK)[0]:
        (number,) = os.read(ready, 1)
        if number in _SIGNALS and not self._elsewhere:
          seen += 1
          self._signal = self._signal or number
      if seen > 1:
        # The handler of the first one has not even run.
        os._exit(128 + number)
      with self._lock:
        if self._signal is None or self._holds or self._leaving:
          since = time.monotonic()
        elif time.monotonic() - since > _PATIENCE:
          self._end()

  def _end(self) -> NoReturn:
    """Ends the process; the main thread waits wherever it needs the lock."""
    preempted = Preempted(self._signal)
    told, status = str(preempted), preempted.exit_code
    for function in reversed(self._last):
      try:
        function()
      except errors.UserError as e:
        told, status = str(e), 2
      except errors.RetryError as e:
        told, status = str(e), EXIT_CODE
    # Progress that is being shown hides the cursor of a terminal.
    shown = '\x1b[?25h' if sys.stderr.isatty() else ''
    print(f'{shown}bam_jax: {told}', file=sys.stderr, flush=True)
    os._exit(status)
