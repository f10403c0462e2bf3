"""Predictions of trained parameters on unlabelled splits."""

from pathlib import Path

import numpy as np

from bam_jax import config as config_lib
from bam_jax import files
from bam_jax.data import shards
from bam_jax.tasks import metrics
from bam_jax.tasks import task as task_lib


def as_text(
  task: task_lib.Task, logits: np.ndarray, regression_head: str
) -> list[str]:
  """Each row's label, or its score in the task's own scale.

  Args:
    task: the task.
    logits: [N, c].
    regression_head: `sigmoid` or `linear`.
  """
  values = metrics.predictions(task, logits, regression_head)
  if task.is_regression:
    return [f'{value:.3f}' for value in values]
  return [task.labels[value] for value in values]


def write_tsv(
  path: Path,
  task: task_lib.Task,
  features: shards.Columns,
  logits: np.ndarray,
  config: config_lib.Config,
) -> None:
  """Writes `uid<TAB>prediction<TAB>outputs...`, one line a row.

  The outputs are class probabilities, headed by their labels, or nothing for
  regression.
  """
  texts = as_text(task, logits, config.model.regression_head)
  probabilities = _softmax(logits) if not task.is_regression else None
  lines = ['\t'.join(('uid', 'prediction', *task.labels))]
  for row, (uid, text) in enumerate(zip(features.uids, texts)):
    columns = [uid, text]
    if probabilities is not None:
      columns += [f'{p:.4f}' for p in probabilities[row]]
    lines.append('\t'.join(columns))
  files.write_text(path, '\n'.join(lines) + '\n')


def _softmax(logits: np.ndarray) -> np.ndarray:
  shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
  return shifted / shifted.sum(axis=-1, keepdims=True)
