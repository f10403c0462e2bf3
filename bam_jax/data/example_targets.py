"""What the examples of a batch are to be: gold labels, teachers' predictions.

N examples of all tasks of a mix, those of a task one after the other: first the
rows with labels, then those without. C outputs of the widest head.
"""

from collections.abc import Sequence

import numpy as np

from bam_jax.data import shards
from bam_jax.data import token_targets
from bam_jax.tasks import task as task_lib


class ExampleTargets:
  """Targets of any examples of a mix, by their numbers.

  The gold target of a row without a label is its teacher's prediction, which
  makes it the target whatever the weight of the gold labels is.
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
      tasks: those of the mix.
      features: the training columns of each.
      without_labels: rows of each that have none; None: there are no such.
      teachers: of each [rows, outputs], those with labels first; None: the gold
        target stands in. Not read where outputs are of tokens.
      width: C.

    Raises:
      ValueError: a teacher's table is not [rows, outputs], or there is none
        for rows without labels.
    """
    self._width = width
    channels, values = [], []
    # First example, and the targets of those from it on.
    self._dense: list[tuple[int, np.ndarray]] = []
    taught: list[tuple[int, np.ndarray]] = []
    base = 0
    for task, labelled, others, teacher in zip(
      tasks, features, without_labels, teachers, strict=True
    ):
      kind, rows = task.kind, len(labelled)
      more = 0 if others is None else len(others)
      # The one entry of each target that is not 0.
      channel, value = kind.entries(task, labelled)
      channels += [channel, np.zeros(more)]
      values += [value, np.zeros(more)]
      dense = kind.dense_targets(task, labelled)
      if dense is not None:
        self._dense.append((base, dense))
      if teacher is not None and not task.kind.per_token:
        token_targets.check_teacher(task, teacher, rows + more)
        taught.append((base, teacher))
      if more:
        if teacher is None:
          raise ValueError(f'{task.name}: no teacher for rows without labels')
        self._dense.append((base + rows, teacher[rows:]))
      base += rows + more
    self._channels = np.concatenate(channels).astype(np.int32)
    self._values = np.concatenate(values).astype(np.float32)
    self._teacher: np.ndarray | None = None
    if any(teacher is not None for teacher in teachers):
      self._teacher = self._gold(np.arange(base))
      for first, teacher in taught:
        self._teacher[first : first + len(teacher), : teacher.shape[1]] = (
          teacher
        )

  def __call__(self, example: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gold and teacher of n examples, [n, C] float32 each."""
    gold = self._gold(example)
    return gold, gold if self._teacher is None else self._teacher[example]

  def _gold(self, example: np.ndarray) -> np.ndarray:
    """[n, C] float32: one-hot, the score in channel 0, or some of 0 and 1."""
    result = np.zeros((len(example), self._width), np.float32)
    channels = self._channels[example]
    result[np.arange(len(example)), channels] = self._values[example]
    for base, targets in self._dense:
      own = (example >= base) & (example < base + len(targets))
      result[own, : targets.shape[1]] = targets[example[own] - base]
    return result
