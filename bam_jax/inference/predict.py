"""Predicts test splits with trained parameters."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bam_jax import config as config_lib
from bam_jax import escape
from bam_jax import files
from bam_jax.data import shards
from bam_jax.runtime import processes
from bam_jax.tasks import task as task_lib
from bam_jax.training import evaluate
from bam_jax.training import programs as programs_lib


def predict(
  programs: programs_lib.Programs,
  params: Mapping[str, object],
  task: task_lib.Task,
  features: shards.Columns,
  config: config_lib.Config,
  path: Path,
) -> dict[str, str]:
  """Predicts a split, writes the predictions to a file and returns them.

  Args:
    programs: the compiled steps.
    params: parameters on the devices.
    task: the task.
    features: N rows.
    config: the whole configuration.
    path: of the file; see `write_tsv`.

  Returns:
    uid -> label, or score on the task's own scale, in the order of the rows.

  Raises:
    errors.UserError: the file can't be written.
  """
  logits = evaluate.predict(
    programs, params, features, programs.tasks.index[task.name], config.packing
  )
  texts = task.kind.texts(task, logits, features)
  processes.run_on_first(write_tsv, path, task, texts, logits)
  return texts


def write_tsv(
  path: Path, task: task_lib.Task, texts: Mapping[str, str], logits: np.ndarray
) -> None:
  """Writes `uid<TAB>prediction<TAB>probabilities...`, one line for each row.

  Kinds without probabilities have two columns. A tab or a line break inside a
  label is written as `\\t` or `\\n`.

  Args:
    path: of the file.
    task: the task.
    texts: uid -> prediction, see `Kind.texts`.
    logits: of the same rows.

  Raises:
    errors.UserError: the file can't be written.
  """
  kind, outputs = task.kind, np.empty((len(texts), 0))
  names = kind.prediction_columns(task)
  if names:
    outputs = kind.probabilities(logits)
  lines = [escape.tsv(('uid', 'prediction', *names))]
  for (uid, text), row in zip(texts.items(), outputs, strict=True):
    lines.append(escape.tsv((uid, text, *(f'{p:.4f}' for p in row))))
  files.write_text(path, '\n'.join(lines) + '\n')
