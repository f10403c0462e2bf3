"""Reads the examples of a split from files or from TensorFlow Datasets."""

from collections.abc import Iterable, Iterator
import contextlib
import dataclasses
import glob
import hashlib
import itertools
import json
import logging
from pathlib import Path
from typing import Any

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import folds
from bam_jax.data import foreign
from bam_jax.data import formats
from bam_jax.data import lines
from bam_jax.data import tfds_source
from bam_jax.tasks import demo
from bam_jax.tasks import task as task_lib

HOW_TO_GET_GLUE = (
  "GLUE's own download_glue_data.py --data_dir=DIR --tasks=all gets it, or"
  ' set config.data.source=tfds'
)


# Value of `Row.line` for a part of a file that cannot be read as a row.
NO_ROW = -1


@dataclasses.dataclass(frozen=True)
class Source:
  """Describes where a split's examples come from: files, TFDS or a generator.

  Attributes:
    task: the task.
    split: name of one of the task's splits.
    data: chooses TFDS or files, and their folders.
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
  def paths(self) -> list[Path]:
    """Returns the files in the order in which they are read.

    Relative names are below `data.dir`. Files that match a pattern are sorted
    by name; a pattern without a match is itself returned as a path.
    """
    other = Path(self.data.dir, self.table.other_file)
    found: dict[Path, None] = {}
    for name in (self.table.file, *self.table.more_files):
      path = Path(self.data.dir, name)
      names = [name]
      if not path.exists() and glob.has_magic(name):
        matches = glob.glob(name, root_dir=self.data.dir or None)
        names = sorted(matches) or names
      elif not path.exists() and self.table.other_file and other.is_file():
        names = [self.table.other_file]
      found |= dict.fromkeys(Path(self.data.dir, each) for each in names)
    return list(found)

  @property
  def name(self) -> str:
    """Returns the TFDS name or the possible file names, for messages."""
    if self.format == 'tfds':
      return self.table.tfds
    table = self.table
    names = ', '.join((table.file, *table.more_files))
    return ' or '.join(filter(None, (names, table.other_file)))

  @property
  def remedy(self) -> str:
    """Returns what the user can do if the split is missing, for messages."""
    if self.format == 'tfds':
      return tfds_source.how_to_get(self.table.tfds, self.data.tfds_dir)
    if self.table.tfds:
      return HOW_TO_GET_GLUE
    if self.split == task_lib.INPUT:
      return 'fix --input'
    field = f'config.custom_tasks.{self.task.name}'
    if self.split == task_lib.UNLABELLED:
      field = 'config.data.unlabelled'
    return f'fix config.data.dir or {field}'

  def is_present(self) -> bool:
    """Returns whether the split's files exist; they may be unreadable."""
    if self.format == 'tfds':
      return tfds_source.is_present(self.table.tfds, self.data.tfds_dir)
    return self.format == 'generated' or not self.missing()

  def missing(self) -> list[Path]:
    """Returns the paths of the split that do not exist.

    A path must be a folder if the format reads folders, otherwise a file.
    """
    is_folder = formats.FORMATS[self.format].is_folder
    return [
      path
      for path in self.paths
      if not (path.is_dir() if is_folder else path.is_file())
    ]


def read(
  task: task_lib.Task,
  split: str,
  data: config_lib.DataConfig,
  quiet: bool = False,
) -> Iterator[task_lib.Example]:
  """Yields the examples of a split in file order; raises if there are none.

  The index in a uid counts the data lines of the raw file from 0. Malformed
  rows count, even if they are skipped. The header and empty lines don't count,
  same as in TFDS. If a split has several files, the index continues in the next
  file. Labels are None if the table has no label column. Rows with a label
  that means "no label" (`Table.no_label`) are skipped; unless `quiet`, their
  number is logged.

  Raises:
    errors.UserError: a file is missing or has no usable row, or a row cannot be
      read.
  """
  source = Source(task, split, data)
  if source.format == 'generated':
    yield from demo.generate(task.name, split)
  elif source.format == 'tfds':
    where, rows = tfds_source.read(task, split, data.tfds_dir)
    for row in rows:
      label = _parse_label(source, row, where)
      yield _example(source, row._replace(label=label))
  else:
    yield from (_example(source, row) for row in _rows(source, quiet))


