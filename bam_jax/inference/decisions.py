"""Temperatures and decision thresholds, fitted to the dev outputs of a run.

Each is fitted on all dev rows, for predictions to come. The numbers that are
reported beside it are cross-fitted: each half of the dev rows gets the value
that was fitted on the other half, since a value looks too good on its own rows.

N rows, c classes or labels; M decisions: a row, or each label of a row.
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

# Of ln T. A model that is always right, or always wrong, has no best T.
_BOUNDS = (-3.0, 3.0)
_MOST_CANDIDATES = 200
_HALF = folds.Fold(1, 2, seed=0)


def wanted(task: task_lib.Task, config: config_lib.Config) -> dict[str, object]:
  """Returns what `config.decisions` fits for a task; empty: nothing."""
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
  """Fits a temperature or thresholds to the outputs on N dev rows.

  Returns:
    `wanted`'s values. With a temperature: `temperature`, and
    `calibration_error` and `calibrated_error`, the expected calibration error
    without it and with a cross-fitted one, 0-1. With a threshold: `threshold`,
    a probability, and `default_score` and `threshold_score`, the metric at a
    probability of 1/2 and at a cross-fitted threshold, 0-100.
  """
  result = wanted(task, config)
  scores, gold = measured.class_scores, measured.gold
  halves = [np.arange(len(uids))] * 2  # One row has no other half.
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

  Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2.
  Takes [M, k] logits and [M] gold classes; T is from 0.05 to 20.
  """
  # Its import takes a while.
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
  """Returns the logit above which predicting "yes" gives the best metric.

  It lies in the middle between two logits that occur, of which up to 200 pairs
  are tried; of equal scores it is the nearest to 0, which is a probability of
  1/2. Takes logits of yes, [N], or [N, c] of each label, and gold, 0 or 1.
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
  """Returns logits [M, k] and gold classes [M] of the decisions."""
  if gold.ndim == 1:
    return scores, gold
  return np.stack([0 * scores, scores], axis=-1).reshape(-1, 2), (
    gold.ravel().astype(np.int64)
  )


def _calibration_error(logits: np.ndarray, gold: np.ndarray) -> float:
  probs = scipy.special.softmax(logits, axis=-1)
  hit = np.argmax(logits, axis=-1) == gold
  return quality.calibration_error(probs.max(axis=-1), hit)
