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
  """Predicts a split, writes the predictions by `write_tsv` and returns them.

  Returns:
    uid -> label, or score on the task's own scale, in the order of the rows.
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
  r"""Writes a line `uid<TAB>prediction<TAB>probabilities...` for each row.

  Kinds without probabilities have two columns. A tab or a line break inside a
  label is written as `\t` or `\n`. `texts` maps uids to predictions, and
  `logits` has the same rows.

  Raises:
    errors.UserError: the file can't be written.
  """
  names = task.kind.prediction_columns(task)
  shares = np.empty((len(texts), 0))
  if names:
    shares = task.kind.probabilities(logits)
  lines = [escape.tsv(('uid', 'prediction', *names))]
  for (uid, text), row in zip(texts.items(), shares, strict=True):
    lines.append(escape.tsv((uid, text, *(f'{p:.4f}' for p in row))))
  files.write_text(path, '\n'.join(lines) + '\n')
