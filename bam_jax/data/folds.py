"""Divides rows into folds, held-out rows, and development rows.

Folds: a teacher has memorised the gold labels of the rows it was trained on. So
each of k teachers is trained without one of k folds and labels only that fold
(cross-fitting; Wolpert 1992, "Stacked generalization").

Held-out rows are left out of the training rows. A search trains no run on its
held-out rows and scores settings on them. A run with patience chooses its best
step on held-out rows.

Development rows: a task without a development file takes them from its training
files.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
import dataclasses
import hashlib

import numpy as np

from bam_jax import errors
from bam_jax.core import sampling
from bam_jax.data import lines
from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import task as task_lib


@dataclasses.dataclass(frozen=True)
class Fold:
  """One of the folds of the training rows, for cross-fitting.

  Attributes:
    number: number of this fold, from 1 to `of`.
    of: number of folds, at least 2.
    seed: seed of the random division, equal to the seed of the teacher.
  """

  number: int
  of: int
  seed: int

  def __str__(self) -> str:
    return f'fold{self.number}of{self.of}'


@dataclasses.dataclass(frozen=True)
class HeldOut:
  """Training rows left out to score settings or the steps of a run.

  Attributes:
    fraction: fraction of each task's distinct examples to hold out.
    most: maximum number of distinct examples to hold out per task.
  """

  fraction: float
  most: int

  def __str__(self) -> str:
    return 'heldout'


def examples_outside(count: int, fold: Fold) -> int:
  """Returns the number of examples outside a fold, out of `count` examples.

  >>> [examples_outside(7, Fold(number, 3, seed=0)) for number in (1, 2, 3)]
  [4, 5, 5]
  """
  return count - len(range(fold.number - 1, count, fold.of))


def split(uids: Sequence[str], fold: Fold) -> tuple[np.ndarray, np.ndarray]:
  """Splits a task's N rows into training rows and the rows of one fold.

  The division depends only on the seed and the uids, not on the order of rows.
  All rows of an example (swapped copies, windows) are in the same fold. The
  sizes of two folds differ by at most one example.

  Returns:
    The indices of the rows to train on, [n] int64, and of the rows in the fold,
    [N - n] int64, both ascending.

  Raises:
    errors.UserError: there are fewer distinct examples than folds.
  """
  bases = [task_lib.example_uid(uid) for uid in uids]
  distinct, base = np.unique(bases, return_inverse=True)
  if len(distinct) < fold.of:
    raise errors.UserError(
      f'config.distill.folds={fold.of}: the task of {bases[0]} has only'
      f' {len(distinct)} training rows; give at most that many folds, or remove'
      ' the task'
    )
  place = sampling.permutation(len(distinct), sampling.FOLDS, 0, 0, fold.seed)
  inside = place[base] % fold.of == fold.number - 1
  return np.flatnonzero(~inside), np.flatnonzero(inside)


def hold_out(
  task: task_lib.Task, rows: kind_lib.Rows, part: HeldOut
) -> tuple[np.ndarray, np.ndarray]:
  """Splits a task's N rows into training rows and held-out rows.

  For given settings, the division depends only on the texts and labels. All
  rows of an example (swapped copies, windows) are on the same side. Examples
  with equal texts are on the same side too, even if one pair has the texts of
  the other in reverse order. If a label is one number, such as a class, each
  label is equally frequent on both sides, up to rounding.

  Returns:
    The indices of the rows to train on, [n] int64, and of the held-out rows,
    [N - n] int64, both ascending.

  Raises:
    errors.UserError: there are fewer than two distinct examples.
  """
  distinct, first, base = np.unique(
    _number_contents(rows, task.is_bi_encoder),
    return_index=True,
    return_inverse=True,
  )
  if len(distinct) < 2:
    raise errors.UserError(
      f'config.search or patience: {task.name} has {len(distinct)} distinct'
      ' training rows, so none can be held out; remove the task, or give more'
      ' rows'
    )
  order = sampling.permutation(len(distinct), sampling.HELD_OUT, 0, 0, 0)
  if task.kind.label_width(task) == 1:
    label = rows.fixed('label')[first[order]]
    order = order[np.argsort(label, kind='stable')]
  count = min(max(int(part.fraction * len(distinct)), 1), part.most)
  inside = np.zeros(len(distinct), bool)
  inside[_evenly_spaced(order, count)] = True
  return np.flatnonzero(~inside[base]), np.flatnonzero(inside[base])


def find_development_rows(
  task: task_lib.Task,
  division: task_lib.Division,
  rows: Iterable[lines.Row],
  name: str,
) -> np.ndarray:
  """Chooses the development rows among the rows of a task's training files.

  If a work directory has recorded the development rows (`division.recorded`),
  those are chosen. Otherwise rows are drawn at random, in one of two ways:

  With a group column (`division.by_group`), whole groups are drawn. A group is
  skipped if it would raise the share of development rows above
  `division.share`.

  Without a group column, rows with equal texts stay together (for answers, rows
  with the same context). Each label, or each part of the range of scores, is
  about equally frequent on both sides. A class with only one distinct text
  stays in training. Tags and answers are not balanced.

  At least one group or text is taken, even if it exceeds the share.

  Args:
    task: the task of the rows.
    division: how to divide the rows.
    rows: all N rows of the training files, with parsed labels.
    name: name of the files, for error messages.

  Returns:
    [N] bool, whether each row is a development row.

  Raises:
    errors.UserError: all rows have the same group, or the same texts.
  """
  if division.recorded is not None:
    return np.array([row.index in division.recorded for row in rows], bool)
  numbers: dict[object, int] = {}
  counts: list[Counter[task_lib.Label]] = []  # Label counts of each unit.
  units: list[int] = []  # For each row, the number of its group or text.
  for row in rows:
    unit = row.group
    if not division.by_group:
      unit = task.kind.division_unit(row.text)
    number = numbers.setdefault(unit, len(numbers))
    if number == len(counts):
      counts.append(Counter())
    counts[number][0 if task.kind.per_token else row.label] += 1
    units.append(number)
  if len(numbers) < 2:
    what = 'groups' if division.by_group else 'different texts'
    raise errors.UserError(
      f'{name}: has {len(numbers)} {what}, which config.custom_tasks.'
      f'{task.name}.dev_share cannot divide; give a dev file'
    )
  sizes = np.bincount(units)
  order = sampling.permutation(
    len(sizes), sampling.DEVELOPMENT, 0, 0, division.seed
  )
  is_dev = np.zeros(len(sizes), bool)
  if not division.by_group:
    labels = [each.most_common(1)[0][0] for each in counts]
    frequency = Counter(labels)
    wanted, passed, taken = max(round(division.share * len(units)), 1), 0, 0
    # Within a label, units with many rows come first, so that smaller units
    # can correct the rounding error. A unit is taken if more than half of its
    # rows are wanted.
    for unit in sorted(order, key=lambda u: (labels[u], -sizes[u])):
      passed += sizes[unit]
      missing = passed * wanted - taken * len(units)
      if 2 * missing > sizes[unit] * len(units):
        taken += sizes[unit]
        is_class = task.kind.one_class
        is_dev[unit] = not is_class or frequency[labels[unit]] > 1
  else:
    room = division.share * len(units)
    for unit in order:
      if sizes[unit] <= room:
        is_dev[unit] = True
        room -= sizes[unit]
  if is_dev.all() or not is_dev.any():
    is_dev[np.argmin(sizes)] ^= True
  return is_dev[units]


def _evenly_spaced(order: np.ndarray, count: int) -> np.ndarray:
  """Picks `count` evenly spaced items of a sequence."""
  return order[(2 * np.arange(count) + 1) * len(order) // (2 * count)]


def _number_contents(rows: kind_lib.Rows, is_bi_encoder: bool) -> np.ndarray:
  """Returns a number per row, [N] uint64, equal for rows with equal texts.

  The order of the two texts of a pair does not matter. Swapped copies and
  windows of an example have the number of the example's first row.
  """
  values, offsets = rows.ragged('input_ids')
  begins, ends = offsets[:-1] + 1, offsets[1:]  # Without [CLS].
  middles = offsets[:-1] + rows.fixed('length_a')
  # If every pair has two [SEP] between its texts, the second [SEP] is left out,
  # so that the order of the texts does not matter.
  pairs, ends_a = middles < ends, middles
  # The second text of a bi-encoder's pair begins with a [CLS] of its own.
  begins_b = middles + pairs if is_bi_encoder else middles
  if np.all(values[middles - 2] == values[middles - 1], where=pairs):
    ends_a = middles - pairs
  by_example: dict[str, int] = {}
  result = np.empty(len(rows), np.uint64)
  for row, uid in enumerate(rows.uids):
    example = task_lib.example_uid(uid)
    if example not in by_example:
      texts = (
        values[begins[row] : ends_a[row]].tobytes(),
        values[begins_b[row] : ends[row]].tobytes(),
      )
      digest = hashlib.blake2b(b''.join(sorted(texts)), digest_size=8)
      by_example[example] = int.from_bytes(digest.digest(), 'little')
    result[row] = by_example[example]
  return result
