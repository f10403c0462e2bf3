"""A GLUE submission: a zip of prediction files at its top level."""

from collections.abc import Mapping
import os
from pathlib import Path
import zipfile

from bam_jax import errors
from bam_jax.tasks import task as task_lib

# A fixed time stamp, so that equal predictions give equal bytes.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def write(
  path: Path,
  tasks: task_lib.TaskTable,
  predictions: Mapping[str, Mapping[str, list[str]]],
) -> None:
  """Writes and checks a submission.

  Args:
    path: of the zip.
    tasks: the tasks.
    predictions: task -> test split -> texts in the order of the test file.

  Raises:
    errors.UserError: the zip can't be written.
  """
  temporary = path.with_name(f'.{path.name}.tmp')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(temporary, 'w', zipfile.ZIP_DEFLATED) as archive:
      for name, splits in predictions.items():
        for split, texts in splits.items():
          file = tasks[name].tables[split].submission
          if file:
            archive.writestr(zipfile.ZipInfo(file, _EPOCH), table(texts))
    os.replace(temporary, path)
  except OSError as e:
    raise errors.UserError(f'{path}: cannot be written: {e.strerror}') from e
  validate(path, tasks, predictions)


def table(texts: list[str]) -> str:
  """`index<TAB>prediction` and a line a row, counted from 0."""
  rows = [f'{index}\t{text}' for index, text in enumerate(texts)]
  return '\n'.join(['index\tprediction', *rows]) + '\n'


def validate(
  path: Path,
  tasks: task_lib.TaskTable,
  predictions: Mapping[str, Mapping[str, list[str]]],
) -> None:
  """Reads a submission back: files, row counts, indices, labels, scales.

  Raises:
    errors.UserError: what is wrong, with file and line.
  """
  with zipfile.ZipFile(path) as archive:
    present = set(archive.namelist())
    for name, splits in predictions.items():
      for split, texts in splits.items():
        file = tasks[name].tables[split].submission
        if not file:
          continue
        if file not in present:
          raise errors.UserError(f'{path}: lacks {file}')
        lines = archive.read(file).decode().splitlines()
        if len(lines) != len(texts) + 1:
          raise errors.UserError(
            f'{path}: {file} has {len(lines) - 1} rows, the test file'
            f' {len(texts)}'
          )
        for number, line in enumerate(lines[1:]):
          index, _, text = line.partition('\t')
          if index != str(number) or not _is_valid(tasks[name], text):
            raise errors.UserError(
              f'{path}: {file}:{number + 2}: {line!r} is no prediction of'
              f' {name}'
            )


def _is_valid(task: task_lib.Task, text: str) -> bool:
  if not task.is_regression:
    return text in task.labels
  try:
    return task.scale[0] <= float(text) <= task.scale[1]
  except ValueError:
    return False
