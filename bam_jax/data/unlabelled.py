"""Reads unlabelled texts from a user's files, standard input or JSON objects.

The task's kind decides which texts a row must have. The fields with these texts
have the names of the task's columns, or the names `text` and, for a pair,
`text_pair`, as in Hugging Face's pipelines.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import itertools
import os
from pathlib import Path
import shutil
import sys
import tempfile
from typing import Literal, NamedTuple

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import plain_text
from bam_jax.data import compressed
from bam_jax.data import csv_files
from bam_jax.data import foreign
from bam_jax.data import formats
from bam_jax.data import lines as lines_lib
from bam_jax.data import records
from bam_jax.data import sources
from bam_jax.tasks import raw_values
from bam_jax.tasks import task as task_lib

STDIN = '-'

# One text, or the two texts of a pair.
Texts = tuple[str, ...]


class Rows(NamedTuple):
  """An opened file of unlabelled rows.

  Attributes:
    format: format to write predictions in, unless the user chooses another.
    has_header: whether the file's first row names its columns.
    rows: the rows, read lazily; a row that cannot be predicted has an `error`.
    kept: those columns of the argument `kept` that the first row has.
  """

  format: Literal['tsv', 'jsonl']
  has_header: bool
  rows: Iterator[lines_lib.Row]
  kept: tuple[str, ...] = ()

  @property
  def texts(self) -> Iterator[Texts | errors.UserError]:
    """The texts of each row, or its error if the row cannot be predicted."""
    return (row.error or row.text for row in self.rows)


@contextlib.contextmanager
def open_rows(
  path: str, task: task_lib.Task, kept: tuple[str, ...] = ()
) -> Iterator[Rows]:
  """Opens unlabelled rows and reads the first one.

  Args:
    path: file or folder in any of `formats.FORMATS`. `-` is standard input:
      JSON lines if it begins with `{`, else TSV.
    task: the task that the rows are for.
    kept: columns or fields to keep in addition to the texts, if present.

  Raises:
    errors.UserError: the file is missing or has no row, or a column is missing.
  """
  if path != STDIN:
    yield _open(path, _format_of(path, task), task, kept)
    return
  # Standard input is copied to a file, because readers open it more than once.
  with tempfile.TemporaryDirectory() as folder:
    copy = Path(folder, foreign.STDIN)
    try:
      with copy.open('wb') as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
      rows = _open(str(copy), _format_of_stdin(copy), task, kept)
      yield rows._replace(
        rows=(
          row._replace(error=row.error and _without(folder, row.error))
          for row in rows.rows
        )
      )
    except errors.UserError as e:
      raise _without(folder, e) from None


def _without(folder: str, error: errors.UserError) -> errors.UserError:
  """Returns a copy of an error, with a folder removed from its paths."""
  return errors.UserError(str(error).replace(f'{folder}{os.sep}', ''))


def texts_of(
  task: task_lib.Task, row: Mapping[str, object], where: str
) -> Texts:
  """Returns the texts that a task reads from a JSON object.

  Raises:
    errors.UserError: a text is missing, or a value is not a text.
  """
  return records.input_texts(row, _named_table(task), where)


def can_read(task: task_lib.Task, row: Mapping[str, object]) -> bool:
  """Whether a JSON object has all the fields that a task reads."""
  return any(
    all(records.has(row, name) for name in names)
    for names in task.kind.input_names(task)
  )


def try_input(
  task: task_lib.Task, item: object, where: str
) -> Texts | errors.UserError:
  """Returns the texts of an input; returns the error if the input is invalid.

  The input is a text, a list of one or two texts, or a JSON object.
  """
  try:
    if isinstance(item, Mapping):
      return texts_of(task, item, where)
    return unnamed_texts(task, listed(item, where), where)
  except errors.UserError as error:
    return error.with_traceback(None)


def listed(item: object, where: str) -> Sequence[object]:
  """Returns the texts of an input: one text, or a list of one or two texts.

  Raises:
    errors.UserError: the list has another length.
  """
  texts = item if isinstance(item, list | tuple) else [item]
  if len(texts) not in (1, 2):
    raise errors.UserError(f'{where}: {len(texts)} texts; give one or two')
  return texts


def unnamed_texts(
  task: task_lib.Task, values: Sequence[object], where: str
) -> Texts:
  """Converts a list of texts to the input of a task.

  Raises:
    errors.UserError: the number of texts is wrong, or a value is not a text.
  """
  texts = [raw_values.check_text(value, where) for value in values]
  names = task.kind.input_names(task)[-1]
  if len(texts) != len(names):
    raise errors.UserError(
      f'{where}: {len(texts)} texts, but task {task.name} needs {len(names)}'
    )
  return task.kind.parse_input(dict(zip(names, texts)), where)


def _own_table(task: task_lib.Task) -> task_lib.Table:
  """Returns the table of the task's test split.

  If the task has no test split, returns the table of its training split.
  """
  split = task.test_splits[0] if task.test_splits else task.train_split
  return task.tables[split]


def _format_of(path: str, task: task_lib.Task) -> str:
  """Returns the format of a user's file.

  The suffix of the file decides. If the suffix is unknown, or is that of the
  task's own files, the format of the task's own files is used.
  """
  if Path(path).is_dir():
    return 'datasets'
  named, own = plain_text.format_of(path), _own_table(task)
  if own.format in formats.FORMATS and named in (
    None, plain_text.format_of(own.file)
  ):  # fmt: skip
    return own.format
  if named is None:
    raise errors.UserError(
      f'--input={path}: is neither .tsv, .csv, .jsonl nor .parquet, nor a saved'
      ' dataset; rename the file'
    )
  return named


def _format_of_stdin(path: Path) -> Literal['tsv', 'jsonl']:
  """Detects the format of standard input, which must be text."""
  with compressed.open_binary(path) as file:
    head = file.read(foreign.HEAD_BYTES)
  foreign.check(head, '')
  foreign.check_json_lines(head, '')
  is_json = head.removeprefix(b'\xef\xbb\xbf').lstrip().startswith(b'{')
  return 'jsonl' if is_json else 'tsv'


def _open(
  path: str, format: str, task: task_lib.Task, kept: tuple[str, ...]
) -> Rows:
  """Opens a file and reads its first usable row; the rest is read lazily."""
  table = dataclasses.replace(
    _table(task, format), file=path, format=format, kept=kept
  )
  task = dataclasses.replace(
    task, tables={**task.tables, task_lib.INPUT: table}
  )
  source = sources.Source(task, task_lib.INPUT, config_lib.DataConfig())
  rows = sources.read_files(source)
  head: list[lines_lib.Row] = []
  for row in rows:
    head.append(row)
    if row.line != sources.NO_ROW:
      break
  else:
    raise head[0].error
  is_table = formats.FORMATS[format].columns == 'header'
  has_header = False
  if is_table:
    path = source.paths[0]
    with lines_lib.read(path, 'replace') as numbered:
      filled = lines_lib.filled(numbered, path)
      number, text = next(filled)
      if format == 'csv' and csv_files.SAID.match(f'{text}\n'):
        number, _ = next(filled)
    has_header = row.line > number + len(head) - 1
  return Rows(
    'tsv' if is_table else 'jsonl',
    has_header,
    itertools.chain(head, rows),
    tuple(row.kept),
  )


def _named_table(task: task_lib.Task) -> task_lib.Table:
  first, *others = task.kind.input_names(task)
  return task_lib.Table(
    text=first, other_texts=tuple(others), input_kind=task.kind
  )


def _table(task: task_lib.Task, format: str) -> task_lib.Table:
  """Returns the table that describes a user's file.

  If the task names its columns by numbers, the same numbers are used for the
  user's file, provided that its format has the same `Format.columns`.
  """
  named, own = _named_table(task), _own_table(task)
  columns = formats.FORMATS[format].columns
  has_numbers = any(isinstance(name, int) for name in own.text)
  if not has_numbers or formats.FORMATS[own.format].columns != columns:
    return named
  others = () if columns == 'numbered' else (named.text, *named.other_texts)
  return dataclasses.replace(
    named, text=own.text, other_texts=others, header=own.header
  )
