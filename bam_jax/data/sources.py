"""Reads the examples of a split from files or from TensorFlow Datasets."""

from collections.abc import Iterable, Iterator
import dataclasses
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


@dataclasses.dataclass(frozen=True)
class Source:
  """Describes where a split's examples come from: a file, or TFDS.

  Attributes:
    task: the task.
    split: one of its splits.
    data: whether and where TFDS or files are read.
  """

  task: task_lib.Task
  split: str
  data: config_lib.DataConfig

  @property
  def table(self) -> task_lib.Table:
    """Returns the `Table` that describes the columns of the file."""
    return self.task.tables[self.split]

  @property
  def format(self) -> str:
    """Returns `tfds`, `generated`, or the format of the file."""
    if self.data.source == 'tfds' and self.table.tfds:
      return 'tfds'
    return self.table.format

  @property
  def path(self) -> Path:
    """Returns the path of the file: below `data.dir`, or absolute."""
    path = Path(self.data.dir, self.table.file)
    other = Path(self.data.dir, self.table.other_file)
    if self.table.other_file and other.is_file() and not path.exists():
      return other
    return path

  @property
  def name(self) -> str:
    """Returns the TFDS name or the possible file names, for messages."""
    if self.format == 'tfds':
      return self.table.tfds
    return ' or '.join(filter(None, (self.table.file, self.table.other_file)))

  @property
  def remedy(self) -> str:
    """Returns how the user can fix a missing split."""
    if self.format == 'tfds':
      return tfds_source.how_to_get(self.table.tfds, self.data.tfds_dir)
    if self.table.tfds:
      return HOW_TO_GET_GLUE
    field = f'config.custom_tasks.{self.task.name}'
    if self.split == task_lib.UNLABELLED:
      field = 'config.data.unlabelled'
    return f'fix config.data.dir or {field}'

  def is_present(self) -> bool:
    """Returns whether the split's file exists, readable or not."""
    if self.format == 'tfds':
      return tfds_source.is_present(self.table.tfds, self.data.tfds_dir)
    return self.format == 'generated' or self.path.is_file()

  def ignored_label(self) -> str | None:
    """Returns the label column of an unlabelled file, for a log message.

    None if the split has labels, if its first row has no column of that name,
    or if the file can't be read.
    """
    if self.split != task_lib.UNLABELLED:
      return None
    label = self.task.tables[self.task.train_split].label
    name = label if isinstance(label, str) else 'label'
    try:
      _, line = next(lines.read_filled(self.path, 'replace'))
      if self.format == 'jsonl':
        known = files.parse_json(line).keys()
      else:
        known = line.split('\t') if self.table.header else ()
    except (OSError, StopIteration, ValueError, errors.UserError):
      return None
    return name if name in known else None


def read(
  task: task_lib.Task, split: str, data: config_lib.DataConfig
) -> Iterator[task_lib.Example]:
  """Yields the examples of a split in file order; raises if there are none.

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
  source = Source(task, split, data)
  if source.format == 'generated':
    yield from demo.generate(task.name, split)
  elif source.format == 'tfds':
    where, rows = tfds_source.read(task, split, data.tfds_dir)
    yield from (_example(source, row, where) for row in rows)
  else:
    yield from _read_file(source)


def rows_digest(examples: Iterable[task_lib.Example]) -> str:
  """Returns a hexadecimal sha256 over all examples."""
  digest = hashlib.sha256()
  encode = json.JSONEncoder(separators=(',', ':')).encode
  for example in examples:
    digest.update(encode(example).encode() + b'\n')
  return digest.hexdigest()


def _read_file(source: Source) -> Iterator[task_lib.Example]:
  """Yields the examples of a file."""
  path, row = source.path, None
  try:
    for row in formats.FORMATS[source.format].read(path, source.table):
      yield _example(source, row, str(path))
  except OSError as error:
    raise errors.UserError(
      f'{path}: {error.strerror}; {source.remedy}'
    ) from None
  except UnicodeDecodeError as error:
    raise errors.UserError(
      f'{path}:{lines.broken(path)}: not UTF-8 ({error.reason}); convert the'
      ' file to UTF-8'
    ) from None
  if row is None:
    raise errors.UserError(f'{path}: has no usable row; {source.remedy}')


def _example(source: Source, row: lines.Row, path: str) -> task_lib.Example:
  """Converts a raw row to an `Example` and parses the label."""
  where = f'{path}:{row.line}' if row.line else f'{path}, row {row.index}'
  is_unlabelled = source.split == task_lib.UNLABELLED
  if is_unlabelled and not all(map(str.strip, row.text)):
    raise errors.UserError(f'{where}: the text is empty; remove the row')
  text_a, text_b = row.text if len(row.text) == 2 else (row.text[0], None)
  task, label = source.task, row.label
  if label is not None:
    label = task.kind.parse(task, label, where)
  uid = f'{task.name}/{source.split}/{row.index}'
  return task_lib.Example(uid, text_a, text_b, label)
