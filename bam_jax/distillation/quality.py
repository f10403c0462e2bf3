"""Quality of a teacher's predictions: accuracy, confidence and calibration.

A student learns from the whole probability distributions of its teachers, and
accuracy does not measure these. A teacher that is always certain adds nothing
to the gold labels; a teacher that is certain and wrong does harm.

Sizes: N rows, c outputs.
"""

import logging

import numpy as np
import scipy.special

from bam_jax.tasks import task as task_lib

# A wrong order of the outputs is suspected if another order agrees with more of
# the gold labels, by more than this share (0-1) of all labels.
_SUSPECT = 0.2
# Number of bins of the expected calibration error in Guo et al. 2017.
_BINS = 15


def measure(
  task: task_lib.Task, logits: np.ndarray, label: np.ndarray
) -> dict[str, float]:
  """Measures how accurate and how well calibrated one task's logits are.

  Args:
    task: the task of the rows.
    logits: [N, c], N > 0, or [tokens, c] for outputs per token.
    label: gold labels of the same rows, as in the features.

  Returns:
    A dict; its keys depend on the kind of the task.

    Kinds that predict classes have `accuracy` (0-1); `confidence`, the mean
    probability of the likeliest class (0-1); `calibration_error` (0-1);
    `entropy`, the mean entropy (nats, 0 to ln c); and `log_loss`, the mean
    negative log-likelihood of the gold class (nats).

    Kinds that predict scores on 0-1, or one probability per label, have
    `mean_absolute_error`, `mean_squared_error`, and `bias`, the mean of
    prediction minus gold.

    For all other kinds, the dict is empty.
  """
  found = task.kind.quality_inputs(task, logits, label)
  if found is None:
    return {}
  predicted, gold = np.asarray(found[0], np.float64), found[1]
  if predicted.ndim == 2:
    return _measure_classes(predicted, gold)
  error = predicted - np.asarray(gold, np.float64)
  return {
    'mean_absolute_error': float(np.abs(error).mean()),
    'mean_squared_error': float(np.square(error).mean()),
    'bias': float(error.mean()),
  }


def _measure_classes(
  log_probs: np.ndarray, gold: np.ndarray
) -> dict[str, float]:
  """Computes metrics of log-probabilities [N, c], given gold classes [N]."""
  probs = np.exp(log_probs)
  confidence = probs.max(axis=-1)
  hit = log_probs.argmax(axis=-1) == gold
  return {
    'accuracy': float(hit.mean()),
    'confidence': float(confidence.mean()),
    'calibration_error': calibration_error(confidence, hit),
    # entr(0) is 0, where -p ln p would be nan.
    'entropy': float(scipy.special.entr(probs).sum(axis=-1).mean()),
    'log_loss': float(-log_probs[np.arange(len(gold)), gold].mean()),
  }


def log_agreement(
  name: str, task: task_lib.Task, logits: np.ndarray, label: np.ndarray
) -> None:
  """Logs how well external logits agree with the gold labels.

  Logs a warning if the outputs seem to have another order than the task's
  labels, or if the scores seem to have another scale. No other check detects
  these two mistakes.

  Args:
    name: name of the logits in log messages.
    task: the task of the rows.
    logits: [N, c], N > 0.
    label: gold labels of the same rows, as in the features.
  """
  found = task.kind.quality_inputs(task, logits, label)
  if found is None:
    return
  predicted, gold = np.asarray(found[0], np.float64), found[1]
  if predicted.ndim == 1:
    error = np.abs(predicted - gold).mean()
    constant = np.abs(gold - np.median(gold)).mean()
    logging.info(
      '%s: the predictions differ from the gold values, from 0 to 1, by %.3f on'
      ' average',
      *(name, error),
    )
    if error > constant:
      logging.warning(
        '%s: the predictions differ from the gold values, from 0 to 1, by %.3f'
        ' on average, but their median by only %.3f; check the scale of the'
        ' scores or, for multilabel, the order of the labels; if these are'
        ' right, the teacher is poor',
        *(name, error, constant),
      )
    return
  counts = np.zeros((predicted.shape[1],) * 2)
  np.add.at(counts, (predicted.argmax(axis=-1), gold), 1 / len(gold))
  agreement = np.trace(counts)
  logging.info(
    '%s: the logits agree with %.1f%% of the labels', name, 100 * agreement
  )
  # Imported here, because importing scipy.optimize is slow.
  import scipy.optimize

  outputs, classes = scipy.optimize.linear_sum_assignment(counts, maximize=True)
  best = counts[outputs, classes].sum()
  if best > agreement + _SUSPECT:
    logging.warning(
      '%s: the logits agree with %.1f%% of the labels, but would with %.1f%% if'
      ' the outputs were %s; check the order of the labels; if it is'
      ' right, the teacher is poor',
      *(name, 100 * agreement, 100 * best),
      ', '.join(task.labels[i] for i in classes),
    )


def calibration_error(confidence: np.ndarray, hit: np.ndarray) -> float:
  """Expected calibration error (Guo et al. 2017, arXiv 1706.04599, eq. 3).

  >>> round(calibration_error(np.array([0.9, 0.9]), np.array([True, False])), 6)
  0.4

  Rows are divided by confidence into 15 bins of equal width, each of which
  includes its upper end: (0, 1/15], ..., (14/15, 1].

  Args:
    confidence: [N], N > 0, the probability of the predicted class, 0-1.
    hit: [N] bool, whether the predicted class is the gold class.

  Returns:
    The mean over all rows of |accuracy - mean confidence| in the row's bin,
    0-1.
  """
  number = np.clip(np.ceil(confidence * _BINS) - 1, 0, _BINS - 1)
  number = number.astype(np.int64)
  # For each bin, share of rows x (accuracy - mean confidence) is equal to
  # sum(hit - confidence) / N, so bin sizes are not needed.
  gaps = np.bincount(number, hit - confidence, _BINS)
  return float(np.abs(gaps).sum() / len(confidence))
