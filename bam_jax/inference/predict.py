"""Predicts test splits with trained parameters."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bam_jax import config as config_lib
from bam_jax import escape
from bam_jax import files
from bam_jax.data import shards
from bam_jax.runtime import processes
from bam_jax.tasks import kind as kind_lib
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
  predictions = task.kind.predict(task, logits, features)
  processes.run_on_first(write_tsv, path, task, predictions)
  return {each.uid: each.text for each in predictions}


def write_tsv(
  path: Path, task: task_lib.Task, predictions: Sequence[kind_lib.Prediction]
) -> None:
  r"""Writes a line `uid<TAB>prediction<TAB>probabilities...` for each row.

  Kinds without probabilities have two columns. A tab or a line break inside a
  label is written as `\t` or `\n`.

  Raises:
    errors.UserError: the file can't be written.
  """
  names = task.kind.prediction_columns(task)
  lines = [escape.tsv(('uid', 'prediction', *names))]
  for each in predictions:
    lines.append(escape.tsv((each.uid, *each.as_fields())))
  files.write_text(path, '\n'.join(lines) + '\n')
