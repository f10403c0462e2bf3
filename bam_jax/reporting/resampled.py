"""Metrics of many resamples at once.

A resample says how often each example was drawn, so a metric of it is one of
weighted sums: of counts of a confusion table, or of ranks. No example is looked
at twice, where drawing rows out and scoring them would cost a hundredfold.
"""

from collections.abc import Callable
import functools
import itertools

import numpy as np

from bam_jax.reporting import bootstrap
from bam_jax.tasks import metrics
from bam_jax.tasks import tallies

_LANES = 512  # Resamples ranked together.
_SMALL = 1e-14  # Of a variance, against the largest square.


def score_of(metric: str, targets: np.ndarray) -> bootstrap.Score:
  """Score of a metric of `tasks.metrics`, for `bootstrap.bootstrap_test`.

  Args:
    metric: one of its names, or of `tasks.tallies`.
    targets: [N] gold; not read for the latter.

  Returns:
    Of predictions [S, N], or tallies [S, N, ...], and how often each example
    was drawn [B, N], the metric's values [B, S]; nan where they are undefined,
    as there.
  """
  if metric in tallies.METRICS:
    return functools.partial(_tallied, tallies.METRICS[metric])
  return functools.partial(_SCORES[metric], np.asarray(targets))


def _tallied(
  metric: Callable[[np.ndarray], np.ndarray],
  outputs: np.ndarray,
  counts: np.ndarray,
) -> np.ndarray:
  """Of tallies [S, N, ...]."""
  return metric(np.tensordot(counts, outputs, axes=([1], [1])))


def _totals(counts: np.ndarray, chosen: np.ndarray) -> np.ndarray:
  """[B, S]: how many of those drawn [B, N] are chosen [S, N]."""
  # Whole numbers below 2^24 are exact in float32, and twice as fast.
  total = counts.astype(np.float32) @ chosen.astype(np.float32).T
  return total.astype(np.float64)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
  """nan where the denominator is not above 0."""
  defined = denominator > 0
  return np.where(defined, numerator, np.nan) / np.where(
    defined, denominator, 1.0
  )


def _accuracy(
  targets: np.ndarray, outputs: np.ndarray, counts: np.ndarray
) -> np.ndarray:
  hits = _totals(counts, outputs == targets)
  return hits / counts.sum(axis=1, keepdims=True)


def _f1(
  targets: np.ndarray, outputs: np.ndarray, counts: np.ndarray
) -> np.ndarray:
  predicted, positive = outputs == 1, targets == 1
  hits = _totals(counts, predicted & positive)
  either = _totals(counts, predicted) + _totals(counts, positive[None])
  return _ratio(2 * hits, either)


def _matthews(
  targets: np.ndarray, outputs: np.ndarray, counts: np.ndarray
) -> np.ndarray:
  """Of any number of classes; `metrics.matthews` has the formula."""
  rows = counts.sum(axis=1, keepdims=True).astype(np.float64)
  covariance = rows * _totals(counts, outputs == targets)
  spread_predicted, spread_actual = rows**2, rows**2
  for label in np.union1d(outputs, targets):
    predicted = _totals(counts, outputs == label)
    actual = _totals(counts, targets[None] == label)
    covariance = covariance - predicted * actual
    spread_predicted = spread_predicted - predicted**2
    spread_actual = spread_actual - actual**2
  return _ratio(covariance, np.sqrt(spread_predicted * spread_actual))


def _pearson(
  targets: np.ndarray, outputs: np.ndarray, counts: np.ndarray
) -> np.ndarray:
  weight = counts / counts.sum(axis=1, keepdims=True)
  # Centred, so that little is lost when squares of means are taken off.
  x = outputs - outputs.mean(axis=1, keepdims=True)  # [S, N]
  y = targets - targets.mean()
  mean_x, mean_y = weight @ x.T, (weight @ y)[:, None]
  covariance = weight @ (x * y).T - mean_x * mean_y
  spread_x = weight @ (x**2).T - mean_x**2
  spread_y = (weight @ y**2)[:, None] - mean_y**2
  # A constant's variance is zero but for rounding, which may also be all that
  # is left of a small one. Such draws are few, and scored row by row.
  small = spread_x < _SMALL * np.max(x**2, initial=0)
  small |= spread_y < _SMALL * np.max(y**2, initial=0)
  constant = (np.ptp(outputs, axis=1) == 0) | (np.ptp(targets) == 0)  # [S]
  spread = np.where(small | constant, np.nan, spread_x * spread_y)
  result = covariance / np.sqrt(spread)
  for draw, seed in zip(*np.nonzero(small & ~constant)):
    rows = counts[draw] > 0
    result[draw, seed] = metrics.pearson(
      np.repeat(outputs[seed, rows], counts[draw, rows]),
      np.repeat(targets[rows], counts[draw, rows]),
    )
  return result


