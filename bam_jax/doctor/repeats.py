"""Finds duplicate rows, in one split or across training and held-out splits.

Texts that differ only in case and white space count as equal. The checks across
splits take the training splits, the held-out splits (dev and test), and a list
of all texts. The list has the text with the integer i at index i; see
`number_texts`.
"""

from collections.abc import Iterator, Sequence
import itertools

import numpy as np

from bam_jax import errors
from bam_jax.doctor import findings
from bam_jax.doctor import near
from bam_jax.doctor import rows as rows_lib
from bam_jax.tasks import task as task_lib

# Scores agree if they differ by at most this share of the scale.
_TOLERANCE = 0.1


def number_texts(texts: Sequence[str], number: dict[str, int]) -> np.ndarray:
  """Maps each text to an integer; equal texts get the same integer.

  `number` maps each text, in lower case and with single spaces, to its integer.
  New texts are added to `number`.
  """
  cleaned = (' '.join(text.lower().split()) for text in texts)
  numbers = (number.setdefault(text, len(number)) for text in cleaned)
  return np.fromiter(numbers, np.int64, len(texts))


def _keys(numbers: np.ndarray) -> np.ndarray:
  """Returns [N] int64 keys, equal for rows with equal texts and only these."""
  return numbers[:, 0] << 31 | numbers[:, -1]


def _unordered_keys(rows: rows_lib.Rows) -> np.ndarray:
  """Returns [N] int64 keys that ignore the order of the two texts of a pair."""
  return _keys(np.sort(rows.numbers, axis=1))


def _contradict(
  task: task_lib.Task, a: np.ndarray, b: np.ndarray
) -> np.ndarray:
  """Returns [N] bool: whether labels a and b contradict each other.

  A missing label (nan) contradicts nothing.
  """
  low, high = task.scale
  slack = _TOLERANCE * (high - low) if task.kind.has_scale else 0
  return np.abs(a - b) > slack


def _pair_names(
  rows: rows_lib.Rows,
  ours: np.ndarray,
  other: rows_lib.Rows,
  theirs: np.ndarray,
  sign: str = '=',
) -> list[str]:
  """Describes the first pairs of rows, each as `PLACE SIGN PLACE`."""
  names = rows.place_names(ours), other.place_names(theirs)
  return [f'{a} {sign} {b}' for a, b in zip(*names, strict=True)]


def _first_in_group(group: np.ndarray, is_chosen: np.ndarray) -> np.ndarray:
  """Returns each group's first row that `is_chosen`, if there is one.

  The rows of a group have the same value in `group`.
  """
  chosen = np.flatnonzero(is_chosen)
  return chosen[np.unique(group[chosen], return_index=True)[1]]


def check_split(rows: rows_lib.Rows) -> Iterator[findings.Finding]:
  """Finds duplicate rows, and equal texts with contradicting labels."""
  task, label = rows.task, rows.label
  _, first, group = np.unique(
    _keys(rows.numbers), return_index=True, return_inverse=True
  )
  copies = np.flatnonzero(first[group] != np.arange(len(rows)))
  turned = len(first) - len(np.unique(_unordered_keys(rows)))
  if len(copies) or turned:
    what = 'rows that equal an earlier one if case and white space are ignored'
    if turned:
      what += f'; {turned:,} more with the texts in the other order'
    remedy = 'remove them if they should not count more than once'
    places = _pair_names(rows, first[group[copies]], rows, copies)
    yield rows.find('note', 'duplicates', what, remedy, len(copies), places)
  lowest, highest = np.full((2, len(first)), [[np.inf], [-np.inf]])
  with np.errstate(invalid='ignore'):  # Rows without a label have nan.
    np.minimum.at(lowest, group, label)
    np.maximum.at(highest, group, label)
  # For each group of rows with equal texts but contradicting labels, `ones` has
  # the first row that is contradicted by another row of the group, and `others`
  # has the first row that contradicts this row.
  has_opponent = _contradict(task, label, lowest[group])
  has_opponent |= _contradict(task, label, highest[group])
  ones = _first_in_group(group, has_opponent)
  if len(ones):
    label_of_one = np.full(len(first), np.nan)
    label_of_one[group[ones]] = label[ones]
    is_opponent = _contradict(task, label, label_of_one[group])
    others = _first_in_group(group, is_opponent)
    order = np.argsort(first[group[ones]])
    count = np.bincount(group)[group[ones]].sum()
    what = f'texts with different labels, in {count:,} rows'
    places = _pair_names(rows, ones[order], rows, others[order])
    remedy = 'keep one label of each'
    if task.kind.has_scale:
      remedy = 'keep one score of each, or give all their mean'
    yield rows.find('warning', 'conflicts', what, remedy, len(ones), places)


