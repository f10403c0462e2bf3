"""Metrics for classification and multi-label tasks.

The arguments and results are those of `metrics`.
"""

from collections.abc import Callable
import math

import numpy as np

from bam_jax.tasks import resampled


def accuracy(
  predictions: np.ndarray, gold: np.ndarray, counts: resampled.Counts = None
) -> np.ndarray:
  """Share of predictions that equal the gold label, 0 to 1."""
  predictions, gold = resampled.check(predictions, gold)
  rows = resampled.total(np.ones(len(gold), bool), counts)
  return resampled.total(predictions == gold, counts) / rows


def f1(
  predictions: np.ndarray, gold: np.ndarray, counts: resampled.Counts = None
) -> np.ndarray:
  """F1 of class 1, 0 to 1; nan if it is neither predicted nor gold."""
  predictions, gold = resampled.check(predictions, gold)
  predicted, positive = predictions == 1, gold == 1
  # 2PR / (P + R) with both denominators multiplied out.
  hits = resampled.total(predicted & positive, counts)
  either = resampled.total(predicted, counts) + resampled.total(
    positive, counts
  )
  return resampled.ratio(2 * hits, either)


def _class_totals(
  predictions: np.ndarray, gold: np.ndarray, counts: resampled.Counts
) -> np.ndarray:
  """Counts the examples of each class: true positives, predicted and gold.

  Returns:
    [3, c, ..., B]. If each example has one class, c are the classes that are
    predicted or gold in any example.
  """
  if np.ndim(gold) == 2:
    predicted, actual = np.moveaxis(predictions, -1, 0) == 1, gold.T == 1
  else:
    predictions, gold = resampled.check(predictions, gold)
    classes = np.union1d(predictions, gold)
    predicted, actual = (
      values == np.expand_dims(classes, tuple(range(1, values.ndim + 1)))
      for values in (predictions, gold)
    )
  # [c, ..., N], like `predicted`.
  actual = np.expand_dims(actual, tuple(range(1, predicted.ndim - 1)))
  totals = [
    resampled.total(x, counts) for x in (predicted & actual, predicted, actual)
  ]
  return np.stack(np.broadcast_arrays(*totals))


def macro_f1(
  predictions: np.ndarray, gold: np.ndarray, counts: resampled.Counts = None
) -> np.ndarray:
  """Mean F1 of the classes or labels, 0 to 1.

  As in scikit-learn, a class that is neither predicted nor gold is left out,
  and a label without either counts as 0. nan if that holds for all labels.
  """
  hits, predicted, actual = _class_totals(predictions, gold, counts)
  either = predicted + actual
  total = np.sum(np.where(either > 0, 2 * hits, 0) / np.fmax(either, 1), axis=0)
  defined = np.sum(either > 0, axis=0)
  if np.ndim(gold) == 2:
    defined = np.where(defined > 0, len(either), 0)
  return resampled.ratio(total, defined)


def micro_f1(
  predictions: np.ndarray, gold: np.ndarray, counts: resampled.Counts = None
) -> np.ndarray:
  """F1 of all classes or labels together, 0 to 1; of classes, the accuracy.

  nan if no label is predicted or gold.
  """
  totals = np.sum(_class_totals(predictions, gold, counts), axis=1)
  return resampled.ratio(2 * totals[0], totals[1] + totals[2])


def weighted_f1(
  predictions: np.ndarray, gold: np.ndarray, counts: resampled.Counts = None
) -> np.ndarray:
  """Mean F1 of the classes or labels, weighted by their gold examples, 0 to 1.

  nan if no label is predicted or gold.
  """
  hits, predicted, actual = _class_totals(predictions, gold, counts)
  either = predicted + actual
  total = np.sum(2 * hits * actual / np.fmax(either, 1), axis=0)
  mean = total / np.fmax(np.sum(actual, axis=0), 1)
  return np.where(np.any(either > 0, axis=0), mean, np.nan)


def balanced_accuracy(
  predictions: np.ndarray, gold: np.ndarray, counts: resampled.Counts = None
) -> np.ndarray:
  """Mean recall of the classes that have gold examples, 0 to 1."""
  hits, _, actual = _class_totals(predictions, gold, counts)
  recall = hits / np.fmax(actual, 1)
  return np.sum(recall, axis=0) / np.sum(actual > 0, axis=0)


