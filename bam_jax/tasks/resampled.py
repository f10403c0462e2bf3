"""Sums and ranks over resampled examples, shared by the metrics.

There are N examples and B resamples. Counts [B, N] say how often each resample
drew each example. Counts are None if there is no resampling; then each example
counts once.
"""

import numpy as np

Counts = np.ndarray | None


def check(
  predictions: np.ndarray, gold: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Converts both inputs to arrays; raises ValueError if the sizes don't match.

  Also raises ValueError if there are no examples.
  """
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
  """Counts the chosen examples in each resample.

  `chosen` is [..., N] bool. The result is [..., B], or [...] without counts.
  """
  if counts is None:
    return np.sum(chosen, axis=-1, dtype=np.float64)
  # float32 is exact for integers below 2^24, and twice as fast as float64.
  found = chosen.astype(np.float32) @ np.asarray(counts, np.float32).T
  return found.astype(np.float64)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
  """Divides two arrays; nan where the denominator is 0."""
  defined = denominator > 0
  return np.where(defined, numerator, np.nan) / np.where(
    defined, denominator, 1.0
  )


def ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """Ranks the values within each resample, [N, B]; see `below` for arguments.

  The result for a value is the number of lower values plus the number of lower
  or equal values. This is 2 r - 1, where r is the usual rank, for which equal
  values share their mean rank.
  """
  lower, lower_or_equal = below(values, counts)
  return lower + lower_or_equal


def below(
  values: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Counts, for each value, the lower values and the lower or equal values.

  Args:
    values: [N].
    counts: [N, B], how often each resample drew each value.

  Returns:
    Two arrays, each [N, B]: the numbers of lower values, and the numbers of
    lower or equal values.
  """
  _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
  ends = np.cumsum(sizes)
  sums = np.empty((len(values) + 1, counts.shape[1]), counts.dtype)
  sums[0] = 0
  order = np.argsort(group, kind='stable')
  np.cumsum(counts[order], axis=0, out=sums[1:])
  return sums[(ends - sizes)[group]], sums[ends[group]]
