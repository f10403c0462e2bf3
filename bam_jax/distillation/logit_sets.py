"""A run's logits on training rows: a shard set, joined with the rows by uid.

Without JAX, so that a process that only writes them starts in no time.
"""

from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bam_jax import errors
from bam_jax.data import folds
from bam_jax.data import manifest
from bam_jax.data import shards
from bam_jax.tasks import task as task_lib


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


def fingerprint(
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


def write(
  target: LogitSet,
  uids: Sequence[str],
  logits: np.ndarray,
  metadata: Mapping[str, object],
) -> None:
  """Writes a set and decodes it, as whoever reads it first would have to.

  Args:
    target: where, and what decides the logits.
    uids: of n rows.
    logits: [n, c] float32.
    metadata: of the task, as `prepare.label_metadata` gives it.

  Raises:
    errors.UserError: the folder can't be written.
  """
  fields = shards.logits_fields(logits.shape[1])
  shards.write(
    target.directory,
    fields,
    ({'uid': uid, 'logits': row} for uid, row in zip(uids, logits)),
    target.fingerprint,
    metadata,
  )
  shards.open(target.directory, fields, target.fingerprint)


def read(
  source: LogitSet, features: shards.Columns, task: task_lib.Task
) -> tuple[np.ndarray, np.ndarray]:
  """A run's logits, joined with the training rows by uid.

  Returns:
    The n rows that the set is of, ascending, [n] int64, and its logits on them,
    [n, c] float32.

  Raises:
    errors.UserError: the set is damaged, stale, made with other labels, lacks a
      row, or holds one that its teacher was trained on.
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
  rows = rows_of(features, source.fold)
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


def rows_of(features: shards.Columns, fold: folds.Fold | None) -> np.ndarray:
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
