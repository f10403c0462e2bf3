"""The metrics, and the two averages over GLUE.

A metric is a function and one entry of `METRICS`. The function takes
predictions [..., N] and gold labels [N], and returns [...]. For a bootstrap it
also takes counts [B, N], which say how often each resample drew each example,
and returns [..., B]. The function never emits a warning.

For multi-label tasks, predictions [..., N, c] and gold labels [N, c] are 0 or 1
for each of the c labels. Some metrics take class scores [..., N, c] instead of
predictions; only the order of the scores among the examples matters. Other
metrics take tallies [..., N, n]: n numbers per example, such as the counts of
true positives, predicted positives and gold positives. Such a metric is a
function of the summed tallies.

An undefined score is nan, for example a correlation with a constant input, or
F1 without any predicted or gold positive. The mean of scores is nan if one of
the scores is nan.
"""

from collections.abc import Callable, Mapping, Sequence
import math
from typing import Literal, NamedTuple

import numpy as np

from bam_jax.tasks import class_metrics
from bam_jax.tasks import resampled
from bam_jax.tasks import score_metrics
from bam_jax.tasks import task as task_lib


def _tallied_f1(sums: np.ndarray) -> np.ndarray:
  both, predicted, gold = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
  return resampled.ratio(2 * both, predicted + gold)


def _share(numerator: int, denominator: int) -> Callable[..., np.ndarray]:
  """Makes a function that divides one of the summed numbers by another."""
  return lambda sums: resampled.ratio(
    sums[..., numerator], sums[..., denominator]
  )


def _of_tallies(
  of_sums: Callable[[np.ndarray], np.ndarray],
) -> Callable[..., np.ndarray]:
  """Makes a metric of tallies from a function of the summed tallies.

  The metric takes tallies [N, n] without counts, or the tallies of S runs,
  [S, N, n], with counts [B, N]. With counts it returns [S, B].
  """

  def metric(
    tally: np.ndarray,
    gold: np.ndarray | None = None,
    counts: resampled.Counts = None,
  ) -> np.ndarray:
    del gold  # The tallies include the gold labels.
    if counts is None:
      return of_sums(np.sum(tally, axis=0))
    sums = np.tensordot(counts, tally, axes=([1], [1]))  # [B, S, ...]
    return np.swapaxes(of_sums(sums), 0, 1)

  return metric


class Measured(NamedTuple):
  """Inputs of a task's metrics.

  Attributes:
    predictions: [..., N] class indices or scores; [..., N, c] 0 or 1 for each
      label; or [..., N, n] tallies.
    gold: [N] or [N, c] gold labels, in the form of the predictions; None if
      they are missing, or included in the tallies.
    class_scores: [..., N, c] scores that rank the examples by the probability
      of each class; None if the kind has no classes.
  """

  predictions: np.ndarray
  gold: np.ndarray | None
  class_scores: np.ndarray | None = None


class Metric(NamedTuple):
  """A metric; call it with predictions, gold labels and counts."""

  # A kind has the metric if its `Kind.measures` is one of these names.
  measures: tuple[str, ...]
  function: Callable[..., np.ndarray]
  # What the gold labels must contain: a positive (see `Kind.is_positive`), any
  # label, two different labels (`variety`), or nothing. If this is missing, the
  # score is undefined or always 0.
  needs: Literal['positive', 'label', 'variety', ''] = ''
  # Why the score is undefined; if empty, `why_undefined` finds the reason.
  reason: str = ''
  takes_class_scores: bool = False  # Instead of predictions.

  def __call__(
    self,
    predictions: np.ndarray,
    gold: np.ndarray,
    counts: resampled.Counts = None,
  ) -> np.ndarray:
    return self.function(predictions, gold, counts)

  def first_argument(self, measured: Measured) -> np.ndarray | None:
    """Returns predictions or class scores; None if they are missing."""
    if self.takes_class_scores:
      return measured.class_scores
    return measured.predictions


# Metrics that are not on 0-100; averages over tasks leave out these metrics.
OWN_SCALE = frozenset({'neg_mean_absolute_error'})

