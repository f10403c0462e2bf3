"""Predictions of trained parameters on unlabelled splits."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.special

from bam_jax import config as config_lib
from bam_jax import files
from bam_jax.data import shards
from bam_jax.tasks import metrics
from bam_jax.tasks import task as task_lib
from bam_jax.training import evaluate
from bam_jax.training import processes
from bam_jax.training import programs as programs_lib


def predict(
  programs: programs_lib.Programs,
  params: Mapping[str, object],
  task: task_lib.Task,
  features: shards.Columns,
  config: config_lib.Config,
  path: Path,
) -> dict[str, str]:
  """Predicts a split, writes it as `write_tsv` does, and returns it.

  Args:
    programs: the compiled steps.
    params: parameters on the devices.
    task: the task.
    features: N rows.
    config: the whole configuration.
    path: of the file.

  Returns:
    As `as_text`.

  Raises:
    errors.UserError: the file can't be written.
  """
  logits = evaluate.predict(
    programs, params, features, programs.tasks.index[task.name], config.packing
  )
  texts = as_text(task, features, logits, config.model.regression_head)
  processes.by_first(write_tsv)(path, task, texts, logits)
  return texts


def as_text(
  task: task_lib.Task,
  features: shards.Columns,
  logits: np.ndarray,
  regression_head: str,
) -> dict[str, str]:
  """uid -> label, or score in the task's own scale, in the order of the rows.

  Args:
    task: the task.
    features: N rows.
    logits: [N, c].
    regression_head: `sigmoid` or `linear`.
  """
  values = metrics.predictions(task, logits, regression_head)
  if task.is_regression:
    texts = [f'{value:.3f}' for value in values]
  else:
    texts = [task.labels[value] for value in values]
  return dict(zip(features.uids, texts, strict=True))


def write_tsv(
  path: Path, task: task_lib.Task, texts: Mapping[str, str], logits: np.ndarray
) -> None:
  """Writes `uid<TAB>prediction<TAB>outputs...`, one line a row.

  The outputs are class probabilities, headed by their labels, or nothing for
  regression.

  Args:
    path: of the file.
    task: the task.
    texts: N of them, as `as_text` returns.
    logits: [N, c] of the same rows.

  Raises:
    errors.UserError: the file can't be written.
  """
  outputs = np.empty((len(texts), 0))
  if not task.is_regression:
    outputs = scipy.special.softmax(logits, axis=-1)
  lines = ['\t'.join(('uid', 'prediction', *task.labels))]
  for (uid, text), row in zip(texts.items(), outputs, strict=True):
    lines.append('\t'.join((uid, text, *(f'{p:.4f}' for p in row))))
  files.write_text(path, '\n'.join(lines) + '\n')
