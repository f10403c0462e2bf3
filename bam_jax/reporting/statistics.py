"""Tests over seeds of whether one variant is better, and summaries of scores.

Stars come from permuting Welch's statistic over seeds, after Holm's correction.
False positives: percent of trials with p <= .05 although no variant is better,
at 5, 10, 20 seeds (benchmarks/false_positives.json; standard errors .2 to .7):

                            equal, large set  unequal spread  other examples
  permutation, studentised  4.6   5.4  4.5    5.5  5.2  5.2   5.4  7.1  9.4
  permutation, medians      2.2   5.1  4.5    2.2  9.3  9.1   2.5  6.3  7.6
  Mann-Whitney U            4.6   4.9  4.5    5.0  5.6  5.8   5.5  6.5  9.2
  bootstrap, medians       11.5   8.9  9.0    5.4  4.6  3.5   4.5  3.6  4.2

The last is the paper's bootstrap. It has too many false positives if the noise
comes from seeds alone. A star is a claim about this development set; only the
bootstrap covers other examples. If a seed has similar effects in both groups,
all tests become strict.
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Hashable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
from typing import Literal

import numpy as np
import scipy.stats

# The paper's three levels; the corrected p-value is below them.
STARS = (('***', 0.001), ('**', 0.01), ('*', 0.05))
NOT_ENOUGH_SEEDS = 'not enough seeds'
NOT_SIGNIFICANT = 'not significant'
UNDEFINED = 'undefined score'

_RESAMPLES = 99_999  # Two groups of 9 seeds have 48,620 splits: all are taken.
_PAIRS_AT_ONCE = 16  # Pairs of groups whose splits are in memory at once.
_EXACT_RANKS = 20_000  # Two groups of 8 seeds: 12,870 splits.


@dataclasses.dataclass(frozen=True)
class Verdict:
  """The result of the test of one table cell.

  Attributes:
    p_value: before correction; None if there is no test, such as with one seed.
    corrected: the p-value after Holm's correction over the table.
    stars: `*`, `**` or `***` by the corrected p-value, otherwise empty.
    reason: why there is no star; empty if there is one.
  """

  p_value: float | None
  corrected: float | None
  stars: str
  reason: str


@dataclasses.dataclass(frozen=True)
class Summary:
  """Scores of one variant over its seeds.

  Attributes:
    seeds: how many scores there are.
    median, mean: of the scores; nan if one of them is undefined.
    deviation: standard deviation, ddof 1; None if there is only one seed or an
      undefined score.
    low, high: confidence interval of the median; None in the same cases.
  """

  seeds: int
  median: float
  mean: float
  deviation: float | None = None
  low: float | None = None
  high: float | None = None


def summarise(
  scores: Sequence[float], seed: int = 0, confidence: float = 0.95
) -> Summary:
  """Median, mean, standard deviation, and an interval of the median.

  The interval is that of the percentile bootstrap. BCa would correct it by the
  jackknife, which fails for a median (Efron 1982, "The Jackknife, the Bootstrap
  and Other Resampling Plans"). `scores` is [n], n > 0; `seed` seeds the
  resampling.

  Example:
    >>> found = summarise([60.0, 62.0, 70.0])
    >>> found.median, found.mean, round(found.deviation, 3)
    (62.0, 64.0, 5.292)
    >>> found.low, found.high
    (60.0, 70.0)
  """
  values = checked(scores)
  center = len(values), float(np.median(values)), float(np.mean(values))
  if len(values) == 1:
    return Summary(*center)
  interval = scipy.stats.bootstrap(
    (values,),
    np.median,
    confidence_level=confidence,
    method='percentile',
    rng=np.random.default_rng(seed),
  ).confidence_interval
  spread = np.std(values, ddof=1), interval.low, interval.high
  return Summary(*center, *map(float, spread))


def studentised(
  student: np.ndarray, baseline: np.ndarray, axis: int = -1
) -> np.ndarray:
  """Difference of the means in units of its own standard error.

  Welch's statistic. Permuted, it keeps its level for groups of unequal spread
  too, if they are large (Janssen 1997, "Studentized permutation tests for
  non-i.i.d. hypotheses and the generalized Behrens-Fisher problem").
  """
  error = np.sqrt(
    np.var(student, axis, ddof=1) / student.shape[axis]
    + np.var(baseline, axis, ddof=1) / baseline.shape[axis]
  )
  # Groups without any spread get a large number, not an infinite one.
  least = 1e-9 * max(np.max(np.abs(student)), np.max(np.abs(baseline)), 1e-9)
  difference = np.mean(student, axis) - np.mean(baseline, axis)
  return difference / np.maximum(error, least)


def permutation_test(
  student: Sequence[float] | np.ndarray,
  baseline: Sequence[float] | np.ndarray,
  rng: np.random.Generator,
  statistic: Callable[..., np.ndarray] = studentised,
  resamples: int = _RESAMPLES,
) -> float | np.ndarray:
  """P-value of "`student` is higher" by a permutation test.

  It is exact for groups of the same distribution, with or without ties. All
  splits of the pooled scores are counted if there are at most `resamples`,
  otherwise that many random ones and the observed one.

  Args:
    student: [..., n] scores, n > 1; leading axes hold independent cases.
    baseline: [..., m] scores, m > 1.
    rng: draws the splits.
    statistic: larger where `student` is higher.
    resamples: the largest number of splits.

  Returns:
    The p-value, [...].

  Example:
    One of the 20 splits of six scores is as extreme as this one.

    >>> rng = np.random.default_rng(0)
    >>> float(permutation_test([4.0, 5.0, 6.0], [1.0, 2.0, 3.0], rng))
    0.05
  """

  def rounded(first: np.ndarray, second: np.ndarray, axis: int) -> np.ndarray:
    # Splits that are equal but for their order differ by rounding.
    return np.round(statistic(first, second, axis), 6)

  found = scipy.stats.permutation_test(
    (checked(student, 2), checked(baseline, 2)),
    rounded,
    permutation_type='independent',
    vectorized=True,
    n_resamples=resamples,
    batch=5000,
    alternative='greater',
    axis=-1,
    rng=rng,
  )
  return found.pvalue[()]  # A float for one case, not an array without axes.


def mann_whitney(
  student: Sequence[float] | np.ndarray,
  baseline: Sequence[float] | np.ndarray,
  alternative: Literal['greater', 'two-sided'] = 'greater',
) -> float | np.ndarray:
  """P-value of the Mann-Whitney U test, one-sided or two-sided.

  For groups of up to 8 seeds all splits are counted, with or without ties; for
  larger ones the normal approximation is corrected for ties and continuity.
  Takes [..., n] and [..., m] scores, n and m > 1, and returns [...].

  Example:
    >>> float(mann_whitney([4.0, 5.0, 6.0], [1.0, 2.0, 3.0]))
    0.05
  """
  student, baseline = checked(student, 2), checked(baseline, 2)
  method = 'asymptotic'
  seeds = student.shape[-1], baseline.shape[-1]
  if math.comb(sum(seeds), seeds[0]) <= _EXACT_RANKS:
    method = scipy.stats.PermutationMethod(n_resamples=np.inf, batch=1000)
  found = scipy.stats.mannwhitneyu(
    student, baseline, alternative=alternative, method=method, axis=-1
  )
  return found.pvalue[()]


def better_than_all(p_values: Sequence[float]) -> float:
  """P-value of "better than every baseline": the largest (Berger 1982)."""
  return float(max(p_values))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
  """P-values after the Holm-Bonferroni correction for several tests.

  None stands for no test: it stays None and is not counted.

  Example:
    >>> holm([0.01, None, 0.04, 0.03])
    [0.03, None, 0.06, 0.06]
  """
  tested = sorted(
    (p, place) for place, p in enumerate(p_values) if p is not None
  )
  result: list[float | None] = [None] * len(p_values)
  highest = 0.0
  for rank, (p, place) in enumerate(tested):
    highest = max(highest, min(1.0, (len(tested) - rank) * p))
    result[place] = highest
  return result


def superiority(student: Sequence[float], baseline: Sequence[float]) -> float:
  """Share of pairs of seeds in which the student is higher, 0 to 1.

  A tie counts as half a pair.

  Vargha and Delaney's A (2000), the common-language effect size.

  Example:
    >>> superiority([2.0, 3.0], [1.0, 2.0])
    0.875
  """
  pairs = np.subtract.outer(checked(student), checked(baseline))
  return float(np.mean((np.sign(pairs) + 1) / 2))


def shift(student: Sequence[float], baseline: Sequence[float]) -> float:
  """How much higher the student's scores are, in their unit.

  Hodges and Lehmann's estimate (1963): the median difference of all pairs.

  Example:
    >>> shift([3.0, 5.0], [1.0, 2.0])
    2.5
  """
  pairs = np.subtract.outer(checked(student), checked(baseline))
  return float(np.median(pairs))


def effect(
  student: Sequence[float], baseline: Sequence[float]
) -> dict[str, float]:
  """`shift` and `superiority`; nan if a score is undefined."""
  if not is_defined([*student, *baseline]):
    return {'shift': math.nan, 'superiority': math.nan}
  return {
    'shift': shift(student, baseline),
    'superiority': superiority(student, baseline),
  }


def smallest_p_value(
  student: int, baseline: int, resamples: int = _RESAMPLES
) -> float:
  """Smallest possible p-value of `permutation_test` for these group sizes."""
  splits = math.comb(student + baseline, student)
  return 1 / splits if splits <= resamples else 1 / (resamples + 1)


def seeds_needed(tests: int, level: float = 0.05) -> int:
  """Seeds per group that a table of `tests` cells needs for any star.

  A corrected p-value has to be below `level`: with one test, 1 / 20 is not
  below .05, but 1 / 70 is. Raises ValueError if no number of seeds is enough.

  Example:
    >>> seeds_needed(tests=1), seeds_needed(tests=9)
    (4, 5)
  """
  if tests >= level * (_RESAMPLES + 1):
    raise ValueError(f'{tests} tests are too many for level {level}')
  seeds = 2
  while holm([smallest_p_value(seeds, seeds)] * tests)[0] >= level:
    seeds += 1
  return seeds


def judge(
  table: Mapping[Hashable, tuple[Sequence[float], Sequence[Sequence[float]]]],
  seed: int = 0,
) -> dict[Hashable, Verdict]:
  """Tests each cell of a table: is the student better than every baseline?

  Args:
    table: cell -> the student's scores by seed, and those of each baseline. A
      cell is not tested if a group has fewer than two scores or an undefined
      one, nan: leaving that seed out would be a choice of seeds.
    seed: seeds the permutations. It is the same in each cell, so that a p-value
      depends on the scores of its own cell alone.

  Example:
    >>> scores = ([4.0, 5.0, 6.0, 7.0], [[0.0, 1.0, 2.0, 3.0]])
    >>> judge({'rte': scores})['rte'].stars
    '*'
    >>> judge(dict.fromkeys('abcd', scores))['a'].reason
    'not enough seeds'
  """
  p_values: dict[Hashable, float | None] = dict.fromkeys(table)
  smallest: dict[Hashable, float | None] = dict.fromkeys(table)
  undefined = {
    cell
    for cell, (student, baselines) in table.items()
    if not all(is_defined(group) for group in (student, *baselines))
  }
  tested = {
    cell: [(student, baseline) for baseline in baselines]
    for cell, (student, baselines) in table.items()
    if baselines and min(len(g) for g in (student, *baselines)) > 1
    if cell not in undefined
  }
  of_each = iter(
    _permuted([p for pairs in tested.values() for p in pairs], seed)
  )
  for cell, (student, baselines) in table.items():
    if cell in tested:
      p_values[cell] = better_than_all([next(of_each) for _ in baselines])
      least = [smallest_p_value(len(student), len(b)) for b in baselines]
      smallest[cell] = better_than_all(least)
  return verdicts(p_values, smallest, undefined)


def is_defined(scores: Sequence[float]) -> bool:
  """Whether no score is undefined."""
  return bool(np.all(np.isfinite(scores)))


def _permuted(
  pairs: Sequence[tuple[Sequence[float], Sequence[float]]], seed: int
) -> list[float]:
  """P-values of `permutation_test`; pairs of equal sizes share the splits.

  Drawing the splits is most of the work.
  """
  by_sizes: dict[tuple[int, int], list[int]] = {}
  for place, (student, baseline) in enumerate(pairs):
    by_sizes.setdefault((len(student), len(baseline)), []).append(place)
  result = [math.nan] * len(pairs)
  for places in by_sizes.values():
    for start in range(0, len(places), _PAIRS_AT_ONCE):
      chosen = places[start : start + _PAIRS_AT_ONCE]
      groups = ([pairs[i][side] for i in chosen] for side in (0, 1))
      found = permutation_test(*groups, np.random.default_rng(seed))
      for place, p_value in zip(chosen, found):
        result[place] = float(p_value)
  return result


def verdicts(
  p_values: Mapping[Hashable, float | None],
  smallest: Mapping[Hashable, float | None],
  undefined: Collection[Hashable] = (),
) -> dict[Hashable, Verdict]:
  """The verdict of each cell, after Holm's correction over all cells.

  Args:
    p_values: cell -> p-value; None if there is no test.
    smallest: the same cells -> the smallest possible p-value of the test.
    undefined: cells that are not tested because a score is undefined.
  """
  corrected = holm(list(p_values.values()))
  # The p-values if every cell were as clear as it can be.
  best = holm(list(smallest.values()))
  return {
    cell: Verdict(None, None, '', UNDEFINED)
    if cell in undefined
    else _verdict(p_values[cell], now, possible)
    for cell, now, possible in zip(p_values, corrected, best)
  }


def _verdict(
  p_value: float | None, corrected: float | None, best: float | None
) -> Verdict:
  level = max(limit for _, limit in STARS)
  if best is None or best >= level:
    return Verdict(p_value, corrected, '', NOT_ENOUGH_SEEDS)
  for stars, limit in STARS:
    if corrected < limit:
      return Verdict(p_value, corrected, stars, '')
  return Verdict(p_value, corrected, '', NOT_SIGNIFICANT)


def checked(scores: Sequence[float] | np.ndarray, least: int = 1) -> np.ndarray:
  """Scores [..., n] as float64; raises ValueError if one is missing or nan."""
  values = np.asarray(scores, np.float64)
  if values.ndim < 1 or values.shape[-1] < least:
    raise ValueError(f'scores of at least {least} seeds, not {values.shape}')
  if not np.all(np.isfinite(values)):
    raise ValueError(f'scores must be finite: {scores}')
  return values
