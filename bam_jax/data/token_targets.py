"""What the tokens of a batch are to be, where outputs are of tokens."""

from collections.abc import Sequence

import numpy as np

from bam_jax.data import shards
from bam_jax.tasks import ragged
from bam_jax.tasks import task as task_lib


class TokenTargets:
  """Per-token targets of any examples of a mix, in the order of the tokens."""

  def __init__(
    self,
    tasks: Sequence[task_lib.Task],
    features: Sequence[shards.Columns],
    teachers: Sequence[np.ndarray | None],
    width: int,
  ):
    """Keeps the columns; computes nothing yet.

    Args:
      tasks: those of the mix.
      features: the training columns of each.
      teachers: of each, [tokens, outputs] where its outputs are of tokens.
      width: K, outputs of the widest head of tokens of the plan; 0: none is.

    Raises:
      ValueError: a teacher's table is not [tokens, outputs].
    """
    self._width = width
    self._of_task = {}
    for number, each in enumerate(zip(tasks, features, teachers)):
      if each[0].kind.per_token:
        self._of_task[number] = _OfTask(*each)

  def __call__(
    self, task: np.ndarray, row: np.ndarray, lengths: np.ndarray
  ) -> dict[str, np.ndarray]:
    """Of n examples; nothing where no head of the plan is of tokens.

    Args:
      task: [n] number in the mix.
      row: [n] of its columns.
      lengths: [n] tokens.
    """
    if not self._width:
      return {}
    shape = (lengths.sum(), self._width)
    gold, teacher = np.zeros((2, *shape), np.float32)
    share = np.zeros(shape[0], np.float32)
    for number, of_task in self._of_task.items():
      mine = task == number
      if not mine.any():
        continue
      where = np.repeat(mine, lengths)
      width = of_task.task.num_outputs
      gold[where, :width], teacher[where, :width], share[where] = of_task(
        row[mine]
      )
    return {
      'token_target': gold,
      'token_teacher': teacher,
      'token_share': share,
    }


class _OfTask:
  """The same of one task."""

  def __init__(
    self,
    task: task_lib.Task,
    columns: shards.Columns,
    teacher: np.ndarray | None,
  ):
    self.task = task
    self._columns = columns
    self._teacher = teacher
    self._offsets = columns.ragged('input_ids')[1]
    if teacher is not None:
      check_teacher(task, teacher, int(self._offsets[-1]))

  def __call__(
    self, rows: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gold and teacher [tokens, outputs], and share [tokens], of some rows."""
    kind = self.task.kind
    gold, share = kind.token_targets(self.task, self._columns, rows)
    if self._teacher is None:
      return gold, gold, share
    return gold, self._teacher[ragged.places(self._offsets, rows)], share


def check_teacher(task: task_lib.Task, teacher: np.ndarray, count: int) -> None:
  """Raises where a teacher does not speak of `count` examples or tokens."""
  if teacher.shape != (count, task.num_outputs):
    raise ValueError(
      f'{task.name}: the teacher has shape {teacher.shape}, the task'
      f' {(count, task.num_outputs)}'
    )
