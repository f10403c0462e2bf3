"""What the outputs of a model from elsewhere say of a task. Without torch.

N rows; a model's outputs go in an order of its own.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.special

from bam_jax import errors
from bam_jax.tasks import task as task_lib

# What the one output of a regression may be: a score on the task's own scale,
# on 0-1, or the logit of one on 0-1.
SCORES = ('scale', 'unit', 'logit')

# What a config.json may have as `problem_type`.
_PROBLEMS = (
  'single_label_classification',
  'multi_label_classification',
  'regression',
)


class Head(NamedTuple):
  """How a model's outputs become logits of a task.

  Attributes:
    order: number of the output of each of the task's.
    score: one of `SCORES`; None where outputs are of labels.
    scale: of the task, where they are not.
  """

  order: tuple[int, ...]
  score: str | None
  scale: tuple[float, float]

  def options(self) -> dict[str, object]:
    """As JSON values: other ones make other logits of the same model."""
    return {'order': list(self.order), 'score': self.score}

  def logits(self, outputs: np.ndarray) -> np.ndarray:
    """As sets from outside have them.

    >>> outputs = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> Head((1, 0), None, (0.0, 1.0)).logits(outputs).tolist()
    [[2.0, 1.0], [4.0, 3.0]]
    >>> Head((0,), 'scale', (0.0, 5.0)).logits(outputs[:, :1]).tolist()
    [[0.2], [0.6]]

    Args:
      outputs: [N, c] of the model.

    Returns:
      [N, c] in the order of the task's labels; a score on 0-1.
    """
    values = outputs[:, list(self.order)]
    if self.score == 'scale':
      low, high = self.scale
      return (values - low) / (high - low)
    return scipy.special.expit(values) if self.score == 'logit' else values


def check(
  task: task_lib.Task, labels: Sequence[str] | None, score: str | None
) -> None:
  """What is wrong with the arguments, whatever the model.

  Raises:
    errors.UserError: a task that no such model is of, or flags that do not go
      with its kind.
  """
  if task.kind.per_token:
    raise errors.UserError(
      f'--task={task.name}: is {task.kind}, whose outputs are of tokens; give a'
      ' task with outputs of a row'
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
      f'--{flag[0]}: says nothing of {task.name}, a task of {task.kind}; leave'
      ' it out'
    )


def head(
  task: task_lib.Task,
  names: Sequence[str],
  problem: str | None,
  labels: Sequence[str] | None,
  score: str | None,
) -> Head:
  """How a model's outputs become the task's.

  Args:
    task: the task.
    names: of the outputs, by the model's own word (`id2label`).
    problem: `problem_type`, if its word is given.
    labels: names of the outputs by the user's word; None: the model's.
    score: as for `check`.

  Raises:
    errors.UserError: the model is for something else, or which output is of
      which label isn't said.
  """
  wanted = task.kind.export_settings(task).get('problem_type')
  if problem in _PROBLEMS and problem != wanted:
    raise errors.UserError(
      f'--model: its config.json has problem_type={problem!r}, and {task.name}'
      f' is a {task.kind} task; give a model for that'
    )
  if len(names) != task.num_outputs:
    raise errors.UserError(
      f'--model: has {len(names)} outputs ({", ".join(names)}) where'
      f' {task.name} has {task.num_outputs}'
      f' ({", ".join(task.labels) or "a score"}); give a model of as many'
    )
  if task.kind.has_scale:
    return Head((0,), score, task.scale)
  given = labels or names
  order = _order(given, task.labels) or _order(given, task.tfds_labels)
  if order is None:
    flag = '--labels' if labels else '--model'
    raise errors.UserError(
      f'{flag}: the outputs are {", ".join(given)}, the labels of {task.name}'
      f' {", ".join(task.labels)}; give these by --labels in the order of the'
      ' outputs, with , between them'
    )
  return Head(order, None, task.scale)


def _order(
  names: Sequence[str], labels: Sequence[str]
) -> tuple[int, ...] | None:
  """Where each label is among some names, whatever the case; None: it isn't."""
  names = [name.casefold() for name in names]
  labels = [label.casefold() for label in labels]
  if len(set(names)) < len(names) or sorted(names) != sorted(labels):
    return None
  return tuple(names.index(label) for label in labels)
