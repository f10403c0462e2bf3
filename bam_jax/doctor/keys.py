"""Rows as numbers: texts that differ in case and white space alone are one."""

from collections.abc import Sequence
import dataclasses

import numpy as np

from bam_jax.doctor import rows as rows_lib
from bam_jax.tasks import task as task_lib


class Texts:
  """Different texts, numbered in the order they come in.

  Attributes:
    number: normalised text -> number.
  """

  def __init__(self):
    self.number: dict[str, int] = {}

  def add(self, texts: Sequence[str]) -> np.ndarray:
    """[N] int64 numbers of texts, in lower case, each white space one blank."""
    number = self.number
    return np.fromiter(
      (
        number.setdefault(' '.join(text.lower().split()), len(number))
        for text in texts
      ),
      np.int64,
      len(texts),
    )


@dataclasses.dataclass(frozen=True)
class Split:
  """What is kept of a split's rows. N rows.

  Attributes:
    task: the task.
    split: of the task.
    places: [N] lines, or indices where the source has no lines.
    texts: [N, 1 or 2] int64 numbers of the texts.
    label: [N] float64, nan where there is none.
    has_lines: whether `places` are lines.
  """

  task: task_lib.Task
  split: str
  places: np.ndarray
  texts: np.ndarray
  label: np.ndarray
  has_lines: bool

  @property
  def name(self) -> str:
    return f'{self.task.name}/{self.split}'

  @property
  def is_train(self) -> bool:
    return self.split in (self.task.train_split, task_lib.UNLABELLED)

  def place(self, row: int) -> str:
    """`FILE:LINE` of a row, or its uid."""
    if self.has_lines:
      return f'{self.task.tables[self.split].file}:{self.places[row]}'
    return f'{self.name}/{self.places[row]}'

  def in_order(self) -> np.ndarray:
    """[N] int64, equal where both texts are, each in its place."""
    return _join(self.texts)

  def in_any_order(self) -> np.ndarray:
    """[N] int64, equal where the texts are, in either order."""
    return _join(np.sort(self.texts, axis=1))


def of_rows(rows: rows_lib.Rows, texts: Texts) -> Split:
  """Numbers the texts of a split's rows."""
  has_lines = bool(rows.line[0])
  return Split(
    rows.task,
    rows.split,
    rows.line if has_lines else rows.index,
    np.stack([texts.add(column) for column in rows.texts], axis=1),
    rows.label,
    has_lines,
  )


def _join(texts: np.ndarray) -> np.ndarray:
  """Both numbers as one; there are far fewer than 2^31 texts."""
  return texts[:, 0] if texts.shape[1] == 1 else texts[:, 0] << 31 | texts[:, 1]
