"""Tests whether a variant beats Single and Multi, over seeds and examples."""

from collections.abc import Callable, Mapping, Sequence
import functools
import math
from pathlib import Path
from typing import NamedTuple
import zlib

import numpy as np

from bam_jax.reporting import bootstrap as bootstrap_lib
from bam_jax.reporting import outputs as outputs_lib
from bam_jax.reporting import scores as scores_lib
from bam_jax.reporting import statistics
from bam_jax.tasks import metrics
from bam_jax.tasks import task as task_lib

BASELINES = ('single', 'multi')
AVERAGE = 'average'

# Variant -> task or `average` -> the paper's metric of each seed, 0 to 100.
Scores = Mapping[str, Mapping[str, Sequence[float]]]


class Drawn(NamedTuple):
  """Scores of all variants on the same resamples of a task's dev examples.

  Attributes:
    examples: number of examples.
    scores: variant -> a pair of its S seeds and [1 + B, S] scores; or a
      `Missing` with the reason why there are no scores.
  """

  examples: int
  scores: Mapping[str, tuple[tuple[int, ...], np.ndarray] | outputs_lib.Missing]


class Draws:
  """Scores of all variants on resampled dev examples, computed on first use."""

  def __init__(
    self, runs: Sequence[scores_lib.RunScores], tasks: task_lib.TaskTable
  ):
    self._tasks = tasks
    self._draw = functools.cache(lambda name: _draw(tasks[name], runs))

  def examples(self, column: str) -> int:
    """Returns the number of dev examples of a task, or of all averaged tasks.

    `column` is a task or `average`.
    """
    return sum(self._draw(name).examples for name in self._names(column))

  def scores(
    self, variant: str, column: str, undefined: float = math.nan
  ) -> np.ndarray:
    """Returns the scores of a task or the average on resamples, [1 + B, S].

    Scores are 0 to 1. Row 0 holds the scores on all examples, the other rows
    those on B resamples. The average is computed only for the seeds that have
    a run of every task. If a task's score is undefined on a resample, it is
    replaced by `undefined`.

    Raises:
      outputs_lib.Missing: predictions are missing, a score over all examples is
        undefined, or no seed has every task.
    """
    parts = []
    for name in self._names(column):
      no_run = outputs_lib.Missing(f'{variant} has no run of {name}')
      found = self._draw(name).scores.get(variant, no_run)
      if isinstance(found, outputs_lib.Missing):
        raise found
      parts.append(found)
    common = set.intersection(*(set(seeds) for seeds, _ in parts))
    drawn = [found[:, np.isin(seeds, list(common))] for seeds, found in parts]
    # Recorded scores are not enough for this check: the record of an older run
    # may have 0 instead of an undefined score.
    if not all(statistics.is_defined(found[0]) for found in drawn):
      raise outputs_lib.Missing(f'{variant} has an undefined score of {column}')
    if not common:
      raise outputs_lib.Missing(f'{variant} has no seed with every task')
    return np.mean([np.nan_to_num(d, nan=undefined) for d in drawn], axis=0)

  def _names(self, column: str) -> list[str]:
    if column != AVERAGE:
      return [column]
    return [task.name for task in self._tasks.tasks if task.in_average]


def compare(scores: Scores) -> dict[str, dict[str, dict]]:
  """Tests for each task whether a variant beats both Single and Multi.

  Returns:
    Variant -> task or `average` -> a dict with the fields of
    `statistics.Verdict` and with `shifts`, which maps each baseline to
    `statistics.shift`. A task or the average is left out if the variant or a
    baseline has no score for it. The result is empty if a baseline has no runs.
  """
  baselines = [scores.get(name, {}) for name in BASELINES]
  cells = {
    (variant, column): (student, [others[column] for others in baselines])
    for variant, by_column in scores.items()
    for column, student in by_column.items()
    if variant not in BASELINES and all(column in b for b in baselines)
  }
  found: dict[str, dict[str, dict]] = {}
  for (variant, column), verdict in statistics.judge(cells).items():
    student, others = cells[variant, column]
    shifts = {
      name: statistics.shift(student, other)
      for name, other in zip(BASELINES, others)
    }
    cell = verdict._asdict() | {'shifts': shifts}
    found.setdefault(variant, {})[column] = cell
  return found


