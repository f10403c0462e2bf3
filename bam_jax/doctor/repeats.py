"""Finds rows that occur twice: in a split, or in training and held-out rows.

Texts that differ only in case and white space count as equal.
"""

from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np

from bam_jax import errors
from bam_jax.doctor import findings
from bam_jax.doctor import near
from bam_jax.doctor import rows as rows_lib
from bam_jax.tasks import task as task_lib

# Scores that differ by less than this share of the scale agree.
_TOLERANCE = 0.1


class Texts:
  """Different texts, numbered in the order of their first occurrence.

  Attributes:
    number: text in lower case, with single blanks -> number.
  """

  def __init__(self):
    self.number: dict[str, int] = {}

  def add(self, texts: Sequence[str]) -> np.ndarray:
    """[N] int64 numbers of texts."""
    number = self.number
    return np.fromiter(
      (
        number.setdefault(' '.join(text.lower().split()), len(number))
        for text in texts
      ),
      np.int64,
      len(texts),
    )


def _in_order(rows: rows_lib.Rows) -> np.ndarray:
  """[N] int64 keys, equal for rows whose texts are equal in this order."""
  return _join(rows.numbers)


def _in_any_order(rows: rows_lib.Rows) -> np.ndarray:
  """[N] int64 keys, equal for rows whose texts are equal in either order."""
  return _join(np.sort(rows.numbers, axis=1))


def _join(numbers: np.ndarray) -> np.ndarray:
  """Two numbers as one; there are far fewer than 2^31 texts."""
  first, last = numbers[:, 0], numbers[:, -1]
  return first if numbers.shape[1] == 1 else first << 31 | last


def _contradict(
  task: task_lib.Task, a: np.ndarray, b: np.ndarray
) -> np.ndarray:
  """Whether labels contradict each other; nan contradicts nothing."""
  low, high = task.scale
  slack = _TOLERANCE * (high - low) if task.kind.has_scale else 0
  return np.abs(a - b) > slack


def _places(
  rows: rows_lib.Rows,
  ours: Sequence[int],
  other: rows_lib.Rows,
  theirs: Sequence[int],
  sign: str = '=',
) -> list[str]:
  """The first pairs of rows, in the order given."""
  pairs = list(zip(ours, theirs, strict=True))[: findings.MAX_PLACES]
  return [f'{rows.place(a)} {sign} {other.place(b)}' for a, b in pairs]


def check_split(rows: rows_lib.Rows) -> Iterator[findings.Finding]:
  """Finds duplicates, and groups of equal rows that contradict each other."""
  _, first, group = np.unique(
    _in_order(rows), return_index=True, return_inverse=True
  )
  turned = len(first) - len(np.unique(_in_any_order(rows)))
  if len(first) == len(rows) and not turned:
    return
  copies = np.flatnonzero(first[group] != np.arange(len(rows)))
  what = 'rows equal to an earlier one but for case and white space'
  if turned:
    what += f'; {turned:,} more with the texts in the other order'
  yield rows.find(
    'note',
    'duplicates',
    what,
    'remove them if they should not count more than once',
    len(copies),
    _places(rows, first[group[copies]], rows, copies),
  )
  lowest, highest = np.full((2, len(first)), [[np.inf], [-np.inf]])
  with np.errstate(invalid='ignore'):  # Rows without a label have nan.
    np.minimum.at(lowest, group, rows.label)
    np.maximum.at(highest, group, rows.label)
  unlike = np.flatnonzero(_contradict(rows.task, lowest, highest))
  if not len(unlike):
    return
  # Of each group its first row, and the first that contradicts it.
  ones, others = [], []
  for number in unlike[np.argsort(first[unlike])][: findings.MAX_PLACES]:
    members = np.flatnonzero(group == number)
    labels = rows.label[members]
    one, other = np.argwhere(
      _contradict(rows.task, labels[:, None], labels[None, :])
    )[0]
    ones.append(members[one])
    others.append(members[other])
  count = np.isin(group, unlike).sum()
  yield rows.find(
    'warning',
    'conflicts',
    f'texts with different labels, in {count:,} rows',
    'keep one label of each',
    len(unlike),
    _places(rows, ones, rows, others),
  )


def check_equal(
  train: Sequence[rows_lib.Rows],
  held: Sequence[rows_lib.Rows],
  unused_texts: Sequence[str],
) -> Iterator[findings.Finding]:
  """Finds rows of training files that equal a held-out row, of any task.

  Args:
    train: training splits.
    held: dev and test splits.
  """
  for rows in train:
    key = _in_any_order(rows)
    order = np.argsort(key, kind='stable')
    for other in held:
      if other.is_pair == rows.is_pair:
        yield from _equal(rows, order, key[order], other)