def read_divided(
  task: task_lib.Task, data: config_lib.DataConfig
) -> tuple[list[task_lib.Example], list[task_lib.Example]]:
  """Returns the training and development examples of a task with `dev_share`.

  Both come from the training files, which are read only once.

  Raises:
    errors.UserError: see `read`.
  """
  train = Source(task, task.train_split, data)
  dev = Source(task, task.dev_splits[0], data)
  train_rows, dev_rows = _divide(train, quiet=False)
  return (
    [_example(train, row) for row in train_rows],
    [_example(dev, row) for row in dev_rows],
  )


def read_labels(
  task: task_lib.Task, split: str, data: config_lib.DataConfig
) -> Iterator[tuple[str, task_lib.RawLabel]]:
  """Yields (place, raw label) for each labelled row of a split's files.

  The place names the file and line, for messages. Rows without a label and
  unusable rows are skipped.

  Raises:
    errors.UserError: a file is missing, has another format or has no usable
      row, or no row of the split has a label.
  """
  source, has_labels = Source(task, split, data), False
  reader = formats.FORMATS[source.format].read
  for path in source.paths:
    row = None
    with _report_unreadable(source, path):
      for row in reader(path, source.table, lambda error: None):
        if not source.table.skips(row.label):
          has_labels = True
          yield place(path, row), row.label
      # If a file has no usable row, a reader without `fault` raises the reason.
      if row is None and next(reader(path, source.table), None) is None:
        raise no_usable_row(source, path)
  if not has_labels:
    raise no_usable_row(source, path)


def no_usable_row(source: Source, path: Path) -> errors.UserError:
  """Returns the error for a file without a usable row.

  If the task has `no_label`, the error says why the rows have no label: for
  example, because the name of the label field is wrong.
  """
  table, faults = source.table, []
  if table.no_label:
    strict = dataclasses.replace(table, no_label=())
    read = formats.FORMATS[source.format].read
    row = next(read(path, strict, faults.append), None)
    what = f'each row has one of no_label={table.no_label}'
    if row is None and faults:
      what = str(faults[0]).partition(': ')[2]
    if row is not None or faults:
      return errors.UserError(
        f'{path}: no row has a label: {what}; fix the file, or'
        f' config.custom_tasks.{source.task.name}.label'
      )
  return errors.UserError(f'{path}: has no usable row; {source.remedy}')


def read_raw(
  task: task_lib.Task, split: str, data: config_lib.DataConfig, **fields: Any
) -> Iterator[tuple[str, lines.Row]]:
  """Yields the uid of each row of a split and the row, without its label.

  The arguments `fields` override fields of the split's `Table`: with `kept` or
  `group`, the rows have those columns.

  Raises:
    errors.UserError: a row cannot be read, or lacks the column `group`.
  """
  table = dataclasses.replace(
    task.tables[split], label=None, no_label=(), **fields
  )
  task = dataclasses.replace(task, tables={**task.tables, split: table})
  for row in read_files(Source(task, split, data), quiet=True):
    yield task_lib.make_uid(task.name, split, row.index), row


def rows_digest(examples: Iterable[task_lib.Example]) -> str:
  """Returns the hexadecimal sha256 of all examples."""
  digest = hashlib.sha256()
  encode = json.JSONEncoder(separators=(',', ':')).encode
  for example in examples:
    digest.update(encode(example).encode() + b'\n')
  return digest.hexdigest()


