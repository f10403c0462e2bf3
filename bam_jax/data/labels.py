"""Raw labels to class indices and scores, for every source alike."""

import numpy as np

from bam_jax import errors
from bam_jax.tasks import task as task_lib


def parse(task: task_lib.Task, value: str, where: str) -> int | float:
  """A label as it stands in a file, as a class index or a score.

  Args:
    task: says which labels, or which scores, there are.
    value: the raw label.
    where: file and line, for the error.

  Returns:
    The index in `task.labels`; for regression the score in the task's scale,
    as the shortest decimal of its float32. TFDS keeps scores in float32, and
    those of STS-B must be equal from either source.

  Raises:
    errors.UserError: an unknown label, or a score outside of the scale.
  """
  if not task.is_regression:
    if value not in task.labels:
      raise errors.UserError(
        f'{where}: label {value!r} is none of {", ".join(task.labels)}; mend'
        f' the row or the labels of task {task.name!r}'
      )
    return task.labels.index(value)
  low, high = task.scale
  try:
    score = float(value)
  except ValueError:
    raise errors.UserError(
      f'{where}: score {value!r} is no number; mend the row'
    ) from None
  if not low <= score <= high:  # False for nan as well.
    raise errors.UserError(
      f'{where}: score {value} is not from {low:g} to {high:g}; mend the row'
      f' or the scale of task {task.name!r}'
    )
  return float(str(np.float32(score)))
