"""Reads the examples of a split from files or from TensorFlow Datasets."""

from collections.abc import Iterable, Iterator, Mapping
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


# In place of the number of a line, of what cannot be read as a row.
NO_ROW = -1


@dataclasses.dataclass(frozen=True)
class Source:
  """Describes where a split's examples come from: files, or TFDS.

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
  def paths(self) -> list[Path]:
    """Returns the files in the order in which they are read.

    They are below `data.dir`, or absolute. The files of a pattern are in the
    order of their names; a pattern that fits no file is a path itself.
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
    """Returns how the user can fix a missing split."""
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
    """Returns whether the split's file exists, readable or not."""
    if self.format == 'tfds':
      return tfds_source.is_present(self.table.tfds, self.data.tfds_dir)
    return self.format == 'generated' or not self.missing()

  def missing(self) -> list[Path]:
    """Returns the files, or folders, that do not exist."""
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

  The index of a uid counts the data lines of the raw file from 0: not the
  header or an empty line, which TFDS skips as well, but malformed rows, even
  those that are left out. In a second file it goes on. Labels are None if the
  table has no label column. Unless `quiet`, the number of rows that are passed
  over is logged.

  Raises:
    errors.UserError: no such file, nothing in it, or a row that cannot be read.
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
  """Returns the training and development examples of a divided task.

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
  """Yields place and raw label of each labelled row in a split's files.

  Rows without a label, and those that cannot be used, are left out.

  Raises:
    errors.UserError: a file is missing, is of another format, or has no row
      that can be used.
  """
  source, has_labels = Source(task, split, data), False
  reader = formats.FORMATS[source.format].read
  for path in source.paths:
    row = None
    try:
      for row in reader(path, source.table, lambda error: None):
        if not source.table.passes_over(row.label):
          has_labels = True
          yield place(path, row), row.label
      # The reader raises what is wrong with a file without a usable row.
      if row is None and next(reader(path, source.table), None) is None:
        raise no_usable_row(source, path)
    except OSError as error:
      raise errors.UserError(
        f'{path}: {error.strerror}; {source.remedy}'
      ) from None
  if not has_labels:
    raise no_usable_row(source, path)


def no_usable_row(source: Source, path: Path) -> errors.UserError:
  """Returns the error of a file of which no row can be used.

  Where rows without a label are passed over, it names a field of the label that
  no row has.
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


def read_kept(
  task: task_lib.Task,
  split: str,
  data: config_lib.DataConfig,
  names: tuple[str, ...],
) -> dict[str, Mapping[str, object]]:
  """Returns uid -> values of the named columns that the rows of files have.

  Raises:
    errors.UserError: a row cannot be read.
  """
  rows = _read_unlabelled(task, split, data, kept=names)
  return {
    task_lib.make_uid(task.name, split, row.index): row.kept for row in rows
  }


def read_ids(
  task: task_lib.Task, split: str, data: config_lib.DataConfig
) -> dict[str, str]:
  """Returns uid -> id for the rows of a split; needs a kind with `by_id`.

  Raises:
    errors.UserError: a row cannot be read, or has no id.
  """
  name, _ = task.kind.by_id
  rows = _read_unlabelled(task, split, data, group=name)
  return {
    task_lib.make_uid(task.name, split, row.index): row.group for row in rows
  }


def _read_unlabelled(
  task: task_lib.Task, split: str, data: config_lib.DataConfig, **fields: Any
) -> Iterator[lines.Row]:
  """Yields rows without labels; `fields` replace those of their `Table`."""
  table = dataclasses.replace(
    task.tables[split], label=None, no_label=(), **fields
  )
  task = dataclasses.replace(task, tables={**task.tables, split: table})
  return read_files(Source(task, split, data), quiet=True)


def rows_digest(examples: Iterable[task_lib.Example]) -> str:
  """Returns a hexadecimal sha256 over all examples."""
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
  """Divides the rows of a file into training and development rows."""
  rows = list(read_files(source, quiet))
  is_dev = folds.find_development_rows(
    source.task, source.table.division, rows, source.name
  )
  return itertools.compress(rows, ~is_dev), itertools.compress(rows, is_dev)


def read_files(source: Source, quiet: bool = False) -> Iterator[lines.Row]:
  """Yields the rows of a split's files, with parsed labels.

  Unless `quiet`, logs the number of rows that are passed over.

  Raises:
    errors.UserError: a file is missing, has no row, or one that is no row.
  """
  read, table = formats.FORMATS[source.format].read, source.table
  before = 0  # Rows of the files before.
  for path in source.paths:
    row, skipped, used, name = None, 0, 0, str(path)
    try:
      for row in _read_all(read, path, table):
        if table.passes_over(row.label):
          skipped += 1
          continue
        used += 1
        label = _parse_label(source, row, name)
        yield row._replace(index=before + row.index, label=label)
    except OSError as error:
      raise errors.UserError(
        f'{path}: {error.strerror}; {source.remedy}'
      ) from None
    except UnicodeDecodeError as error:
      raise errors.UserError(
        f'{path}:{lines.broken(path)}: not UTF-8 ({error.reason});'
        f' {foreign.TO_UTF_8}'
      ) from None
    if not used:
      raise no_usable_row(source, path)
    if skipped and not quiet:
      logging.info(
        '%s: passed over %d rows without a label, of %d',
        *(path, skipped, skipped + used),
      )
    before += row.index + 1


def _read_all(
  read: formats.Reader, path: Path, table: task_lib.Table
) -> Iterator[lines.Row]:
  """Yields the rows of a file; for prediction, unusable rows too.

  Those have an error in place of texts, and the line `NO_ROW`.
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
  """Parses the label of a raw row; checks the texts of unlabelled rows."""
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
