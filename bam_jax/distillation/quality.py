"""How good a teacher's predictions are, and how sure of themselves.

N rows, c outputs. A student learns the shape of its teachers' distributions, of
which accuracy says nothing: a teacher that is always certain adds nothing to
the gold labels, and one that is certain and wrong does harm.
"""

import numpy as np
import scipy.special

from bam_jax.tasks import task as task_lib

# Of the expected calibration error, as Guo et al. have it.
_BINS = 15


def measure(
  task: task_lib.Task,
  logits: np.ndarray,
  label: np.ndarray,
  regression_head: str,
) -> dict[str, float]:
  """What there is to say of a teacher on some rows of one task.

  Of the predictions as they are, at temperature 1, whatever temperature a
  student takes them at.

  Args:
    task: the task of the rows.
    logits: [N, c], N > 0; or of tokens, [tokens, c].
    label: of the same rows, as in the features.
    regression_head: `sigmoid` or `linear`.

  Returns:
    What `of_classes` or `of_scores` returns; nothing of a kind that has no
    such quality.
  """
  found = task.kind.judged(task, logits, label, regression_head)
  if found is None:
    return {}
  measured = of_classes if found.of == 'classes' else of_scores
  return measured(found.predicted, found.gold)


def of_classes(log_probs: np.ndarray, gold: np.ndarray) -> dict[str, float]:
  """Quality of predicted distributions over classes.

  >>> found = of_classes(np.log([[0.5, 0.5], [0.25, 0.75]]), np.array([1, 1]))
  >>> found['accuracy'], round(found['confidence'], 6)
  (0.5, 0.625)

  Args:
    log_probs: [N, c], N > 0, natural logarithms of probabilities. Not
      probabilities: one that is rounded to 0 would have an infinite loss.
    gold: [N] class indices.

  Returns:
    `accuracy`: share of rows whose likeliest class is the gold one, 0-1.
    `confidence`: mean probability of the likeliest class, 0-1.
    `calibration_error`: as `calibration_error` returns.
    `entropy`: mean over rows, in nats, 0 to ln c.
    `log_loss`: mean negative log likelihood of the gold class, in nats.
  """
  log_probs = np.asarray(log_probs, np.float64)
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


def calibration_error(confidence: np.ndarray, hit: np.ndarray) -> float:
  """The expected calibration error (Guo et al. 2017, arXiv 1706.04599, eq. 3).

  Rows fall into 15 bins of equal width by confidence, of which each holds its
  upper end: (0, 1/15], ..., (14/15, 1].

  Args:
    confidence: [N], N > 0, the probability of the predicted class, 0-1.
    hit: [N] bool, whether that class is the gold one.

  Returns:
    Mean over rows of |accuracy - mean confidence| of the row's bin, 0-1.
  """
  number = np.clip(np.ceil(confidence * _BINS) - 1, 0, _BINS - 1)
  number = number.astype(np.int64)
  # A bin's share times the difference of its means: its size cancels out.
  gaps = np.bincount(number, hit - confidence, _BINS)
  return float(np.abs(gaps).sum() / len(confidence))


def of_scores(predicted: np.ndarray, gold: np.ndarray) -> dict[str, float]:
  """Quality of predicted scores.

  Args:
    predicted: [N], N > 0, on 0-1; a linear head may leave it.
    gold: [N] scores on 0-1.

  Returns:
    `mean_absolute_error`, `mean_squared_error`, and `bias`, the mean of
    prediction minus gold.
  """
  error = np.asarray(predicted, np.float64) - np.asarray(gold, np.float64)
  return {
    'mean_absolute_error': float(np.abs(error).mean()),
    'mean_squared_error': float(np.square(error).mean()),
    'bias': float(error.mean()),
  }
