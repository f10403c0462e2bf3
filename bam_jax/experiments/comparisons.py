"""Every variant of a report against the baselines: is it better than all?"""

from collections.abc import Mapping
import dataclasses
import math

from bam_jax.experiments import statistics
from bam_jax.tasks import task as task_lib

BASELINES = ('single', 'multi')
AVERAGE = 'average'


def compare(
  per_seed: Mapping[str, Mapping[str, dict]], tasks: task_lib.TaskTable
) -> dict[str, dict[str, dict]]:
  """The paper's claim, better than Single and Multi, for each score.

  Args:
    per_seed: as `report.summarise` has it.
    tasks: of the plan; each by the metric of the paper's table.

  Returns:
    Variant -> task or `average` -> the fields of `statistics.Verdict`, and
    `gains`: baseline -> `shift` and `superiority`. Nothing where a baseline is
    not there, or a variant or a baseline has no score of it.
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
      name: {
        'shift': statistics.shift(student, scores),
        'superiority': statistics.superiority(student, scores),
      }
      for name, scores in zip(BASELINES, baselines)
    }
    found.setdefault(variant, {})[column] = {
      **dataclasses.asdict(verdict),
      'gains': gains,
    }
  return found


def scores_of(
  seeds: Mapping[str, dict], column: str, tasks: task_lib.TaskTable
) -> list[float]:
  """The finite scores of a task, by the paper's metric, or of the average."""
  if column == AVERAGE:
    values = [seed[AVERAGE] for seed in seeds.values()]
  else:
    metric = tasks[column].paper_metric
    values = [
      seed['tasks'].get(column, {}).get(metric) for seed in seeds.values()
    ]
  return [v for v in values if v is not None and math.isfinite(v)]
