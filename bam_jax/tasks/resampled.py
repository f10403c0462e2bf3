"""Sums and ranks of resampled examples, which the metrics share.

N examples, B resamples; counts [B, N] say how often each resample drew each
example, None that there is no resample and each counts once.
"""

import numpy as np

Counts = np.ndarray | None


def check(
  predictions: np.ndarray, gold: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Converts both to arrays; raises ValueError if their sizes don't match."""
  predictions, gold = np.asarray(predictions), np.asarray(gold)
  if gold.ndim != 1 or predictions.shape[-1:] != gold.shape:
    raise ValueError(
      f'predictions {predictions.shape} must be [..., N] and gold'
      f' {gold.shape} must be [N]'
    )
  if not len(gold):
    raise ValueError('no row to score')
  return predictions, gold


def total(chosen: np.ndarray, counts: Counts) -> np.ndarray:
  """Counts the chosen examples in each resample."""
  if counts is None:
    return np.sum(chosen, axis=-1, dtype=np.float64)
  # Whole numbers below 2^24 are exact in float32, and twice as fast.
  found = chosen.astype(np.float32) @ np.asarray(counts, np.float32).T
  return found.astype(np.float64)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
  """Divides two arrays; nan where the denominator is 0."""
  defined = denominator > 0
  return np.where(defined, numerator, np.nan) / np.where(
    defined, denominator, 1.0
  )


def ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """Ranks the values of each resample, [N, B].

  The result is the number of lower values plus that of lower or equal ones. It
  is linear in the rank, where ties share the mean of their ranks.
  """
  lower, lower_or_equal = below(values, counts)
  return lower + lower_or_equal


def below(
  values: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Counts for each value how many are lower, and how many lower or equal.

  Takes values [N], and how often each resample has each, [N, B]; returns
  [N, B] twice.
  """
  _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
  ends = np.cumsum(sizes)
  sums = np.empty((len(values) + 1, counts.shape[1]), counts.dtype)
  sums[0] = 0
  order = np.argsort(group, kind='stable')
  np.cumsum(counts[order], axis=0, out=sums[1:])
  return sums[(ends - sizes)[group]], sums[ends[group]]
