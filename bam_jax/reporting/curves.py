"""Combines the metric lines of many runs into one curve per variant."""

from collections.abc import Sequence
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bam_jax.runtime import telemetry

_GRID = np.linspace(0, 100, 81)  # Share of a run's steps, percent.


class Curve(NamedTuple):
  """One line of a plot: x and y, both [P]; y is nan where the line has gaps."""

  variant: str
  x: np.ndarray
  y: np.ndarray


class Curves:
  """Logged metrics of runs, over the share of their steps.

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
    self._tasks: dict[str, dict[Path, list[str]]] = {}
    for variant, task, path in runs:
      self._tasks.setdefault(variant, {}).setdefault(path, []).append(task)
    paths = {path for _, _, path in runs if path.exists()}
    self._lines = {path: telemetry.read(path) for path in paths}

  def medians(self, key: str, task: str | None = None) -> list[Curve]:
    """Returns a curve per variant that logged `key`: the median of its runs.

    Args:
      key: a field of the metric lines.
      task: leaves out runs that didn't train this task; None: takes all.
    """
    curves = []
    for variant in self._tasks:
      runs = [
        self._on_grid(path, key)
        for path, tasks in self._tasks[variant].items()
        if task is None or task in tasks
      ]
      runs = [values for values in runs if values is not None]
      if runs:
        median = np.median(runs, axis=0)  # nan where a run has not logged yet.
        if np.isfinite(median).any():
          curves.append(Curve(variant, _GRID, median))
    return curves

  def drawn(self, variant: str) -> dict[str, float]:
    """Returns each task's share of a run's examples, as a median over runs.

    Empty if no run logged its number of examples.
    """
    found: dict[str, list[float]] = {}
    for path, tasks in self._tasks.get(variant, {}).items():
      counts = {
        task: sum(
          line.get(f'examples/{task}', 0) for line in self._lines.get(path, [])
        )
        for task in tasks
      }
      total = sum(counts.values())
      for task in tasks if total else ():
        found.setdefault(task, []).append(counts[task] / total)
    return {task: float(np.median(values)) for task, values in found.items()}

  def steps(self) -> dict[str, str]:
    """Returns the number of runs and steps of each variant, as text."""
    result = {}
    for variant in self._tasks:
      lengths = [
        self._lines[path][-1]['step']
        for path in self._tasks[variant]
        if self._lines.get(path)
      ]
      if lengths:
        low, high = min(lengths), max(lengths)
        span = f'{low:,}' if low == high else f'{low:,} to {high:,}'
        runs = '1 run' if len(lengths) == 1 else f'{len(lengths)} runs'
        result[variant] = f'{runs} of {span} steps'
    return result

  def _on_grid(self, path: Path, key: str) -> np.ndarray | None:
    """Values [81] on the grid, nan outside the lines; None without lines."""
    lines = [
      line
      for line in self._lines.get(path, [])
      if math.isfinite(line.get(key, math.nan))
    ]
    if not lines:
      return None
    last = max(self._lines[path][-1]['step'], 1)
    share = [100 * line['step'] / last for line in lines]
    values = [line[key] for line in lines]
    # The last interval ends one step before the end, which is the end here.
    share[-1] = 100 if lines[-1]['step'] >= last - 1 else share[-1]
    return np.interp(_GRID, share, values, left=math.nan, right=math.nan)
