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
    remedy: what makes up for logits that are not fit.
  """

  directory: Path
  fingerprint: Mapping[str, object]
  fold: folds.Fold | None = None
  remedy: str = manifest.AGAIN


def folder(task: str, split: str) -> str:
  """The name of the folder of a set: no task's name has a dot.

  >>> folder('rte', 'train'), folder('rte', 'unlabelled')
  ('rte', 'rte.unlabelled')
  """
  return f'{task}.{split}' if split == task_lib.UNLABELLED else task


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
  lengths: np.ndarray | None = None,
) -> None:
  """Writes a set and decodes it, as whoever reads it first would have to.

  Args:
    target: where, and what decides the logits.
    uids: of n rows.
    logits: [n, c] float32; or of tokens, [sum of the lengths, c].
    metadata: of the task, as `prepare.label_metadata` gives it.
    lengths: [n] tokens of each row, where the logits are of tokens.

  Raises:
    errors.UserError: the folder can't be written.
  """
  fields = shards.logits_fields(logits.shape[1] if lengths is None else None)
  if lengths is not None:
    parts = np.split(logits, np.cumsum(lengths)[:-1])
    logits = [part.ravel() for part in parts]
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
    [n, c] float32; or of their tokens, [tokens, c].

  Raises:
    errors.UserError: the set is damaged, stale, made with other labels, lacks a
      row, or holds one that its teacher was trained on.
  """
  width = None if task.kind.per_token else task.num_outputs
  columns = shards.open(
    source.directory, shards.logits_fields(width), source.fingerprint
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
        f' was trained; {source.remedy}'
      )
  order = _order(source, columns, wanted)
  result = columns.take('logits', order).reshape(-1, task.num_outputs)
  lengths = token_lengths(features, task, rows)
  if lengths is None:
    lengths = np.ones(len(rows), np.int64)
  else:
    said = np.diff(columns.ragged('logits')[1])[order]
    if (said != lengths * task.num_outputs).any():
      uid = wanted[int(np.argmax(said != lengths * task.num_outputs))]
      raise errors.UserError(
        f'{source.directory}: the logits of {uid} are not of its tokens;'
        f' {source.remedy}'
      )
  if not np.isfinite(result).all():
    bad = int(np.argmin(np.isfinite(result).all(-1)))
    bad = np.searchsorted(np.cumsum(lengths), bad, 'right')
    raise errors.UserError(
      f'{source.directory}: the logits of {wanted[bad]} are not finite;'
      f' {source.remedy}'
    )
  return rows, result


def token_lengths(
  features: shards.Columns, task: task_lib.Task, rows: np.ndarray
) -> np.ndarray | None:
  """[n] tokens of n rows; None where outputs are of rows."""
  if not task.kind.per_token:
    return None
  return np.diff(features.ragged('input_ids')[1])[rows]


def rows_of(features: shards.Columns, fold: folds.Fold | None) -> np.ndarray:
  """The rows that a run speaks of: all, or the fold that it left out."""
  if fold is None:
    return np.arange(len(features))
  return folds.split(features.uids, fold)[1]


def _order(
  source: LogitSet, columns: shards.Columns, uids: Sequence[str]
) -> np.ndarray:
  """[n] int64: where the rows of some uids are in a set."""
  row_of = {uid: row for row, uid in enumerate(columns.uids)}
  if len(row_of) < len(columns):
    uid, _ = Counter(columns.uids).most_common(1)[0]
    raise errors.UserError(
      f'{source.directory}: has two rows of logits for {uid}; {source.remedy}'
    )
  try:
    return np.array([row_of[uid] for uid in uids], np.int64)
  except KeyError as e:
    raise errors.UserError(
      f'{source.directory}: the teacher has no logits for {e.args[0]};'
      f' {source.remedy}'
    ) from e
