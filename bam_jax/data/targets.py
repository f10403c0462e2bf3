"""Looks up the gold labels and teacher predictions of a training batch."""

from collections.abc import Sequence

import numpy as np

from bam_jax.data import shards
from bam_jax.tasks import ragged
from bam_jax.tasks import task as task_lib


class Targets:
  """Looks up gold and teacher targets, per example or per token.

  The gold target of a row without a label is its teacher's prediction, so that
  the weight of the gold labels makes no difference to it.
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
    """Loads the labels of examples; labels of tokens are loaded per batch.

    Args:
      tasks: the tasks of the run.
      features: the training rows of each task.
      without_labels: the rows of each task that have no labels, if any.
      teachers: of each task [rows, outputs], those with labels first, or
        [tokens, outputs]; None: the gold target stands in.
      num_outputs: C, outputs of the widest head.
      token_outputs: K, outputs per token of the widest head that has them; 0
        if none has.
      has_totals: see `task.TaskTable`.

    Raises:
      ValueError: a teacher has another shape, or is missing for rows without
        labels.
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
        # Predictions of a teacher have no weights.
        totals = np.concatenate([totals, np.ones_like(gold[len(totals) :])])
      self._parts.append((task, columns, gold, totals, teacher))

  def __call__(
    self, task: np.ndarray, row: np.ndarray, lengths: np.ndarray
  ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns the targets of n examples and the targets of their tokens.

    Args:
      task: [n] number of the task in the run.
      row: [n] of its training rows: those with labels, then those without.
      lengths: [n] tokens.

    Returns:
      `gold, teacher` and, with `has_totals`, `gold_total` [n, C] float32; and
      `token_gold, token_teacher` [tokens, K] and `token_share` [tokens],
      float32, empty if K is 0.
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
