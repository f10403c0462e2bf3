"""Is one variant better than another? Tests of scores over seeds.

Stars come from permuting Welch's statistic over seeds, after Holm's correction.
Percent of trials with p <= .05 where no variant is better, at 5, 10, 20 seeds
(benchmarks/false_positives.json; standard errors 0.2 to 0.7):

                            equal, large set  unequal spread  other examples
  permutation, studentised  4.6   5.4  4.5    5.5  5.2  5.2   5.4  7.1  9.4
  permutation, medians      2.2   5.1  4.5    2.2  9.3  9.1   2.5  6.3  7.6
  Mann-Whitney U            4.6   4.9  4.5    5.0  5.6  5.8   5.5  6.5  9.2
  bootstrap, medians       11.5   8.9  9.0    5.4  4.6  3.5   4.5  3.6  4.2

The paper's bootstrap, the last, is too bold where the noise is of seeds alone.
A star is of this development set: what the variants would do on other examples
only the bootstrap asks. Seeds alike in both groups make all tests strict.
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
_TOGETHER = 16  # Pairs whose splits are in memory at once.
_EXACT_RANKS = 20_000  # Two groups of 8 seeds: 12,870 splits.


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What a cell of the table may claim.

  Attributes:
    p_value: of what the table claims, before correction; None: fewer than two
      seeds.
    corrected: the same after Holm's correction over the table.
    stars: `*`, `**` or `***` by the corrected p-value, otherwise empty.
    reason: why there is no star; empty where there is one.
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
    deviation: standard deviation, ddof 1; None of one seed, or with an
      undefined score.
    low, high: confidence interval of the median; None likewise.
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

  The interval is the percentile bootstrap's. BCa would correct it by the
  jackknife, which fails for a median (Efron 1982, "The Jackknife, the Bootstrap
  and Other Resampling Plans"): leaving out one of n scores gives two or three
  different medians only. `scores` is [n], n > 0; `seed` is of the resampling.

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
  """P-value of "`student` is higher", by dealing the scores out again.

  Exact for groups of the same distribution, ties or not: all splits are
  counted if there are at most `resamples`, otherwise that many random ones and
  the observed one.

  Args:
    student: [..., n] scores, n > 1; leading axes hold independent cases.
    baseline: [..., m] scores, m > 1.
    rng: draws the splits.
    statistic: larger where `student` is higher.
    resamples: how many splits at most.

  Returns:
    The p-value, [...].

  Example:
    One of the 20 splits of six scores is as extreme as this one.

    >>> rng = np.random.default_rng(0)
    >>> float(permutation_test([4.0, 5.0, 6.0], [1.0, 2.0, 3.0], rng))
    0.05
  """

  def rounded(first: np.ndarray, second: np.ndarray, axis: int) -> np.ndarray:
    # Equal splits in another order differ by rounding, and are to tie.
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
  return found.pvalue[()]  # of one case a float, not an array without axes


def mann_whitney(
  student: Sequence[float] | np.ndarray,
  baseline: Sequence[float] | np.ndarray,
  alternative: Literal['greater', 'two-sided'] = 'greater',
) -> float | np.ndarray:
  """P-value of "`student` is higher", or of "it differs", Mann-Whitney U.

  All splits are counted for groups of up to 8 seeds, ties or not; beyond, the
  normal approximation with corrections for ties and continuity. Arguments and
  result as of `permutation_test`.

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
  """Holm-Bonferroni: p-values that may be held against one level together.

  None stands for no test: it stays None, and is not counted.

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
  """Chance that a student's score is the higher one, ties half; 0 to 1.

  Vargha and Delaney's A (2000), the common-language effect size.

  Example:
    >>> superiority([2.0, 3.0], [1.0, 2.0])
    0.875
  """
  pairs = np.subtract.outer(checked(student), checked(baseline))
  return float(np.mean((np.sign(pairs) + 1) / 2))


def shift(student: Sequence[float], baseline: Sequence[float]) -> float:
  """By how much the student is higher, in the unit of the scores.

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
  measures = {'shift': shift, 'superiority': superiority}
  if not is_defined([*student, *baseline]):
    return dict.fromkeys(measures, math.nan)
  return {name: of(student, baseline) for name, of in measures.items()}


def smallest_p_value(
  student: int, baseline: int, resamples: int = _RESAMPLES
) -> float:
  """The smallest p-value that `permutation_test` can give to so many seeds."""
  splits = math.comb(student + baseline, student)
  return 1 / splits if splits <= resamples else 1 / (resamples + 1)


def seeds_needed(tests: int, level: float = 0.05) -> int:
  """Seeds a group with which a table of `tests` cells can have any star.

  A corrected p-value has to be below `level`: of one test, 1 / 20 is not below
  .05, but 1 / 70 is. ValueError where no number of seeds is enough.

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
  """A verdict a cell of a table, by the test that the module names.

  Args:
    table: cell -> scores of the student by seed, and of each baseline. A cell
      in which a group has fewer than two scores, or an undefined one, nan, is
      no test: without that seed it would be one of chosen seeds.
    seed: of the permutations, the same in each cell, so that a p-value follows
      from the scores of its own cell.

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
  """`permutation_test` of each pair; those of equal sizes share its splits.

  Drawing these is most of the work, and a seed draws the same ones each time.
  """
  by_sizes: dict[tuple[int, int], list[int]] = {}
  for place, (student, baseline) in enumerate(pairs):
    by_sizes.setdefault((len(student), len(baseline)), []).append(place)
  result = [math.nan] * len(pairs)
  for places in by_sizes.values():
    for start in range(0, len(places), _TOGETHER):
      chosen = places[start : start + _TOGETHER]
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
  """A verdict a cell, after Holm's correction over all of them.

  Args:
    p_values: cell -> p-value; None where there is no test.
    smallest: the same cells -> the smallest that the test can give.
    undefined: cells that are not tested as they hold an undefined score.
  """
  corrected = holm(list(p_values.values()))
  # What each cell would get if every cell were as clear as it can be.
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
  """Scores [..., n] as float64; raises where a test would go on silently."""
  values = np.asarray(scores, np.float64)
  if values.ndim < 1 or values.shape[-1] < least:
    raise ValueError(f'scores of at least {least} seeds, not {values.shape}')
  if not np.all(np.isfinite(values)):
    raise ValueError(f'scores must be finite: {scores}')
  return values
