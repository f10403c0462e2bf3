"""Tests over seeds and examples: the paper's bootstrap, and a t-test.

The paper mentions a bootstrap hypothesis test without details, and the paper's
code does not contain it. docs/results/README.md and
benchmarks/false_positives.json have the false-positive rates of both tests.
"""

from collections.abc import Callable, Sequence
import math
from typing import Literal, NamedTuple

import numpy as np
import scipy.stats

RESAMPLES = 9_999
# Lowest and highest false-positive rate over the simulated settings of
# benchmarks/false_positives.json: of the paper's bootstrap, and of the interval
# of its resamples.
ERROR_RATES = '2.8 to 11.5% (n = 5), 2.4 to 8.9% (n = 10), 2.4 to 9.0% (n = 20)'
INTERVAL_RATES = (
  '0.1 to 3.6% (n = 5), 0.1 to 4.5% (n = 10), 0.1 to 4.0% (n = 20)'
)
_MAX_COUNTS = 1 << 18  # Resamples x examples per block; fits into a cache.

# Takes outputs [S, N, ...], and counts [B, N] of how often each resample drew
# each example; returns scores [S, B].
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]


def p_value(
  student: np.ndarray,
  baseline: np.ndarray,
  rng: np.random.Generator,
  statistic: Callable[..., np.ndarray] = np.median,
) -> float:
  """Tests whether `student` is higher, by the paper's bootstrap.

  The observed difference is subtracted from the resampled differences, which
  centres them on zero. The p-value is the share of the centred differences that
  are at least as large as the observed difference (Efron and Tibshirani 1993,
  "An Introduction to the Bootstrap", chapter 16). A resample with an undefined
  score (nan) counts against the claim, because leaving out such resamples would
  bias the test. The arguments are those of `differences`.

  Returns:
    The one-sided p-value, which is at least 1 / (B + 1).
  """
  observed, drawn = differences(student, baseline, rng, statistic)
  # The tolerance is for rounding errors: the mean of equal numbers in another
  # order may differ in the last digits.
  extreme = (drawn - observed >= observed - 1e-12) | np.isnan(drawn)
  return float((1 + np.count_nonzero(extreme)) / (1 + len(extreme)))


def differences(
  student: np.ndarray,
  baseline: np.ndarray,
  rng: np.random.Generator,
  statistic: Callable[..., np.ndarray],
) -> tuple[float, np.ndarray]:
  """Returns the observed difference of two groups' scores, and resampled ones.

  Args:
    student: [1 + B, S] scores of S seeds, over all examples (first row) and
      over each of B resamples; see `drawn_scores`.
    baseline: [1 + B, R] scores of R seeds, over the same resamples.
    rng: resamples the seeds of each group.
    statistic: reduces the scores of a group along `axis`, such as `np.median`.

  Returns:
    The observed difference, over all examples and seeds; and [B] differences
    over resampled examples and seeds.

  Raises:
    ValueError: a score over all examples is undefined.
  """
  if not np.all(np.isfinite([*student[0], *baseline[0]])):
    raise ValueError('a score over all examples is undefined: no test')
  observed = statistic(student[0], axis=0) - statistic(baseline[0], axis=0)
  of_groups = []
  for group in (student, baseline):
    chosen = rng.integers(group.shape[1], size=group[1:].shape)
    drawn = np.take_along_axis(group[1:], chosen, axis=1)
    of_groups.append(statistic(drawn, axis=1))
  return observed, np.subtract(*of_groups)


class Difference(NamedTuple):
  """Difference of two variants' mean scores, with its standard error.

  Attributes:
    mean: mean score of the student minus mean score of the baseline.
    error: standard error of this difference.
    freedom: degrees of freedom of `error`.
    smallest: smallest possible p-value of a two-sided test.
  """

  mean: float
  error: float
  freedom: float
  smallest: float

  @property
  def half_width(self) -> float:
    """Half the width of the 95% interval of the difference."""
    return float(self.error * scipy.stats.t.ppf(0.975, self.freedom))

  def p_value(self, alternative: Literal['greater', 'two-sided']) -> float:
    """Returns the p-value of a t-test.

    `greater` tests whether the student is higher; `two-sided` tests whether the
    means differ.
    """
    sides = 2 if alternative == 'two-sided' else 1
    mean = abs(self.mean) if sides == 2 else self.mean
    if abs(mean) < 1e-9:  # The means are equal up to rounding.
      return 1.0 if sides == 2 else 0.5
    statistic = (
      mean / self.error if self.error else math.copysign(math.inf, mean)
    )
    p = scipy.stats.t.sf(statistic, self.freedom)
    return float(max(sides * p, sides * self.smallest / 2))


