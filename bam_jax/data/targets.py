"""Targets of a training batch: gold labels and teacher predictions.

N examples of all tasks of a run, task after task; in each task first the rows
with labels, then those without. C outputs of the widest head, K of the widest
head whose outputs are of tokens.
"""

from collections.abc import Sequence

import numpy as np

from bam_jax.data import shards
from bam_jax.tasks import ragged
from bam_jax.tasks import task as task_lib


class ExampleTargets:
  """Looks up the gold and teacher targets of examples.

  The gold target of a row without a label is its teacher's prediction, so that
  the weight of the gold labels makes no difference to it.
  """

  def __init__(
    self,
    tasks: Sequence[task_lib.Task],
    features: Sequence[shards.Columns],
    without_labels: Sequence[shards.Columns | None],
    teachers: Sequence[np.ndarray | None],
    width: int,
  ):
    """Reads the labels.

    Args:
      tasks: the tasks of the run.
      features: the training rows of each task.
      without_labels: the rows of each task that have no labels, if any.
      teachers: of each task [rows, outputs], those with labels first; None: the
        gold target stands in. Not read if outputs are of tokens.
      width: C.

    Raises:
      ValueError: a teacher is not [rows, outputs], or is missing for rows
        without labels.
    """
    self._width = width
    # Number of the first example, and gold targets from that example on.
    self._parts: list[tuple[int, np.ndarray]] = []
    taught: list[tuple[int, np.ndarray]] = []
    base = 0
    for task, labelled, others, teacher in zip(
      tasks, features, without_labels, teachers, strict=True
    ):
      rows, more = len(labelled), len(others or ())
      if not task.kind.per_token:
        gold = task.kind.example_targets(task, labelled)
        self._parts.append((base, gold))
        if teacher is not None:
          _check_teacher(task, teacher, rows + more)
          taught.append((base, teacher))
      if more:
        if teacher is None:
          raise ValueError(f'{task.name}: no teacher for rows without labels')
        self._parts.append((base + rows, teacher[rows:]))
      base += rows + more
    self._teacher: np.ndarray | None = None
    if any(teacher is not None for teacher in teachers):
      self._teacher = self._gold(np.arange(base))
      for first, teacher in taught:
        own = self._teacher[first : first + len(teacher)]
        own[:, : teacher.shape[1]] = teacher

  def __call__(self, example: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns gold and teacher targets of n examples, [n, C] float32 each."""
    gold = self._gold(example)
    return gold, gold if self._teacher is None else self._teacher[example]

  def _gold(self, example: np.ndarray) -> np.ndarray:
    """Returns [n, C]: one-hot, the score in channel 0, or several 0s and 1s."""
    result = np.zeros((len(example), self._width), np.float32)
    for base, targets in self._parts:
      own = (example >= base) & (example < base + len(targets))
      result[own, : targets.shape[1]] = targets[example[own] - base]
    return result


class TokenTargets:
  """Looks up the targets of tokens, for tasks with outputs per token."""

  def __init__(
    self,
    tasks: Sequence[task_lib.Task],
    features: Sequence[shards.Columns],
    teachers: Sequence[np.ndarray | None],
    width: int,
  ):
    """Keeps its arguments; computes nothing yet.

    Args:
      tasks: the tasks of the run.
      features: the training rows of each task.
      teachers: of each task, [tokens, outputs] if its outputs are of tokens.
      width: K; 0 if no head of the plan is of tokens.

    Raises:
      ValueError: a teacher is not [tokens, outputs].
    """
    self._width = width
    self._sources = {
      number: (task, columns, teacher)
      for number, (task, columns, teacher) in enumerate(
        zip(tasks, features, teachers)
      )
      if task.kind.per_token
    }
    for task, columns, teacher in self._sources.values():
      if teacher is not None:
        _check_teacher(task, teacher, int(columns.ragged('input_ids')[1][-1]))

  def __call__(
    self, task: np.ndarray, row: np.ndarray, lengths: np.ndarray
  ) -> dict[str, np.ndarray]:
    """Returns the targets of the tokens of n examples; empty if K is 0.

    Args:
      task: [n] number of the task in the run.
      row: [n] of its training rows.
      lengths: [n] tokens.

    Returns:
      `token_gold, token_teacher` [tokens, K] and `token_share` [tokens],
      float32.
    """
    if not self._width:
      return {}
    shape = (lengths.sum(), self._width)
    gold, teacher = np.zeros((2, *shape), np.float32)
    share = np.zeros(shape[0], np.float32)
    for number, (own, columns, probs) in self._sources.items():
      mine = task == number
      if not mine.any():
        continue
      rows, where = row[mine], np.repeat(mine, lengths)
      targets, share[where] = own.kind.token_targets(own, columns, rows)
      gold[where, : own.num_outputs] = targets
      if probs is not None:
        targets = probs[ragged.places(columns.ragged('input_ids')[1], rows)]
      teacher[where, : own.num_outputs] = targets
    return {
      'token_gold': gold,
      'token_teacher': teacher,
      'token_share': share,
    }


def _check_teacher(
  task: task_lib.Task, teacher: np.ndarray, count: int
) -> None:
  """Raises if a teacher has not `count` rows with the task's outputs."""
  if teacher.shape != (count, task.num_outputs):
    raise ValueError(
      f'{task.name}: the teacher has shape {teacher.shape}, the task'
      f' {(count, task.num_outputs)}'
    )
