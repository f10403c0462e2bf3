"""Metrics computed from counts that are summed over the examples.

The counts of one example are its tally, [...]. A metric is a function of the
sum of the tallies, so it can be computed for any resample of the examples. It
is 0 to 1, and nan where it would divide by 0.
"""

from collections.abc import Callable

import numpy as np


def counts(predicted: np.ndarray, gold: np.ndarray) -> np.ndarray:
  """Marks true positives, predicted positives and gold positives.

  >>> counts(np.array([True, True, False]), np.array([True, False, False]))
  array([[1, 1, 1],
         [0, 1, 0],
         [0, 0, 0]])

  Both arguments are [...] bool; the result is [..., 3] int64.
  """
  columns = (predicted & gold, predicted, gold)
  return np.stack(columns, axis=-1).astype(np.int64)


def f1(sums: np.ndarray) -> np.ndarray:
  """Computes F1 from sums of `counts`, [..., 3] -> [...]."""
  both, predicted, gold = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
  return ratio(2 * both, predicted + gold)


def micro_f1(sums: np.ndarray) -> np.ndarray:
  """F1 over all labels together; [..., labels, 3] -> [...]."""
  return f1(np.sum(sums, axis=-2))


def macro_f1(sums: np.ndarray) -> np.ndarray:
  """Mean over labels of their F1; [..., labels, 3] -> [...].

  A label that is neither predicted nor gold counts as 0, as in scikit-learn;
  if that holds for all labels, the mean is undefined.
  """
  by_label = f1(sums)
  undefined = np.isnan(by_label)
  mean = np.mean(np.where(undefined, 0.0, by_label), axis=-1)
  return np.where(undefined.all(axis=-1), np.nan, mean)


def share(
  numerator: int, denominator: int
) -> Callable[[np.ndarray], np.ndarray]:
  """Makes a metric that divides one summed count by another, given by index.

  >>> recall = share(0, 2)
  >>> recall(np.array([1, 5, 4])).item()
  0.25
  """
  return lambda sums: ratio(sums[..., numerator], sums[..., denominator])


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
  """Quotient of two arrays; nan where the denominator is 0."""
  defined = denominator > 0
  return np.where(defined, numerator, np.nan) / np.where(
    defined, denominator, 1.0
  )


def of_examples(
  of_sums: Callable[[np.ndarray], np.ndarray],
) -> Callable[..., np.ndarray]:
  """Makes a metric that sums the examples' counts and calls a function on them.

  The result takes the tallies of N examples, [N, ...] -> a scalar; or tallies
  [S, N, ...] and `counts` of resamples [B, N] -> [S, B].
  """

  def metric(
    tally: np.ndarray,
    gold: np.ndarray | None = None,
    counts: np.ndarray | None = None,
  ) -> np.ndarray:
    del gold  # Gold labels are in the tallies.
    if counts is None:
      return of_sums(np.sum(tally, axis=0))
    sums = np.tensordot(counts, tally, axes=([1], [1]))  # [B, S, ...]
    return np.swapaxes(of_sums(sums), 0, 1)

  return metric
