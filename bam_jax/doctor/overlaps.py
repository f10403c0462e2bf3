"""Training rows that also stand in what is scored or predicted."""

from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np

from bam_jax import errors
from bam_jax.doctor import duplicates
from bam_jax.doctor import findings
from bam_jax.doctor import keys

_REMEDY = 'leave them out of the training file, or say so beside the scores'


def rows(
  train: Sequence[keys.Split], held: Sequence[keys.Split]
) -> Iterator[findings.Finding]:
  """Rows of training files that equal a held-out row, of any task.

  Args:
    train: training splits.
    held: dev and test splits.
  """
  for split in train:
    key = split.in_any_order()
    order = np.argsort(key, kind='stable')
    ordered = key[order]
    for other in held:
      if other.texts.shape[1] == split.texts.shape[1]:
        yield from _overlap(split, order, ordered, other)


def _overlap(
  split: keys.Split, order: np.ndarray, ordered: np.ndarray, other: keys.Split
) -> Iterator[findings.Finding]:
  """Rows that two splits share, the key of the first in ascending order."""
  key = other.in_any_order()
  low = np.searchsorted(ordered, key, 'left')
  high = np.searchsorted(ordered, key, 'right')
  rows_there = np.flatnonzero(high > low)
  if not len(rows_there):
    return
  _, first = np.unique(key[rows_there], return_index=True)
  rows_here = (high - low)[rows_there[first]].sum()
  partner = order[low[rows_there]]
  what = (
    f'training rows that also stand in {other.name}, as {len(rows_there):,} of'
    f' its {len(key):,} rows: {len(first):,} different ones'
  )
  if split.texts.shape[1] == 2:
    same = np.intersect1d(split.in_order(), other.in_order())
    what += f', {len(same):,} with the texts in the same order'
  if split.task is other.task and not np.isnan(other.label).all():
    unlike = duplicates.differ(
      split.task, split.label[partner], other.label[rows_there]
    ).sum()
    if unlike:
      what += f'; {unlike:,} rows with another label'
  yield findings.Finding(
    'warning',
    split.task.name,
    split.split,
    'overlap',
    what,
    _REMEDY,
    int(rows_here),
    places(split, partner, other, rows_there, '='),
  )


def places(
  split: keys.Split,
  rows_here: np.ndarray,
  other: keys.Split,
  rows_there: np.ndarray,
  sign: str,
) -> tuple[str, ...]:
  """The first pairs of rows, by the training file's order."""
  first = np.argsort(rows_here, kind='stable')[: findings.MAX_PLACES]
  return tuple(
    f'{split.place(rows_here[i])} {sign} {other.place(rows_there[i])}'
    for i in first
  )


def texts(
  train: Sequence[keys.Split], held: Sequence[keys.Split], num_texts: int
) -> Iterator[findings.Finding]:
  """Single texts of pairs that stand in training files, as counts alone.

  Args:
    train: training splits.
    held: dev and test splits.
    num_texts: of all splits.
  """
  known = np.zeros((len(train), num_texts), bool)
  for row, split in enumerate(train):
    known[row, split.texts.ravel()] = True
  for other in held:
    numbers = np.unique(other.texts)
    # Where both have one text a row, this is an overlap of rows.
    others = [
      row
      for row, split in enumerate(train)
      if max(split.texts.shape[1], other.texts.shape[1]) == 2
    ]
    there = known[np.ix_(others, numbers)]
    shared = [
      f'{train[row].task.name} {count:,}'
      for row, count in zip(others, there.sum(axis=1), strict=True)
      if count
    ]
    if shared:
      yield findings.Finding(
        'note',
        other.task.name,
        other.split,
        'shared texts',
        f'of its {len(numbers):,} different texts that stand in training rows,'
        f' whatever is beside them: {errors.some(shared)}',
        '',
        int(there.any(axis=0).sum()),
      )
