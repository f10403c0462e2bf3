"""The paper's test: a bootstrap over seeds and examples.

The test is not calibrated, so no star depends on it: see `statistics`. The
paper names a bootstrap hypothesis test without details; its code has none.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from bam_jax.tasks import metrics

RESAMPLES = 9_999
_MAX_COUNTS = 1 << 18  # Numbers in a block of resamples; it fits into a cache.

# Takes outputs [S, N, ...], and how often each resample drew each example,
# [B, N]; returns scores [S, B].
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]


def score_of(metric: str, gold: np.ndarray | None) -> Score:
  """Returns the function that scores resamples by one of `metrics.METRICS`.

  It takes predictions [S, N], or tallies [S, N, ...], which need no gold labels
  [N].
  """
  function = metrics.METRICS[metric]
  return lambda outputs, counts: function(outputs, gold, counts)


def p_value(
  student: np.ndarray,
  baseline: np.ndarray,
  rng: np.random.Generator,
  statistic: Callable[..., np.ndarray] = np.median,
  method: Literal['shifted', 'percentile'] = 'shifted',
) -> float:
  """Returns the p-value of "`student` is higher" by the paper's bootstrap.

  A resample with an undefined score, nan, counts against the claim: leaving it
  out would be a choice of resamples.

  Args:
    student: [1 + B, S] scores, as `drawn_scores` returns them.
    baseline: [1 + B, R] scores over the same draws of examples.
    rng: draws the seeds of each group.
    statistic: of the scores of a group, with `axis`.
    method: `shifted` moves the resampled differences to lie around zero and
      holds them against the observed one (Efron and Tibshirani 1993, "An
      Introduction to the Bootstrap", chapter 16); `percentile` is the share of
      resampled differences that are not above zero.

  Returns:
    The p-value, at least 1 / (B + 1).

  Raises:
    ValueError: a score over all examples is undefined, so there is no test.
  """
  if not np.all(np.isfinite([*student[0], *baseline[0]])):
    raise ValueError('a score over all examples is undefined: no test')
  observed = statistic(student[0], axis=0) - statistic(baseline[0], axis=0)
  of_groups = []
  for group in (student, baseline):
    chosen = rng.integers(group.shape[1], size=group[1:].shape)
    drawn = np.take_along_axis(group[1:], chosen, axis=1)
    of_groups.append(statistic(drawn, axis=1))
  difference = np.subtract(*of_groups)  # [B]
  # Means of the same numbers in another order differ by rounding.
  if method == 'shifted':
    extreme = difference - observed >= observed - 1e-12
  else:
    extreme = difference <= 1e-12
  extreme |= np.isnan(difference)
  return float((1 + np.count_nonzero(extreme)) / (1 + len(extreme)))


def drawn_scores(
  groups: Sequence[np.ndarray],
  score: Score,
  rng: np.random.Generator,
  resamples: int = RESAMPLES,
) -> list[np.ndarray]:
  """Scores each seed on all examples of a task, and on resamples of them.

  Every group has outputs [S, N, ...] for the same N examples. Each of the B
  resamples draws the same examples for all groups.

  Returns:
    Scores [1 + B, S] of each group; the first row is over all examples.

  Raises:
    ValueError: groups differ in examples.
  """
  sizes = {group.shape[1] for group in groups}
  if len(sizes) > 1:
    raise ValueError(f'groups differ in examples: {sorted(sizes)}')
  examples = sizes.pop()
  once = np.ones((1, examples), np.float32)
  parts = [[score(group, once).T for group in groups]]
  block = max(1, _MAX_COUNTS // examples)
  for start in range(0, resamples, block):
    # Numbers of (resample, example) are faster than a multinomial draw.
    size = min(block, resamples - start)
    drawn = rng.integers(examples, size=(size, examples))
    drawn += examples * np.arange(size)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=drawn.size)
    counts = counts.reshape(drawn.shape).astype(np.float32)
    parts.append([score(group, counts).T for group in groups])
  return [np.concatenate(of_group) for of_group in zip(*parts)]
