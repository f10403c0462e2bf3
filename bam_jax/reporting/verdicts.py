"""Decides which model serves a task best: the student or the task's own model.

The student is a multi-task model; a task's own model is a single-task model.
The test is a t-test of the difference of mean scores, over seeds and dev
examples. With one seed, the test is over the examples only. Without dev
outputs, it is over the seeds only.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from bam_jax import config as config_lib
from bam_jax import variants
from bam_jax.reporting import bootstrap
from bam_jax.reporting import comparisons
from bam_jax.reporting import outputs as outputs_lib
from bam_jax.reporting import statistics

# What a test is over. If a test is over both, the text is `seeds and dev
# examples`.
SEEDS, EXAMPLES = 'seeds', 'dev examples'
# Variants of a task's own model; the first one that exists is used. A custom
# variant counts as the variant that it is `like`.
_OWN = ('single_searched', 'single')
_MULTI = ('multi_searched', 'multi')  # Baselines for the average.


def find_student(config: config_lib.Config, names: Sequence[str]) -> str | None:
  """Finds the multi-task variant that could serve all tasks.

  `single_to_multi` is preferred, then a multi-task variant with a teacher, then
  a multi-task variant without a teacher. If several variants are equally good,
  the first of them in `names` is returned. Returns None if no multi-task
  variant covers all tasks.
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

  This is `single_searched` or else `single`, whatever their scores are. A
  custom variant counts as the variant that it is `like`, unless it has a
  teacher or starts from another variant. Returns None if there is no such
  variant over all tasks.
  """
  like = {name: own.like for name, own in config.custom_variants.items()}
  ranks = {}
  for name in _over_all_tasks(config, names):
    variant, base = variants.resolve(config, name), like.get(name, name)
    if base in _OWN and not (variant.teacher or variant.start):
      ranks[name] = _OWN.index(base)
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
  """Compares the student with other variants, per task and on average.

  `medians` is the entry `variants` of the result of `report.summarise`.

  Returns:
    `student`, `own` and `teacher`: names of variants, or None.
    `is_taught`: whether the student has a teacher, including external logits.
    `teacher_is_scored`: whether the runs of `teacher` themselves taught the
    student, and not the runs of folds or the mean of several seeds.
    `tasks`: task -> a cell, which compares the student with `own`.
    `averages`: variant -> a cell, which compares the student's average with
    this variant's average. The variants are `teacher`, `own` and those of
    `_MULTI`, without the student. Variants whose average is None in `medians`
    are left out; if the student's is None, `averages` is empty.
    A cell has `difference` (student minus the other variant), `half_width` (of
    the 95% interval of the difference), `p_value` (two-sided), `corrected`
    (p-value after Holm's correction over `tasks` or over `averages`),
    `verdict`, `over` (what the test is over), `examples` (number of dev
    examples) and `reason` (why the test is not over examples, or why there is
    no test).
  """
  names = [name for name in scores if scores[name]]
  student, own = find_student(config, names), find_own(config, names)
  found = {'student': student, 'own': own, 'teacher': None, 'is_taught': False}
  found |= {'teacher_is_scored': False, 'tasks': {}, 'averages': {}}
  if student is None:
    return found
  teacher = variants.resolve(config, student).teacher
  found['is_taught'] = bool(teacher)
  if teacher in names and not variants.find_external_logits(config, student):
    found['teacher'] = teacher
    distill = variants.config_for_variant(config, student).distill
    found['teacher_is_scored'] = distill.folds == distill.teachers == 1
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

  The baseline's score must be higher than that of every variant. If the task's
  cell has a `half_width`, it must be higher by more than this. Baselines have
  no seeds, so this is not a test.

  Args:
    found: the result of `summarise`; it is changed in place.
    baselines: baseline -> a dict with `lead`: task -> the baseline's score
      minus the highest score of a variant.
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
  """Compares two variants on a task or on the average; returns a cell.

  `corrected` and `verdict` are not known yet.
  """
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
