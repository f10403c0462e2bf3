"""Teachers' logits on training rows: computed by a run, read by a student."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.core import teachers as teachers_lib
from bam_jax.data import folds
from bam_jax.data import shards
from bam_jax.distillation import logit_sets
from bam_jax.tasks import task as task_lib
from bam_jax.training import evaluate
from bam_jax.training import programs as programs_lib


def predict_logits(
  programs: programs_lib.Programs,
  params: Mapping[str, object],
  features: shards.Columns,
  task: task_lib.Task,
  packing: config_lib.PackingConfig,
  fold: folds.Fold | None,
  advance: Callable[[int], None] = lambda n: None,
) -> tuple[np.ndarray, np.ndarray]:
  """Computes a run's logits on the rows that it labels.

  Args:
    programs: the compiled steps.
    params: of the run, on the devices.
    features: the rows of a split.
    task: whose head predicts.
    packing: rows are packed as in training.
    fold: the rows that the run left out and labels; None: it labels all.
    advance: called with the number of examples after each batch.

  Returns:
    The n rows, ascending, [n] int64, and the logits on them, [n, c] float32; of
    tokens: [tokens, c].

  Raises:
    errors.UserError: a logit is not finite.
  """
  rows = logit_sets.labelled_rows(features, fold)
  logits = evaluate.predict(
    programs,
    params,
    features,
    programs.tasks.index[task.name],
    packing,
    advance,
    rows,
  )
  lengths = logit_sets.token_lengths(features, task, rows)
  bad = logit_sets.first_not_finite(logits, lengths)
  if bad is not None:
    raise errors.UserError(
      f'{features.uids[rows[bad]]}: the teacher of {task.name} has no finite'
      ' logits for it; lower the learning rate and train the teacher again'
    )
  return rows, logits


def read_probs(
  teachers: Sequence[Sequence[logit_sets.LogitSet]],
  features: shards.Columns,
  task: task_lib.Task,
  temperature: float,
) -> np.ndarray:
  """Reads the teachers' logits; returns the mean of their predictions.

  Args:
    teachers: the sets of each teacher: one, or one for each fold.
    features: the student's N rows.
    task: the task.
    temperature: of the teachers' softmax, above 0.

  Returns:
    [N, c] float32: probabilities, or scores on 0-1; of tokens: [tokens, c].

  Raises:
    errors.UserError: see `logit_sets.read`.
    ValueError: the sets of a teacher do not hold every row exactly once.
  """
  offsets = np.arange(len(features) + 1)
  if task.kind.per_token:
    offsets = features.ragged('input_ids')[1]

  def probs(sets: Sequence[logit_sets.LogitSet]) -> np.ndarray:
    parts = [logit_sets.read(each, features, task) for each in sets]
    return task.kind.teacher_probs(
      teachers_lib.choose_out_of_fold(offsets, parts), temperature, features
    )

  return teachers_lib.mean_predictions(map(probs, teachers))
