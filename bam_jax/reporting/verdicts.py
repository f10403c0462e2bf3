"""Decides for each task: serve the multi-task student, or the task's own model.

The test is a t-test of the difference of mean scores, over seeds and dev
examples; with one seed, over the examples alone. Without dev outputs it is over
the seeds alone.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from bam_jax import config as config_lib
from bam_jax import variants
from bam_jax.reporting import bootstrap
from bam_jax.reporting import comparisons
from bam_jax.reporting import outputs as outputs_lib
from bam_jax.reporting import statistics

# What a test is over; or both, joined by `and`.
SEEDS, EXAMPLES = 'seeds', 'dev examples'
# A task's own model is like the first of these that the plan has.
_OWN = ('single_searched', 'single')
_MULTI = ('multi_searched', 'multi')  # Baselines of the average.


def find_student(config: config_lib.Config, names: Sequence[str]) -> str | None:
  """Finds the multi-task variant that could serve all tasks.

  `single_to_multi` is preferred, then any other taught multi-task variant, then
  an untaught one, in the order of `names`.
  """
  found = [
    name
    for name in _over_all_tasks(config, names)
    if not variants.resolve(config, name).is_single
  ]

  def rank(name: str) -> tuple[bool, bool]:
    is_taught = bool(variants.resolve(config, name).teacher)
    return name != 'single_to_multi', not is_taught

  return min(found, key=rank, default=None)


def find_own(config: config_lib.Config, names: Sequence[str]) -> str | None:
  """Finds the single-task variant, without a teacher, to compare it with.

  The choice is by name, not by score: the searched one if there is one.
  """
  like = {name: own.like for name, own in config.custom_variants.items()}
  ranks = {
    name: _OWN.index(like.get(name, name))
    for name in _over_all_tasks(config, names)
    if like.get(name, name) in _OWN and not variants.resolve(config, name).start
  }
  return min(ranks, key=ranks.get, default=None)


def _over_all_tasks(
  config: config_lib.Config, names: Sequence[str]
) -> list[str]:
  return [
    name
    for name in names
    if {*config.tasks} <= {*variants.resolve(config, name).tasks}
  ]


def summarise(
  config: config_lib.Config,
  medians: Mapping[str, dict],
  scores: comparisons.Scores,
  draws: comparisons.Draws,
) -> dict[str, object]:
  """Compares the student with single-task models, by task and on average.

  `medians` is `variants` of `report.summarise`. Incomplete variants have no
  average there, so they are not in `averages`.

  Returns:
    `student`, `own` and `teacher`, variants or None; `is_taught`, whether the
    student has a teacher, be it external; `tasks`: task -> a cell, against
    `own`; `averages`: variant -> a cell, against `teacher`, `own` and Multi.
    A cell is `difference`, `half_width` of its 95% interval, `p_value`
    (two-sided), `corrected` by Holm's method over `tasks` or `averages`,
    `verdict`, `over` (what the test is over), `examples` and `reason`, why it
    is not over both seeds and examples, or not tested.
  """
  names = [name for name in scores if scores[name]]
  student, own = find_student(config, names), find_own(config, names)
  found = {'student': student, 'own': own, 'teacher': None, 'is_taught': False}
  found |= {'tasks': {}, 'averages': {}}
  if student is None:
    return found
  teacher = variants.resolve(config, student).teacher
  found['is_taught'] = bool(teacher)
  if teacher in names and not variants.find_external_logits(config, student):
    found['teacher'] = teacher
  complete = {name for name in names if medians[name]['average'] is not None}
  averages = dict.fromkeys((found['teacher'], own, *_MULTI))
  pairs = {
    'tasks': {task: (own, task) for task in config.tasks if own},
    'averages': {
      name: (name, comparisons.AVERAGE)
      for name in averages
      if {student, name} <= complete and name != student
    },
  }
  for group, baselines in pairs.items():
    cells = found[group]
    for key, (baseline, column) in baselines.items():
      if column in scores[student] and column in scores[baseline]:
        cells[key] = _compare(student, baseline, column, scores, draws)
    comparisons.correct(list(cells.values()))
    for cell in cells.values():
      if cell['corrected'] is not None:
        is_clear = cell['corrected'] < statistics.LEVEL
        better = 'student' if cell['difference'] > 0 else 'own'
        cell['verdict'] = better if is_clear else 'no difference'
  return found


def prefer_baselines(
  found: Mapping[str, dict], baselines: Mapping[str, Mapping]
) -> None:
  """Changes the verdict of tasks that a baseline wins.

  It must be above all variants, by more than half of the interval that is
  known. Baselines have no seeds, so this is no test.

  Args:
    found: what `summarise` returned.
    baselines: name -> `lead`: task -> how much it is above all variants.
  """
  for baseline in baselines.values():
    for task, lead in baseline['lead'].items():
      cell = found['tasks'].get(task)
      if cell and lead > (cell['half_width'] or 0.0):
        cell['verdict'] = 'baseline'


def _compare(
  student: str,
  baseline: str,
  column: str,
  scores: comparisons.Scores,
  draws: comparisons.Draws,
) -> dict[str, object]:
  """Compares two variants on one column; the p-value is not corrected yet."""
  groups = [scores[name][column] for name in (student, baseline)]
  cell = {'difference': float(np.mean(groups[0]) - np.mean(groups[1]))}
  cell |= dict.fromkeys(('half_width', 'p_value', 'corrected'))
  cell |= {'verdict': 'not tested', 'over': '', 'examples': 0, 'reason': ''}
  if not all(map(statistics.is_defined, groups)):
    return cell | {'reason': statistics.UNDEFINED}
  over, found = [SEEDS] if min(map(len, groups)) > 1 else [], None
  try:
    found = comparisons.difference(draws, student, baseline, column)
    cell['examples'] = draws.examples(column)
    over.append(EXAMPLES)
  except outputs_lib.Missing as missing:
    cell['reason'] = str(missing)
    if over:
      found = bootstrap.difference(*(np.array([g]) for g in groups), 0)
  if found is None:
    return cell
  return cell | {
    'half_width': found.half_width,
    'p_value': found.p_value('two-sided'),
    'over': ' and '.join(over),
  }
