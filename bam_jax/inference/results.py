"""What a model says of a text, in the task's own words."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bam_jax import errors
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib

_KINDS = ('classification', 'regression')


class Result(NamedTuple):
  """What is said of one text, or pair.

  Attributes:
    label: one of the task's labels; None for regression.
    probabilities: of each label; empty for regression.
    score: on the task's own scale; None for classification.
    truncated: whether the texts were cut, so that part of them was not read.
  """

  label: str | None
  probabilities: Mapping[str, float]
  score: float | None
  truncated: bool

  def as_json(self) -> dict[str, object]:
    """`label` and `probabilities`, or `score`; and `truncated`."""
    if self.label is None:
      said = {'score': round(self.score, 6)}
    else:
      said = {
        'label': self.label,
        'probabilities': {
          label: round(p, 6) for label, p in self.probabilities.items()
        },
      }
    return said | {'truncated': self.truncated}

  def as_fields(self) -> list[str]:
    """Label and probabilities, or score, as `predict.write_tsv` has them."""
    if self.label is None:
      return [f'{self.score:.3f}']
    return [self.label, *(f'{p:.4f}' for p in self.probabilities.values())]


def check(task: task_lib.Task) -> None:
  """Raises where texts of a user's own can't be predicted for a task."""
  if task.kind not in _KINDS:
    raise errors.UserError(
      f'task {task.name!r} is of kind {task.kind!r}; texts of your own are'
      f' predicted for {" and ".join(_KINDS)} alone'
    )


def of_logits(
  task: task_lib.Task,
  logits: np.ndarray,
  truncated: Sequence[bool],
  regression_head: str,
) -> list[Result]:
  """What the outputs of one task say.

  Args:
    task: the task.
    logits: [N, C]; outputs beyond the task's own number are ignored.
    truncated: N of them.
    regression_head: `sigmoid` or `linear`.
  """
  kind = kinds.of(task)
  values = kind.predictions(task, logits, regression_head).tolist()
  if task.is_regression:
    return [Result(None, {}, v, c) for v, c in zip(values, truncated)]
  rows = kind.probabilities(logits[:, : task.num_outputs])
  return [
    Result(task.labels[v], dict(zip(task.labels, row)), None, c)
    for v, row, c in zip(values, rows.tolist(), truncated)
  ]