_NO_LABEL = 'no label is gold and none is predicted'
_NO_SPAN = 'no span is gold and none is predicted'
_ONE_SIDED = 'a class or label is gold in no row or in every row'
_CLASSES, _LABELS, _SCORES = ('classes',), ('labels',), ('scores',)
_SPANS, _TAGS, _ANSWERS = ('spans',), ('tags',), ('answers',)
_BOTH = _CLASSES + _LABELS
METRICS: dict[str, Metric] = {
  'accuracy': Metric(_CLASSES, class_metrics.accuracy),
  'f1': Metric(_CLASSES, class_metrics.f1, 'positive'),
  'matthews': Metric(_CLASSES, class_metrics.matthews, 'variety'),
  'balanced_accuracy': Metric(_CLASSES, class_metrics.balanced_accuracy),
  'pearson': Metric(_SCORES, score_metrics.pearson, 'variety'),
  'spearman': Metric(_SCORES, score_metrics.spearman, 'variety'),
  'neg_mean_absolute_error': Metric(
    _SCORES, score_metrics.neg_mean_absolute_error
  ),
  'micro_f1': Metric(_BOTH, class_metrics.micro_f1, 'label', _NO_LABEL),
  'macro_f1': Metric(_BOTH, class_metrics.macro_f1, 'label', _NO_LABEL),
  'weighted_f1': Metric(_BOTH, class_metrics.weighted_f1, 'label', _NO_LABEL),
  'roc_auc': Metric(_BOTH, class_metrics.roc_auc, 'variety', _ONE_SIDED, True),
  'average_precision': Metric(
    _BOTH, class_metrics.average_precision, 'label', takes_class_scores=True
  ),
  'span_f1': Metric(_SPANS, _of_tallies(_tallied_f1), 'positive', _NO_SPAN),
  'span_precision': Metric(
    _SPANS, _of_tallies(_share(0, 1)), reason='no span is predicted'
  ),
  'span_recall': Metric(
    _SPANS, _of_tallies(_share(0, 2)), 'positive', 'no span is gold'
  ),
  'tag_accuracy': Metric(_TAGS, _of_tallies(_share(0, 1))),
  'answer_f1': Metric(_ANSWERS, _of_tallies(_share(1, 2))),
  'exact_match': Metric(_ANSWERS, _of_tallies(_share(0, 2))),
}


def compute(names: Sequence[str], measured: Measured) -> dict[str, float]:
  """Computes metrics of `METRICS` times 100, by name; nan if undefined."""
  return {
    name: 100.0 * float(metric(metric.first_argument(measured), measured.gold))
    for name, metric in ((name, METRICS[name]) for name in names)
  }


def why_undefined(name: str, measured: Measured) -> str:
  """Explains why a metric of `METRICS` is nan.

  >>> why_undefined('f1', Measured(np.array([0, 0]), np.array([0, 2])))
  'all predictions are equal'
  """
  metric = METRICS[name]
  both = {
    'gold label': measured.gold,
    'prediction': metric.first_argument(measured),
  }
  for what, values in both.items():
    if values is not None and not np.all(np.isfinite(values)):
      return f'a {what} is not a finite number'
  return metric.reason or ', and '.join(
    f'all {what}s are equal'
    for what, values in both.items()
    if np.ptp(values) == 0
  )


def is_above(score: float, constant: float) -> bool:
  """Whether a score is better than the score of a constant prediction.

  Returns False if the score is undefined. If the score of the constant
  prediction is undefined, it counts as 0, because a constant prediction has no
  correlation, or finds no positive.
  """
  return score > (0.0 if math.isnan(constant) else constant)


def describe(score: float | None) -> str:
  """Returns a score, times 100, as text: one decimal, or `undefined`.

  A score that is undefined is nan, or None where it was read from a file.
  """
  if score is None or math.isnan(score):
    return 'undefined'
  return f'{score:.1f}'


def averages(
  tasks: Sequence[task_lib.Task],
  scores: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> dict[str, float]:
  """Averages the scores of the tasks as in the paper, and as in GLUE.

  Tasks whose `in_average` is False are left out.

  Args:
    tasks: the tasks to average over.
    scores: task name -> dev split -> metric -> value.

  Returns:
    `paper`: the mean over tasks of `paper_metric` on the first dev split.
    `glue`: the mean over tasks of each task's own mean over all dev splits and
    all metrics that are not in `OWN_SCALE`. An average is nan if one of its
    scores is nan, because averages over fewer tasks are not comparable.

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
      np.mean(
        [
          found[name]
          for found in by_split
          for name in task.metrics
          if name not in OWN_SCALE
        ]
      )
    )
  return {'paper': float(np.mean(paper)), 'glue': float(np.mean(glue))}
