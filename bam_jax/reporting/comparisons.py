"""Tests of each variant against both baselines, by seeds and by the paper."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import zlib

import numpy as np

from bam_jax.reporting import bootstrap as bootstrap_lib
from bam_jax.reporting import outputs as outputs_lib
from bam_jax.reporting import statistics
from bam_jax.tasks import task as task_lib

BASELINES = ('single', 'multi')
AVERAGE = 'average'


def compare(
  per_seed: Mapping[str, Mapping[str, dict]], tasks: task_lib.TaskTable
) -> dict[str, dict[str, dict]]:
  """Tests the paper's claim, better than Single and Multi, for each score.

  Args:
    per_seed: from `report.summarise`.
    tasks: the tasks of the plan; each is scored by its `paper_metric`.

  Returns:
    Variant -> task or `average` -> the fields of `statistics.Verdict`, and
    `gains`: baseline -> `shift` and `superiority`, nan with an undefined score.
    Empty without both baselines; a column is missing if a variant or a
    baseline has no score of it.
  """
  if not all(per_seed.get(baseline) for baseline in BASELINES):
    return {}
  columns = [*tasks.names, AVERAGE]
  cells = {}
  for variant in per_seed:
    if variant in BASELINES:
      continue
    for column in columns:
      groups = [
        scores_of(per_seed[name], column, tasks)
        for name in (variant, *BASELINES)
      ]
      if all(groups):
        cells[variant, column] = groups[0], groups[1:]
  found: dict[str, dict[str, dict]] = {}
  for (variant, column), verdict in statistics.judge(cells).items():
    student, baselines = cells[variant, column]
    gains = {
      name: statistics.effect(student, scores)
      for name, scores in zip(BASELINES, baselines)
    }
    found.setdefault(variant, {})[column] = {
      **dataclasses.asdict(verdict),
      'gains': gains,
    }
  return found


def bootstrap(
  tests: Mapping[str, Mapping[str, dict]],
  outputs: outputs_lib.Outputs,
  tasks: task_lib.TaskTable,
) -> dict[str, dict[str, dict]]:
  """The paper's own test of the same claims, over seeds and examples.

  No star rests on it: `statistics` lists its false positives.

  Args:
    tests: the result of `compare`.
    outputs: predictions and gold labels of the runs.
    tasks: the tasks of the plan.

  Returns:
    Variant -> task or `average` -> `p_value`, the larger one of the two
    baselines, `corrected` by Holm's method, and `reason` if there is none.
  """
  names = (*BASELINES, *tests)
  columns = set().union(*tests.values())
  draws = {
    task.name: draw(task, names, outputs)
    for task in tasks.tasks
    if task.name in columns or (task.in_average and AVERAGE in columns)
  }
  p_values: dict[tuple[str, str], float | None] = {}
  reasons: dict[tuple[str, str], str] = {}
  for variant, by_column in tests.items():
    for column, test in by_column.items():
      cell = variant, column
      p_values[cell], reasons[cell] = None, test.get('reason', '')
      if test['p_value'] is None:
        continue
      try:
        student, *baselines = (
          of_column(name, column, draws, tasks)
          for name in (variant, *BASELINES)
        )
      except outputs_lib.Missing as missing:
        reasons[cell] = str(missing)
        continue
      reasons[cell] = ''
      p_values[cell] = statistics.better_than_all(
        [
          bootstrap_lib.p_value(student, scores, np.random.default_rng(0))
          for scores in baselines
        ]
      )
  corrected = dict(zip(p_values, statistics.holm(list(p_values.values()))))
  found: dict[str, dict[str, dict]] = {}
  for (variant, column), p_value in p_values.items():
    found.setdefault(variant, {})[column] = {
      'p_value': p_value,
      'corrected': corrected[variant, column],
      'reason': reasons[variant, column],
    }
  return found


# Variant -> its seeds and their scores [1 + B, S], or why they are missing.
_Draws = dict[str, tuple[tuple[int, ...], np.ndarray] | outputs_lib.Missing]


def draw(
  task: task_lib.Task, names: Sequence[str], outputs: outputs_lib.Outputs
) -> _Draws:
  """Scores of one task by all variants over the same draws of examples."""
  result: _Draws = {}
  found: dict[str, outputs_lib.Predicted] = {}
  for name in names:
    try:
      found[name] = outputs.of(task.name, name)
    except outputs_lib.Missing as missing:
      result[name] = missing
  labelled = [f for f in found.values() if f.gold is not None]
  if not labelled:
    why = f'no run kept the gold labels of {task.name}; --mode=evaluate adds'
    return dict.fromkeys(names, outputs_lib.Missing(f'{why} them')) | result
  like = labelled[0]
  for name in [n for n, f in found.items() if list(f.uids) != list(like.uids)]:
    del found[name]
    why = f'the runs of {name} are of other examples of {task.name}'
    result[name] = outputs_lib.Missing(why)
  scores = bootstrap_lib.drawn_scores(
    [f.predictions for f in found.values()],
    bootstrap_lib.score_of(task.paper_metric, like.gold),
    np.random.default_rng(zlib.crc32(task.name.encode())),
  )
  for (name, of_variant), drawn in zip(found.items(), scores):
    result[name] = of_variant.seeds, drawn
  return result


def of_column(
  variant: str,
  column: str,
  draws: Mapping[str, _Draws],
  tasks: task_lib.TaskTable,
) -> np.ndarray:
  """Scores [1 + B, S] of one task, or their average over all tasks.

  The average takes the seeds that have every task.

  Raises:
    outputs_lib.Missing: predictions are missing or a score is undefined.
  """
  if column == AVERAGE:
    names = [task.name for task in tasks.tasks if task.in_average]
  else:
    names = [column]
  parts = [draws[name][variant] for name in names]
  for part in parts:
    if isinstance(part, outputs_lib.Missing):
      raise part
  common = set.intersection(*(set(seeds) for seeds, _ in parts))
  if len(common) < 2:
    raise outputs_lib.Missing(f'{variant} has few seeds with all tasks')
  scores = np.mean(
    [
      scores[:, [i for i, seed in enumerate(seeds) if seed in common]]
      for seeds, scores in parts
    ],
    axis=0,
  )
  # The record of an older run may have 0 instead of an undefined score.
  if not statistics.is_defined(scores[0]):
    raise outputs_lib.Missing(f'{variant} has an undefined score of {column}')
  return scores


def scores_of(
  seeds: Mapping[str, dict], column: str, tasks: task_lib.TaskTable
) -> list[float]:
  """The scores by seed of a task, by the paper's metric, or of the average.

  An undefined score is nan; seeds without a score are left out.
  """
  if column == AVERAGE:
    values = [seed[AVERAGE] for seed in seeds.values()]
  else:
    metric = tasks[column].paper_metric
    values = [
      seed['tasks'].get(column, {}).get(metric) for seed in seeds.values()
    ]
  return [value for value in values if value is not None]
