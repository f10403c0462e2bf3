"""Teachers' logits on the training rows: written as shards, read as targets."""

from collections import Counter
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import folds
from bam_jax.data import manifest
from bam_jax.data import prepare
from bam_jax.data import shards
from bam_jax.tasks import task as task_lib
from bam_jax.training import evaluate
from bam_jax.training import losses
from bam_jax.training import programs as programs_lib


class LogitSet(NamedTuple):
  """The logits of one run on training rows of one task.

  Attributes:
    directory: of the shard set.
    fingerprint: what it must have been made from.
    fold: the rows that it is of, which its run left out; None: all of them.
  """

  directory: Path
  fingerprint: Mapping[str, object]
  fold: folds.Fold | None = None


def logit_fingerprint(
  features: shards.Columns,
  run_digest: str,
  parameters_digest: str,
  fold: folds.Fold | None = None,
) -> dict[str, object]:
  """What decides a teacher's logits on a task's training rows.

  Args:
    features: the rows.
    run_digest: of the teacher's configuration, data and teachers.
    parameters_digest: of the parameters that its training ended with.
    fold: the rows that its training left out, if any.
  """
  return {
    **features.fingerprint,
    'teacher': run_digest,
    'parameters': parameters_digest,
    **({'left_out': dataclasses.asdict(fold)} if fold else {}),
  }


def label(
  programs: programs_lib.Programs,
  params: Mapping[str, object],
  features: shards.Columns,
  task: task_lib.Task,
  packing: config_lib.PackingConfig,
  target: LogitSet,
  advance: Callable[[int], None] = lambda n: None,
) -> None:
  """Writes the teacher's logits on its training rows, in the rows' order.

  On every row; on those that it left out alone, if it did leave any out.
  """
  rows = _rows(features, target.fold)
  logits = evaluate.predict(
    programs,
    params,
    features,
    programs.tasks.index[task.name],
    packing,
    advance,
    rows,
  )
  shards.write(
    target.directory,
    shards.logits_fields(task.num_outputs),
    (
      {'uid': features.uids[row], 'logits': values}
      for row, values in zip(rows, logits)
    ),
    target.fingerprint,
    metadata=prepare.label_metadata(task),
  )


def targets(
  teachers: Sequence[Sequence[LogitSet]],
  features: shards.Columns,
  task: task_lib.Task,
  temperature: float,
  regression_head: str,
) -> np.ndarray:
  """What the student learns from: the mean of its teachers' predictions.

  Args:
    teachers: the sets of each teacher: one, or one a fold.
    features: the student's N training rows.
    task: the task.
    temperature: of the teachers' softmax, above 0.
    regression_head: `sigmoid` or `linear`.

  Returns:
    [N, c] float32: class probabilities, or predictions on 0-1.

  Raises:
    errors.UserError: a set is damaged, stale, made with other labels, lacks a
      row, or holds one that its teacher was trained on.
    ValueError: the sets of a teacher do not hold every row once.
  """
  total = np.zeros((len(features), task.num_outputs), np.float32)
  for parts in teachers:
    total += losses.teacher_targets(
      _joined(parts, features, task),
      task.is_regression,
      temperature,
      regression_head,
    )
  return total / len(teachers)


def _joined(
  parts: Sequence[LogitSet], features: shards.Columns, task: task_lib.Task
) -> np.ndarray:
  """[N, c], every row from the set of the one run that speaks of it."""
  logits = np.empty((len(features), task.num_outputs), np.float32)
  times = np.zeros(len(features), np.int64)
  for part in parts:
    rows, values = read(part, features, task)
    logits[rows] = values
    times[rows] += 1
  if (times != 1).any():
    row = int(np.argmax(times != 1))
    raise ValueError(
      f'{features.uids[row]}: {times[row]} of {[p.directory for p in parts]}'
      ' speak of it'
    )
  return logits


def read(
  source: LogitSet, features: shards.Columns, task: task_lib.Task
) -> tuple[np.ndarray, np.ndarray]:
  """A run's logits, joined with the training rows by uid.

  Returns:
    The n rows that the set is of, ascending, [n] int64, and its logits on them,
    [n, c] float32.

  Raises:
    errors.UserError: as `targets`.
  """
  columns = shards.open(
    source.directory, shards.logits_fields(task.num_outputs), source.fingerprint
  )
  labels = columns.metadata.get('labels')
  if labels != list(task.labels):
    raise errors.UserError(
      f'{source.directory}: its logits are in the order {labels}, the task'
      f' {task.name} has {list(task.labels)}; label the rows again'
    )
  rows = _rows(features, source.fold)
  uids = list(features.uids)
  wanted = [uids[row] for row in rows]
  if source.fold:
    known = set(columns.uids).difference(wanted)
    if known:
      raise errors.UserError(
        f'{source.directory}: has logits for {min(known)}, on which its teacher'
        f' was trained; {manifest.AGAIN}'
      )
  return rows, _aligned(source.directory, columns, wanted)


def _rows(features: shards.Columns, fold: folds.Fold | None) -> np.ndarray:
  """The rows that a run speaks of: all, or the fold that it left out."""
  if fold is None:
    return np.arange(len(features))
  return folds.split(features.uids, fold)[1]


def _aligned(
  directory: Path, columns: shards.Columns, uids: Sequence[str]
) -> np.ndarray:
  """The logits of some rows in their order, joined by uid."""
  logits = np.asarray(columns.fixed('logits'))
  logits = logits.reshape(len(columns), -1)
  row_of = {uid: row for row, uid in enumerate(columns.uids)}
  if len(row_of) < len(columns):
    uid, _ = Counter(columns.uids).most_common(1)[0]
    raise errors.UserError(
      f'{directory}: has two rows of logits for {uid}; {manifest.AGAIN}'
    )
  try:
    order = np.array([row_of[uid] for uid in uids], np.int64)
  except KeyError as e:
    raise errors.UserError(
      f'{directory}: the teacher has no logits for {e.args[0]};'
      f' {manifest.AGAIN}'
    ) from e
  result = logits[order]
  if not np.isfinite(result).all():
    bad = uids[int(np.argwhere(~np.isfinite(result))[0, 0])]
    raise errors.UserError(
      f'{directory}: the logits of {bad} are not finite; {manifest.AGAIN}'
    )
  return result