def _spearman(
  targets: np.ndarray, outputs: np.ndarray, counts: np.ndarray
) -> np.ndarray:
  """Pearson's of mean ranks, which follow from cumulated counts.

  In float32: ranks, being halves, are exact up to 2^22 examples, and about five
  figures of the sums of their products are.
  """
  result = np.empty((len(counts), len(outputs)))
  of_targets = _Ranking(targets)
  of_outputs = [_Ranking(output) for output in outputs]
  for start in range(0, len(counts), _LANES):
    drawn = slice(start, start + _LANES)
    weight = np.ascontiguousarray(counts[drawn].T, np.float32)  # [N, B]
    ranks = of_targets.ranks(weight)
    ranks *= weight
    # What no order changes, once for all seeds.
    own, cubes = np.einsum('nb,nb->b', ranks, weight) / 2, _cubes(weight)
    spread = of_targets.spread(weight, cubes)
    equal = of_targets.is_constant(weight)
    for seed, ranking in enumerate(of_outputs):
      covariance = ranking.product(weight, ranks) - own
      both = spread * ranking.spread(weight, cubes)
      # Rounded, that of a constant need not be 0, and may be below it.
      both[equal | ranking.is_constant(weight)] = np.nan
      result[drawn, seed] = covariance.astype(np.float64) / np.sqrt(both)
  return result


class _Ranking:
  """The order of [N] values, which resamples keep.

  An example's mean rank counts those before it and half of those drawn of it
  and of its equals. That is the mean over two orders, in which equals stand
  forwards and backwards.
  """

  def __init__(self, values: np.ndarray):
    backwards = len(values) - 1 - np.argsort(values[::-1], kind='stable')
    self._orders = [np.argsort(values, kind='stable')]
    _, group, size = np.unique(values, return_inverse=True, return_counts=True)
    is_tied = size[group[self._orders[0]]] > 1
    self._tied = self._orders[0][is_tied]  # Those that have equals, in order,
    size = size[size > 1]
    self._starts = np.cumsum(size) - size  # and where each group begins.
    if len(size):
      self._orders.append(backwards)

  def ranks(self, weight: np.ndarray) -> np.ndarray:
    """Mean ranks [N, B] less their mean; `weight` [N, B]: how often drawn."""
    ranks = np.zeros_like(weight)
    for order in self._orders:
      ranks[order] += _cumulated(weight, order)
    ranks /= len(self._orders)
    ranks -= weight / 2
    ranks -= weight.sum(axis=0) / 2
    return ranks

  def product(self, weight: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum [B] of running counts times values [N, B], which are of sum zero.

    Of ranks times values it is, but for half of each example's own count.
    """
    total = sum(
      np.einsum(
        'nb,nb->b',
        np.take(values, order, axis=0),
        _cumulated(weight, order),
      )
      for order in self._orders
    )
    return total / len(self._orders)

  def is_constant(self, weight: np.ndarray) -> np.ndarray:
    """[B] bool: whether the values of all that was drawn are equal.

    Exact, where `spread` is rounded and need not be 0.
    """
    most = weight.max(axis=0)
    if len(self._starts):
      most = np.maximum(most, self._groups(weight).max(axis=0))
    return most == weight.sum(axis=0)

  def _groups(self, weight: np.ndarray) -> np.ndarray:
    """How many were drawn of each group of equals, [groups, B]."""
    tied = np.take(weight, self._tied, axis=0)
    return np.add.reduceat(tied, self._starts, axis=0)

  def spread(self, weight: np.ndarray, cubes: np.ndarray) -> np.ndarray:
    """Sum of squares [B] of the ranks of those drawn, less their mean."""
    ties = cubes
    if len(self._starts):
      tied = np.take(weight, self._tied, axis=0)
      ties = cubes + _cubes(self._groups(weight)) - _cubes(tied)
    return (weight.sum(axis=0, dtype=np.float64) ** 3 - ties) / 12


def _cubes(values: np.ndarray) -> np.ndarray:
  return np.einsum('nb,nb->b', values * values, values).astype(np.float64)


def _cumulated(values: np.ndarray, order: np.ndarray) -> np.ndarray:
  """Running sums of [N, B] in an order."""
  result = np.take(values, order, axis=0)
  # A tenth of the time of np.cumsum, which goes down column by column.
  for before, row in itertools.pairwise(result):
    row += before
  return result


_SCORES: dict[str, Callable[..., np.ndarray]] = {
  'accuracy': _accuracy,
  'f1': _f1,
  'matthews': _matthews,
  'pearson': _pearson,
  'spearman': _spearman,
}
