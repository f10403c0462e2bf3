"""Converts the outputs of a Hugging Face classifier to logits of a task.

Shapes: N rows. This module does not import torch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.special

from bam_jax import errors
from bam_jax.tasks import task as task_lib

# Possible meanings of the output of a regression model: a score on the task's
# own scale, a score from 0 to 1, or the logit of a score from 0 to 1.
SCORES = ('scale', 'unit', 'logit')


class Head(NamedTuple):
  """How a model's outputs are converted to logits of a task.

  Attributes:
    order: for each output of the task, the index of the corresponding output of
      the model.
    score: one of `SCORES` for a regression; else None.
    scale: lowest and highest score of a regression.
  """

  order: tuple[int, ...]
  score: str | None
  scale: tuple[float, float]

  def options(self) -> dict[str, object]:
    """Returns the fields that affect the logits, as JSON values."""
    return {'order': list(self.order), 'score': self.score}

  def logits(self, outputs: np.ndarray) -> np.ndarray:
    """Converts a model's outputs to external logits.

    >>> outputs = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> Head((1, 0), None, (0.0, 1.0)).logits(outputs).tolist()
    [[2.0, 1.0], [4.0, 3.0]]
    >>> Head((0,), 'scale', (0.0, 5.0)).logits(outputs[:, :1]).tolist()
    [[0.2], [0.6]]

    Args:
      outputs: the model's outputs, [N, c].

    Returns:
      Logits [N, c] in the order of the task's labels; for a regression, scores
      on 0-1, [N, 1].
    """
    values = outputs[:, list(self.order)]
    if self.score == 'scale':
      low, high = self.scale
      return (values - low) / (high - low)
    return scipy.special.expit(values) if self.score == 'logit' else values


def check(
  task: task_lib.Task, labels: Sequence[str] | None, score: str | None
) -> None:
  """Checks the task, `--labels` and `--score`, before the model is loaded.

  Raises:
    errors.UserError: the task needs one output per token, `--score` is missing
      for a regression, or a flag does not fit the kind of task.
  """
  if task.kind.per_token:
    raise errors.UserError(
      f'--task={task.name}: is {task.kind}, which needs an output per token;'
      ' give a task with one label per row'
    )
  low, high = task.scale
  if task.kind.has_scale and score is None:
    raise errors.UserError(
      f'--score is missing: {task.name} is a regression; say whether the'
      f' output is a score from {low:g} to {high:g} (scale), from 0 to 1'
      ' (unit), or the logit of one from 0 to 1 (logit)'
    )
  flag = ('labels', labels) if task.kind.has_scale else ('score', score)
  if flag[1] is not None:
    raise errors.UserError(
      f'--{flag[0]}: is not for {task.name}, a {task.kind} task; leave it out'
    )


def head(
  task: task_lib.Task,
  names: Sequence[str],
  problem: str | None,
  labels: Sequence[str] | None,
  score: str | None,
) -> Head:
  """Maps the outputs of a model to the labels of a task.

  Args:
    task: the task.
    names: names of the outputs, from the model's `id2label`.
    problem: the model's `problem_type`; None if the model has none.
    labels: names of the outputs from `--labels`; None: `names` is used.
    score: `--score`, one of `SCORES`; None if the task is not a regression.

  Raises:
    errors.UserError: the model is for another kind of task, or its outputs
      cannot be matched with the labels.
  """
  wanted = task.kind.export_settings(task).get('problem_type')
  if problem not in (None, wanted):
    raise errors.UserError(
      f'--model: its config.json has problem_type={problem!r}, and {task.name}'
      f' is a {task.kind} task; give a model for that'
    )
  if len(names) != task.num_outputs:
    raise errors.UserError(
      f'--model: has {len(names)} outputs ({errors.some_quoted(names)}) where'
      f' {task.name} has {task.num_outputs}'
      f' ({errors.some_quoted(task.labels) or "a score"}); give a model'
      f' with {task.num_outputs}'
    )
  if task.kind.has_scale:
    return Head((0,), score, task.scale)
  given = labels or names
  order = _order(given, task.labels) or _order(given, task.tfds_labels)
  if order is None:
    where = '--model: its outputs'
    if labels:
      where = f'--labels={",".join(labels)}: these'
    raise errors.UserError(
      f'{where} are not the labels of {task.name}: give'
      f' {errors.some_quoted(sorted(task.labels))} by --labels=A,B,..., in the'
      ' order in which the model was trained, one for each of its outputs'
      f' {errors.some_quoted(names)}'
    )
  return Head(order, None, task.scale)


def _order(
  names: Sequence[str], labels: Sequence[str]
) -> tuple[int, ...] | None:
  """Returns the index of each label in `names`; None if the sets differ.

  Case is ignored. If two names are equal or differ only in case, the result is
  None too.
  """
  names = [name.casefold() for name in names]
  labels = [label.casefold() for label in labels]
  if len(set(names)) < len(names) or sorted(names) != sorted(labels):
    return None
  return tuple(names.index(label) for label in labels)
