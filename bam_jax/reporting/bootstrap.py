"""The paper's test: a bootstrap over seeds and examples.

Not calibrated, and so no ground for a star: `statistics` has the figures.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Literal

import numpy as np

RESAMPLES = 9_999
_ROWS = 1 << 20  # Numbers a block of resampled examples may hold.

# outputs [S, N] and how often each example was drawn [B, N] -> scores [B, S]
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]


def mean_score(outputs: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """Score of a metric that is a mean over examples, such as accuracy.

  Takes what each example contributes by seed, [S, N], and how often it was
  drawn, [B, N]. Returns [B, S].
  """
  totals = counts @ np.asarray(outputs, np.float64).T
  return totals / counts.sum(axis=1, keepdims=True)


def bootstrap_test(
  student: Sequence[np.ndarray],
  baseline: Sequence[np.ndarray],
  rng: np.random.Generator,
  scores: Sequence[Score] | None = None,
  statistic: Callable[..., np.ndarray] = np.median,
  method: Literal['shifted', 'percentile'] = 'shifted',
  resamples: int = RESAMPLES,
) -> float:
  """P-value of "`student` is higher", as in the paper's main table.

  Every resample draws the examples of each task anew, the same for both
  groups, and the seeds of each group, the same for all tasks. A seed's score
  is the mean of its tasks' scores; groups differ by the statistic of their
  seeds' scores. The paper names a bootstrap hypothesis test and no more, and
  its code has none. `shifted` is the textbook's: resampled differences, moved
  to lie around zero, against the observed one (Efron and Tibshirani 1993, "An
  Introduction to the Bootstrap", chapter 16). `percentile` is the share of
  resampled differences that are not above zero. Neither is calibrated.

  Args:
    student: an array [S, N] a task: for the default score what each example
      contributes, such as 1 where a prediction is right, otherwise predictions.
    baseline: an array [R, N] a task, for the same examples.
    rng: draws seeds and examples.
    scores: one a task; None: `mean_score` of all.
    statistic: of the scores of a group, with `axis`.
    method: how the p-value is read off the resampled differences.
    resamples: how many; the p-value is at least 1 / (resamples + 1).

  Raises:
    ValueError: groups differ in tasks or examples, or tasks in seeds.
  """
  scores = [mean_score] * len(student) if scores is None else scores
  pairs = list(zip(student, baseline, scores, strict=True))
  if not pairs or len({(len(a), len(b)) for a, b, _ in pairs}) > 1:
    raise ValueError('no task, or tasks of different seeds')
  drawn = [drawn_scores((a, b), score, rng, resamples) for a, b, score in pairs]
  groups = [np.mean([pair[i] for pair in drawn], axis=0) for i in (0, 1)]
  return p_value(*groups, rng, statistic, method)


def p_value(
  student: np.ndarray,
  baseline: np.ndarray,
  rng: np.random.Generator,
  statistic: Callable[..., np.ndarray] = np.median,
  method: Literal['shifted', 'percentile'] = 'shifted',
) -> float:
  """The test of scores [1 + B, S] and [1 + B, R] that `drawn_scores` gave.

  Draws the seeds; the other arguments are those of `bootstrap_test`. A resample
  with an undefined score, nan, counts against the claim: without it, the test
  would be of chosen resamples.

  Raises:
    ValueError: a score over all examples is undefined, so there is no test.
  """
  if not np.all(np.isfinite([*student[0], *baseline[0]])):
    raise ValueError('a score over all examples is undefined')
  observed = float(
    np.subtract(*(statistic(g[0], axis=0) for g in (student, baseline)))
  )
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
  """Scores of a task by seed, over all its examples and over draws of them.

  Args:
    groups: outputs [S, N] of each, for the same examples.
    score: of such outputs.
    rng: draws the examples, the same for all groups.
    resamples: how many, B.

  Returns:
    [1 + B, S] a group; the first row is of all examples.

  Raises:
    ValueError: groups differ in examples.
  """
  sizes = {group.shape[1] for group in groups}
  if len(sizes) > 1:
    raise ValueError(f'groups of {sorted(sizes)} examples')
  examples = sizes.pop()
  parts, block = [], max(1, _ROWS // examples)
  for start in range(-block, resamples, block):
    if start < 0:
      counts = np.ones((1, examples), np.int64)
    else:
      # Numbers of (resample, example) are faster than a multinomial draw.
      size = min(block, resamples - start)
      drawn = rng.integers(examples, size=(size, examples))
      drawn += examples * np.arange(size)[:, None]
      counts = np.bincount(drawn.ravel(), minlength=drawn.size)
      counts = counts.reshape(drawn.shape)
    parts.append([score(group, counts) for group in groups])
  return [np.concatenate(of_group) for of_group in zip(*parts)]
