"""Which pictures a report has, made of its numbers and its runs' logs."""

from collections.abc import Callable
from collections.abc import Mapping
import functools

import markupsafe

from bam_jax.reporting import curves as curves_lib
from bam_jax.reporting import figures
from bam_jax.reporting import tables
from bam_jax.reporting import task_figures
from bam_jax.tasks import task as task_lib

Looks = Mapping[str, figures.Look]  # of all variants of the report


def score_panels(
  summary: Mapping[str, dict], tasks: task_lib.TaskTable, looks: Looks
) -> list[markupsafe.Markup]:
  """The paper's average, then each task in its paper metric."""
  # Each of these reads a seed's entry of the summary as well as a variant's.
  wanted = [('Average', 'paper', _average)]
  wanted += [
    (task.name, task.paper_metric, functools.partial(_task_score, task))
    for task in tasks.tasks
  ]
  panels = []
  for title, metric, get in wanted:
    rows = _score_rows(summary, get)
    if rows:
      panel = figures.scores(title, metric, rows, looks)
      panels.append(markupsafe.Markup(panel))
  return panels


def _average(entry: Mapping) -> float | None:
  return entry['average']


def _task_score(task: task_lib.Task, entry: Mapping) -> float | None:
  return entry['tasks'].get(task.name, {}).get(task.paper_metric)


def _score_rows(
  summary: Mapping[str, dict], get: Callable[[Mapping], float | None]
) -> list[figures.Scores]:
  """One a variant that has any score, be it undefined; others say nothing."""
  rows = []
  for variant, seeds in summary['per_seed'].items():
    points = [get(seed) for seed in seeds.values()]
    if any(point is not None for point in points):
      points = [point for point in points if tables.is_number(point)]
      median = get(summary['variants'][variant])
      rows.append(figures.Scores(variant, points, median))
  return rows


def loss_panels(
  curves: curves_lib.Curves, tasks: task_lib.TaskTable, looks: Looks
) -> list[markupsafe.Markup]:
  """The loss over all tasks, then each task's."""
  panels = [('All tasks', curves.medians('loss'))]
  panels += [
    (name, curves.medians(f'loss/{name}', name)) for name in tasks.names
  ]
  what = 'mean loss per example'
  return [
    markupsafe.Markup(figures.lines(title, what, found, looks))
    for title, found in panels
    if found
  ]


def weight_panels(
  curves: curves_lib.Curves, looks: Looks
) -> list[markupsafe.Markup]:
  """The gold labels' weight over training; none where nothing is distilled."""
  found = curves.medians('gold_weight')
  if not found:
    return []
  label = 'λ, weight of the gold labels'
  panel = figures.lines('Teacher annealing', label, found, looks, (0.0, 1.05))
  return [markupsafe.Markup(panel)]


def effect_panels(
  summary: Mapping[str, object], looks: Looks
) -> list[markupsafe.Markup]:
  """What multi-task training and teachers change: a panel a pair of variants.

  Its rows are the tasks and the average.
  """
  panels = []
  for table in summary['pairs']:
    if table['kind'] not in ('multi_task', 'teachers'):
      continue
    by_pair: dict[tuple[str, str], list[task_figures.Effect]] = {}
    for row in table['rows']:
      interval = None if row['low'] is None else (row['low'], row['high'])
      effect = task_figures.Effect(
        row['column'], row['shift'], interval, _verdict(row)
      )
      by_pair.setdefault((row['variant'], row['baseline']), []).append(effect)
    for (variant, baseline), rows in by_pair.items():
      title = f'{figures.label(variant)} against {figures.label(baseline)}'
      panel = task_figures.effects(title, 'shift, points', looks[variant], rows)
      panels.append(markupsafe.Markup(panel))
  return panels


def _verdict(row: Mapping) -> str:
  if row['corrected'] is None:
    # The number beside it says that a score is undefined.
    return 'not tested'
  p_value = tables.p_value(row['corrected'])
  sign = '' if p_value.startswith('<') else '='
  return f'p{sign}{p_value}{row["stars"]}'


def share_panels(
  summary: Mapping[str, object], looks: Looks
) -> list[markupsafe.Markup]:
  """What each multi-task variant drew: a panel a variant, a row a task."""
  return [
    markupsafe.Markup(
      task_figures.shares(
        variant,
        looks[variant],
        [task_figures.Share(task, **share) for task, share in tasks.items()],
      )
    )
    for variant, tasks in summary['shares'].items()
  ]
