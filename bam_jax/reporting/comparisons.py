"""Tests each variant against Single and Multi: over seeds, and by bootstrap."""

from collections.abc import Mapping, Sequence
import zlib

import numpy as np

from bam_jax.reporting import bootstrap as bootstrap_lib
from bam_jax.reporting import outputs as outputs_lib
from bam_jax.reporting import statistics
from bam_jax.tasks import task as task_lib

BASELINES = ('single', 'multi')
AVERAGE = 'average'

# Variant -> its seeds and their scores [1 + B, S], or why they are missing.
_Draws = dict[str, tuple[tuple[int, ...], np.ndarray] | outputs_lib.Missing]


def compare(
  per_seed: Mapping[str, Mapping[str, dict]], tasks: task_lib.TaskTable
) -> dict[str, dict[str, dict]]:
  """Tests for each score whether a variant beats both Single and Multi.

  The scores are `per_seed` of `report.summarise`, by each task's
  `paper_metric`.

  Returns:
    Variant -> task or `average` -> the fields of `statistics.Verdict`, and
    `gains`: baseline -> `statistics.effect`. Empty without both baselines; a
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
    gains = {
      name: statistics.effect(student, scores)
      for name, scores in zip(BASELINES, baselines)
    }
    cell = verdict._asdict() | {'gains': gains}
    found.setdefault(variant, {})[column] = cell
  return found


def bootstrap(
  tests: Mapping[str, Mapping[str, dict]],
  paths: outputs_lib.Paths,
  tasks: task_lib.TaskTable,
) -> dict[str, dict[str, dict]]:
  """Repeats the tests of `compare` with the paper's bootstrap.

  No star depends on it: `statistics` lists its false positives.

  Returns:
    Variant -> task or `average` -> `p_value`, the larger one of the two
    baselines; `corrected` by Holm's method; and `reason` if there is none.
  """
  columns = set().union(*tests.values())
  draws = {
    task.name: draw(task, (*BASELINES, *tests), paths)
    for task in tasks.tasks
    if task.name in columns or (task.in_average and AVERAGE in columns)
  }
  found: dict[str, dict[str, dict]] = {}
  for variant, by_column in tests.items():
    for column, test in by_column.items():
      p_value, reason = None, test.get('reason', '')
      if test['p_value'] is not None:
        try:
          student, *baselines = (
            column_scores(name, column, draws, tasks)
            for name in (variant, *BASELINES)
          )
          p_value = max(
            bootstrap_lib.p_value(student, scores, np.random.default_rng(0))
            for scores in baselines
          )
          reason = ''
        except outputs_lib.Missing as missing:
          reason = str(missing)
      cell = {'p_value': p_value, 'corrected': None, 'reason': reason}
      found.setdefault(variant, {})[column] = cell
  cells = [cell for by_column in found.values() for cell in by_column.values()]
  corrected = statistics.holm([cell['p_value'] for cell in cells])
  for cell, value in zip(cells, corrected):
    cell['corrected'] = value
  return found


def draw(
  task: task_lib.Task, names: Sequence[str], paths: outputs_lib.Paths
) -> _Draws:
  """Scores variants on the same resamples of a task's examples."""
  result: _Draws = {}
  found: dict[str, outputs_lib.Predicted] = {}
  for name in names:
    try:
      found[name] = outputs_lib.read(paths, task, name)
    except outputs_lib.Missing as missing:
      result[name] = missing
  first = next((f for f in found.values() if f.gold is not None), None)
  if first is None:
    why = f'no run kept the gold labels of {task.name}; --mode=evaluate adds'
    return dict.fromkeys(names, outputs_lib.Missing(f'{why} them')) | result
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
  return result


def column_scores(
  variant: str,
  column: str,
  draws: Mapping[str, _Draws],
  tasks: task_lib.TaskTable,
) -> np.ndarray:
  """Returns the resampled scores [1 + B, S] of a task, or of the average.

  The average takes the seeds that have every task.

  Raises:
    outputs_lib.Missing: predictions are missing or a score is undefined.
  """
  names = [column]
  if column == AVERAGE:
    names = [task.name for task in tasks.tasks if task.in_average]
  parts = [draws[name][variant] for name in names]
  for part in parts:
    if isinstance(part, outputs_lib.Missing):
      raise part
  common = set.intersection(*(set(seeds) for seeds, _ in parts))
  if len(common) < 2:
    raise outputs_lib.Missing(f'{variant} has fewer than 2 complete seeds')
  scores = np.mean(
    [drawn[:, np.isin(seeds, list(common))] for seeds, drawn in parts], axis=0
  )
  # The record of an older run may have 0 instead of an undefined score.
  if not statistics.is_defined(scores[0]):
    raise outputs_lib.Missing(f'{variant} has an undefined score of {column}')
  return scores


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
