"""Compares pairs of variants: ablations, gains, and sets of tasks.

The test is Mann-Whitney U over seeds, as in all tables of the paper except its
main table. The test is two-sided, because no table here claims a direction.
Holm's correction covers all tests of a table.
"""

from collections.abc import Sequence
import math
from typing import NamedTuple

import numpy as np
import scipy.stats

from bam_jax import config as config_lib
from bam_jax import fields
from bam_jax.reporting import comparisons
from bam_jax.reporting import statistics

# Pairs that show the effect of multi-task training, and of teachers.
_PAIRS = {
  'multi_task': [('multi', 'single')],
  'teachers': [
    ('single_to_single', 'single'),
    ('multi_to_multi', 'multi'),
    ('single_to_multi', 'multi'),
  ],
}


class Pair(NamedTuple):
  """Two variants to compare on a task or on the average."""

  variant: str
  baseline: str
  column: str


def shift_interval(
  student: Sequence[float], baseline: Sequence[float]
) -> tuple[float, float] | tuple[None, None]:
  """Returns a 95% confidence interval of the shift between two variants.

  See `statistics.shift`. The differences of all pairs of scores are sorted. Two
  of them are the ends of the interval. Their ranks follow from the critical
  value of the two-sided Mann-Whitney test, by the normal approximation
  (Hollander and Wolfe 1999, "Nonparametric Statistical Methods", section 4.3).
  Both ends are None if there are too few seeds, or if a score is undefined.

  Example:
    >>> shift_interval([5.0, 6.0, 7.0, 9.0], [1.0, 2.0, 3.0, 4.0])
    (1.0, 8.0)
  """
  sizes = len(student), len(baseline)
  number = math.prod(sizes)
  error = math.sqrt(number * (sum(sizes) + 1) / 12)
  rank = math.floor(number / 2 - scipy.stats.norm.ppf(0.975) * error)
  if rank < 1 or not statistics.is_defined([*student, *baseline]):
    return None, None
  ordered = np.sort(np.subtract.outer(student, baseline), axis=None)
  return float(ordered[rank - 1]), float(ordered[-rank])


def tables(config: config_lib.Config, scores: comparisons.Scores) -> list[dict]:
  """Compares pairs of variants that have scores, in one table per question.

  Returns:
    One dict per table, with `kind`, `task` and `rows`. `kind` is `multi_task`,
    `teachers`, `searched`, `ablations` or `study`. `task` is the task of a
    study, of which there may be one per task; otherwise it is None.
    A row has `variant`, `baseline` and `column`; `seeds` (numbers of seeds) and
    `medians`, which are lists of two numbers, for the variant and for the
    baseline; `shift`, and `low` and `high` of `shift_interval`; and the fields
    of `statistics.Verdict`. Medians and `shift` are nan if a score is
    undefined.
    The rows of a study are sorted by the variant's median, from high to low,
    undefined medians last. One row of a study compares the baseline with
    itself, without a test.
  """
  columns = [*config.tasks, comparisons.AVERAGE]
  own = {
    name: config.custom_variants[name]
    for name in config_lib.variant_names(config)
    if name in config.custom_variants
  }
  found = {
    (kind, None): [Pair(*pair, column) for pair in of for column in columns]
    for kind, of in _PAIRS.items()
  }
  found['searched', None] = [
    Pair(name, baseline, column)
    for baseline in fields.SEARCHED
    for name in scores
    if name != baseline
    for column in (own[name].tasks if name in own else ()) or columns
  ]
  found['ablations', None] = [
    Pair(name, baseline, column)
    for name, variant in own.items()
    for baseline in filter(None, (variant.like, variant.start))
    for column in variant.tasks or (comparisons.AVERAGE,)
  ]
  for task in config.tasks:
    if sum(task in variant.tasks for variant in own.values()) > 1:
      found['study', task] = [Pair(name, 'single', task) for name in scores]
  result = []
  for (kind, task), pairs in found.items():
    rows = _compare(pairs, scores)
    if task is not None:
      rows.sort(key=lambda row: -np.nan_to_num(row['medians'][0], nan=-np.inf))
    if any(row['variant'] != row['baseline'] for row in rows):
      result.append({'kind': kind, 'task': task, 'rows': rows})
  return result


def _compare(pairs: Sequence[Pair], scores: comparisons.Scores) -> list[dict]:
  groups = {
    pair: [scores[name][pair.column] for name in (pair.variant, pair.baseline)]
    for pair in pairs
    if pair.column in scores.get(pair.variant, ())
    and pair.column in scores.get(pair.baseline, ())
  }
  verdicts = statistics.judge(
    {
      pair: (student, [baseline] if pair.variant != pair.baseline else [])
      for pair, (student, baseline) in groups.items()
    },
    statistics.MANN_WHITNEY,
  )
  rows = []
  for pair, (student, baseline) in groups.items():
    low, high = shift_interval(student, baseline)
    rows.append(
      {
        **pair._asdict(),
        'seeds': [len(student), len(baseline)],
        'medians': [float(np.median(student)), float(np.median(baseline))],
        'low': low,
        'high': high,
        'shift': statistics.shift(student, baseline),
        **verdicts[pair]._asdict(),
      }
    )
  return rows
