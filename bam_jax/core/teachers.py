"""Combines teacher predictions: joins folds, averages several teachers.

A student learns from the mean prediction of its teachers; `Kind.teacher_probs`
converts logits to predictions. With cross-fitting, a teacher consists of
several runs, and each row is predicted by the run that was not trained on it.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from bam_jax.tasks import ragged


def mean_predictions(predictions: Iterable[np.ndarray]) -> np.ndarray:
  """Averages the probabilities or scores that one or more teachers predict.

  >>> mean_predictions([np.array([0.1, 0.9]), np.array([0.5, 0.5])]).tolist()
  [0.3, 0.7]
  """
  total, count = np.float32(0), 0
  for prediction in predictions:
    total, count = total + prediction, count + 1
  return total / count


def choose_out_of_fold(
  offsets: np.ndarray, parts: Sequence[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
  """Joins the logits of several runs, each for rows not in its training data.

  >>> parts = [(np.array([1]), np.array([[5.0]])),
  ...          (np.array([0, 2]), np.array([[4.0], [6.0]]))]
  >>> choose_out_of_fold(np.arange(4), parts).ravel().tolist()
  [4.0, 5.0, 6.0]

  Args:
    offsets: [N + 1] int; row i has the logits offsets[i] to offsets[i + 1] - 1.
    parts: for each run, the rows that it labels, [n] int, and the logits of
      these rows.

  Raises:
    ValueError: a row is labelled by no run, or by several runs.
  """
  count = np.bincount(
    np.concatenate([rows for rows, _ in parts]), minlength=len(offsets) - 1
  )
  if (count != 1).any():
    row = int(np.argmax(count != 1))
    raise ValueError(
      f'row {row}: {count[row]} of {len(parts)} runs label it, not exactly one'
    )
  result = np.empty((offsets[-1], parts[0][1].shape[-1]), np.float32)
  for rows, logits in parts:
    result[ragged.places(offsets, rows)] = logits
  return result