def difference(
  student: np.ndarray, baseline: np.ndarray, examples: int
) -> Difference | None:
  """Returns the difference of two groups' mean scores, with its standard error.

  Seeds and examples are both treated as random samples. The variance has three
  parts: one for the seeds of each of the two groups, and one for the examples,
  which both groups share. The variance over seeds already contains the
  interaction of seeds and examples, so this interaction is subtracted from the
  variance over examples, as in an analysis of variance with two crossed random
  factors. The degrees of freedom are Satterthwaite's (1946, "An Approximate
  Distribution of Estimates of Variance Components"). A group with one seed has
  no variance over seeds; if both groups have one seed, the test is over the
  examples only.

  Args:
    student: [1 + B, S] scores, as `drawn_scores` returns them. If B = 0, the
      test is over the seeds only.
    baseline: [1 + B, R] scores over the same resamples of examples.
    examples: number of examples; ignored if B = 0.

  Returns:
    The difference; None if B = 0 and both groups have one seed.
  """
  mean = float(np.mean(student[0]) - np.mean(baseline[0]))
  parts, smallest = [], 0.0  # Pairs: variance, degrees of freedom.
  if len(student) > 1:
    shared = np.var(student[1:].mean(axis=1) - baseline[1:].mean(axis=1))
    for group in (student, baseline):
      if (seeds := group.shape[1]) > 1:
        alone = np.mean(np.var(group[1:], axis=0))
        shared -= (alone - np.var(group[1:].mean(axis=1))) / (seeds - 1)
    parts.append((max(shared, 0.0), max(examples - 1, 1)))
    # The smallest p-value of a test that randomly swaps the two groups'
    # predictions of each example.
    smallest = 2.0 ** (1 - examples)
  for group in (student, baseline):
    if (seeds := group.shape[1]) > 1:
      parts.append((np.var(group[0], ddof=1) / seeds, seeds - 1))
  if not parts:
    return None
  variance = sum(part for part, _ in parts)
  freedom = variance**2 / max(sum(v**2 / df for v, df in parts), 1e-300)
  error = math.sqrt(variance)
  return Difference(mean, error, max(freedom, 1.0), smallest)


def drawn_scores(
  groups: Sequence[np.ndarray],
  score: Score,
  rng: np.random.Generator,
  resamples: int = RESAMPLES,
) -> list[np.ndarray]:
  """Scores each seed on all examples of a task, and on each resample.

  Every group has outputs [S, N, ...] for the same N examples. Each of the B
  resamples draws the same examples for all groups.

  Returns:
    For each group, [1 + B, S] scores; the first row is over all examples.

  Raises:
    ValueError: the groups have different numbers of examples.
  """
  sizes = {group.shape[1] for group in groups}
  if len(sizes) > 1:
    raise ValueError(f'groups differ in examples: {sorted(sizes)}')
  examples = sizes.pop()
  once = np.ones((1, examples), np.float32)
  parts = [[score(group, once).T for group in groups]]
  block = max(1, _MAX_COUNTS // examples)
  for start in range(0, resamples, block):
    # Counting random indices is faster than a multinomial draw. Each resample
    # has its own range of indices, so that one call counts all of them.
    size = min(block, resamples - start)
    drawn = rng.integers(examples, size=(size, examples))
    drawn += examples * np.arange(size)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=drawn.size)
    counts = counts.reshape(drawn.shape).astype(np.float32)
    parts.append([score(group, counts).T for group in groups])
  return [np.concatenate(of_group) for of_group in zip(*parts)]
