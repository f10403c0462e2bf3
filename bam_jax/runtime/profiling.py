"""Traces some steps of a run and measures how long the device was idle."""

from collections.abc import Sequence
from pathlib import Path
import shutil
import time
from typing import Any

import jax

# Profile plane of the first device -> prefix of its lines with device work.
_LINES = {'/device:GPU:0': 'Stream', '/device:TPU:0': 'XLA Ops'}

# Start and end in seconds, and name, of one piece of device work.
Event = tuple[float, float, str]


class StepProfiler:
  """Traces a range of steps and measures the device's idle share.

  Tracing slows the host down, so that the device waits for it. So the trace
  only yields the device's busy time; the total time is measured over equally
  many steps after it, without a trace.
  """

  def __init__(self, steps: Sequence[int], directory: Path):
    """Configures the trace of the steps from first to last, last excluded.

    Without `steps` there is no trace. It replaces `directory`.
    """
    self._first, self._last = steps or (None, None)
    self._directory = directory
    self._running = False
    self._busy: float | None = None  # seconds, of the steps traced
    self._started = 0.0

  def before(self, step: int) -> None:
    """Starts the trace if this is its first step."""
    if step == self._first:
      shutil.rmtree(self._directory, ignore_errors=True)
      jax.profiler.start_trace(str(self._directory))
      self._running = True

  def after(self, step: int, state: Any) -> dict[str, float]:
    """Ends the trace after its last step, and the timing some steps later.

    Waits for `state`, the result of the step, when either ends. Returns
    `device_idle`, the share of time in which the device did nothing, 0-1, when
    the timing ends. On a CPU it is not measured.
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
    """Stops the trace if it is running."""
    if self._running:
      jax.profiler.stop_trace()
      self._running = False


def read_events(directory: Path) -> list[Event]:
  """Reads the first device's events in a trace, by start; empty on CPU."""
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
  """Returns the seconds that at least one of the intervals covers.

  >>> busy_seconds([(0.0, 2.0, 'a'), (1.0, 3.0, 'b'), (4.0, 5.0, 'c')])
  4.0

  Args:
    events: sorted by start.
  """
  total, reached = 0.0, float('-inf')
  for start, end, _ in events:
    total += max(end - max(start, reached), 0.0)
    reached = max(reached, end)
  return total
