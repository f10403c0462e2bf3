"""Class weights for the loss of the gold labels.

An entry of `Task.class_weights` is `LABEL=NUMBER` or `balanced`. The balanced
weight of a class is N / (K n), where N is the number of all gold labels, K is
the number of classes that occur, and n is the number of gold labels of this
class (King and Zeng 2001, "Logistic Regression in Rare Events Data";
scikit-learn's `class_weight='balanced'`).
"""

from collections.abc import Sequence

import numpy as np

from bam_jax import errors
from bam_jax import plain_text

BALANCED = 'balanced'
_MOST = 1e6


def parse(entries: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
  """Parses `LABEL=WEIGHT` entries; returns label -> weight.

  The entry `balanced` gives an empty dict.

  >>> parse(('rare=8',), ('rare', 'frequent'))
  {'rare': 8.0}

  Raises:
    ValueError: an entry is malformed; the message says how to write it.
  """
  found: dict[str, float] = {}
  for entry in entries:
    label, _, number = entry.rpartition('=')
    if entry == BALANCED:
      if len(entries) > 1:
        raise ValueError(f'{entry!r} stands for all labels; leave out the rest')
      continue
    if label not in labels:
      known = errors.some(labels) or '(none are declared; give labels too)'
      raise ValueError(
        f'{entry!r} is neither balanced nor LABEL=NUMBER with one of the labels'
        f' {known}'
      )
    if label in found:
      raise ValueError(f'{entry!r}: {label!r} has two weights; remove one')
    try:
      found[label] = plain_text.parse_number(number)
    except ValueError:
      found[label] = 0.0
    if not 0 < found[label] <= _MOST:
      raise ValueError(
        f'{entry!r}: give a number above 0 and at most {_MOST:g}'
      )
  return found


def balance(counts: np.ndarray) -> np.ndarray:
  """Returns the balanced weights for counts [..., k]; a count of 0 gives 1.

  >>> balance(np.array([30, 10, 0])).tolist()
  [0.6666666666666666, 2.0, 1.0]
  """
  total = np.sum(counts, axis=-1, keepdims=True)
  present = np.sum(counts > 0, axis=-1, keepdims=True)
  balanced = total / np.fmax(present * counts, 1)
  return np.where(counts > 0, balanced, 1.0)
