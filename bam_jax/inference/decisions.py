"""Fits temperatures and decision thresholds to the dev outputs of a run.

Predictions use the values that are fitted on all dev rows. The reported metrics
are cross-fitted: each half of the dev rows is scored with the value that was
fitted on the other half. The score on the rows that the value was fitted on
would be too good.

Shapes: N rows, c classes or labels, M decisions. In classification, each row is
one decision. If a row can have several labels, each label of each row is one
decision, yes or no.
"""

from collections.abc import Mapping, Sequence
import dataclasses

import numpy as np
import scipy.special

from bam_jax import config as config_lib
from bam_jax.data import folds
from bam_jax.distillation import quality
from bam_jax.tasks import metrics
from bam_jax.tasks import task as task_lib

# Limits of ln T. Without limits, no T is best for a model that is always right
# or always wrong.
_BOUNDS = (-3.0, 3.0)
_MOST_CANDIDATES = 200
_HALF = folds.Fold(1, 2, seed=0)


def wanted(task: task_lib.Task, config: config_lib.Config) -> dict[str, object]:
  """Returns what `config.decisions` asks to fit for a task.

  Returns:
    A dict with `wanted_temperature`, whether to fit a temperature, and
    `wanted_threshold`, the name of the metric that the threshold maximizes, or
    '' for no threshold. If there is nothing to fit, the dict is empty.
  """
  metric = config_lib.thresholds(config).get(task.name, '')
  temperature = config.decisions.temperature and task.kind.has_probabilities
  if not temperature and not metric:
    return {}
  return {'wanted_temperature': temperature, 'wanted_threshold': metric}


def fit(
  task: task_lib.Task,
  config: config_lib.Config,
  uids: Sequence[str],
  measured: metrics.Measured,
) -> dict[str, object]:
  """Fits a temperature, a threshold or both to the outputs on N dev rows.

  Call it only if `wanted` returns a non-empty dict.

  Returns:
    A dict with the items that `wanted` returns.
    If a temperature is wanted, it also has `temperature`; `calibration_error`,
    the expected calibration error without a temperature, 0-1; and
    `calibrated_error`, the same error with cross-fitted temperatures.
    If a threshold is wanted, it also has `threshold`, a probability;
    `default_score`, the metric at a threshold of 1/2, 0-100; and
    `threshold_score`, the metric at cross-fitted thresholds, 0-100.
  """
  result = wanted(task, config)
  scores, gold = measured.class_scores, measured.gold
  halves = [np.arange(len(uids))] * 2  # A single row cannot be split.
  if len(uids) > 1:
    halves = folds.split(uids, _HALF)
  temperature = 1.0
  if result['wanted_temperature']:
    logits, of = _decisions(scores, gold)
    temperature = fit_temperature(logits, of)
    crossed = np.empty_like(scores)
    for own, other in (halves, halves[::-1]):
      crossed[own] = scores[own] / fit_temperature(
        *_decisions(scores[other], gold[other])
      )
    result |= {
      'temperature': temperature,
      'calibration_error': _calibration_error(logits, of),
      'calibrated_error': _calibration_error(*_decisions(crossed, gold)),
    }
  if name := result['wanted_threshold']:
    metric = metrics.METRICS[name]
    margins = scores if gold.ndim == 2 else scores[:, 1] - scores[:, 0]
    crossed = np.empty_like(margins)
    for own, other in (halves, halves[::-1]):
      crossed[own] = margins[own] - fit_threshold(
        margins[other], gold[other], metric
      )
    best = fit_threshold(margins, gold, metric)
    result |= {
      'threshold': float(scipy.special.expit(best / temperature)),
      'default_score': 100 * float(metric((margins > 0).astype(int), gold)),
      'threshold_score': 100 * float(metric((crossed > 0).astype(int), gold)),
    }
  return result


def decide(task: task_lib.Task, found: Mapping[str, object]) -> task_lib.Task:
  """Returns the task with the temperature and threshold that `fit` found."""
  return dataclasses.replace(
    task,
    temperature=found.get('temperature', 1.0),
    threshold=found.get('threshold'),
  )


def fit_temperature(logits: np.ndarray, gold: np.ndarray) -> float:
  """Returns the T that maximizes the likelihood of softmax(logits / T).

  See Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2.
  T is limited to 0.05-20.

  Args:
    logits: [M, k].
    gold: gold classes, [M].
  """
  # Imported here because this import is slow.
  import scipy.optimize

  def loss(log_temperature: float) -> float:
    scaled = logits * np.exp(-log_temperature)
    log_probs = scipy.special.log_softmax(scaled, axis=-1)
    return -np.mean(np.take_along_axis(log_probs, gold[:, None], axis=-1))

  found = scipy.optimize.minimize_scalar(
    loss, bounds=_BOUNDS, method='bounded', options={'xatol': 1e-4}
  )
  return float(np.exp(found.x))


def fit_threshold(
  margins: np.ndarray, gold: np.ndarray, metric: metrics.Metric
) -> float:
  """Returns the threshold on the logit of "yes" that gives the best metric.

  The candidates are 0, which is a probability of 1/2, and at most 200 of the
  midpoints between neighboring values of `margins`. If several candidates give
  the best metric, the candidate nearest to 0 is returned.

  Args:
    margins: logits of "yes": [N] for two classes, [N, c] for several labels.
    gold: 0 or 1, with the shape of `margins`.
    metric: the metric to maximize.
  """
  values = np.unique(margins)
  middles = (values[1:] + values[:-1]) / 2
  count = min(len(middles), _MOST_CANDIDATES)
  chosen = np.linspace(0, len(middles) - 1, count).round().astype(int)
  candidates = np.concatenate([[0.0], middles[chosen]])
  candidates = candidates[np.argsort(np.abs(candidates), kind='stable')]
  places = np.expand_dims(candidates, tuple(range(1, margins.ndim + 1)))
  scores = metric((margins > places).astype(np.int8), gold)
  return float(candidates[np.argmax(np.nan_to_num(scores, nan=-np.inf))])


def _decisions(
  scores: np.ndarray, gold: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns logits [M, k] and gold classes [M], one row per decision.

  If a row can have several labels, k is 2: each label is a decision between
  "no", whose logit is 0, and "yes".
  """
  if gold.ndim == 1:
    return scores, gold
  return np.stack([0 * scores, scores], axis=-1).reshape(-1, 2), (
    gold.ravel().astype(np.int64)
  )


def _calibration_error(logits: np.ndarray, gold: np.ndarray) -> float:
  probs = scipy.special.softmax(logits, axis=-1)
  hit = np.argmax(logits, axis=-1) == gold
  return quality.calibration_error(probs.max(axis=-1), hit)
