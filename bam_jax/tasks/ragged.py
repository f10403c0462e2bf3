"""Indices into rows of different lengths, stored one after another."""

import numpy as np


def indices(begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
  """Indices of the elements of several ranges, one range after another.

  >>> indices(np.array([7, 2]), np.array([3, 2]))
  array([7, 8, 9, 2, 3])

  `begins` and `lengths` are [n] int; the result is [sum of the lengths] int64.
  """
  ends = np.cumsum(lengths)
  within = np.arange(ends[-1] if len(ends) else 0)
  return within + np.repeat(begins - ends + lengths, lengths)


def places(offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
  """Indices of the elements of chosen rows; row i begins at offsets[i]."""
  begins = np.asarray(offsets)[rows]
  return indices(begins, np.asarray(offsets)[np.asarray(rows) + 1] - begins)
