"""Teachers: what one says of training rows, and targets from what all say."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import folds
from bam_jax.data import shards
from bam_jax.distillation import logit_sets
from bam_jax.tasks import ragged
from bam_jax.tasks import task as task_lib
from bam_jax.training import evaluate
from bam_jax.training import programs as programs_lib


def label(
  programs: programs_lib.Programs,
  params: Mapping[str, object],
  features: shards.Columns,
  task: task_lib.Task,
  packing: config_lib.PackingConfig,
  fold: folds.Fold | None,
  advance: Callable[[int], None] = lambda n: None,
) -> tuple[np.ndarray, np.ndarray]:
  """The teacher's logits on its training rows.

  Args:
    programs: the compiled steps.
    params: the teacher's, on the devices.
    features: the training rows.
    task: whose head speaks.
    packing: rows are packed as in training.
    fold: the rows that the teacher left out, of which alone it speaks; None: it
      speaks of all.
    advance: told the number of examples after each batch.

  Returns:
    The n rows, ascending, [n] int64, and its logits on them, [n, c] float32, or
    [tokens, c], as `evaluate.predict` returns them.

  Raises:
    errors.UserError: a logit is not finite.
  """
  rows = logit_sets.rows_of(features, fold)
  logits = evaluate.predict(
    programs,
    params,
    features,
    programs.tasks.index[task.name],
    packing,
    advance,
    rows,
  )
  if not np.isfinite(logits).all():
    bad = np.argmin(np.isfinite(logits).all(-1))
    lengths = logit_sets.token_lengths(features, task, rows)
    if lengths is not None:
      bad = np.searchsorted(np.cumsum(lengths), bad, 'right')
    row = rows[bad]
    raise errors.UserError(
      f'{features.uids[row]}: the teacher of {task.name} has no finite logits'
      ' for it; lower the learning rate and train the teacher again'
    )
  return rows, logits


def targets(
  teachers: Sequence[Sequence[logit_sets.LogitSet]],
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
    [N, c] float32: probabilities, or predictions on 0-1; or of the tokens of
    all rows, [tokens, c].

  Raises:
    errors.UserError: a set is damaged, stale, made with other labels, lacks a
      row, or holds one that its teacher was trained on.
    ValueError: the sets of a teacher do not hold every row once.
  """
  total = np.float32(0)
  for parts in teachers:
    total += task.kind.teacher_targets(
      _joined(parts, features, task), temperature, regression_head, features
    )
  return total / len(teachers)


def _joined(
  parts: Sequence[logit_sets.LogitSet],
  features: shards.Columns,
  task: task_lib.Task,
) -> np.ndarray:
  """[N, c], every row from the set of the one run that speaks of it.

  Of tokens, [tokens, c].
  """
  offsets = np.arange(len(features) + 1)
  if task.kind.per_token:
    offsets = features.ragged('input_ids')[1]
  logits = np.empty((offsets[-1], task.num_outputs), np.float32)
  times = np.zeros(len(features), np.int64)
  for part in parts:
    rows, values = logit_sets.read(part, features, task)
    logits[ragged.places(offsets, rows)] = values
    times[rows] += 1
  if (times != 1).any():
    row = int(np.argmax(times != 1))
    raise ValueError(
      f'{features.uids[row]}: {times[row]} of {[p.directory for p in parts]}'
      ' speak of it'
    )
  return logits
