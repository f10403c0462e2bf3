"""Tests of one variant against one other: ablations, gains, sets of tasks.

The test is Mann-Whitney U over seeds, as in all tables of the paper but its
main one. No table here claims a direction, so it is two-sided. Holm's
correction is over the table.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import math
from typing import NamedTuple

import numpy as np
import scipy.stats

from bam_jax import config as config_lib
from bam_jax.reporting import comparisons
from bam_jax.reporting import statistics
from bam_jax.tasks import task as task_lib

# Pairs that show the effect of multi-task training, and of teachers.
_MULTI_TASK = (('multi', 'single'),)
_TEACHERS = (
  ('single_to_single', 'single'),
  ('multi_to_multi', 'multi'),
  ('single_to_multi', 'multi'),
)


class Pair(NamedTuple):
  """A variant, the one it is compared with, and a task or `average`."""

  variant: str
  baseline: str
  column: str


def shift_interval(
  student: Sequence[float], baseline: Sequence[float], confidence: float = 0.95
) -> tuple[float, float] | None:
  """Confidence interval of `statistics.shift`; None if seeds are too few.

  Its ends are two of the ordered differences of all pairs, at the rank at which
  the two-sided Mann-Whitney test rejects, by the normal approximation
  (Hollander and Wolfe 1999, "Nonparametric Statistical Methods", section 4.3).

  Example:
    >>> shift_interval([5.0, 6.0, 7.0, 9.0], [1.0, 2.0, 3.0, 4.0])
    (1.0, 8.0)
  """
  sizes = len(student), len(baseline)
  number = math.prod(sizes)
  error = math.sqrt(number * (sum(sizes) + 1) / 12)
  quantile = scipy.stats.norm.ppf((1 + confidence) / 2)
  rank = math.floor(number / 2 - quantile * error)
  if rank < 1:
    return None
  ordered = np.sort(np.subtract.outer(student, baseline), axis=None)
  return float(ordered[rank - 1]), float(ordered[-rank])


@functools.cache
def smallest_p_value(student: int, baseline: int) -> float:
  """The smallest possible two-sided p-value for these group sizes."""
  scores = np.arange(student + baseline)
  return float(
    statistics.mann_whitney(scores[baseline:], scores[:baseline], 'two-sided')
  )


def seeds_needed(tests: int, level: float = 0.05) -> int:
  """Seeds per group that a table of `tests` pairs needs for any star.

  Example:
    >>> seeds_needed(tests=1), seeds_needed(tests=10)
    (4, 6)
  """
  seeds = 2
  while tests * smallest_p_value(seeds, seeds) >= level:
    seeds += 1
  return seeds


def tables(
  config: config_lib.Config,
  per_seed: Mapping[str, Mapping[str, dict]],
  tasks: task_lib.TaskTable,
) -> list[dict]:
  """The tables of pairs for which there are scores.

  Args:
    config: has the user's own variants.
    per_seed: from `report.summarise`.
    tasks: the tasks of the plan; each is scored by its `paper_metric`.

  Returns:
    For each table: `kind`, which is `multi_task`, `teachers`, `ablations` or
    `study`; `task`, the task of a study, otherwise None; and `rows`. A row is
    `variant`, `baseline`, `column`, `seeds` and `medians` of both, `shift`,
    `low`, `high`, `superiority` and the fields of `statistics.Verdict`. The
    rows of a study go from the highest median to the lowest, undefined ones
    last; one has the baseline against itself, without a test. Medians, `shift`
    and `superiority` are nan if a score is undefined.
  """
  columns = [*tasks.names, comparisons.AVERAGE]
  found = []

  def add(kind: str, pairs: Sequence[Pair], task: str | None = None) -> None:
    rows = _compare(pairs, per_seed, tasks)
    if task is not None:
      rows.sort(key=lambda row: -np.nan_to_num(row['medians'][0], nan=-np.inf))
    if any(row['variant'] != row['baseline'] for row in rows):
      found.append({'kind': kind, 'task': task, 'rows': rows})

  for kind, against in (('multi_task', _MULTI_TASK), ('teachers', _TEACHERS)):
    add(kind, [Pair(*names, column) for names in against for column in columns])
  add('ablations', _ablations(config))
  for task in _studied(config):
    add('study', [Pair(name, 'single', task) for name in per_seed], task)
  return found


def _ablations(config: config_lib.Config) -> list[Pair]:
  """The user's own variants against the variants they derive from."""
  pairs = []
  for name in config_lib.variant_names(config):
    own = config.custom_variants.get(name)
    if own is None:
      continue
    pairs += [
      Pair(name, baseline, column)
      for baseline in filter(None, (own.like, own.start))
      for column in own.tasks or (comparisons.AVERAGE,)
    ]
  return pairs


def _studied(config: config_lib.Config) -> list[str]:
  """The tasks that several of the user's own sets of tasks share."""
  sets = [own.tasks for own in config.custom_variants.values()]
  return [t for t in config.tasks if sum(t in tasks for tasks in sets) > 1]


def _compare(
  pairs: Sequence[Pair],
  per_seed: Mapping[str, Mapping[str, dict]],
  tasks: task_lib.TaskTable,
) -> list[dict]:
  """One row for each pair in which both variants have scores."""
  groups, p_values, smallest, undefined = {}, {}, {}, set()
  for pair in pairs:
    student, baseline = (
      comparisons.scores_of(per_seed.get(name, {}), pair.column, tasks)
      for name in (pair.variant, pair.baseline)
    )
    if not student or not baseline:
      continue
    groups[pair] = student, baseline
    sizes = len(student), len(baseline)
    is_test = pair.variant != pair.baseline and min(sizes) > 1
    p_values[pair] = smallest[pair] = None
    if not statistics.is_defined([*student, *baseline]):
      undefined.add(pair)
    elif is_test:
      p_values[pair] = float(
        statistics.mann_whitney(student, baseline, 'two-sided')
      )
      smallest[pair] = smallest_p_value(*sizes)
  rows = []
  for pair, verdict in statistics.verdicts(
    p_values, smallest, undefined
  ).items():
    student, baseline = groups[pair]
    low = high = None
    if pair not in undefined:
      low, high = shift_interval(student, baseline) or (None, None)
    rows.append(
      {
        **pair._asdict(),
        'seeds': [len(student), len(baseline)],
        'medians': [float(np.median(student)), float(np.median(baseline))],
        'low': low,
        'high': high,
        **statistics.effect(student, baseline),
        **dataclasses.asdict(verdict),
      }
    )
  return rows
