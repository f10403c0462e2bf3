"""Metrics of predicted scores: correlations and the absolute error.

The module `metrics` explains the shapes of the arguments and results.
"""

import math

import numpy as np

from bam_jax.tasks import resampled


def pearson(
  predictions: np.ndarray, gold: np.ndarray, counts: resampled.Counts = None
) -> np.ndarray:
  """Pearson's linear correlation, -1 to 1; nan if either input is constant."""
  return _correlation(predictions, gold, counts, is_of_ranks=False)


def spearman(
  predictions: np.ndarray, gold: np.ndarray, counts: resampled.Counts = None
) -> np.ndarray:
  """Spearman's rank correlation, -1 to 1; nan if either input is constant."""
  return _correlation(predictions, gold, counts, is_of_ranks=True)


def _correlation(
  predictions: np.ndarray,
  gold: np.ndarray,
  counts: resampled.Counts,
  is_of_ranks: bool,
) -> np.ndarray:
  """Linear correlation of values or ranks; nan if a value is not finite."""
  predictions, gold = resampled.check(predictions, gold)
  rows = predictions.reshape(-1, len(gold)).astype(np.float64)
  gold = gold.astype(np.float64)
  if counts is None:
    found = np.array([_correlate(row, gold, is_of_ranks) for row in rows])
    return found.reshape(predictions.shape[:-1])[()]
  counts = np.asarray(counts)
  weights = np.ascontiguousarray(counts.T, np.float64)  # [N, B]
  total = np.sum(weights, axis=0)
  single = weights.astype(np.float32)  # Exact, and faster to rank.

  def moments(values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns values, means, centred sums of squares, and sums of squares.

    With `is_of_ranks`, the values are replaced by their ranks.
    """
    if is_of_ranks:
      values = resampled.ranks(values, single).astype(np.float64)
      mean = np.einsum('nb,nb->b', weights, values) / total
      squares = np.einsum('nb,nb,nb->b', weights, values, values)
    else:
      values = values - np.mean(values)
      mean, squares = values @ weights / total, values**2 @ weights
    return values, mean, squares - total * mean**2, squares

  y, mean, y_centred, y_squares = moments(gold)
  y = weights * (y.reshape(len(gold), -1) - mean)
  found = []
  for row in rows:
    if not np.all(np.isfinite(row)):
      found.append(np.full(len(counts), math.nan))
      continue
    x, _, x_centred, x_squares = moments(row)
    products = np.einsum('nb,nb->b', y, x) if is_of_ranks else x @ y
    norm = np.sqrt(np.abs(x_centred * y_centred))
    scores = products / np.where(norm > 0, norm, 1.0)
    # If values are almost equal, rounding errors are too large here.
    # `_correlate` computes these scores from the drawn examples.
    vague = (x_centred < 1e-6 * x_squares) | (y_centred < 1e-6 * y_squares)
    for i in np.flatnonzero(vague | ~(norm > 0)):
      x, drawn = np.repeat([row, gold], counts[i].astype(int), axis=1)
      scores[i] = _correlate(x, drawn, is_of_ranks)
    found.append(np.clip(scores, -1.0, 1.0))
  return np.reshape(found, (*predictions.shape[:-1], len(counts)))


def _correlate(x: np.ndarray, y: np.ndarray, is_of_ranks: bool) -> float:
  """Linear correlation of [N] values or their ranks; nan if undefined."""
  # Ranks would hide values that are not finite.
  if not np.all(np.isfinite([x, y])) or np.ptp(x) == 0 or np.ptp(y) == 0:
    return math.nan
  if is_of_ranks:
    x, y = (
      resampled.ranks(values, np.ones((len(x), 1)))[:, 0] for values in (x, y)
    )
  # Divide by the range first: the square of a tiny deviation would underflow.
  x, y = ((values - np.mean(values)) / np.ptp(values) for values in (x, y))
  x, y = (values / np.sqrt(np.vecdot(values, values)) for values in (x, y))
  return float(np.clip(np.vecdot(x, y), -1.0, 1.0))


def neg_mean_absolute_error(
  predictions: np.ndarray, gold: np.ndarray, counts: resampled.Counts = None
) -> np.ndarray:
  """Negated mean absolute error on the task's scale; higher is better."""
  predictions, gold = resampled.check(predictions, gold)
  error = np.abs(predictions - gold)
  if counts is None:
    return -np.mean(error, axis=-1, dtype=np.float64)
  weights = np.asarray(counts, np.float64)
  return -(error @ weights.T) / np.sum(weights, axis=-1)
