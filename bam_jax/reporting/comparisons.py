"""Tests each variant against Single and Multi: over seeds, and examples too."""

from collections.abc import Callable, Mapping, Sequence
import math
from typing import NamedTuple
import zlib

import numpy as np

from bam_jax.reporting import bootstrap as bootstrap_lib
from bam_jax.reporting import outputs as outputs_lib
from bam_jax.reporting import statistics
from bam_jax.tasks import task as task_lib

BASELINES = ('single', 'multi')
AVERAGE = 'average'


class Drawn(NamedTuple):
  """Scores of all variants on the same resamples of a task's dev examples.

  Attributes:
    examples: how many examples there are.
    scores: variant -> its seeds and their scores [1 + B, S], or why they are
      missing.
  """

  examples: int
  scores: Mapping[str, tuple[tuple[int, ...], np.ndarray] | outputs_lib.Missing]


class Draws:
  """Resampled scores of all variants; a task is drawn when it is asked for."""

  def __init__(self, paths: outputs_lib.Paths, tasks: task_lib.TaskTable):
    self._paths, self._tasks = paths, tasks
    self._drawn: dict[str, Drawn] = {}

  def examples(self, column: str) -> int:
    """Returns the number of dev examples of a task, or of the average."""
    return sum(self._draw(name).examples for name in self._names(column))

  def scores(
    self, variant: str, column: str, undefined: float = math.nan
  ) -> np.ndarray:
    """Returns the resampled scores [1 + B, S], 0 to 1, of a task or average.

    The average takes the seeds that have every task. `undefined` replaces the
    undefined score of a task on a resample.

    Raises:
      outputs_lib.Missing: predictions are missing or a score over all examples
        is undefined.
    """
    parts = []
    for name in self._names(column):
      found = self._draw(name).scores.get(variant)
      if found is None:
        found = outputs_lib.Missing(f'{variant} has no run of {name}')
      if isinstance(found, outputs_lib.Missing):
        raise found
      parts.append(found)
    common = set.intersection(*(set(seeds) for seeds, _ in parts))
    drawn = [found[:, np.isin(seeds, list(common))] for seeds, found in parts]
    # The record of an older run may have 0 instead of an undefined score.
    if not all(statistics.is_defined(found[0]) for found in drawn):
      raise outputs_lib.Missing(f'{variant} has an undefined score of {column}')
    if not common:
      raise outputs_lib.Missing(f'{variant} has no seed with every task')
    return np.mean([np.nan_to_num(d, nan=undefined) for d in drawn], axis=0)

  def _names(self, column: str) -> list[str]:
    if column != AVERAGE:
      return [column]
    return [task.name for task in self._tasks.tasks if task.in_average]

  def _draw(self, name: str) -> Drawn:
    if name not in self._drawn:
      self._drawn[name] = _draw(self._tasks[name], self._paths)
    return self._drawn[name]


def compare(
  per_seed: Mapping[str, Mapping[str, dict]], tasks: task_lib.TaskTable
) -> dict[str, dict[str, dict]]:
  """Tests for each score whether a variant beats both Single and Multi.

  The scores are `per_seed` of `report.summarise`, by each task's
  `paper_metric`.

  Returns:
    Variant -> task or `average` -> the fields of `statistics.Verdict`, and
    `shifts`: baseline -> `statistics.shift`. Empty without both baselines; a
    column is missing if a variant or a baseline has no score of it.
  """
  if not all(per_seed.get(baseline) for baseline in BASELINES):
    return {}
  cells = {}
  for variant in [name for name in per_seed if name not in BASELINES]:
    for column in (*tasks.names, AVERAGE):
      student, *baselines = (
        scores_of(per_seed[name], column, tasks)
        for name in (variant, *BASELINES)
      )
      if student and all(baselines):
        cells[variant, column] = student, baselines
  found: dict[str, dict[str, dict]] = {}
  for (variant, column), verdict in statistics.judge(cells).items():
    student, baselines = cells[variant, column]
    shifts = {
      name: statistics.shift(student, scores)
      for name, scores in zip(BASELINES, baselines)
    }
    cell = verdict._asdict() | {'shifts': shifts}
    found.setdefault(variant, {})[column] = cell
  return found


