"""Tests whether one variant is better over seeds, and summarises scores.

Significance stars come from a permutation test of Welch's statistic over seeds,
after Holm's correction. A star is a claim about this development set only.
docs/results/README.md says how often each test finds a difference if there is
no difference; benchmarks/false_positives.json has the simulated rates.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
import functools
import math
from typing import Literal, NamedTuple

import numpy as np
import scipy.stats

# The paper's three levels. The corrected p-value must be below the level.
STARS = (('***', 0.001), ('**', 0.01), ('*', 0.05))
LEVEL = 0.05  # A corrected p-value below it is significant.
NOT_ENOUGH_SEEDS = 'not enough seeds'
NOT_SIGNIFICANT = 'not significant'
UNDEFINED = 'undefined score'

_RESAMPLES = 99_999  # Two groups of 9 seeds have 48,620 splits: all are taken.
_PAIRS_AT_ONCE = 16  # Pairs of groups per call of a test, to limit memory.
_EXACT_RANKS = 20_000  # Two groups of 8 seeds have 12,870 splits.


class Verdict(NamedTuple):
  """Test result for one table cell.

  Attributes:
    p_value: the p-value before correction; None if the cell is not tested, for
      example with one seed.
    corrected: the p-value after Holm's correction over the table.
    stars: `*`, `**` or `***` by the corrected p-value, otherwise empty.
    reason: why there is no star; empty if there is one.
  """

  p_value: float | None
  corrected: float | None
  stars: str
  reason: str


def summarise(scores: Sequence[float]) -> dict[str, float | None]:
  """Summarises the scores of one variant over n > 0 seeds.

  Returns:
    `seeds` (n), `median`, `mean`, `deviation` (standard deviation, ddof 1), and
    `low`, `high` and `coverage` of `median_interval`. If a score is undefined,
    `median` and `mean` are nan. If a score is undefined or n = 1, `deviation`,
    `low`, `high` and `coverage` are None.

  Example:
    >>> found = summarise([60.0, 62.0, 70.0])
    >>> found['median'], found['mean'], round(found['deviation'], 3)
    (62.0, 64.0, 5.292)
    >>> found['low'], found['high'], found['coverage']
    (60.0, 70.0, 0.75)
  """
  deviation = low = high = coverage = None
  if len(scores) > 1 and is_defined(scores):
    deviation = float(np.std(scores, ddof=1))
    low, high, coverage = median_interval(scores)
  return {
    'seeds': len(scores),
    'median': float(np.median(scores)),
    'mean': float(np.mean(scores)),
    'deviation': deviation,
    'low': low,
    'high': high,
    'coverage': coverage,
  }


def median_interval(scores: Sequence[float]) -> tuple[float, float, float]:
  """Returns a confidence interval of the median, and its coverage, 0 to 1.

  The ends are two of the sorted scores, x(k) and x(n + 1 - k). k is the largest
  number for which the coverage is at least 95%. The coverage follows from the
  fact that each score is below the median with probability 1/2 (Hollander and
  Wolfe 1999, "Nonparametric Statistical Methods", section 3.6). With ties, the
  returned coverage is a lower bound. If the coverage of the range of all scores
  is below 95%, this range is returned.

  Example:
    >>> low, high, coverage = median_interval(range(1, 21))
    >>> low, high, round(coverage, 3)
    (6.0, 15.0, 0.959)
  """
  count = len(scores)
  ends = np.arange(1, count // 2 + 1)
  # The interval misses the median if fewer than k scores are on one side of it.
  coverage = 1 - 2 * scipy.stats.binom.cdf(ends - 1, count, 0.5)
  place = max(0, np.count_nonzero(coverage >= 0.95) - 1)
  ordered = np.sort(scores)
  low, high = ordered[place], ordered[-1 - place]
  return float(low), float(high), float(coverage[place])


def studentised(
  student: np.ndarray, baseline: np.ndarray, axis: int = -1
) -> np.ndarray:
  """Returns Welch's statistic: difference of means divided by standard error.

  A permutation test of this statistic keeps its significance level for large
  groups even if their variances differ (Janssen 1997, "Studentized permutation
  tests for non-i.i.d. hypotheses and the generalized Behrens-Fisher problem").
  """
  error = np.sqrt(
    np.var(student, axis, ddof=1) / student.shape[axis]
    + np.var(baseline, axis, ddof=1) / baseline.shape[axis]
  )
  # Groups without any variance get a large statistic, not an infinite one.
  least = 1e-9 * max(np.max(np.abs(student)), np.max(np.abs(baseline)), 1e-9)
  difference = np.mean(student, axis) - np.mean(baseline, axis)
  return difference / np.maximum(error, least)


def permutation_test(
  student: Sequence[float] | np.ndarray,
  baseline: Sequence[float] | np.ndarray,
  rng: np.random.Generator | int,
  statistic: Callable[..., np.ndarray] = studentised,
  resamples: int = _RESAMPLES,
) -> float | np.ndarray:
  """Tests whether `student` is higher, by a permutation test.

  The test is exact if both groups have the same distribution, with or without
  ties. If the pooled scores have at most `resamples` splits, all splits are
  counted. Otherwise `resamples` random splits and the observed split are
  counted.

  Args:
    student: [..., n] scores, n > 1.
    baseline: [..., m] scores, m > 1.
    rng: draws the random splits.
    statistic: takes both groups and `axis`; it must be larger if `student` is
      higher.
    resamples: number of random splits; see above.

  Returns:
    [...] one-sided p-values.

  Example:
    Of the 20 splits of these six scores, only the observed one is so extreme.

    >>> rng = np.random.default_rng(0)
    >>> float(permutation_test([4.0, 5.0, 6.0], [1.0, 2.0, 3.0], rng))
    0.05
  """

  def rounded(first: np.ndarray, second: np.ndarray, axis: int) -> np.ndarray:
    # Without rounding, a statistic would depend on the order of the scores.
    return np.round(statistic(first, second, axis), 6)

  found = scipy.stats.permutation_test(
    (_checked(student), _checked(baseline)),
    rounded,
    permutation_type='independent',
    vectorized=True,
    n_resamples=resamples,
    batch=5000,
    alternative='greater',
    axis=-1,
    rng=rng,
  )
  return found.pvalue[()]  # A float for one case, not a 0-d array.


def mann_whitney(
  student: Sequence[float] | np.ndarray,
  baseline: Sequence[float] | np.ndarray,
  alternative: Literal['greater', 'two-sided'] = 'greater',
) -> float | np.ndarray:
  """Returns the p-value of the Mann-Whitney U test, one-sided or two-sided.

  For two groups of up to 8 seeds, all splits are counted, with or without ties.
  For larger groups the test uses the normal approximation, corrected for ties
  and continuity. The test takes [..., n] and [..., m] scores, n and m > 1, and
  returns [...] p-values.

  Example:
    >>> float(mann_whitney([4.0, 5.0, 6.0], [1.0, 2.0, 3.0]))
    0.05
  """
  student, baseline = _checked(student), _checked(baseline)
  method = 'asymptotic'
  seeds = student.shape[-1], baseline.shape[-1]
  if math.comb(sum(seeds), seeds[0]) <= _EXACT_RANKS:
    method = scipy.stats.PermutationMethod(n_resamples=np.inf, batch=1000)
  found = scipy.stats.mannwhitneyu(
    student, baseline, alternative=alternative, method=method, axis=-1
  )
  return found.pvalue[()]


def holm(p_values: Sequence[float | None]) -> list[float | None]:
  """Corrects the p-values of several tests by the Holm-Bonferroni method.

  None stands for a missing test; it stays None and is not counted.

  Example:
    >>> holm([0.01, None, 0.04, 0.03])
    [0.03, None, 0.06, 0.06]
  """
  places = [place for place, p in enumerate(p_values) if p is not None]
  result, highest = list(p_values), 0.0
  for rank, place in enumerate(sorted(places, key=p_values.__getitem__)):
    highest = max(highest, min(1.0, (len(places) - rank) * p_values[place]))
    result[place] = highest
  return result


def shift(student: Sequence[float], baseline: Sequence[float]) -> float:
  """Returns the median, over all pairs of seeds, of student minus baseline.

  This is the Hodges-Lehmann estimate (1963). It is nan if a score is undefined.

  Example:
    >>> shift([3.0, 5.0], [1.0, 3.0])
    2.0
  """
  return float(np.median(np.subtract.outer(student, baseline)))


# These tests take [K, n] scores of students and [K, m] scores of baselines, and
# return [K] p-values. All K pairs get the same random splits, so that the order
# of the pairs does not matter.
PERMUTATION = functools.partial(permutation_test, rng=0)
MANN_WHITNEY = functools.partial(mann_whitney, alternative='two-sided')


@functools.cache
def smallest_p_value(
  test: Callable[..., np.ndarray], student: int, baseline: int
) -> float:
  """Returns the smallest p-value that a test can have for two group sizes.

  It is the p-value of two groups whose scores do not overlap.
  """
  scores = np.arange(student + baseline)
  return float(test(scores[baseline:], scores[:baseline]))


def seeds_needed(
  tests: int, test: Callable[..., np.ndarray] = PERMUTATION
) -> int:
  """Returns how many seeds per group are needed before any test can get a star.

  `tests` is the number of tests that are corrected together. The corrected
  p-value must be below .05. With one test, the smallest p-value is 1 / 20 for 3
  seeds, which is not below .05, and 1 / 70 for 4 seeds.

  Raises:
    ValueError: even 29 seeds are not enough.

  Example:
    >>> seeds_needed(tests=1), seeds_needed(tests=9)
    (4, 5)
  """
  for seeds in range(2, 30):
    if tests * smallest_p_value(test, seeds, seeds) < LEVEL:
      return seeds
  raise ValueError(f'with {tests} tests no number of seeds gives a star')


def judge(
  table: Mapping[Hashable, tuple[Sequence[float], Sequence[Sequence[float]]]],
  test: Callable[..., np.ndarray] = PERMUTATION,
) -> dict[Hashable, Verdict]:
  """Tests for each table cell whether a student beats every baseline.

  The p-value of a cell is the largest of the p-values against its baselines
  (Berger 1982). Holm's correction is over all cells. A cell is not tested if
  the student or a baseline has fewer than two scores or an undefined score
  (nan). Seeds with an undefined score are not left out, because this would bias
  the test.

  Args:
    table: cell -> a pair of the student's scores, one per seed, and a list with
      the scores of each baseline.
    test: `PERMUTATION` or `MANN_WHITNEY`; it compares the student with one
      baseline.

  Example:
    >>> scores = ([4.0, 5.0, 6.0, 7.0], [[0.0, 1.0, 2.0, 3.0]])
    >>> judge({'rte': scores})['rte'].stars
    '*'
    >>> judge(dict.fromkeys('abcd', scores))['a'].reason
    'not enough seeds'
  """
  undefined, by_sizes = set(), {}
  for cell, (student, baselines) in table.items():
    groups = [student, *baselines]
    if not all(map(is_defined, groups)):
      undefined.add(cell)
    elif min(map(len, groups)) > 1:
      for baseline in baselines:
        sizes = len(student), len(baseline)
        by_sizes.setdefault(sizes, []).append((cell, student, baseline))
  p_values: dict[Hashable, float | None] = dict.fromkeys(table)
  smallest: dict[Hashable, float | None] = dict.fromkeys(table)
  # Drawing the splits is most of the work, so pairs of groups that have the
  # same sizes are tested together and share their splits.
  for sizes, pairs in by_sizes.items():
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
      cells, *groups = zip(*pairs[start : start + _PAIRS_AT_ONCE])
      for cell, p_value in zip(cells, test(*groups)):
        p_values[cell] = max(p_values[cell] or 0.0, float(p_value))
        least = smallest_p_value(test, *sizes)
        smallest[cell] = max(smallest[cell] or 0.0, least)
  verdicts = {}
  for cell, corrected, best in zip(
    table,
    holm(list(p_values.values())),
    # The corrected p-values if every cell had its smallest possible p-value.
    holm(list(smallest.values())),
  ):
    stars, reason = '', NOT_SIGNIFICANT
    if cell in undefined:
      reason = UNDEFINED
    elif best is None or best >= LEVEL:
      reason = NOT_ENOUGH_SEEDS
    elif corrected < LEVEL:
      stars = next(stars for stars, limit in STARS if corrected < limit)
      reason = ''
    verdicts[cell] = Verdict(p_values[cell], corrected, stars, reason)
  return verdicts


def medians(
  seeds: Sequence[Mapping[str, Mapping[str, float]]],
) -> dict[str, dict[str, float]]:
  """Returns the median over seeds of each value, nested as in `seeds`.

  Example:
    >>> medians([{'rte': {'accuracy': 60.0}}, {'rte': {'accuracy': 62.0}}])
    {'rte': {'accuracy': 61.0}}
  """
  values: dict[str, dict[str, list[float]]] = {}
  for seed in seeds:
    for outer, by_inner in seed.items():
      for inner, value in by_inner.items():
        values.setdefault(outer, {}).setdefault(inner, []).append(value)
  return {
    outer: {inner: float(np.median(items)) for inner, items in by_inner.items()}
    for outer, by_inner in values.items()
  }


def is_defined(scores: Sequence[float]) -> bool:
  """Returns whether all scores are finite."""
  return bool(np.all(np.isfinite(scores)))


def _checked(scores: Sequence[float] | np.ndarray) -> np.ndarray:
  """Converts scores [..., n] to float64.

  Raises:
    ValueError: n < 2, or a score is not finite.
  """
  values = np.asarray(scores, np.float64)
  if values.ndim < 1 or values.shape[-1] < 2 or not is_defined(values):
    raise ValueError(f'a test needs 2 or more finite scores, not {scores}')
  return values
