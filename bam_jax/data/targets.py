"""Looks up the gold labels and teacher predictions of a training batch."""

from collections.abc import Sequence

import numpy as np

from bam_jax.data import shards
from bam_jax.tasks import ragged
from bam_jax.tasks import task as task_lib


class Targets:
  """Looks up gold and teacher targets, per example or per token.

  For a row without a label, the teacher's prediction is used as the gold target
  too. So the weight of gold labels has no effect on such a row.
  """

  def __init__(
    self,
    tasks: Sequence[task_lib.Task],
    features: Sequence[shards.Columns],
    without_labels: Sequence[shards.Columns | None],
    teachers: Sequence[np.ndarray | None],
    num_outputs: int,
    token_outputs: int,
    has_totals: bool = False,
  ):
    """Loads labels per example; labels per token are looked up per batch.

    Args:
      tasks: the tasks of the run.
      features: the labelled training rows of each task.
      without_labels: the unlabelled training rows of each task, if any.
      teachers: the teacher's predictions for each task: [rows, outputs] with
        the labelled rows first, or [tokens, outputs] for a task with outputs
        per token. None for a task without a teacher: the task's gold targets
        are then used as the teacher's predictions.
      num_outputs: C, the number of outputs of the widest head.
      token_outputs: K, the number of outputs of the widest head with outputs
        per token; 0 if no head has outputs per token.
      has_totals: whether to return `gold_total`; see `task.TaskTable`.

    Raises:
      ValueError: a teacher's array has a wrong shape, or unlabelled rows have
        no teacher.
    """
    self._num_outputs = num_outputs
    self._token_outputs = token_outputs
    self._has_totals = has_totals
    self._parts = []
    for task, columns, others, teacher in zip(
      tasks, features, without_labels, teachers, strict=True
    ):
      gold = totals = None
      if task.kind.per_token:
        count = int(columns.ragged('input_ids')[1][-1])
      else:
        count = len(columns) + len(others or ())
        gold = task.kind.example_targets(task, columns)
        totals = task.kind.example_totals(task, columns)
      if teacher is not None and teacher.shape != (count, task.num_outputs):
        raise ValueError(
          f'{task.name}: the teacher has shape {teacher.shape}, the task'
          f' {(count, task.num_outputs)}'
        )
      if others:
        if teacher is None:
          raise ValueError(f'{task.name}: no teacher for rows without labels')
        gold = np.concatenate([gold, teacher[len(columns) :]])
      if totals is not None:
        # A teacher's predictions are not weighted, so their total is 1.
        totals = np.concatenate([totals, np.ones_like(gold[len(totals) :])])
      self._parts.append((task, columns, gold, totals, teacher))

  def __call__(
    self, task: np.ndarray, row: np.ndarray, lengths: np.ndarray
  ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns the targets of n examples and the targets of their tokens.

    Args:
      task: [n] index of each example's task in the run.
      row: [n] index of each example among the training rows of its task;
        labelled rows come first.
      lengths: [n] number of tokens of each example.

    Returns:
      Two dictionaries of float32 arrays. The first has `gold`, `teacher` and,
      if `has_totals` was set, `gold_total`, all [n, C]. The second has
      `token_gold` and `token_teacher`, [tokens, K], and the loss weights
      `token_share`, [tokens]. The second is empty if K is 0.
    """
    tokens = lengths.sum()
    gold, teacher, total = np.zeros(
      (3, len(task), self._num_outputs), np.float32
    )
    total += 1
    token_gold, token_teacher = np.zeros(
      (2, tokens, self._token_outputs), np.float32
    )
    share = np.zeros(tokens, np.float32)
    for number, (own, columns, labels, totals, probs) in enumerate(self._parts):
      mine = task == number
      if not mine.any():
        continue
      rows = row[mine]
      if own.kind.per_token:
        mine = np.repeat(mine, lengths)
        targets, share[mine] = own.kind.token_targets(own, columns, rows)
        token_gold[mine, : own.num_outputs] = targets
        rows = ragged.places(columns.ragged('input_ids')[1], rows)
        place = token_teacher
      else:
        targets = labels[rows]
        gold[mine, : own.num_outputs] = targets
        if totals is not None:
          total[mine, : own.num_outputs] = totals[rows]
        place = teacher
      if probs is not None:
        targets = probs[rows]
      place[mine, : own.num_outputs] = targets
    of_token = {
      'token_gold': token_gold,
      'token_teacher': token_teacher,
      'token_share': share,
    }
    of_example = {'gold': gold, 'teacher': teacher}
    if self._has_totals:
      of_example['gold_total'] = total
    return of_example, of_token if self._token_outputs else {}
