"""Metrics for classification and multi-label tasks.

The module `metrics` explains the shapes of the arguments and results.
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
  """F1 of class 1, 0 to 1; nan if class 1 is neither predicted nor gold."""
  predictions, gold = resampled.check(predictions, gold)
  predicted, positive = predictions == 1, gold == 1
  # Equal to 2PR / (P + R), but also defined if P or R is not.
  hits = resampled.total(predicted & positive, counts)
  either = resampled.total(predicted, counts) + resampled.total(
    positive, counts
  )
  return resampled.ratio(2 * hits, either)


def _class_totals(
  predictions: np.ndarray, gold: np.ndarray, counts: resampled.Counts
) -> np.ndarray:
  """Counts true positives, predictions and gold examples of each class.

  Returns:
    [3, c, ..., B], the three counts of c classes or labels. In classification,
    the c classes are only those that are predicted or gold in some example.
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

  In classification, a class that is neither predicted nor gold is left out of
  the mean. In a multi-label task, such a label has an F1 of 0. scikit-learn has
  the same two rules. The result is nan if no label is predicted or gold.
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
  """F1 from the summed counts of all classes or labels, 0 to 1.

  In classification, the result equals the accuracy. The result is nan if no
  label is predicted or gold.
  """
  totals = np.sum(_class_totals(predictions, gold, counts), axis=1)
  return resampled.ratio(2 * totals[0], totals[1] + totals[2])


def weighted_f1(
  predictions: np.ndarray, gold: np.ndarray, counts: resampled.Counts = None
) -> np.ndarray:
  """Mean F1 of the classes or labels, weighted by the number of gold examples.

  The result is 0 to 1, or nan if no label is predicted or gold.
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
  """Returns `precision`, `recall`, `f1` and `rows` of each class or label, [c].

  `rows` is the number of gold examples. The three metrics are 0 to 1, or nan:
  precision is nan if the class is never predicted, recall is nan if the class
  is never gold, and F1 is nan if the class is never predicted and never gold.

  Args:
    predictions: [N] class indices, or [N, c] 0 or 1 for each label.
    gold: the gold classes or labels, with the shape of `predictions`.
    num_classes: number of classes or labels, c.
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
  """Matthews correlation for any number of classes, -1 to 1.

  It is the covariance of the one-hot predictions and the one-hot gold labels,
  divided by the square root of the product of both variances (Gorodkin 2004,
  "Comparing two K-category assignments by a K-category correlation
  coefficient"). For two classes it is the usual Matthews coefficient. It is nan
  if all predictions are equal or all gold labels are equal.
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

  It is the probability that a positive example has a higher score than a
  negative example; a tie counts half (Hanley and McNeil 1982, "The Meaning and
  Use of the Area under a Receiver Operating Characteristic (ROC) Curve").

  If there are two classes, the second class is positive. For more classes, the
  result is the mean over the classes, each against the rest; for labels, the
  mean over the labels. It is nan if a class or label is gold in no example or
  in every example.
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

  There is one step for each distinct score, without interpolation. If there are
  two classes, the second class is positive. For more classes, the result is the
  mean over the classes, each against the rest; for labels, the mean over the
  labels. A class or label that is gold in no example counts as 0.
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

  If there are two classes, only the second class is scored. `metric` takes
  scores [N], positives [N, 1] bool and weights [N, B], and returns [B]. The
  result is nan if a score is not finite.
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
