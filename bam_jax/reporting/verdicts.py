"""Decides for each task: serve the multi-task student, or the task's own model.

The test is a t-test of the difference of mean scores, over seeds and dev
examples. With one seed the test is over the examples only; without dev outputs,
over the seeds only.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from bam_jax import config as config_lib
from bam_jax import variants
from bam_jax.reporting import bootstrap
from bam_jax.reporting import comparisons
from bam_jax.reporting import outputs as outputs_lib
from bam_jax.reporting import statistics

# What a test is over. If it is over both, they are joined by ` and `.
SEEDS, EXAMPLES = 'seeds', 'dev examples'
# A task's own model is of the first of these variants that the plan has, or of
# a custom variant that is like it.
_OWN = ('single_searched', 'single')
_MULTI = ('multi_searched', 'multi')  # Baselines for the average.


def find_student(config: config_lib.Config, names: Sequence[str]) -> str | None:
  """Finds the multi-task variant that could serve all tasks.

  `single_to_multi` is preferred, then a multi-task variant with a teacher, then
  one without a teacher. Among equals, the first of `names` is chosen. Returns
  None if there is no multi-task variant over all tasks.
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
  """Finds the single-task variant that the student is compared with.

  It has no teacher. The choice is by name, not by score: the searched variant
  is preferred. Returns None if there is no such variant.
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

  `medians` is the entry `variants` of the result of `report.summarise`. There,
  incomplete variants have no average, so `averages` leaves them out.

  Returns:
    `student`, `own` and `teacher`: variants, or None.
    `is_taught`: whether the student has a teacher, including external logits.
    `tasks`: task -> a cell, which compares the student with `own`.
    `averages`: variant -> a cell, which compares the student with this variant;
    the variants are `teacher`, `own` and Multi.
    A cell has `difference` (student minus baseline), `half_width` of its 95%
    interval, `p_value` (two-sided), `corrected` (p-value after Holm's
    correction over `tasks` or `averages`), `verdict`, `over` (what the test is
    over), `examples` (number of dev examples) and `reason` (why the test is not
    over examples, or is missing).
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
  """Sets the verdict `baseline` for tasks in which a baseline is the best.

  The baseline must be above all variants, by more than `half_width` of the
  task's cell if that is known. Baselines have no seeds, so this is not a test.

  Args:
    found: what `summarise` returned; it is changed in place.
    baselines: name -> `lead`: task -> the baseline's score minus the highest
      score of a variant.
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
