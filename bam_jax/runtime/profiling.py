"""A trace of some steps of a run, and how long the device was busy in it."""

from collections.abc import Sequence
from pathlib import Path
import shutil
import time
from typing import Any

import jax

# The lines of a profile that hold what a device did, by its platform.
_LINES = {'/device:GPU:0': 'Stream', '/device:TPU:0': 'XLA Ops'}

# Start and end in seconds, name.
Event = tuple[float, float, str]


class StepProfiler:
  """Traces the steps from `first` to below `last`, and none without them.

  A trace slows the host down, and with it the device waits. So it only says how
  long the device was busy; as many steps after it are timed without one.
  """

  def __init__(self, steps: Sequence[int], directory: Path):
    """Begins nothing yet.

    Args:
      steps: (first, last), or nothing.
      directory: of the trace; what is there is replaced.
    """
    self._first, self._last = steps or (None, None)
    self._directory = directory
    self._running = False
    self._busy: float | None = None  # seconds, of the steps traced
    self._started = 0.0

  def before(self, step: int) -> None:
    """Begins the trace if this is its first step."""
    if step == self._first:
      shutil.rmtree(self._directory, ignore_errors=True)
      jax.profiler.start_trace(str(self._directory))
      self._running = True

  def after(self, step: int, state: Any) -> dict[str, float]:
    """Ends the trace, or the timing, if this was its last step.

    Args:
      step: the step that was dispatched.
      state: what it computes; waited for at an end.

    Returns:
      `device_idle`, 1 minus the time in which the device did anything in the
      steps traced by the time that as many steps take, 0-1; nothing while there
      is nothing to say, as on a CPU, which has no lines of its own in a trace.
    """
    if self._running and step + 1 == self._last:
      jax.block_until_ready(state)
      self.close()
      events = read_events(self._directory)
      self._busy = busy_seconds(events) if events else None
      self._started = time.perf_counter()
    elif self._busy and step + 1 == 2 * self._last - self._first:
      jax.block_until_ready(state)
      seconds = time.perf_counter() - self._started
      return {'device_idle': max(1 - self._busy / seconds, 0.0)}
    return {}

  def close(self) -> None:
    """Ends a trace that is running."""
    if self._running:
      jax.profiler.stop_trace()
      self._running = False


def read_events(directory: Path) -> list[Event]:
  """What the first device did, by its start; nothing of a CPU."""
  path = next(directory.glob('**/*.xplane.pb'))
  profile = jax.profiler.ProfileData.from_file(str(path))
  return sorted(
    (event.start_ns / 1e9, event.end_ns / 1e9, event.name)
    for plane in profile.planes
    if plane.name in _LINES
    for line in plane.lines
    if line.name.startswith(_LINES[plane.name])
    for event in line.events
  )


def busy_seconds(events: Sequence[Event]) -> float:
  """Length of the union of the intervals.

  >>> busy_seconds([(0.0, 2.0, 'a'), (1.0, 3.0, 'b'), (4.0, 5.0, 'c')])
  4.0

  Args:
    events: by their start.
  """
  total, reached = 0.0, float('-inf')
  for start, end, _ in events:
    total += max(end - max(start, reached), 0.0)
    reached = max(reached, end)
  return total