def check_equal(
  train: Sequence[rows_lib.Rows],
  held: Sequence[rows_lib.Rows],
  unused_texts: Sequence[str],
) -> Iterator[findings.Finding]:
  """Finds training rows that equal a held-out row of any task."""
  remedy = 'leave them out of the training file, or say so beside the scores'
  for rows in train:
    keys, first, counts = np.unique(
      _unordered_keys(rows), return_index=True, return_counts=True
    )
    for other in held:
      if other.is_pair != rows.is_pair:
        continue
      wanted = _unordered_keys(other)
      at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
      theirs = np.flatnonzero(keys[at] == wanted)
      if not len(theirs):
        continue
      shared = np.unique(at[theirs])
      ours = first[at[theirs]]
      what = (
        f'training rows that are also in {other.name}, as {len(theirs):,} of'
        f' its {len(other):,} rows; distinct ones: {len(shared):,}'
      )
      if rows.is_pair:
        same = np.intersect1d(_keys(rows.numbers), _keys(other.numbers))
        what += f'; texts in the same order: {len(same):,}'
      if rows.task is other.task:
        labels = rows.label[ours], other.label[theirs]
        if unlike := _contradict(rows.task, *labels).sum():
          what += f'; rows with another label: {unlike:,}'
      order = np.argsort(ours, kind='stable')
      places = _pair_names(rows, ours[order], other, theirs[order])
      count = counts[shared].sum()
      yield rows.find('warning', 'overlap', what, remedy, count, places)


def check_near(
  train: Sequence[rows_lib.Rows],
  held: Sequence[rows_lib.Rows],
  texts: Sequence[str],
) -> Iterator[findings.Finding]:
  """Finds training rows that are similar to a held-out row of any task."""
  sets = near.word_pairs(texts) if train and held else None
  for is_pair in (False, True):
    sides = [
      [rows for rows in side if rows.is_pair == is_pair]
      for side in (train, held)
    ]
    if not all(sides):
      continue
    (split, row, texts_of), (its_split, its_row, its_texts) = map(
      _distinct_rows, sides
    )
    one, other, skipped = near.find(sets, texts_of, its_texts)
    for (i, mine), (j, its) in itertools.product(*map(enumerate, sides)):
      here = (split[one] == i) & (its_split[other] == j)
      if not here.any():
        continue
      ours, theirs = row[one[here]], its_row[other[here]]
      what = (
        f'training rows that share most pairs of words with rows of'
        f' {its.name}, with {len(np.unique(theirs)):,} of its {len(its):,} rows'
      )
      if skipped:
        what += (
          f'; there may be more: {skipped:,} very frequent pairs of words'
          ' were ignored'
        )
      remedy = 'look at them; leave out those that are the same'
      count = len(np.unique(ours))
      order = np.argsort(ours, kind='stable')
      places = _pair_names(mine, ours[order], its, theirs[order], '≈')
      yield mine.find('note', 'near overlap', what, remedy, count, places)


def _distinct_rows(
  splits: Sequence[rows_lib.Rows],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Removes duplicate rows within each split.

  Returns:
    For each of the n remaining rows: the index of the row's split, [n]; the
    row's index in this split, [n]; and the integers of its texts, [n, 1 or 2].
  """
  kept = [
    np.unique(_unordered_keys(rows), return_index=True)[1] for rows in splits
  ]
  return (
    np.repeat(np.arange(len(kept)), [len(rows) for rows in kept]),
    np.concatenate(kept),
    np.concatenate([r.numbers[k] for r, k in zip(splits, kept, strict=True)]),
  )


def check_texts(
  train: Sequence[rows_lib.Rows],
  held: Sequence[rows_lib.Rows],
  texts: Sequence[str],
) -> Iterator[findings.Finding]:
  """Counts the texts of held-out rows that also occur in training rows."""
  known = np.zeros((len(train), len(texts)), bool)
  for known_here, rows in zip(known, train, strict=True):
    known_here[rows.numbers.ravel()] = True
  for other in held:
    numbers = np.unique(other.numbers)
    # If both splits have one text per row, `check_equal` reports equal texts.
    compared = [i for i, x in enumerate(train) if x.is_pair or other.is_pair]
    there = known[np.ix_(compared, numbers)]
    shared = [
      f'{train[i].task.name} {count:,}'
      for i, count in zip(compared, there.sum(axis=1), strict=True)
      if count
    ]
    if shared:
      what = (
        f'texts, of its {len(numbers):,} distinct ones, that are also in'
        f' training rows, alone or in any pair: {errors.some(shared)}'
      )
      count = there.any(axis=0).sum()
      yield other.find('note', 'shared texts', what, count=count, places=())
