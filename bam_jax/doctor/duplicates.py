"""Equal rows within a split, and those whose labels differ."""

from collections.abc import Iterator

import numpy as np

from bam_jax.doctor import findings
from bam_jax.doctor import keys
from bam_jax.tasks import task as task_lib

# Scores that differ by less than this share of the scale agree.
_TOLERANCE = 0.1


def differ(task: task_lib.Task, a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Whether labels contradict each other; those that are nan do not."""
  low, high = task.scale
  slack = _TOLERANCE * (high - low) if task.kind.has_scale else 0
  return np.abs(a - b) > slack


def check(split: keys.Split) -> Iterator[findings.Finding]:
  """Duplicates, and groups of equal rows that contradict each other."""
  key = split.in_order()
  order = np.argsort(key, kind='stable')
  starts = np.flatnonzero(np.diff(key[order], prepend=-1))
  sizes = np.diff(starts, append=len(key))
  repeated = sizes > 1
  if split.texts.shape[1] == 2:
    turned = len(starts) - len(np.unique(split.in_any_order()))
  else:
    turned = 0
  if not repeated.any() and not turned:
    return
  first = np.repeat(order[starts], sizes)
  extra = np.flatnonzero(first != order)
  # In the order of the file.
  extra = extra[np.argsort(order[extra])]
  what = 'rows equal to an earlier one but for case and white space'
  if turned:
    what += f'; {turned:,} more with the texts in the other order'
  yield findings.Finding(
    'note',
    split.task.name,
    split.split,
    'duplicates',
    what,
    'remove them if they should not count more than once',
    len(extra),
    _pairs(split, first[extra], order[extra]),
  )
  if np.isnan(split.label).all():
    return
  label = split.label[order]
  lowest = np.minimum.reduceat(label, starts)
  highest = np.maximum.reduceat(label, starts)
  groups = np.flatnonzero(differ(split.task, lowest, highest))
  if not len(groups):
    return
  # Of each group its first row, and the first that is unlike it.
  ones, others = [], []
  for group in groups[np.argsort(order[starts[groups]])]:
    rows = order[starts[group] : starts[group] + sizes[group]]
    unlike = differ(
      split.task, split.label[rows[:, None]], split.label[rows[None, :]]
    )
    one, other = np.argwhere(unlike)[0]
    ones.append(rows[one])
    others.append(rows[other])
    if len(ones) == findings.MAX_PLACES:
      break
  yield findings.Finding(
    'warning',
    split.task.name,
    split.split,
    'conflicts',
    f'texts with different labels, in {sizes[groups].sum():,} rows',
    'keep one label of each',
    len(groups),
    _pairs(split, np.array(ones), np.array(others)),
  )


def _pairs(
  split: keys.Split, ones: np.ndarray, others: np.ndarray
) -> tuple[str, ...]:
  rows = list(zip(ones, others, strict=True))[: findings.MAX_PLACES]
  return tuple(f'{split.place(a)} = {split.place(b)}' for a, b in rows)
