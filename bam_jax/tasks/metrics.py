"""The metrics, and the two averages over GLUE.

A metric is a function and one line of `METRICS`. Its function takes predictions
[..., N], gold labels [N] and, for a bootstrap, counts [B, N]: how often each
resample drew each example. It returns [..., B]; without counts every example
counts once, and it returns [...]. It never warns. If an example has any number
of the c labels, predictions [..., N, c] and gold [N, c] are 0 or 1 of each.

Some metrics take scores of the classes, [..., N, c], instead of predictions:
their order among the examples decides. Others take tallies [..., N, n]: n
numbers per example, such as the counts of true positives, predicted and gold
positives. They are functions of the summed tallies.

An undefined score is nan: a correlation with a constant input, or F1 without a
positive in prediction or gold. A mean of scores is nan if one of them is.
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
  """Makes a metric that divides one of the summed numbers by another."""
  return lambda sums: resampled.ratio(
    sums[..., numerator], sums[..., denominator]
  )


def _of_tallies(
  of_sums: Callable[[np.ndarray], np.ndarray],
) -> Callable[..., np.ndarray]:
  """Makes a metric of tallies from a function of their sums."""

  def metric(
    tally: np.ndarray,
    gold: np.ndarray | None = None,
    counts: resampled.Counts = None,
  ) -> np.ndarray:
    del gold  # Gold labels are in the tallies.
    if counts is None:
      return of_sums(np.sum(tally, axis=0))
    sums = np.tensordot(counts, tally, axes=([1], [1]))  # [B, S, ...]
    return np.swapaxes(of_sums(sums), 0, 1)

  return metric


class Measured(NamedTuple):
  """Inputs of a task's metrics.

  Attributes:
    predictions: [..., N] class indices or scores, [..., N, c] 0 or 1 of each
      label, or tallies [..., N, n].
    gold: [N] or [N, c] in the same form; None if tallies have the gold labels.
    class_scores: [..., N, c], ordered by the probability of the class; None if
      the kind has none.
  """

  predictions: np.ndarray
  gold: np.ndarray | None
  class_scores: np.ndarray | None = None


class Metric(NamedTuple):
  """A metric, which can be called with predictions, gold and counts."""

  measures: tuple[str, ...]  # Kinds that measure one of these have the metric.
  function: Callable[..., np.ndarray]
  # What the gold labels must have so that the score is defined and not always
  # 0: a positive (see `Kind.is_positive`), any label, different labels, or
  # nothing.
  needs: Literal['positive', 'label', 'variety', ''] = ''
  reason: str = ''  # Why it is undefined; if empty, `why_undefined` finds out.
  takes_class_scores: bool = False  # In place of predictions.

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


# Metrics that are not 0 to 100; an average over tasks leaves them out.
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
  """Computes metrics of `METRICS` times 100, by name; nan where undefined."""
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
    mean over tasks of the mean of `metrics`, without `OWN_SCALE`, over all dev
    splits. nan if a score is nan: averages over fewer tasks could not be
    compared.

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
