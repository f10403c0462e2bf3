"""Scores of a task, and the two averages over GLUE.

The functions in `METRICS` take predictions and gold, both [N], and never warn.
An undefined score is nan: a correlation with a constant input, or F1 without a
positive in prediction or gold. `why_undefined` gives the reason. A mean with an
undefined score in it is undefined too.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import math

import numpy as np

from bam_jax.tasks import task as task_lib


def _check(predictions: np.ndarray, gold: np.ndarray) -> None:
  if np.ndim(gold) != 1 or np.shape(predictions) != np.shape(gold):
    raise ValueError(
      f'predictions {np.shape(predictions)} and gold {np.shape(gold)} must'
      ' be [N] both'
    )
  if not len(gold):
    raise ValueError('no row to score')


def accuracy(predictions: np.ndarray, gold: np.ndarray) -> float:
  """Share of equal entries, 0 to 1."""
  _check(predictions, gold)
  return float(np.mean(np.asarray(predictions) == np.asarray(gold)))


def f1(predictions: np.ndarray, gold: np.ndarray) -> float:
  """F1 of class 1, 0 to 1; nan if it is neither predicted nor gold."""
  _check(predictions, gold)
  predicted = np.asarray(predictions) == 1
  positive = np.asarray(gold) == 1
  # 2PR / (P + R) with both denominators multiplied out.
  denominator = predicted.sum() + positive.sum()
  hits = (predicted & positive).sum()
  return float(2 * hits / denominator) if denominator else math.nan


def matthews(predictions: np.ndarray, gold: np.ndarray) -> float:
  """Matthews correlation, -1 to 1, of any number of classes.

  The covariance of the one-hot assignments over the root of their variances
  (Gorodkin 2004, "Comparing two K-category assignments by a K-category
  correlation coefficient"); of two classes the usual coefficient. nan if either
  input is constant.
  """
  _check(predictions, gold)
  predictions, gold = np.asarray(predictions), np.asarray(gold)
  classes = np.union1d(predictions, gold)
  # Python integers: exact, whatever the number of rows.
  predicted = [int((predictions == c).sum()) for c in classes]
  actual = [int((gold == c).sum()) for c in classes]
  rows, hits = len(gold), int((predictions == gold).sum())
  numerator = rows * hits - sum(
    p * a for p, a in zip(predicted, actual, strict=True)
  )
  spread = rows**2 - sum(p**2 for p in predicted)
  spread *= rows**2 - sum(a**2 for a in actual)
  return numerator / math.sqrt(spread) if spread else math.nan


def pearson(predictions: np.ndarray, gold: np.ndarray) -> float:
  """Linear correlation, -1 to 1; nan if either input is constant."""
  _check(predictions, gold)
  x = np.asarray(predictions, np.float64)
  y = np.asarray(gold, np.float64)
  # A constant's deviation from its own rounded mean need not be exactly zero.
  if np.ptp(x) == 0 or np.ptp(y) == 0:
    return math.nan
  # By the range first: the square of a tiny deviation underflows.
  x, y = (x - x.mean()) / np.ptp(x), (y - y.mean()) / np.ptp(y)
  value = (x / np.linalg.norm(x)) @ (y / np.linalg.norm(y))
  return float(np.clip(value, -1.0, 1.0))


def _ranks(values: np.ndarray) -> np.ndarray:
  """Ranks from 1, [N]; ties share the mean of their ranks."""
  _, inverse, counts = np.unique(
    values, return_inverse=True, return_counts=True
  )
  last = np.cumsum(counts)
  return (last - (counts - 1) / 2)[inverse]


def spearman(predictions: np.ndarray, gold: np.ndarray) -> float:
  """Rank correlation, -1 to 1, ties by mean rank; nan if one is constant."""
  _check(predictions, gold)
  if not np.all(np.isfinite(predictions)):
    return math.nan  # A rank would hide it.
  return pearson(_ranks(np.asarray(predictions)), _ranks(np.asarray(gold)))


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
  'accuracy': accuracy,
  'f1': f1,
  'matthews': matthews,
  'pearson': pearson,
  'spearman': spearman,
}


def score(
  task: task_lib.Task, predictions: np.ndarray, gold: np.ndarray
) -> dict[str, float]:
  """The task's metrics times 100.

  Args:
    task: the task of the rows.
    predictions: [N] class indices, or scores in the task's scale, N > 0.
    gold: [N] likewise.

  Returns:
    Metric name -> value, 0 to 100 (-100 to 100 for a correlation); nan where it
    is undefined.
  """
  return {
    name: 100.0 * METRICS[name](predictions, gold) for name in task.metrics
  }


def why_undefined(predictions: np.ndarray, gold: np.ndarray) -> str:
  """Why a metric of `METRICS` is undefined for these arguments, as it is.

  >>> why_undefined(np.array([1, 1]), np.array([0, 1]))
  'all predictions are equal'
  """
  both = {'gold label': gold, 'prediction': predictions}
  for what, values in both.items():
    if not np.all(np.isfinite(values)):
      return f'a {what} is not a finite number'
  return ', and '.join(
    f'all {what}s are equal'
    for what, values in both.items()
    if np.ptp(values) == 0
  )


def unmeasurable(task: task_lib.Task, gold: np.ndarray) -> tuple[str, ...]:
  """The metrics of a task that such gold labels, [N], leave undefined.

  Whatever is predicted, but for F1: that is undefined or 0.
  """
  without = {'pearson', 'spearman', 'matthews'} if np.ptp(gold) == 0 else set()
  if not np.any(np.asarray(gold) == 1):
    without.add('f1')
  return tuple(name for name in task.metrics if name in without)


def averages(
  tasks: Sequence[task_lib.Task],
  scores: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> dict[str, float]:
  """The paper's average and GLUE's own, over tasks with `in_average`.

  Args:
    tasks: the tasks to average over.
    scores: task name -> development split -> metric -> value.

  Returns:
    `paper`: mean over tasks of `paper_metric` on the first development split.
    `glue`: mean over tasks of the mean of `glue_metrics`, over all development
    splits (MNLI: matched and mismatched). nan where one of its scores is
    undefined, and if no task takes part: no score is left out, since an average
    over fewer tasks can't be compared with others.

  Raises:
    KeyError: a task, split or metric has no score.
  """
  counted = [task for task in tasks if task.in_average]
  if not counted:
    return {'paper': math.nan, 'glue': math.nan}
  paper = [
    scores[task.name][task.dev_splits[0]][task.paper_metric] for task in counted
  ]
  glue = [
    np.mean(
      [
        scores[task.name][split][metric]
        for split in task.dev_splits
        for metric in task.glue_metrics
      ]
    )
    for task in counted
  ]
  return {'paper': float(np.mean(paper)), 'glue': float(np.mean(glue))}
