"""Writes and reads teacher logits, and joins them with student rows by uid.

A set holds the logits of one teacher on rows of one task. The arithmetic is in
`bam_jax.core.teachers`. This module does not import JAX, so that a process that
only writes sets starts quickly.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bam_jax import errors
from bam_jax.core import teachers as teachers_lib
from bam_jax.data import folds
from bam_jax.data import manifest
from bam_jax.data import shards
from bam_jax.tasks import task as task_lib


class LogitSet(NamedTuple):
  """Folder and fingerprint of one teacher's logits on rows of one task.

  Attributes:
    directory: folder of the shard set.
    fingerprint: what the logits must have been made from.
    fold: the fold that the set covers; the teacher was not trained on this
      fold. None: the set covers all rows.
    remedy: advice to the user in error messages about an unusable set.
  """

  directory: Path
  fingerprint: Mapping[str, object]
  fold: folds.Fold | None = None
  remedy: str = manifest.AGAIN


def folder_name(task: str, split: str) -> str:
  """Returns the name of the folder for logits on one split of a task.

  >>> folder_name('rte', 'train'), folder_name('rte', 'unlabelled')
  ('rte', 'rte.unlabelled')
  """
  # The name is unambiguous because task names contain no dot.
  return f'{task}.{split}' if split == task_lib.UNLABELLED else task


def fingerprint(
  features: shards.Columns,
  run_digest: str,
  parameters_digest: str,
  fold: folds.Fold | None = None,
) -> dict[str, object]:
  """Returns the fingerprint of a teacher's logits on a dataset.

  It consists of the fingerprint of the features, the digest of the teacher's
  identity, the digest of its final parameters, and, for cross-fitting, the fold
  that the teacher was not trained on.
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
  """Writes teacher logits as TFRecord shards, with a copy for fast reading.

  Args:
    target: folder and fingerprint of the set.
    uids: uids of the n rows.
    logits: [n, c] float32, or [sum of the lengths, c] for logits per token.
    metadata: `prepare.label_metadata` of the task.
    lengths: [n], the number of tokens in each row, for logits per token; None
      for logits per example.

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
  """Reads teacher logits and joins them by uid with the rows of a task.

  Returns:
    The indices of the n rows of `features` that the teacher labels, ascending,
    [n] int64; and the logits of these rows, [n, c] float32, or [tokens, c] if
    the task has logits per token.

  Raises:
    errors.UserError: the set is damaged or outdated, or was made with other
      labels; the set lacks a row or has one twice; or the teacher was trained
      on a row of the set.
  """

  def fail(message: str, remedy: str = source.remedy) -> errors.UserError:
    return errors.UserError(f'{source.directory}: {message}; {remedy}')

  width = None if task.kind.per_token else task.num_outputs
  columns = shards.open(
    source.directory, shards.logits_fields(width), source.fingerprint
  )
  labels = columns.metadata.get('labels')
  if labels != list(task.labels):
    raise fail(
      f'its logits have the label order {labels}, but {task.name} has'
      f' {list(task.labels)}',
      'write the logits again in that order',
    )
  rows = labelled_rows(features, source.fold)
  uids = list(features.uids)
  wanted = [uids[row] for row in rows]
  row_of = {uid: row for row, uid in enumerate(columns.uids)}
  if source.fold and (known := row_of.keys() - set(wanted)):
    raise fail(f'has logits for {min(known)}, on which its teacher was trained')
  if len(row_of) < len(columns):
    uid, _ = Counter(columns.uids).most_common(1)[0]
    raise fail(f'has two rows of logits for {uid}')
  for uid in wanted:
    if uid not in row_of:
      raise fail(f'the teacher has no logits for {uid}')
  order = np.array([row_of[uid] for uid in wanted], np.int64)
  logits = columns.take('logits', order).reshape(-1, task.num_outputs)
  lengths = token_lengths(features, task, rows)
  if lengths is not None:
    sizes = np.diff(columns.ragged('logits')[1])[order]
    wrong = np.flatnonzero(sizes != lengths * task.num_outputs)
    if len(wrong):
      raise fail(f'the logits of {wanted[wrong[0]]} do not fit its tokens')
  bad = first_not_finite(logits, lengths)
  if bad is not None:
    raise fail(f'the logits of {wanted[bad]} are not finite')
  return rows, logits


def read_probs(
  teachers: Sequence[Sequence[LogitSet]],
  features: shards.Columns,
  task: task_lib.Task,
  temperature: float,
) -> np.ndarray:
  """Reads the teachers' logits; returns the mean of their predictions.

  Args:
    teachers: for each teacher, its sets: a single set, or one set per fold.
    features: the student's N rows.
    task: the task.
    temperature: temperature of the teachers' softmax, above 0.

  Returns:
    Probabilities, or scores on 0-1, [N, c] float32, or [tokens, c] if the task
    has outputs per token.

  Raises:
    errors.UserError: see `read`.
    ValueError: a teacher's sets together do not hold each row exactly once.
  """
  offsets = np.arange(len(features) + 1)
  if task.kind.per_token:
    offsets = features.ragged('input_ids')[1]

  def probs(sets: Sequence[LogitSet]) -> np.ndarray:
    parts = [read(each, features, task) for each in sets]
    return task.kind.teacher_probs(
      teachers_lib.choose_out_of_fold(offsets, parts), temperature, features
    )

  return teachers_lib.mean_predictions(map(probs, teachers))


def first_not_finite(
  logits: np.ndarray, lengths: np.ndarray | None
) -> int | None:
  """Returns the index of the first row with a nan or infinite logit, or None.

  Args:
    logits: [n, c], or [sum of the lengths, c] for logits per token.
    lengths: [n], the number of tokens in each row, for logits per token; None
      for logits per example.
  """
  bad = np.flatnonzero(~np.isfinite(logits).all(axis=-1))
  if not len(bad):
    return None
  if lengths is None:
    return int(bad[0])
  return int(np.searchsorted(np.cumsum(lengths), bad[0], 'right'))


def token_lengths(
  features: shards.Columns, task: task_lib.Task, rows: np.ndarray
) -> np.ndarray | None:
  """Returns the token count of each row; None if outputs are per example."""
  if not task.kind.per_token:
    return None
  return np.diff(features.ragged('input_ids')[1])[rows]


def labelled_rows(
  features: shards.Columns, fold: folds.Fold | None
) -> np.ndarray:
  """Returns the indices of the rows that a teacher labels.

  These are the rows of `fold`, which the teacher was not trained on; or, if
  `fold` is None, all rows.
  """
  if fold is None:
    return np.arange(len(features))
  return folds.split(features.uids, fold)[1]
