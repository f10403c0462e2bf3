"""Cross-fitting: each teacher labels the fold it was not trained on.

A teacher has memorised the gold labels of the rows it was trained on. So each
of k teachers is trained without one of k folds and labels only that fold
(cross-fitting; Wolpert 1992, "Stacked generalization").
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from bam_jax import errors
from bam_jax.core import sampling
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