def resampled(
  tests: Mapping[str, Mapping[str, dict]],
  draws: Draws,
  p_value: Callable[[Draws, str, str, str], float],
) -> dict[str, dict[str, dict]]:
  """Repeats the tests of `compare` with a test over seeds and examples.

  `p_value` is `bootstrap` or `over_examples`. No star depends on them.

  Returns:
    Variant -> task or `average` -> `p_value`, the larger one of the two
    baselines; `corrected` by Holm's method; and `reason` if there is none.
  """
  found: dict[str, dict[str, dict]] = {}
  for variant, by_column in tests.items():
    for column, test in by_column.items():
      value, reason = None, test.get('reason', '')
      if test['p_value'] is not None:
        try:
          value = max(
            p_value(draws, variant, baseline, column) for baseline in BASELINES
          )
          reason = ''
        except outputs_lib.Missing as missing:
          reason = str(missing)
      cell = {'p_value': value, 'corrected': None, 'reason': reason}
      found.setdefault(variant, {})[column] = cell
  correct([cell for by_column in found.values() for cell in by_column.values()])
  return found


def bootstrap(draws: Draws, variant: str, baseline: str, column: str) -> float:
  """Returns the p-value of "`variant` is higher" by the paper's bootstrap."""
  student, other = (draws.scores(name, column) for name in (variant, baseline))
  return bootstrap_lib.p_value(student, other, np.random.default_rng(0))


def over_examples(
  draws: Draws, variant: str, baseline: str, column: str
) -> float:
  """Returns the p-value of "`variant` is higher" by a t-test."""
  found = difference(draws, variant, baseline, column)
  return found.p_value('greater') if found else 1.0


def difference(
  draws: Draws, variant: str, baseline: str, column: str
) -> bootstrap_lib.Difference | None:
  """Returns the difference of two variants' mean scores, in points of 100.

  The score of a resample on which it is undefined counts as 0, as without any
  relation to the gold labels: that makes the error larger.

  Raises:
    outputs_lib.Missing: see `Draws.scores`.
  """
  groups = [
    100 * draws.scores(name, column, undefined=0.0)
    for name in (variant, baseline)
  ]
  return bootstrap_lib.difference(*groups, draws.examples(column))


def correct(cells: Sequence[dict]) -> None:
  """Sets `corrected` of cells by Holm's method over their `p_value`."""
  found = statistics.holm([cell['p_value'] for cell in cells])
  for cell, corrected in zip(cells, found):
    cell['corrected'] = corrected


def _draw(task: task_lib.Task, paths: outputs_lib.Paths) -> Drawn:
  """Scores all variants on the same resamples of a task's examples."""
  names = paths.get(task.name, ())
  result: dict[str, object] = {}
  found: dict[str, outputs_lib.Predicted] = {}
  for name in names:
    try:
      found[name] = outputs_lib.read(paths, task, name)
    except outputs_lib.Missing as missing:
      result[name] = missing
  first = next((f for f in found.values() if f.gold is not None), None)
  if first is None:
    why = f'no run kept the gold labels of {task.name}; --mode=evaluate adds'
    missing = outputs_lib.Missing(f'{why} them')
    return Drawn(0, dict.fromkeys(names, missing) | result)
  for name in list(found):
    if not np.array_equal(found[name].uids, first.uids):
      del found[name]
      why = f'the runs of {name} are of other examples of {task.name}'
      result[name] = outputs_lib.Missing(why)
  scores = bootstrap_lib.drawn_scores(
    [f.predictions for f in found.values()],
    bootstrap_lib.score_of(task.paper_metric, first.gold),
    np.random.default_rng(zlib.crc32(task.name.encode())),
  )
  for (name, of_variant), drawn in zip(found.items(), scores):
    result[name] = of_variant.seeds, drawn
  return Drawn(first.predictions.shape[1], result)


def score_of(
  entry: Mapping[str, object], column: str, tasks: task_lib.TaskTable
) -> float | None:
  """Returns a score of `report.summarise`, of a task or of the average.

  `entry` is one of its `variants`, or one seed of its `per_seed`. An undefined
  score is nan, a missing one None.
  """
  if column == AVERAGE:
    return entry[AVERAGE]
  return entry['tasks'].get(column, {}).get(tasks[column].paper_metric)


def scores_of(
  seeds: Mapping[str, dict], column: str, tasks: task_lib.TaskTable
) -> list[float]:
  """Returns a variant's scores by seed; seeds without a score are left out."""
  scores = [score_of(seed, column, tasks) for seed in seeds.values()]
  return [score for score in scores if score is not None]
