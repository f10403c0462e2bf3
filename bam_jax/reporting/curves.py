"""Combines the logged metrics of many runs into one curve per variant."""

from collections.abc import Mapping, Sequence
import math
from pathlib import Path

import numpy as np

from bam_jax.runtime import telemetry

GRID = np.linspace(0, 100, 81)  # Share of a run's steps, percent.


class Curves:
  """Logged metrics of runs, as curves over the finished fraction of each run.

  Numbers of steps can't be compared: a single-task run of a small task has a
  hundredth of a multi-task run's steps, and the schedules of both extend over
  the whole run.
  """

  def __init__(self, runs: Sequence[tuple[str, str, Path]]):
    """Reads the metric logs of all runs.

    Args:
      runs: triples of variant, task, and path of the metrics.jsonl of the run
        that trained the task. The tasks of one run have the same path. Missing
        files are ignored. Curves are returned in the order of the variants in
        `runs`.

    Raises:
      errors.UserError: a file is damaged.
    """
    tasks: dict[tuple[str, Path], list[str]] = {}
    for variant, task, path in runs:
      tasks.setdefault((variant, path), []).append(task)
    # Variant, tasks and metric lines of each run that has lines.
    self._runs = [
      (variant, names, lines)
      for (variant, path), names in tasks.items()
      if path.exists() and (lines := telemetry.read(path))
    ]

  def medians(self, key: str, task: str | None = None) -> dict[str, np.ndarray]:
    """Returns the median of a logged metric over the runs of each variant.

    If `task` is given, runs that didn't train this task are left out.

    Returns:
      Variant -> [81] values at the points of `GRID`. A value is nan if one of
      the runs has not logged `key` there. Variants without any value are left
      out.
    """
    found: dict[str, list[np.ndarray]] = {}
    for variant, names, lines in self._runs:
      if (task is None or task in names) and _logged(lines, key):
        found.setdefault(variant, []).append(_on_grid(lines, key))
    medians = {name: np.median(runs, axis=0) for name, runs in found.items()}
    return {name: m for name, m in medians.items() if np.isfinite(m).any()}

  def drawn(self, variant: str) -> dict[str, float]:
    """Returns each task's share of the training examples of a variant's runs.

    The share is the median over runs. The result is empty if no run logged its
    number of examples.
    """
    found: dict[str, list[float]] = {}
    for name, tasks, lines in self._runs:
      counts = {
        task: sum(line.get(f'examples/{task}', 0) for line in lines)
        for task in tasks
        if name == variant
      }
      if total := sum(counts.values()):
        for task, count in counts.items():
          found.setdefault(task, []).append(count / total)
    return {task: float(np.median(values)) for task, values in found.items()}

  def steps(self) -> dict[str, str]:
    """Describes the number of runs and of steps of each variant in words."""
    steps: dict[str, list[int]] = {}
    for variant, _, lines in self._runs:
      steps.setdefault(variant, []).append(lines[-1]['step'])
    result = {}
    for variant, lengths in steps.items():
      low, high = min(lengths), max(lengths)
      span = f'{low:,}' if low == high else f'{low:,} to {high:,}'
      count = '1 run' if len(lengths) == 1 else f'{len(lengths)} runs'
      result[variant] = f'{count} of {span} steps'
    return result


def _logged(lines: Sequence[Mapping[str, float]], key: str) -> list[Mapping]:
  """Returns the lines in which `key` is finite."""
  return [line for line in lines if math.isfinite(line.get(key, math.nan))]


def _on_grid(lines: Sequence[Mapping[str, float]], key: str) -> np.ndarray:
  """Interpolates a logged metric at the 81 points of `GRID`.

  Points outside the logged range are nan.
  """
  last, lines = max(lines[-1]['step'], 1), _logged(lines, key)
  steps, values = ([line[of] for line in lines] for of in ('step', key))
  *_, before, after = 0, 0, *np.diff(steps)
  if 2 * after < before:
    # The last value is a mean over few steps, so its noise would look like a
    # change. It is averaged with the value before it.
    values[-2:] = [np.average(values[-2:], weights=[before, after])]
    del steps[-2]
  share = [100 * step / last for step in steps]
  # A last value that was logged one step before the end counts as the end.
  share[-1] = 100 if steps[-1] >= last - 1 else share[-1]
  return np.interp(GRID, share, values, left=math.nan, right=math.nan)
