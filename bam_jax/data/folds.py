"""Divides training rows: folds for cross-fitting, held-out rows for a search.

Also the rows of a file between training and development.

A teacher has memorised the gold labels of the rows it was trained on. So each
of k teachers is trained without one of k folds and labels only that fold
(cross-fitting; Wolpert 1992, "Stacked generalization").

A search scores settings on held-out rows, which none of its runs is trained on;
a run with patience chooses its step on some.
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
  """One of the parts that training rows are divided into for cross-fitting.

  Attributes:
    number: from 1 to `of`.
    of: number of folds, at least 2.
    seed: of the random division; the seed of the teacher.
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
    fraction: of each task's distinct examples.
    most: upper bound of that number.
  """

  fraction: float
  most: int

  def __str__(self) -> str:
    return 'heldout'


def examples_outside(count: int, fold: Fold) -> int:
  """Returns how many of `count` examples are outside a fold.

  >>> [examples_outside(7, Fold(number, 3, seed=0)) for number in (1, 2, 3)]
  [4, 5, 5]
  """
  return count - len(range(fold.number - 1, count, fold.of))


def split(uids: Sequence[str], fold: Fold) -> tuple[np.ndarray, np.ndarray]:
  """Splits a task's rows into training rows and the rows of the left-out fold.

  The division depends on the seed and the uids only, not on the order of rows.
  All rows of an example (swapped copies, windows) are in one fold. The sizes of
  two folds differ by at most one example.

  Returns:
    The numbers of the rows to train on, and of those left out, ascending: [n]
    and [N - n] int64, for the uids of N rows.

  Raises:
    errors.UserError: there are fewer rows than folds.
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
  """Splits a task's rows into training rows and held-out rows.

  The division depends on the texts and labels only. Rows of one example, such
  as swapped copies and windows, and examples with equal texts, in either order,
  are on one side. A label that is one number, such as a class, is equally
  frequent on both sides, up to rounding.

  Returns:
    The numbers of the rows to train on, and of those held out, ascending: [n]
    and [N - n] int64, for N rows.

  Raises:
    errors.UserError: fewer than two examples differ.
  """
  distinct, first, base = np.unique(
    _number_contents(rows), return_index=True, return_inverse=True
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
  """Finds the rows of a task's training files that are development rows.

  Rows of one group are on one side; without a column of groups, rows with equal
  texts are. Groups are drawn as long as the share is not exceeded. Rows without
  groups are drawn so that each label, or each part of the range of scores, is
  as frequent on both sides, as far as equal texts allow; a label that only one
  text has is one of training. Tags and answers are drawn without that. Where a
  work directory has recorded the rows, these are taken. Takes all N rows, with
  parsed labels, of the files `name`; returns [N] bool.

  Raises:
    errors.UserError: all rows are of one group, or have equal texts.
  """
  if division.recorded is not None:
    return np.array([row.index in division.recorded for row in rows], bool)
  numbers: dict[object, int] = {}
  counts: list[Counter[task_lib.Label]] = []  # Of the labels of each unit.
  units: list[int] = []
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
    # Those of many rows first, so that others make up for what they miss. A
    # unit is taken where at least half of its rows are wanted.
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
  if not is_dev.any():
    is_dev[np.argmin(sizes)] = True
  return is_dev[units]


def _evenly_spaced(order: np.ndarray, count: int) -> np.ndarray:
  """Picks `count` evenly spaced items of a sequence."""
  return order[(2 * np.arange(count) + 1) * len(order) // (2 * count)]


def _number_contents(rows: kind_lib.Rows) -> np.ndarray:
  """Returns a number per row, [N] uint64, the same for rows with equal texts.

  Copies and windows of an example have the number of its first row.
  """
  values, offsets = rows.ragged('input_ids')
  begins, ends = offsets[:-1] + 1, offsets[1:]  # Without [CLS].
  middles = offsets[:-1] + rows.fixed('length_a')
  # If every pair has two [SEP] between its texts, the second one is left out,
  # so that the order of the texts does not matter.
  pairs, ends_a = middles < ends, middles
  if np.all(values[middles - 2] == values[middles - 1], where=pairs):
    ends_a = middles - pairs
  by_example: dict[str, int] = {}
  result = np.empty(len(rows), np.uint64)
  for row, uid in enumerate(rows.uids):
    example = task_lib.example_uid(uid)
    if example not in by_example:
      texts = (
        values[begins[row] : ends_a[row]].tobytes(),
        values[middles[row] : ends[row]].tobytes(),
      )
      digest = hashlib.blake2b(b''.join(sorted(texts)), digest_size=8)
      by_example[example] = int.from_bytes(digest.digest(), 'little')
    result[row] = by_example[example]
  return result
