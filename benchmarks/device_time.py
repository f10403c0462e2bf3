"""How long a GPU was busy, from a profile that JAX wrote."""

from collections import Counter
from pathlib import Path

import jax


def kernels(directory: Path) -> list[tuple[float, float, str]]:
  """(start, end, name) of every kernel of the first GPU, in seconds."""
  path = next(directory.glob('**/*.xplane.pb'))
  profile = jax.profiler.ProfileData.from_file(str(path))
  plane = next(p for p in profile.planes if p.name.startswith('/device:GPU'))
  return sorted(
    (event.start_ns / 1e9, event.end_ns / 1e9, event.name)
    for line in plane.lines
    if line.name.startswith('Stream')
    for event in line.events
  )


def busy_seconds(events: list[tuple[float, float, str]]) -> float:
  """Length of the union of the intervals.

  >>> busy_seconds([(0.0, 2.0, 'a'), (1.0, 3.0, 'b'), (4.0, 5.0, 'c')])
  4.0
  """
  total, reached = 0.0, float('-inf')
  for start, end, _ in events:
    total += max(end - max(start, reached), 0.0)
    reached = max(reached, end)
  return total


def span_seconds(events: list[tuple[float, float, str]]) -> float:
  """From the first start to the last end."""
  return max(end for _, end, _ in events) - events[0][0]


def by_name(events: list[tuple[float, float, str]]) -> list[tuple[str, float]]:
  """Seconds of each kernel, most first."""
  total = Counter()
  for start, end, name in events:
    total[name] += end - start
  return total.most_common()
