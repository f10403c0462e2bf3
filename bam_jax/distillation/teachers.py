"""Teachers' logits on the training rows: written as shards, read as targets."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import prepare
from bam_jax.data import shards
from bam_jax.tasks import task as task_lib
from bam_jax.training import evaluate
from bam_jax.training import losses
from bam_jax.training import programs as programs_lib


def logit_fingerprint(
  features: shards.Columns, run_digest: str, parameters_digest: str
) -> dict[str, object]:
  """What decides a teacher's logits on a task's training rows.

  Args:
    features: the rows.
    run_digest: of the teacher's configuration, data and teachers.
    parameters_digest: of the parameters that its training ended with.
  """
  return {
    **features.fingerprint,
    'teacher': run_digest,
    'parameters': parameters_digest,
  }


def label(
  programs: programs_lib.Programs,
  params: Mapping[str, object],
  features: shards.Columns,
  task: task_lib.Task,
  packing: config_lib.PackingConfig,
  directory: Path,
  fingerprint: Mapping[str, object],
  advance: Callable[[int], None] = lambda n: None,
) -> None:
  """Writes the teacher's logits on every training row, in the rows' order."""
  logits = evaluate.predict(
    programs,
    params,
    features,
    programs.tasks.index[task.name],
    packing,
    advance,
  )
  shards.write(
    directory,
    shards.logits_fields(task.num_outputs),
    ({'uid': uid, 'logits': row} for uid, row in zip(features.uids, logits)),
    fingerprint,
    metadata=prepare.label_metadata(task),
  )


def targets(
  teachers: Sequence[tuple[Path, Mapping[str, object]]],
  features: shards.Columns,
  task: task_lib.Task,
  temperature: float,
  regression_head: str,
) -> np.ndarray:
  """What the student learns from: the mean of its teachers' predictions.

  Args:
    teachers: directory and expected fingerprint of each teacher's shard set.
    features: the student's N training rows.
    task: the task.
    temperature: of the teachers' softmax, above 0.
    regression_head: `sigmoid` or `linear`.

  Returns:
    [N, c] float32: class probabilities, or predictions on 0-1.

  Raises:
    errors.UserError: a set is damaged, stale, made with other labels, or lacks
      a row.
  """
  total = np.zeros((len(features), task.num_outputs), np.float32)
  for directory, fingerprint in teachers:
    total += losses.teacher_targets(
      read(directory, fingerprint, features, task),
      task.is_regression,
      temperature,
      regression_head,
    )
  return total / len(teachers)


def read(
  directory: Path,
  fingerprint: Mapping[str, object],
  features: shards.Columns,
  task: task_lib.Task,
) -> np.ndarray:
  """A teacher's logits on N training rows, [N, c], joined by uid.

  Raises:
    errors.UserError: as `targets`.
  """
  columns = shards.open(
    directory, shards.logits_fields(task.num_outputs), fingerprint
  )
  if columns.metadata['labels'] != list(task.labels):
    raise errors.UserError(
      f'{directory}: its logits are in the order'
      f' {columns.metadata["labels"]}, the task {task.name} has'
      f' {list(task.labels)}; label the rows again'
    )
  return _aligned(directory, columns, features)


def _aligned(
  directory: Path, columns: shards.Columns, features: shards.Columns
) -> np.ndarray:
  """The logits in the order of the features, joined by uid."""
  logits = np.asarray(columns.fixed('logits'))
  logits = logits.reshape(len(columns), -1)
  row_of = {uid: row for row, uid in enumerate(columns.uids)}
  try:
    order = np.array([row_of[uid] for uid in features.uids], np.int64)
  except KeyError as e:
    raise errors.UserError(
      f'{directory}: the teacher has no logits for {e.args[0]}; remove the'
      ' folder and run the same command again'
    ) from e
  result = logits[order]
  if not np.isfinite(result).all():
    bad = features.uids[int(np.argwhere(~np.isfinite(result))[0, 0])]
    raise errors.UserError(
      f'{directory}: the logits of {bad} are not finite; remove the folder'
      ' and run the same command again'
    )
  return result