def resampled(
  tests: Mapping[str, Mapping[str, dict]],
  draws: Draws,
  p_value: Callable[[Draws, str, str, str], float],
) -> dict[str, dict[str, dict]]:
  """Repeats the comparisons of `compare` with a test over seeds and examples.

  `p_value` is the test: `bootstrap` or `over_examples`. The significance stars
  of the report do not depend on its results.

  Returns:
    Variant -> task or `average` -> a dict with `p_value`, the larger of the two
    p-values against the baselines; `corrected`, the p-value after Holm's
    correction; and `reason`, why there is no p-value.
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
  """Tests whether `variant` is higher, by the paper's bootstrap.

  Returns:
    The one-sided p-value.
  """
  student, other = (draws.scores(name, column) for name in (variant, baseline))
  return bootstrap_lib.p_value(student, other, np.random.default_rng(0))


def over_examples(
  draws: Draws, variant: str, baseline: str, column: str
) -> float:
  """Tests whether `variant` is higher, by a t-test over seeds and examples.

  Returns:
    The one-sided p-value.
  """
  found = difference(draws, variant, baseline, column)
  return found.p_value('greater') if found else 1.0


def difference(
  draws: Draws, variant: str, baseline: str, column: str
) -> bootstrap_lib.Difference | None:
  """Returns the difference of two variants' mean scores (0 to 100).

  A score that is undefined on a resample counts as 0, as if predictions and
  gold labels were unrelated. This makes the standard error larger.

  Raises:
    outputs_lib.Missing: see `Draws.scores`.
  """
  groups = [
    100 * draws.scores(name, column, undefined=0.0)
    for name in (variant, baseline)
  ]
  return bootstrap_lib.difference(*groups, draws.examples(column))


def correct(cells: Sequence[dict]) -> None:
  """Adds Holm-corrected p-values to table cells, as `corrected`."""
  found = statistics.holm([cell['p_value'] for cell in cells])
  for cell, corrected in zip(cells, found):
    cell['corrected'] = corrected


def _draw(task: task_lib.Task, runs: Sequence[scores_lib.RunScores]) -> Drawn:
  """Scores all variants on the same resamples of a task's examples."""
  paths: dict[str, dict[int, Path]] = {}
  for run in runs:
    if run.task == task.name:
      paths.setdefault(run.variant, {})[run.seed] = run.outputs
  found: dict[str, outputs_lib.Predicted] = {}
  result: dict[str, object] = {}
  for name, by_seed in paths.items():
    try:
      found[name] = outputs_lib.read(task, by_seed)
    except outputs_lib.Missing as missing:
      result[name] = missing
  first = next((f for f in found.values() if f.gold is not None), None)
  for name in list(found):
    if first is None:
      why = f'no run kept the gold labels of {task.name}; --mode=evaluate adds'
      result[name] = outputs_lib.Missing(f'{why} them')
    elif not np.array_equal(found[name].uids, first.uids):
      why = f'the runs of {name} have other examples of {task.name}'
      result[name] = outputs_lib.Missing(why)
  found = {name: f for name, f in found.items() if name not in result}
  if not found:
    return Drawn(0, result)
  metric = metrics.METRICS[task.paper_metric]
  scores = bootstrap_lib.drawn_scores(
    [metric.first_argument(f.measured) for f in found.values()],
    lambda outputs, counts: metric(outputs, first.gold, counts),
    np.random.default_rng(zlib.crc32(task.name.encode())),
  )
  for (name, of_variant), drawn in zip(found.items(), scores):
    result[name] = of_variant.seeds, drawn
  return Drawn(len(first.uids), result)


def score_of(
  entry: Mapping[str, object], column: str, tasks: task_lib.TaskTable
) -> float | None:
  """Looks up a task's score, or the average, in one entry of the summary.

  `entry` is the entry of a variant or of a baseline, or the entry of one seed
  in `per_seed`. The result is nan if the score is undefined, and None if the
  score is missing.
  """
  if column == AVERAGE:
    return entry[AVERAGE]
  return entry['tasks'].get(column, {}).get(tasks[column].paper_metric)


def scores_by_seed(
  per_seed: Mapping[str, Mapping[str, dict]], tasks: task_lib.TaskTable
) -> Scores:
  """Collects the scores of each variant from `per_seed` of the summary.

  Seeds without a score are left out. So are tasks, and the average, if no seed
  has a score.
  """
  result: dict[str, dict[str, list[float]]] = {name: {} for name in per_seed}
  for variant, seeds in per_seed.items():
    for column in (*tasks.names, AVERAGE):
      scores = [score_of(seed, column, tasks) for seed in seeds.values()]
      scores = [score for score in scores if score is not None]
      if scores:
        result[variant][column] = scores
  return result
