"""Reads the examples of a split; its uids are the same from files and TFDS."""

from collections.abc import Iterable, Iterator
import hashlib
import json
from pathlib import Path

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import files
from bam_jax.data import formats
from bam_jax.data import lines
from bam_jax.data import tfds_source
from bam_jax.tasks import demo
from bam_jax.tasks import task as task_lib

HOW_TO_GET_GLUE = (
  "GLUE's own download_glue_data.py --data_dir=DIR --tasks=all gets it, or"
  ' set config.data.source=tfds'
)


def read(
  task: task_lib.Task, split: str, data: config_lib.DataConfig
) -> Iterator[task_lib.Example]:
  """Yields the examples of a split, at least one, in the raw file's order.

  The index of a uid counts the data lines of the raw file from 0: not the
  header or an empty line, which TFDS skips as well, but malformed rows, even
  those that are left out. Labels are None if the table has no label column.

  Raises:
    errors.UserError: no such split or file, nothing in it, or a row that
      cannot be read.
  """
  if split not in task.tables:
    raise errors.UserError(
      f'task {task.name!r} has no split {split!r}; name one of'
      f' {", ".join(task.tables)}'
    )
  source = source_of(task, split, data)
  if source == 'generated':
    yield from demo.generate(task.name, split)
  elif source == 'tfds':
    where, rows = tfds_source.read(task, split, data)
    yield from (_example(task, split, row, where) for row in rows)
  else:
    remedy = how_to_get(task, split, data)
    yield from _read_file(task, split, path_of(task, split, data), remedy)


def is_present(
  task: task_lib.Task, split: str, data: config_lib.DataConfig
) -> bool:
  """Returns whether a split's file exists, readable or not."""
  source = source_of(task, split, data)
  if source == 'tfds':
    return tfds_source.is_present(task, split, data)
  return source == 'generated' or path_of(task, split, data).is_file()


def source_of(
  task: task_lib.Task, split: str, data: config_lib.DataConfig
) -> str:
  """Returns `tfds`, `generated`, or the file format of a split."""
  table = task.tables[split]
  return 'tfds' if data.source == 'tfds' and table.tfds else table.format


def how_to_get(
  task: task_lib.Task, split: str, data: config_lib.DataConfig
) -> str:
  """Returns the remedy for a split that is missing."""
  if source_of(task, split, data) == 'tfds':
    return tfds_source.how_to_get(task, split, data)
  if task.tables[split].tfds:
    return HOW_TO_GET_GLUE
  field = f'config.custom_tasks.{task.name}'
  if split == task_lib.UNLABELLED:
    field = 'config.data.unlabelled'
  return f'mend config.data.dir or {field}'


def path_of(
  task: task_lib.Task, split: str, data: config_lib.DataConfig
) -> Path:
  """Returns the path of a split's file: below `data.dir`, or absolute."""
  table = task.tables[split]
  path = Path(data.dir, table.file)
  other = Path(data.dir, table.other_file)
  if table.other_file and other.is_file() and not path.exists():
    return other
  return path


def missing(
  task: task_lib.Task, split: str, data: config_lib.DataConfig
) -> str:
  """Returns the file names, or the TFDS name, of a split that is missing."""
  table = task.tables[split]
  if source_of(task, split, data) == 'tfds':
    return table.tfds
  return ' or '.join(name for name in (table.file, table.other_file) if name)


def rows_digest(examples: Iterable[task_lib.Example]) -> str:
  """Returns the sha256 of examples as canonical JSON lines, hexadecimal."""
  digest = hashlib.sha256()
  encode = json.JSONEncoder(separators=(',', ':')).encode
  for example in examples:
    digest.update(encode(example).encode() + b'\n')
  return digest.hexdigest()


def _read_file(
  task: task_lib.Task, split: str, path: Path, remedy: str
) -> Iterator[task_lib.Example]:
  """Yields the examples of a file."""
  table = task.tables[split]
  row = None
  try:
    for row in formats.FORMATS[table.format].read(path, table):
      yield _example(task, split, row, str(path))
  except OSError as error:
    raise errors.UserError(f'{path}: {error.strerror}; {remedy}') from None
  except UnicodeDecodeError as error:
    raise errors.UserError(
      f'{path}:{lines.broken(path)}: not UTF-8 ({error.reason}); convert the'
      ' file to UTF-8'
    ) from None
  if row is None:
    raise errors.UserError(f'{path}: holds no usable row; {remedy}')


def _example(
  task: task_lib.Task, split: str, row: lines.Row, path: str
) -> task_lib.Example:
  """Returns the example of a raw row, with its label parsed."""
  where = f'{path}:{row.line}' if row.line else f'{path}, row {row.index}'
  if split == task_lib.UNLABELLED and not all(map(str.strip, row.text)):
    raise errors.UserError(
      f'{where}: an empty text, which teaches nothing; remove the row'
    )
  text_a, text_b = row.text if len(row.text) == 2 else (row.text[0], None)
  label = row.label
  if label is not None:
    label = task.kind.parse(task, label, where)
  uid = f'{task.name}/{split}/{row.index}'
  return task_lib.Example(uid, text_a, text_b, label)


def ignored_label(
  task: task_lib.Task, split: str, data: config_lib.DataConfig
) -> str | None:
  """Returns the label column of an unlabelled file, for a log message.

  None if the split has labels, if its first row has no column of that name, or
  if the file can't be read.
  """
  table, train = task.tables[split], task.tables[task.train_split]
  if split != task_lib.UNLABELLED:
    return None
  name = train.label if isinstance(train.label, str) else 'label'
  try:
    _, line = next(lines.read_filled(path_of(task, split, data), 'replace'))
    if table.format == 'jsonl':
      known = files.parse_json(line).keys()
    else:
      known = line.split('\t') if table.header else ()
  except (OSError, StopIteration, ValueError, errors.UserError):
    return None
  return name if name in known else None