def _equal(
  rows: rows_lib.Rows,
  order: np.ndarray,
  ordered: np.ndarray,
  other: rows_lib.Rows,
) -> Iterator[findings.Finding]:
  """Finds rows that two splits share, given the first's keys in order."""
  key = _in_any_order(other)
  low = np.searchsorted(ordered, key, 'left')
  high = np.searchsorted(ordered, key, 'right')
  theirs = np.flatnonzero(high > low)
  if not len(theirs):
    return
  _, first = np.unique(key[theirs], return_index=True)
  count = (high - low)[theirs[first]].sum()
  ours = order[low[theirs]]
  what = (
    f'training rows that also stand in {other.name}, as {len(theirs):,} of'
    f' its {len(key):,} rows: {len(first):,} different ones'
  )
  if rows.is_pair:
    same = np.intersect1d(_in_order(rows), _in_order(other))
    what += f', {len(same):,} with the texts in the same order'
  if rows.task is other.task and not np.isnan(other.label).all():
    unlike = _contradict(rows.task, rows.label[ours], other.label[theirs]).sum()
    if unlike:
      what += f'; {unlike:,} rows with another label'
  by_line = np.argsort(ours, kind='stable')
  yield rows.find(
    'warning',
    'overlap',
    what,
    'leave them out of the training file, or say so beside the scores',
    int(count),
    _places(rows, ours[by_line], other, theirs[by_line]),
  )


def check_near(
  train: Sequence[rows_lib.Rows],
  held: Sequence[rows_lib.Rows],
  texts: Sequence[str],
) -> Iterator[findings.Finding]:
  """Finds training rows that nearly equal a held-out row, of any task.

  Args:
    train: training splits.
    held: dev and test splits.
    texts: by number.
  """
  sets = near.word_pairs(texts) if train and held else None
  for is_pair in (False, True):
    here = [_distinct(rows) for rows in train if rows.is_pair == is_pair]
    there = [_distinct(rows) for rows in held if rows.is_pair == is_pair]
    if not here or not there:
      continue
    found = near.find(
      sets,
      *(np.concatenate([r.numbers[i] for r, i in s]) for s in (here, there)),
    )
    end = 0
    for rows, kept in here:
      begin, end = end, end + len(kept)
      other_end = 0
      for other, other_kept in there:
        other_begin, other_end = other_end, other_end + len(other_kept)
        both = (found.train >= begin) & (found.train < end)
        both &= (found.held >= other_begin) & (found.held < other_end)
        if both.any():
          ours = kept[found.train[both] - begin]
          theirs = other_kept[found.held[both] - other_begin]
          yield _near(rows, ours, other, theirs, found.passed_over)


def _near(
  rows: rows_lib.Rows,
  ours: np.ndarray,
  other: rows_lib.Rows,
  theirs: np.ndarray,
  passed_over: int,
) -> findings.Finding:
  what = (
    f'training rows that nearly stand in {other.name}, beside'
    f' {len(np.unique(theirs)):,} of its {len(other):,} rows'
  )
  if passed_over:
    what += (
      f'; there may be more: {passed_over:,} pairs of words were too'
      ' frequent to be compared by'
    )
  by_line = np.argsort(ours, kind='stable')
  return rows.find(
    'note',
    'near overlap',
    what,
    'look at them; leave out those that are the same',
    len(np.unique(ours)),
    _places(rows, ours[by_line], other, theirs[by_line], '≈'),
  )


def _distinct(rows: rows_lib.Rows) -> tuple[rows_lib.Rows, np.ndarray]:
  """Rows with the numbers of the first of each group of equal ones."""
  return rows, np.unique(_in_any_order(rows), return_index=True)[1]


def check_texts(
  train: Sequence[rows_lib.Rows],
  held: Sequence[rows_lib.Rows],
  texts: Sequence[str],
) -> Iterator[findings.Finding]:
  """Counts single texts of pairs that also occur in training files.

  Args:
    train: training splits.
    held: dev and test splits.
    texts: by number.
  """
  known = np.zeros((len(train), len(texts)), bool)
  for known_here, rows in zip(known, train, strict=True):
    known_here[rows.numbers.ravel()] = True
  for other in held:
    numbers = np.unique(other.numbers)
    # If both have one text a row, `check_equal` finds it.
    compared = [i for i, x in enumerate(train) if x.is_pair or other.is_pair]
    there = known[np.ix_(compared, numbers)]
    shared = [
      f'{train[i].task.name} {count:,}'
      for i, count in zip(compared, there.sum(axis=1), strict=True)
      if count
    ]
    if shared:
      yield other.find(
        'note',
        'shared texts',
        f'of its {len(numbers):,} different texts that stand in training rows,'
        f' whatever is beside them: {errors.some(shared)}',
        count=int(there.any(axis=0).sum()),
        places=(),
      )
