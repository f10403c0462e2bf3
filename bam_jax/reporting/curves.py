"""Combines the metric lines of many runs into one curve per variant."""

from collections.abc import Mapping, Sequence
import math
from pathlib import Path

import numpy as np

from bam_jax.runtime import telemetry

GRID = np.linspace(0, 100, 81)  # Share of a run's steps, percent.


class Curves:
  """Logged metrics of runs, against the fraction of steps that are done.

  A single-task run of a small task has a hundredth of a multi-task run's steps,
  and both anneal over their whole length; so steps would not compare.
  """

  def __init__(self, runs: Sequence[tuple[str, str, Path]]):
    """Reads the logs.

    Args:
      runs: (variant, task, metrics.jsonl of the run that trained the task);
        the tasks of a run share a file. Missing files are left out. Curves are
        in the order of their variants.

    Raises:
      errors.UserError: a file is damaged.
    """
    tasks: dict[str, dict[Path, list[str]]] = {}
    for variant, task, path in runs:
      tasks.setdefault(variant, {}).setdefault(path, []).append(task)
    # Variant -> tasks and metric lines of each of its runs that has lines.
    self._runs = {
      variant: [
        (names, lines)
        for path, names in by_path.items()
        if path.exists() and (lines := telemetry.read(path))
      ]
      for variant, by_path in tasks.items()
    }

  def medians(self, key: str, task: str | None = None) -> dict[str, np.ndarray]:
    """Returns the median of a logged metric over the runs of each variant.

    With a task, runs that didn't train it are left out.

    Returns:
      Variant -> [81] values on `GRID`, nan where a run has not logged `key`
      yet. Variants without any value are left out.
    """
    curves = {}
    for variant, runs in self._runs.items():
      found = [
        _on_grid(lines, key)
        for names, lines in runs
        if (task is None or task in names) and _logged(lines, key)
      ]
      if found:
        median = np.median(found, axis=0)
        if np.isfinite(median).any():
          curves[variant] = median
    return curves

  def drawn(self, variant: str) -> dict[str, float]:
    """Returns each task's share of a run's examples, as a median over runs.

    Empty if no run logged its number of examples.
    """
    found: dict[str, list[float]] = {}
    for names, lines in self._runs[variant]:
      counts = {
        name: sum(line.get(f'examples/{name}', 0) for line in lines)
        for name in names
      }
      if total := sum(counts.values()):
        for name, count in counts.items():
          found.setdefault(name, []).append(count / total)
    return {name: float(np.median(values)) for name, values in found.items()}

  def steps(self) -> dict[str, str]:
    """Returns the number of runs and steps of each variant, as text."""
    result = {}
    for variant, runs in self._runs.items():
      if lengths := [lines[-1]['step'] for _, lines in runs]:
        low, high = min(lengths), max(lengths)
        span = f'{low:,}' if low == high else f'{low:,} to {high:,}'
        count = '1 run' if len(lengths) == 1 else f'{len(lengths)} runs'
        result[variant] = f'{count} of {span} steps'
    return result


def _logged(lines: Sequence[Mapping[str, float]], key: str) -> list[Mapping]:
  """Returns the lines in which `key` is finite."""
  return [line for line in lines if math.isfinite(line.get(key, math.nan))]


def _on_grid(lines: Sequence[Mapping[str, float]], key: str) -> np.ndarray:
  """Interpolates a logged value at the 81 points of `GRID`; nan outside."""
  last, lines = max(lines[-1]['step'], 1), _logged(lines, key)
  share = [100 * line['step'] / last for line in lines]
  # The last interval ends one step before the end, which is the end here.
  share[-1] = 100 if lines[-1]['step'] >= last - 1 else share[-1]
  values = [line[key] for line in lines]
  return np.interp(GRID, share, values, left=math.nan, right=math.nan)