def _rows(source: Source, quiet: bool) -> Iterator[lines.Row]:
  """Yields the rows of a split, with parsed labels."""
  if source.table.division is None:
    return read_files(source, quiet)
  is_dev = source.table.is_development
  return _divide(source, quiet or is_dev)[is_dev]


def _divide(
  source: Source, quiet: bool
) -> tuple[Iterator[lines.Row], Iterator[lines.Row]]:
  """Divides the rows of a split's files into training and development rows."""
  rows = list(read_files(source, quiet))
  is_dev = folds.find_development_rows(
    source.task, source.table.division, rows, source.name
  )
  return itertools.compress(rows, ~is_dev), itertools.compress(rows, is_dev)


def read_files(source: Source, quiet: bool = False) -> Iterator[lines.Row]:
  """Yields the rows of a split's files, with parsed labels.

  Skips rows without a label and, unless `quiet`, logs how many.

  Raises:
    errors.UserError: a file is missing, has no usable row, or has a row that
      can't be parsed.
  """
  read, table = formats.FORMATS[source.format].read, source.table
  before = 0  # Rows in the files that were already read.
  for path in source.paths:
    row, skipped, used, name = None, 0, 0, str(path)
    with _report_unreadable(source, path):
      for row in _read_all(read, path, table):
        if table.skips(row.label):
          skipped += 1
          continue
        used += 1
        label = _parse_label(source, row, name)
        yield row._replace(index=before + row.index, label=label)
    if not used:
      raise no_usable_row(source, path)
    if skipped and not quiet:
      logging.info(
        '%s: skipped %d rows without a label, of %d',
        *(path, skipped, skipped + used),
      )
    before += row.index + 1


@contextlib.contextmanager
def _report_unreadable(source: Source, path: Path) -> Iterator[None]:
  """Context manager that raises a `UserError` for an unreadable file."""
  try:
    yield
  except OSError as error:
    raise errors.UserError(
      f'{path}: {error.strerror}; {source.remedy}'
    ) from None
  except UnicodeDecodeError as error:
    raise errors.UserError(
      f'{path}:{lines.broken(path)}: not UTF-8 ({error.reason});'
      f' {foreign.TO_UTF_8}'
    ) from None


def _read_all(
  read: formats.Reader, path: Path, table: task_lib.Table
) -> Iterator[lines.Row]:
  """Yields the rows of a file; for prediction, also rows that can't be read.

  A row that can't be read has an error instead of texts, and its `line` is
  `NO_ROW`.
  """
  if table.input_kind is None:
    yield from read(path, table)
    return
  faults: list[errors.UserError] = []

  def take() -> Iterator[lines.Row]:
    yield from (lines.Row(0, NO_ROW, (), None, error=e) for e in faults)
    faults.clear()

  for row in read(path, table, faults.append):
    yield from take()
    yield row
  yield from take()


def place(path: Path | str, row: lines.Row) -> str:
  """Returns a row's place for messages, such as `FILE:LINE`."""
  return f'{path}:{row.line}' if row.line else f'{path}, row {row.index}'


def _parse_label(
  source: Source, row: lines.Row, path: Path | str
) -> task_lib.Label | None:
  """Parses the label of a raw row; returns None for a row without a label.

  Raises:
    errors.UserError: the label is invalid, or a text of the split `UNLABELLED`
      is empty.
  """
  where = place(path, row)
  is_unlabelled = source.split == task_lib.UNLABELLED
  if is_unlabelled and not all(map(str.strip, row.text)):
    raise errors.UserError(f'{where}: the text is empty; remove the row')
  if row.label is None:
    return None
  return source.task.kind.parse(source.task, row.label, where)


def _example(source: Source, row: lines.Row) -> task_lib.Example:
  """Converts a row with a parsed label to an `Example`."""
  text_a, text_b = row.text if len(row.text) == 2 else (row.text[0], None)
  uid = task_lib.make_uid(source.task.name, source.split, row.index)
  return task_lib.Example(uid, text_a, text_b, row.label)
