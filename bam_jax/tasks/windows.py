"""Windows of long texts: starts, loss weights, and pooling of scores.

In shapes, N is the number of rows of features, which are windows of M examples;
c is the number of outputs.
"""

from collections.abc import Sequence

import numpy as np

from bam_jax import errors
from bam_jax.tasks import task as task_lib

# Value of `Task.windows` -> function that pools the scores of the windows.
_POOL = {'mean': np.add, 'max': np.maximum}


def begins(length: int, room: int, stride: int) -> range:
  """Returns the index of the first token of each window of a text.

  >>> list(begins(9, room=4, stride=0))
  [0, 2, 4, 6]

  Args:
    length: number of tokens of the text.
    room: number of tokens of the text that fit into a window.
    stride: number of tokens between window starts; 0 means half of `room`.
  """
  step = stride or max(1, room // 2)
  return range(0, max(length - room, 0) + step, step)


def check_stride(
  task: task_lib.Task, num_separators: int, max_length: int
) -> None:
  """Raises a `UserError` if windows would skip a part of the text.

  Args:
    task: the task, whose `stride` is checked.
    num_separators: special tokens between the two texts of a pair.
    max_length: maximum tokens of a window, including special tokens.
  """
  room, text, beside = max_length - 2, 'text', ''
  if task.is_pair:
    # The other text fills up to half of a window.
    between = 2 if task.is_bi_encoder else num_separators
    room, beside = (room - between + 1) // 2, ' beside a long other one'
    if task.kind.per_token:
      text, beside = 'context', ' beside a long question'
  if task.stride > room:
    raise errors.UserError(
      f'config.custom_tasks.{task.name}.stride={task.stride}: windows of'
      f' config.data.max_length={max_length} hold {room} tokens of {text}'
      f'{beside}, so that windows would skip {text}; lower the stride or raise'
      ' max_length'
    )


def examples_of(uids: Sequence[str]) -> tuple[list[str], np.ndarray]:
  """Groups rows, which are windows, by example.

  Returns:
    The uids of the M examples, and [M + 1] offsets: the windows of example i
    are rows offsets[i] to offsets[i + 1] - 1.
  """
  bases = [task_lib.example_uid(uid) for uid in uids]
  firsts = [i for i, base in enumerate(bases) if not i or base != bases[i - 1]]
  return [bases[i] for i in firsts], np.array([*firsts, len(bases)], np.int64)


def pool(how: str, scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
  """Pools the scores of each example's windows by `mean` or `max`.

  `scores` of N windows, [N, c], and `offsets` from `examples_of` give the
  scores of M examples, [M, c].

  >>> scores, offsets = np.array([[1.0], [3.0], [5.0]]), np.array([0, 2, 3])
  >>> pool('mean', scores, offsets).tolist()
  [[2.0], [5.0]]
  """
  result = _POOL[how].reduceat(np.asarray(scores, np.float64), offsets[:-1])
  if how == 'mean':
    result /= np.diff(offsets)[:, None]
  return result.astype(np.float32)


def weights(uids: Sequence[str]) -> np.ndarray:
  """Returns the loss weight of each window, [N] float32; the mean weight is 1.

  The sum of weights is the same for each example, so that a long text counts as
  much as a short text.

  >>> weights(['a', 'b', 'b~1', 'b~2']).tolist()
  [2.0, 0.6666666865348816, 0.6666666865348816, 0.6666666865348816]
  """
  names, offsets = examples_of(uids)
  counts = np.diff(offsets)
  result = np.repeat(len(uids) / (max(len(names), 1) * counts), counts)
  return result.astype(np.float32)
