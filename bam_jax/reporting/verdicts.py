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
from bam_jax.tasks import task as task_lib

# What a test is over; or both, joined by `and`.
SEEDS, EXAMPLES = 'seeds', 'dev examples'
# A task's own model is like the first of these that the plan has.
_OWN = ('single_searched', 'single')
_MULTI = ('multi_searched', 'multi')  # Baselines of the average.


def find_student(config: config_lib.Config, names: Sequence[str]) -> str | None:
  """Returns the variant that could serve all tasks: one that was taught.

  `single_to_multi` is preferred, then any other taught multi-task variant, then
  an untaught one, in the order of `names`.
  """
  found = [
    name
    for name in names
    if not (variant := variants.resolve(config, name)).is_single
    and {*config.tasks} <= {*variant.tasks}
  ]
  found.sort(key=lambda name: not variants.resolve(config, name).teacher)
  return (
    'single_to_multi' if 'single_to_multi' in found else next(iter(found), None)
  )


def find_own(config: config_lib.Config, names: Sequence[str]) -> str | None:
  """Returns the single-task variant that serves a task best without a teacher.

  The choice is by name, not by score: the searched one if there is one.
  """

  def like(name: str) -> str:
    own = config.custom_variants.get(name)
    return own.like if own else name

  found = [
    name
    for name in names
    if like(name) in _OWN
    and not (variant := variants.resolve(config, name)).start
    and {*config.tasks} <= {*variant.tasks}
  ]
  return min(found, key=lambda name: _OWN.index(like(name)), default=None)


def summarise(
  config: config_lib.Config,
  medians: Mapping[str, dict],
  per_seed: Mapping[str, Mapping[str, dict]],
  draws: comparisons.Draws,
  tasks: task_lib.TaskTable,
) -> dict[str, object]:
  """Compares the student with each task's own model, and the averages.

  The scores are `variants` and `per_seed` of `report.summarise`. Incomplete
  variants have no average, so they are not in `averages`.

  Returns:
    `student`, `own` and `teacher`, variants or None; `is_taught`, whether the
    student has a teacher, be it external; `tasks`: task -> a cell, against
    `own`; `averages`: variant -> a cell, against `teacher`, `own` and Multi.
    A cell is `difference`, `half_width` of its 95% interval, `p_value`
    (two-sided), `corrected` by Holm's method over `tasks` or `averages`,
    `verdict`, `over` (what the test is over), `examples` and `reason`, why it
    is not over both seeds and examples, or not tested.
  """
  names = [name for name, seeds in per_seed.items() if seeds]
  student, own = find_student(config, names), find_own(config, names)
  found = {'student': student, 'own': own, 'teacher': None, 'is_taught': False}
  found |= {'tasks': {}, 'averages': {}}
  if student is None:
    return found
  teacher = variants.resolve(config, student).teacher
  found['is_taught'] = bool(teacher)
  if teacher in names and not variants.find_external_logits(config, student):
    found['teacher'] = teacher
  if own:
    for task in tasks.names:
      cell = _compare(student, own, task, per_seed, draws, tasks)
      if cell:
        found['tasks'][task] = cell
  for baseline in dict.fromkeys((found['teacher'], own, *_MULTI)):
    pair = student, baseline
    is_complete = all(
      name in names and medians[name]['average'] is not None for name in pair
    )
    if is_complete and baseline != student:
      cell = _compare(
        student, baseline, comparisons.AVERAGE, per_seed, draws, tasks
      )
      if cell:
        found['averages'][baseline] = cell
  for cells in (found['tasks'].values(), found['averages'].values()):
    comparisons.correct(list(cells))
    for cell in cells:
      if cell['corrected'] is not None:
        is_clear = cell['corrected'] < statistics.LEVEL
        better = 'student' if cell['difference'] > 0 else 'own'
        cell['verdict'] = better if is_clear else 'no difference'
  return found


def _compare(
  student: str,
  baseline: str,
  column: str,
  per_seed: Mapping[str, Mapping[str, dict]],
  draws: comparisons.Draws,
  tasks: task_lib.TaskTable,
) -> dict[str, object] | None:
  """Returns a cell of `summarise`, uncorrected; None if a score is missing."""
  groups = [
    comparisons.scores_of(per_seed[name], column, tasks)
    for name in (student, baseline)
  ]
  if not all(groups):
    return None
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
