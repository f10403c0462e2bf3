"""Traces some steps of a run, and measures the share of idle device time."""

from collections.abc import Sequence
from pathlib import Path
import shutil
import time
from typing import Any

import jax

# Name of the first device's plane in a profile -> name prefix of the lines in
# this plane that hold device work.
_LINES = {'/device:GPU:0': 'Stream', '/device:TPU:0': 'XLA Ops'}

# One piece of device work: start in seconds, end in seconds, name.
Event = tuple[float, float, str]


class StepProfiler:
  """Traces a range of steps and measures the device's idle share.

  Tracing slows down the host, and the device waits for the host. So only the
  device's busy time is taken from the trace. The total time is measured without
  a trace, over the same number of steps right after it.
  """

  def __init__(self, steps: Sequence[int], directory: Path):
    """Configures the trace.

    Args:
      steps: (first, end) to trace from step `first` to step `end - 1`; empty
        for no trace.
      directory: folder for the trace; an existing folder is replaced.
    """
    self._first, self._last = steps or (None, None)
    self._directory = directory
    self._running = False
    self._busy: float | None = None  # busy seconds of the traced steps
    self._started = 0.0

  def before(self, step: int) -> None:
    """Starts the trace if `step` is the first step to trace."""
    if step == self._first:
      shutil.rmtree(self._directory, ignore_errors=True)
      jax.profiler.start_trace(str(self._directory))
      self._running = True

  def after(self, step: int, state: Any) -> dict[str, float]:
    """Ends the trace or the timing if `step` is its last step.

    Args:
      step: the step that was just dispatched.
      state: result of the step. When the trace or the timing ends, this method
        waits until the result is ready.

    Returns:
      {'device_idle': share of idle device time, 0-1} when the timing ends, else
      {}. On a CPU it is always {}, because the idle time is not measured.
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
  """Reads the first device's events in a trace, sorted by start.

  Returns [] on a CPU.
  """
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
  """Returns the total seconds during which at least one event runs.

  >>> busy_seconds([(0.0, 2.0, 'a'), (1.0, 3.0, 'b'), (4.0, 5.0, 'c')])
  4.0

  Args:
    events: the events, sorted by start.
  """
  total, reached = 0.0, float('-inf')
  for start, end, _ in events:
    total += max(end - max(start, reached), 0.0)
    reached = max(reached, end)
  return total
