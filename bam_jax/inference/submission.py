"""A GLUE submission: a zip of prediction files at its top level."""

from collections.abc import Iterator
from collections.abc import Mapping
import io
from pathlib import Path
import zipfile

from bam_jax import errors
from bam_jax import files
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
      lines = archive.read(file).decode().splitlines()
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
  if not task.is_regression:
    return text in task.labels
  try:
    return task.scale[0] <= float(text) <= task.scale[1]
  except ValueError:
    return False
