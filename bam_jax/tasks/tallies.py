"""Metrics of sums over examples: each example is counted, its tally [...].

A metric is a function of the sum of the tallies, so that it can be had of any
draw of the examples. All are 0 to 1, and nan where they are undefined: nothing
is counted that they are a share of.
"""

from collections.abc import Callable

import numpy as np


def counts(predicted: np.ndarray, gold: np.ndarray) -> np.ndarray:
  """Tallies of assignments that are right or wrong each.

  >>> counts(np.array([True, True, False]), np.array([True, False, False]))
  array([[1, 1, 1],
         [0, 1, 0],
         [0, 0, 0]])

  Args:
    predicted: [...] bool.
    gold: [...] bool.

  Returns:
    [..., 3] int64: those that are both, predicted, gold.
  """
  columns = (predicted & gold, predicted, gold)
  return np.stack(columns, axis=-1).astype(np.int64)


def f1(sums: np.ndarray) -> np.ndarray:
  """F1 of sums of `counts`, [..., 3] -> [...]."""
  both, predicted, gold = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
  return ratio(2 * both, predicted + gold)


def precision(sums: np.ndarray) -> np.ndarray:
  """Share of those predicted that are gold, [..., 3] -> [...]."""
  both, predicted, _ = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
  return ratio(both, predicted)


def recall(sums: np.ndarray) -> np.ndarray:
  """Share of those gold that are predicted, [..., 3] -> [...]."""
  both, _, gold = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
  return ratio(both, gold)


def micro_f1(sums: np.ndarray) -> np.ndarray:
  """F1 over all labels together; [..., labels, 3] -> [...]."""
  return f1(np.sum(sums, axis=-2))


def macro_f1(sums: np.ndarray) -> np.ndarray:
  """Mean over labels of their F1; [..., labels, 3] -> [...].

  A label that is neither predicted nor gold counts as 0, as in scikit-learn;
  where no label is either, the mean is undefined.
  """
  by_label = f1(sums)
  undefined = np.isnan(by_label)
  mean = np.mean(np.where(undefined, 0.0, by_label), axis=-1)
  return np.where(undefined.all(axis=-1), np.nan, mean)


def _mean_of(column: int) -> Callable[[np.ndarray], np.ndarray]:
  """Mean over examples of one of what they have, the last of which is 1."""
  return lambda sums: ratio(sums[..., column], sums[..., -1])


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
  """Their quotient; nan where the denominator is 0."""
  defined = denominator > 0
  return np.where(defined, numerator, np.nan) / np.where(
    defined, denominator, 1.0
  )


METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
  'micro_f1': micro_f1,
  'macro_f1': macro_f1,
  'span_f1': f1,
  'span_precision': precision,
  'span_recall': recall,
  'exact_match': _mean_of(0),
  'answer_f1': _mean_of(1),
}

# Why each of them is undefined; the last two are defined for any example.
REASONS: dict[str, str] = {
  'micro_f1': 'no label is gold and none is predicted',
  'macro_f1': 'no label is gold and none is predicted',
  'span_f1': 'no span is gold and none is predicted',
  'span_precision': 'no span is predicted',
  'span_recall': 'no span is gold',
}
