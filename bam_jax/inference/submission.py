"""A GLUE submission: a zip of prediction files at its top level.

Of a task the training set's majority label can stand in for the predictions.
WNLI's dev set repeats sentences of its training set with the other label, which
leaves a trained model below that label on the test set; so Devlin et al. (2019)
submitted it.
"""

from collections.abc import Iterator
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
  """Writes and checks a submission; nothing where no split belongs to GLUE.

  Args:
    path: of the zip.
    tasks: the tasks.
    predictions: task -> test split -> uid -> text.

  Raises:
    errors.UserError: a prediction GLUE would refuse, a row of a test file
      without one, or the zip can't be written.
  """
  submitted = list(_submitted(tasks, predictions))
  if not submitted:
    return
  for _, file, by_index in submitted:
    absent = set(range(len(by_index))) - by_index.keys()
    if absent:
      raise errors.UserError(
        f'{path}: row {min(absent)} of {file} has no prediction: it was'
        ' skipped as malformed; mend it in the test file'
      )
  data = io.BytesIO()
  with zipfile.ZipFile(data, 'w') as archive:
    for _, file, by_index in submitted:
      entry = zipfile.ZipInfo(file, _EPOCH)
      archive.writestr(entry, table(by_index), zipfile.ZIP_DEFLATED)
  files.write_bytes(path, data.getvalue())
  validate(path, tasks, predictions)


def check_majority(names: Sequence[str], tasks: task_lib.TaskTable) -> None:
  """Checks the tasks whose majority label is to be submitted.

  Raises:
    errors.UserError: one is not among the tasks, or has no majority label or
      no file in a submission.
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
  """The most frequent training label for every row that was predicted.

  Args:
    task: one that `check_majority` passes.
    train: its training rows; of labels that are as frequent the first one of
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


def table(by_index: Mapping[int, str]) -> str:
  """`index<TAB>prediction` and a line a row of the test file."""
  rows = [f'{index}\t{text}' for index, text in by_index.items()]
  return '\n'.join(['index\tprediction', *rows]) + '\n'


def validate(
  path: Path, tasks: task_lib.TaskTable, predictions: Predictions
) -> None:
  """Reads a submission back: files, row counts, indices, labels, scales.

  Raises:
    errors.UserError: what is wrong, with file and line.
  """
  with zipfile.ZipFile(path) as archive:
    present = set(archive.namelist())
    for task, file, by_index in _submitted(tasks, predictions):
      if file not in present:
        raise errors.UserError(f'{path}: lacks {file}')
      lines = archive.read(file).decode().removesuffix('\n').split('\n')
      if len(lines) != len(by_index) + 1:
        raise errors.UserError(
          f'{path}: {file} has {len(lines) - 1} rows, the test file'
          f' {len(by_index)}'
        )
      for number, (wanted, line) in enumerate(zip(by_index, lines[1:]), 2):
        index, _, text = line.partition('\t')
        if index != str(wanted) or not _is_valid(task, text):
          raise errors.UserError(
            f'{path}: {file}:{number}: {line!r} is no prediction of {task.name}'
          )


def _submitted(
  tasks: task_lib.TaskTable, predictions: Predictions
) -> Iterator[tuple[task_lib.Task, str, dict[int, str]]]:
  """Task, file name, and index of the row -> text, of what GLUE takes."""
  for name, splits in predictions.items():
    for split, texts in splits.items():
      file = tasks[name].tables[split].submission
      if file:
        by_index = {
          int(uid.rpartition('/')[2]): text for uid, text in texts.items()
        }
        yield tasks[name], file, by_index


def _is_valid(task: task_lib.Task, text: str) -> bool:
  if not task.kind.has_scale:
    return text in task.labels
  try:
    return task.scale[0] <= float(text) <= task.scale[1]
  except ValueError:
    return False