def per_class(
  predictions: np.ndarray, gold: np.ndarray, num_classes: int
) -> dict[str, np.ndarray]:
  """Returns `precision`, `recall` and `f1` of each class or label, [c], 0 to 1.

  nan where undefined: the precision of a class that is never predicted, the
  recall of one that is never gold, the F1 of one that is neither. `rows` counts
  the gold examples. Takes [N] and [N], or [N, c] and [N, c].
  """
  if np.ndim(gold) == 1:
    predictions, gold = (
      np.asarray(values)[:, None] == np.arange(num_classes)
      for values in (predictions, gold)
    )
  hits, predicted, actual = _class_totals(predictions, gold, None)
  return {
    'rows': actual,
    'precision': resampled.ratio(hits, predicted),
    'recall': resampled.ratio(hits, actual),
    'f1': resampled.ratio(2 * hits, predicted + actual),
  }


def matthews(
  predictions: np.ndarray, gold: np.ndarray, counts: resampled.Counts = None
) -> np.ndarray:
  """Matthews correlation, -1 to 1, of any number of classes.

  The covariance of the one-hot assignments over the root of their variances
  (Gorodkin 2004, "Comparing two K-category assignments by a K-category
  correlation coefficient"); of two classes the usual coefficient. nan if either
  input is constant.
  """
  hits, predicted, actual = _class_totals(predictions, gold, counts)
  rows = np.sum(actual, axis=0)
  covariance = rows * np.sum(hits, axis=0) - np.sum(predicted * actual, axis=0)
  spreads = [rows**2 - np.sum(each**2, axis=0) for each in (predicted, actual)]
  return resampled.ratio(covariance, np.sqrt(spreads[0] * spreads[1]))


def roc_auc(
  class_scores: np.ndarray, gold: np.ndarray, counts: resampled.Counts = None
) -> np.ndarray:
  """Area under the ROC curve, 0 to 1.

  The probability that a positive example has a higher score than a negative
  one, where a tie counts half (Hanley and McNeil 1982, "The Meaning and Use of
  the Area under a Receiver Operating Characteristic (ROC) Curve"). Of two
  classes it is that of the second; of more, and of labels, the mean of each
  against the rest. nan if one of these is gold in no example or in every one.
  """

  def area(
    scores: np.ndarray, positive: np.ndarray, weights: np.ndarray
  ) -> np.ndarray:
    negative = np.where(positive, 0, weights)
    positive = np.where(positive, weights, 0)
    ranks = resampled.ranks(scores, negative)
    total = np.sum(positive, axis=0) * np.sum(negative, axis=0)
    return resampled.ratio(np.sum(positive * ranks, axis=0), 2 * total)

  return _mean_over_classes(area, class_scores, gold, counts)


def average_precision(
  class_scores: np.ndarray, gold: np.ndarray, counts: resampled.Counts = None
) -> np.ndarray:
  """Average precision, 0 to 1: the sum of precision x step in recall.

  The steps are those of the distinct scores, without interpolation. Of two
  classes it is that of the second; of more, and of labels, the mean of each
  against the rest. One that is gold in no example counts as 0.
  """

  def precision(
    scores: np.ndarray, positive: np.ndarray, weights: np.ndarray
  ) -> np.ndarray:
    positive = np.where(positive, weights, 0)
    _, hits = resampled.below(-scores, positive)
    _, predicted = resampled.below(-scores, weights)
    each = positive * hits / np.fmax(predicted, 1)
    return np.sum(each, axis=0) / np.fmax(np.sum(positive, axis=0), 1)

  return _mean_over_classes(precision, class_scores, gold, counts)


def _mean_over_classes(
  metric: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
  class_scores: np.ndarray,
  gold: np.ndarray,
  counts: resampled.Counts,
) -> np.ndarray:
  """Averages a two-class metric over classes or labels, each against the rest.

  `metric` takes scores [N], positives [N, 1] bool and weights [N, B], and
  returns [B]. The result is nan if a score is not finite.
  """
  scores, gold = np.asarray(class_scores, np.float64), np.asarray(gold)
  *leading, rows, width = scores.shape
  if len(gold) != rows or gold.shape[1:] not in ((), (width,)):
    raise ValueError(
      f'scores {scores.shape} must be [..., N, c] and gold {gold.shape} must be'
      ' [N] or [N, c]'
    )
  if not rows:
    raise ValueError('no row to score')
  positive = gold == 1
  if gold.ndim == 1:
    positive = gold[:, None] == np.arange(width)
    if width == 2:
      positive, scores = positive[:, 1:], scores[..., 1:]
  weights = np.ones((rows, 1)) if counts is None else np.asarray(counts).T
  weights = np.asarray(weights, np.float64)
  found = [
    np.mean(
      [
        metric(column, positive[:, [i]], weights)
        for i, column in enumerate(run.T)
      ],
      axis=0,
    )
    if np.all(np.isfinite(run))
    else np.full(weights.shape[1], math.nan)
    for run in scores.reshape(-1, *scores.shape[-2:])
  ]
  shape = leading if counts is None else (*leading, len(counts))
  return np.reshape(found, shape)[()]
