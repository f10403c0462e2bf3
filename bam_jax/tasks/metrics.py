"""The metrics, and the two averages over GLUE.

A metric is a function and one line of `METRICS`. Its function takes predictions
[..., N], gold labels [N] and, for a bootstrap, counts [B, N]: how often each
resample drew each example. It returns [..., B]; without counts every example
counts once, and it returns [...]. It never warns.

Other metrics take tallies [..., N, n] or [..., N, labels, n] instead of
predictions: n numbers per example, such as the counts of true positives,
predicted and gold positives. They are functions of the summed tallies.

An undefined score is nan: a correlation with a constant input, or F1 without a
positive in prediction or gold. A mean of scores is nan if one of them is.
"""

from collections.abc import Callable, Mapping, Sequence
import math
from typing import Literal, NamedTuple

import numpy as np

from bam_jax.tasks import task as task_lib

Counts = np.ndarray | None


def _check(
  predictions: np.ndarray, gold: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Converts both to arrays; raises ValueError if their sizes don't match."""
  predictions, gold = np.asarray(predictions), np.asarray(gold)
  if gold.ndim != 1 or predictions.shape[-1:] != gold.shape:
    raise ValueError(
      f'predictions {predictions.shape} must be [..., N] and gold'
      f' {gold.shape} must be [N]'
    )
  if not len(gold):
    raise ValueError('no row to score')
  return predictions, gold


def _total(chosen: np.ndarray, counts: Counts) -> np.ndarray:
  """Counts the chosen examples in each resample."""
  if counts is None:
    return np.sum(chosen, axis=-1, dtype=np.float64)
  # Whole numbers below 2^24 are exact in float32, and twice as fast.
  total = chosen.astype(np.float32) @ np.asarray(counts, np.float32).T
  return total.astype(np.float64)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
  """Divides two arrays; nan where the denominator is 0."""
  defined = denominator > 0
  return np.where(defined, numerator, np.nan) / np.where(
    defined, denominator, 1.0
  )


def accuracy(
  predictions: np.ndarray, gold: np.ndarray, counts: Counts = None
) -> np.ndarray:
  """Share of predictions that equal the gold label, 0 to 1."""
  predictions, gold = _check(predictions, gold)
  rows = _total(np.ones(len(gold), bool), counts)
  return _total(predictions == gold, counts) / rows


def f1(
  predictions: np.ndarray, gold: np.ndarray, counts: Counts = None
) -> np.ndarray:
  """F1 of class 1, 0 to 1; nan if it is neither predicted nor gold."""
  predictions, gold = _check(predictions, gold)
  predicted, positive = predictions == 1, gold == 1
  # 2PR / (P + R) with both denominators multiplied out.
  hits = _total(predicted & positive, counts)
  either = _total(predicted, counts) + _total(positive, counts)
  return _ratio(2 * hits, either)


def matthews(
  predictions: np.ndarray, gold: np.ndarray, counts: Counts = None
) -> np.ndarray:
  """Matthews correlation, -1 to 1, of any number of classes.

  The covariance of the one-hot assignments over the root of their variances
  (Gorodkin 2004, "Comparing two K-category assignments by a K-category
  correlation coefficient"); of two classes the usual coefficient. nan if either
  input is constant.
  """
  predictions, gold = _check(predictions, gold)
  rows = _total(np.ones(len(gold), bool), counts)
  covariance = rows * _total(predictions == gold, counts)
  spread_predicted, spread_gold = rows**2, rows**2
  for label in np.union1d(predictions, gold):
    predicted = _total(predictions == label, counts)
    actual = _total(gold == label, counts)
    covariance = covariance - predicted * actual
    spread_predicted = spread_predicted - predicted**2
    spread_gold = spread_gold - actual**2
  return _ratio(covariance, np.sqrt(spread_predicted * spread_gold))


def pearson(
  predictions: np.ndarray, gold: np.ndarray, counts: Counts = None
) -> np.ndarray:
  """Pearson's linear correlation, -1 to 1; nan if either input is constant."""
  return _correlation(predictions, gold, counts, is_of_ranks=False)


def spearman(
  predictions: np.ndarray, gold: np.ndarray, counts: Counts = None
) -> np.ndarray:
  """Spearman's rank correlation, -1 to 1; nan if either input is constant."""
  return _correlation(predictions, gold, counts, is_of_ranks=True)


def _correlation(
  predictions: np.ndarray, gold: np.ndarray, counts: Counts, is_of_ranks: bool
) -> np.ndarray:
  """Linear correlation of values or ranks; nan if a value is not finite."""
  predictions, gold = _check(predictions, gold)
  rows = predictions.reshape(-1, len(gold)).astype(np.float64)
  gold = gold.astype(np.float64)
  if counts is None:
    found = np.array([_correlate(row, gold, is_of_ranks) for row in rows])
    return found.reshape(predictions.shape[:-1])[()]
  counts = np.asarray(counts)
  weights = np.ascontiguousarray(counts.T, np.float64)  # [N, B]
  total = np.sum(weights, axis=0)
  single = weights.astype(np.float32)  # Exact, and faster to rank.

  def moments(values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns values, means, centred sums of squares, and sums of squares."""
    if is_of_ranks:
      values = _ranks(values, single).astype(np.float64)
      mean = np.einsum('nb,nb->b', weights, values) / total
      squares = np.einsum('nb,nb,nb->b', weights, values, values)
    else:
      values = values - np.mean(values)
      mean, squares = values @ weights / total, values**2 @ weights
    return values, mean, squares - total * mean**2, squares

  y, mean, y_centred, y_squares = moments(gold)
  y = weights * (y.reshape(len(gold), -1) - mean)
  found = []
  for row in rows:
    if not np.all(np.isfinite(row)):
      found.append(np.full(len(counts), math.nan))
      continue
    x, _, x_centred, x_squares = moments(row)
    products = np.einsum('nb,nb->b', y, x) if is_of_ranks else x @ y
    norm = np.sqrt(np.abs(x_centred * y_centred))
    scores = products / np.where(norm > 0, norm, 1.0)
    # Of almost equal values rounding errors are too large.
    vague = (x_centred < 1e-6 * x_squares) | (y_centred < 1e-6 * y_squares)
    for i in np.flatnonzero(vague | ~(norm > 0)):
      x, drawn = np.repeat([row, gold], counts[i].astype(int), axis=1)
      scores[i] = _correlate(x, drawn, is_of_ranks)
    found.append(np.clip(scores, -1.0, 1.0))
  return np.reshape(found, (*predictions.shape[:-1], len(counts)))


def _correlate(x: np.ndarray, y: np.ndarray, is_of_ranks: bool) -> float:
  """Linear correlation of [N] values or their ranks; nan if undefined."""
  # A rank would hide what is not finite.
  if not np.all(np.isfinite([x, y])) or np.ptp(x) == 0 or np.ptp(y) == 0:
    return math.nan
  if is_of_ranks:
    x, y = (_ranks(values, np.ones((len(x), 1)))[:, 0] for values in (x, y))
  # By the range first: the square of a tiny deviation underflows.
  x, y = ((values - np.mean(values)) / np.ptp(values) for values in (x, y))
  x, y = (values / np.sqrt(np.vecdot(values, values)) for values in (x, y))
  return float(np.clip(np.vecdot(x, y), -1.0, 1.0))


def _ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """Ranks the values of each resample, [N, B].

  The result is the number of lower values plus that of lower or equal ones. It
  is linear in the rank, where ties share the mean of their ranks.
  """
  _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
  ends = np.cumsum(sizes)
  below = np.empty((len(values) + 1, counts.shape[1]), counts.dtype)
  below[0] = 0
  order = np.argsort(group, kind='stable')
  np.cumsum(counts[order], axis=0, out=below[1:])
  return below[(ends - sizes)[group]] + below[ends[group]]


def _tallied_f1(sums: np.ndarray) -> np.ndarray:
  both, predicted, gold = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
  return _ratio(2 * both, predicted + gold)


def _micro_f1(sums: np.ndarray) -> np.ndarray:
  return _tallied_f1(np.sum(sums, axis=-2))


def _macro_f1(sums: np.ndarray) -> np.ndarray:
  """Averages the F1 of the labels.

  A label that is neither predicted nor gold counts as 0, as in scikit-learn;
  if that holds for all labels, the mean is undefined.
  """
  by_label = _tallied_f1(sums)
  undefined = np.isnan(by_label)
  mean = np.mean(np.where(undefined, 0.0, by_label), axis=-1)
  return np.where(undefined.all(axis=-1), np.nan, mean)


def _share(numerator: int, denominator: int) -> Callable[..., np.ndarray]:
  """Makes a function that divides one of the sums by another."""
  return lambda sums: _ratio(sums[..., numerator], sums[..., denominator])


def _of_tallies(
  of_sums: Callable[[np.ndarray], np.ndarray],
) -> Callable[..., np.ndarray]:
  """Makes a metric of tallies from a function of their sums."""

  def metric(
    tally: np.ndarray, gold: np.ndarray | None = None, counts: Counts = None
  ) -> np.ndarray:
    del gold  # Gold labels are in the tallies.
    if counts is None:
      return of_sums(np.sum(tally, axis=0))
    sums = np.tensordot(counts, tally, axes=([1], [1]))  # [B, S, ...]
    return np.swapaxes(of_sums(sums), 0, 1)

  return metric


class Metric(NamedTuple):
  """A metric, which can be called with predictions, gold and counts."""

  measures: str  # Kinds with the same `measures` have the metric.
  function: Callable[..., np.ndarray]
  # What the gold labels must have so that the score is defined and not always
  # 0: a positive (see `Kind.is_positive`), different labels, or nothing.
  needs: Literal['positive', 'variety', ''] = ''
  reason: str = ''  # Why it is undefined; if empty, `why_undefined` finds out.

  def __call__(
    self, predictions: np.ndarray, gold: np.ndarray, counts: Counts = None
  ) -> np.ndarray:
    return self.function(predictions, gold, counts)


_NO_LABEL = 'no label is gold and none is predicted'
_NO_SPAN = 'no span is gold and none is predicted'
METRICS: dict[str, Metric] = {
  'accuracy': Metric('classes', accuracy),
  'f1': Metric('classes', f1, 'positive'),
  'matthews': Metric('classes', matthews, 'variety'),
  'pearson': Metric('scores', pearson, 'variety'),
  'spearman': Metric('scores', spearman, 'variety'),
  'micro_f1': Metric('labels', _of_tallies(_micro_f1), 'positive', _NO_LABEL),
  'macro_f1': Metric('labels', _of_tallies(_macro_f1), 'positive', _NO_LABEL),
  'span_f1': Metric('spans', _of_tallies(_tallied_f1), 'positive', _NO_SPAN),
  'span_precision': Metric(
    'spans', _of_tallies(_share(0, 1)), reason='no span is predicted'
  ),
  'span_recall': Metric(
    'spans', _of_tallies(_share(0, 2)), 'positive', 'no span is gold'
  ),
  'answer_f1': Metric('answers', _of_tallies(_share(1, 2))),
  'exact_match': Metric('answers', _of_tallies(_share(0, 2))),
}


def compute(
  names: Sequence[str], predictions: np.ndarray, gold: np.ndarray | None
) -> dict[str, float]:
  """Computes metrics of `METRICS` times 100, by name; nan where undefined."""
  return {n: 100.0 * float(METRICS[n](predictions, gold)) for n in names}


def why_undefined(
  metric: str, predictions: np.ndarray, gold: np.ndarray | None
) -> str:
  """Explains why a metric of `METRICS` is nan for these arguments.

  >>> why_undefined('f1', np.array([0, 0]), np.array([0, 2]))
  'all predictions are equal'
  """
  if reason := METRICS[metric].reason:
    return reason
  both = {'gold label': gold, 'prediction': predictions}
  for what, values in both.items():
    if not np.all(np.isfinite(values)):
      return f'a {what} is not a finite number'
  return ', and '.join(
    f'all {what}s are equal'
    for what, values in both.items()
    if np.ptp(values) == 0
  )


def is_above(score: float, constant: float) -> bool:
  """Whether a score is better than that of a constant prediction.

  An undefined score is not. Where that of the constant is undefined, 0 stands
  for it: no correlation, no positive found.
  """
  return score > (0.0 if math.isnan(constant) else constant)


def averages(
  tasks: Sequence[task_lib.Task],
  scores: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> dict[str, float]:
  """Averages the scores of the tasks as the paper does, and as GLUE does.

  Tasks without `in_average` are left out.

  Args:
    tasks: the tasks to average over.
    scores: task name -> dev split -> metric -> value.

  Returns:
    `paper`: mean over tasks of `paper_metric` on the first dev split. `glue`:
    mean over tasks of the mean of `metrics` over all dev splits. nan if a score
    is nan: averages over fewer tasks could not be compared.

  Raises:
    KeyError: a task, split or metric has no score.
  """
  counted = [task for task in tasks if task.in_average]
  if not counted:
    return {'paper': math.nan, 'glue': math.nan}
  paper, glue = [], []
  for task in counted:
    by_split = [scores[task.name][split] for split in task.dev_splits]
    paper.append(by_split[0][task.paper_metric])
    glue.append(
      np.mean([found[name] for found in by_split for name in task.metrics])
    )
  return {'paper': float(np.mean(paper)), 'glue': float(np.mean(glue))}
