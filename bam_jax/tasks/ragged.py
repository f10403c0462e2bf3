"""Rows that differ in length, one after the other in one flat array."""

import numpy as np


def indices(begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
  """The places of some runs, one after the other.

  >>> indices(np.array([7, 2]), np.array([3, 2]))
  array([7, 8, 9, 2, 3])

  Args:
    begins: [n] int, the first place of each run.
    lengths: [n] int.

  Returns:
    [sum of the lengths] int64.
  """
  ends = np.cumsum(lengths)
  within = np.arange(ends[-1] if len(ends) else 0)
  return within + np.repeat(begins - ends + lengths, lengths)


def places(offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
  """Where some rows lie; row i is [offsets[i], offsets[i + 1])."""
  begins = np.asarray(offsets)[rows]
  return indices(begins, np.asarray(offsets)[np.asarray(rows) + 1] - begins)
