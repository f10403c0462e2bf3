"""Writes a GLUE submission: a zip of prediction files at its top level.

The majority label of a task's training rows can replace its predictions. WNLI's
dev set repeats sentences of its training set with the other label, so a trained
model scores below that label on the test set; Devlin et al. (2019) submitted it
too.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import io
from pathlib import Path
import zipfile

import numpy as np

from bam_jax import errors
from bam_jax import files
from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import task as task_lib

# A fixed time stamp, so that equal predictions give equal bytes.
_EPOCH = (1980, 1, 1, 0, 0, 0)

# task -> test split -> uid -> prediction as text, in the order of the file.
Predictions = Mapping[str, Mapping[str, Mapping[str, str]]]


def write(
  path: Path, tasks: task_lib.TaskTable, predictions: Predictions
) -> None:
  """Checks and writes a submission; writes nothing if GLUE takes no split.

  Args:
    path: of the zip.
    tasks: the tasks.
    predictions: task -> test split -> uid -> text.

  Raises:
    errors.UserError: GLUE would refuse a prediction, a row of a test file has
      none, or the zip can't be written.
  """
  data = io.BytesIO()
  with zipfile.ZipFile(data, 'w') as archive:
    for name, splits in predictions.items():
      task = tasks[name]
      for split, texts in splits.items():
        if file := task.tables[split].submission:
          entry = zipfile.ZipInfo(file, _EPOCH)
          rows = _rows(f'{path}: ', file, task, texts)
          archive.writestr(entry, rows, zipfile.ZIP_DEFLATED)
    is_empty = not archive.namelist()
  if not is_empty:
    files.write_bytes(path, data.getvalue())


def _rows(
  where: str, file: str, task: task_lib.Task, texts: Mapping[str, str]
) -> str:
  """`index<TAB>prediction`, and a line for each row of the test file."""
  lines = ['index\tprediction']
  for number, (uid, text) in enumerate(texts.items()):
    # The index counts the rows of the raw file, malformed ones included.
    if uid.rpartition('/')[2] != str(number):
      raise errors.UserError(
        f'{where}row {number} of {file} has no prediction: it was skipped as'
        ' malformed; mend it in the test file'
      )
    lines.append(f'{number}\t{text}')
    try:
      task.kind.parse(task, text, '')
    except errors.UserError:
      raise errors.UserError(
        f'{where}{file}:{number + 2}: {lines[-1]!r} is no prediction of'
        f' {task.name}'
      ) from None
  return '\n'.join(lines) + '\n'


def check_majority(names: Sequence[str], tasks: task_lib.TaskTable) -> None:
  """Checks the names of the tasks whose majority label will be submitted.

  Raises:
    errors.UserError: a name is not among the tasks, or its task has no majority
      label or no file in a submission.
  """
  for name in names:
    where = f'--majority={name}'
    if name not in tasks.index:
      raise errors.UserError(
        f'{where}: is no task of the plan, which has {", ".join(tasks.names)};'
        ' leave it out'
      )
    task = tasks[name]
    if not task.kind.one_class:
      raise errors.UserError(
        f'{where}: a {task.kind} task has no majority label; leave it out'
      )
    if not any(task.tables[split].submission for split in task.test_splits):
      raise errors.UserError(
        f'{where}: the task has no file in a GLUE submission; leave it out'
      )


def majority(
  task: task_lib.Task,
  train: kind_lib.Rows,
  by_split: Mapping[str, Mapping[str, str]],
) -> dict[str, dict[str, str]]:
  """Replaces each prediction by the most frequent training label.

  Args:
    task: one that `check_majority` passes.
    train: its training rows; of equally frequent labels, the first one of
      `task.labels` is taken.
    by_split: test split -> uid -> prediction.

  Raises:
    errors.UserError: nothing was predicted.
  """
  if not by_split:
    raise errors.UserError(
      f'--majority={task.name}: no test row of it was predicted; add its test'
      ' file to config.data.dir, or choose a --group that has the task'
    )
  counts = np.bincount(task.kind.gold(task, train), minlength=len(task.labels))
  label = task.labels[int(np.argmax(counts))]
  return {split: dict.fromkeys(uids, label) for split, uids in by_split.items()}
