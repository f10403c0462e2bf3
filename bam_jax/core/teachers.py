"""What a student learns from its teachers: folds are joined, seeds averaged.

A teacher's kind of task turns its logits into predictions, for classes by a
softmax with temperature (`Kind.teacher_probs`; Hinton et al. 2015). With
several teachers the student learns from the mean of their predictions. A
teacher that consists of several runs predicts each row by the run that was not
trained on it (cross-fitting).
"""

from collections.abc import Iterable
from collections.abc import Sequence

import numpy as np

from bam_jax.tasks import ragged


def mean_predictions(predictions: Iterable[np.ndarray]) -> np.ndarray:
  """Mean of the teachers' probabilities or scores, not of their logits.

  >>> mean_predictions([np.array([0.1, 0.9]), np.array([0.5, 0.5])]).tolist()
  [0.3, 0.7]

  Args:
    predictions: of each teacher, arrays of one shape; at least one.

  Returns:
    An array of that shape.
  """
  total, count = np.float32(0), 0
  for prediction in predictions:
    total, count = total + prediction, count + 1
  return total / count


def choose_out_of_fold(
  offsets: np.ndarray, parts: Sequence[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
  """Joins the logits of a teacher's runs, each on the rows that it left out.

  >>> parts = [(np.array([1]), np.array([[5.0]])),
  ...          (np.array([0, 2]), np.array([[4.0], [6.0]]))]
  >>> choose_out_of_fold(np.arange(4), parts).ravel().tolist()
  [4.0, 5.0, 6.0]

  Args:
    offsets: [N + 1] int; the outputs of row i are [offsets[i], offsets[i + 1]).
    parts: of each run, the n rows that it labels, [n] int, and the logits on
      them, one row after the other, [outputs of these rows, c].

  Returns:
    [offsets[-1], c] float32, in the order of the rows.

  Raises:
    ValueError: a row is labelled by no run, or by more than one.
  """
  count = np.bincount(
    np.concatenate([rows for rows, _ in parts]), minlength=len(offsets) - 1
  )
  if (count != 1).any():
    row = int(np.argmax(count != 1))
    raise ValueError(f'row {row}: {count[row]} of {len(parts)} runs label it')
  result = np.empty((offsets[-1], parts[0][1].shape[-1]), np.float32)
  for rows, logits in parts:
    result[ragged.places(offsets, rows)] = logits
  return result
