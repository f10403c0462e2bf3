"""Reads unlabelled rows of users: files, standard input, JSON objects.

The task's kind decides what a row holds and under which names: those of the
task's columns, or `text` and, for a pair, `text_pair`, as in Hugging Face's
pipelines.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import io
import itertools
from pathlib import Path
import re
import sys
from typing import BinaryIO
from typing import Literal
from typing import TextIO

import numpy as np

from bam_jax import errors
from bam_jax.data import foreign
from bam_jax.data import jsonl
from bam_jax.data import lines as lines_lib
from bam_jax.data import tsv
from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import task as task_lib

STDIN = '-'

# Python decodes bytes that are not UTF-8 to these; no text has them.
_SURROGATE = re.compile('[\ud800-\udfff]')

# One text, or the two of a pair, as `task.Example` has them.
Texts = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Rows:
  """An opened file.

  Attributes:
    format: how it is written.
    has_header: whether its first line names the columns.
    texts: of each row, read lazily; raises `errors.UserError` at a line that
      is not a row.
  """

  format: Literal['tsv', 'jsonl']
  has_header: bool
  texts: Iterator[Texts]


def format_of(path: str) -> Literal['tsv', 'jsonl'] | None:
  """Returns the format by a file's suffix; None for any other suffix."""
  suffix = Path(path).suffix.removeprefix('.')
  return suffix if suffix in ('tsv', 'jsonl') else None


@contextlib.contextmanager
def open_rows(path: str, task: task_lib.Task) -> Iterator[Rows]:
  """Opens a file and reads its first line.

  Args:
    path: of a `.tsv` or `.jsonl` file; `-`: standard input, which is JSON lines
      where it begins with `{`.
    task: that the rows are for.

  Raises:
    errors.UserError: there is no such file, no row in it, or no such column.
  """
  with contextlib.ExitStack() as stack:
    file_path = '' if path == STDIN else path
    stream: BinaryIO = sys.stdin.buffer
    if file_path:
      try:
        stream = stack.enter_context(Path(path).open('rb'))
      except OSError as e:
        raise errors.UserError(f'--input={path}: {e.strerror}') from None
    stream = io.BufferedReader(stream)
    stack.callback(stream.detach)
    head = stream.peek(foreign.HEAD_BYTES)[: foreign.HEAD_BYTES]
    foreign.check(head, file_path)
    _check_format(file_path)
    if format_of(path) == 'jsonl' or not file_path:
      foreign.check_json_lines(head, file_path)
    # Universal newlines, and no byte-order mark, as in the tasks' own files.
    file = io.TextIOWrapper(
      stream, encoding='utf-8-sig', errors='surrogateescape'
    )
    name = 'standard input' if path == STDIN else path
    try:
      yield _rows(_lines(file, name), file_path, format_of(path), task)
    finally:
      file.detach()


def _check_format(path: str) -> None:
  """Raises if a file's suffix is unknown; an empty path is standard input."""
  if path and format_of(path) is None:
    remedy = 'name it by its format'
    if path.endswith('.csv'):
      remedy = foreign.csv_remedy(path, ',', has_header=True)
    raise errors.UserError(
      f'--input={path}: is neither .tsv nor .jsonl; {remedy}'
    )


def names_of(task: task_lib.Task) -> list[tuple[str, ...]]:
  """Returns the names that a row's texts may have, the task's own first."""
  return task.kind.input_names(task)


def texts_of(
  task: task_lib.Task, row: Mapping[str, object], where: str
) -> Texts:
  """Returns the texts in a JSON object.

  Args:
    task: the task that reads them.
    row: the object.
    where: file and line, for errors.

  Raises:
    errors.UserError: one is missing, or is not a text.
  """
  choices = names_of(task)
  names = next((n for n in choices if row.keys() >= set(n)), None)
  if names is None:
    raise errors.UserError(f'{where}: no {_wanted(choices)}')
  return task.kind.parse_input({name: row[name] for name in names}, where)


def unnamed_texts(
  task: task_lib.Task, values: Sequence[object], where: str
) -> Texts:
  """Returns the texts of an input without names.

  Args:
    task: the task that reads them.
    values: one or two texts.
    where: file and line, for errors.

  Raises:
    errors.UserError: their number is wrong, or one is not a text.
  """
  texts = [kind_lib.check_text(value, where) for value in values]
  names = names_of(task)[-1]
  if len(texts) != len(names):
    raise errors.UserError(
      f'{where}: {len(texts)} texts, but {task.name} reads {len(names)}'
    )
  return task.kind.parse_input(dict(zip(names, texts)), where)


def _wanted(choices: Sequence[tuple[str, ...]]) -> str:
  named = [' and '.join(map(repr, names)) for names in choices]
  return ', nor '.join(named) + '; give the texts under such names'


def _lines(file: TextIO, name: str) -> Iterator[tuple[int, str]]:
  """Yields line numbers from 1 and lines; none may be empty."""
  empty = 0
  for number, line in lines_lib.numbered(file, name):
    if not line:
      empty = empty or number
      continue
    if empty:
      # If it were skipped, output and input lines would no longer correspond.
      raise errors.UserError(f'{name}:{empty}: an empty line; remove it')
    if _SURROGATE.search(line):
      raise errors.UserError(
        f'{name}:{number}: no UTF-8; convert the file to UTF-8'
      )
    yield number, line


def _rows(
  lines: Iterator[tuple[int, str]],
  path: str,
  known: Literal['tsv', 'jsonl'] | None,
  task: task_lib.Task,
) -> Rows:
  name = path or 'standard input'
  first = next(lines, None)
  if first is None:
    raise errors.UserError(f'{name}: no row; give one a line')
  number, line = first
  if (known or ('jsonl' if line[0] == '{' else 'tsv')) == 'jsonl':
    whole = itertools.chain([first], lines)
    texts = (
      texts_of(task, jsonl.parse(line, f'{name}:{number}'), f'{name}:{number}')
      for number, line in whole
    )
    return Rows('jsonl', False, texts)
  fields = line.split('\t')
  where = f'{name}:{number}'
  choices = names_of(task)
  if not any(foreign.has_columns(fields, names) for names in choices):
    foreign.check_separator(line, choices, path, where)
  columns, has_header = _columns(task, fields, where)
  rest = lines if has_header else itertools.chain([first], lines)
  return Rows('tsv', has_header, _tsv(rest, name, columns, len(fields), task))


def _columns(
  task: task_lib.Task, first: Sequence[str], where: str
) -> tuple[dict[str, int], bool]:
  """Returns name -> column of the texts, and whether there is a header."""
  choices = names_of(task)
  for names in choices:
    if set(names) <= set(first):
      columns = lines_lib.columns_by_name(names, first, where)
      return dict(zip(names, columns, strict=True)), True
  split = task.test_splits[0] if task.test_splits else task.train_split
  table = task.tables[split]
  # Columns of a file in another format say nothing of this one.
  own = table.text if table.format in ('tsv', 'jsonl') else ()
  numbers = [column for column in own if isinstance(column, int)]
  if not numbers:
    raise errors.UserError(f'{where}: no column {_wanted(choices)}')
  if any(not -len(first) <= column < len(first) for column in numbers):
    raise errors.UserError(
      f'{where}: {len(first)} columns, but {task.name} reads'
      f' {", ".join(map(str, numbers))}, counted from 0; or give a header with'
      f' {" and ".join(choices[0])}'
    )
  return dict(zip(choices[-1], numbers, strict=True)), table.header


def _tsv(
  lines: Iterable[tuple[int, str]],
  name: str,
  columns: Mapping[str, int],
  width: int,
  task: task_lib.Task,
) -> Iterator[Texts]:
  """Reads rows without quoting: a quotation mark is a character."""
  for number, line in lines:
    fields = line.split('\t')
    where = f'{name}:{number}'
    if len(fields) != width:
      raise tsv.wrong_width(len(fields), width, where)
    values = {key: fields[column] for key, column in columns.items()}
    yield task.kind.parse_input(values, where)


class Held:
  """Features in memory, with the interface of `shards.Columns`."""

  def __init__(self, rows: Sequence[kind_lib.Features]):
    self.uids = [row.uid for row in rows]
    self._rows = rows

  def __len__(self) -> int:
    return len(self.uids)

  def fixed(self, name: str) -> np.ndarray:
    return np.array([getattr(row, name) for row in self._rows])

  def ragged(self, name: str) -> tuple[np.ndarray, np.ndarray]:
    values = [getattr(row, name) for row in self._rows]
    if isinstance(values[0], str):
      values = [np.frombuffer(value.encode(), np.uint8) for value in values]
    return np.concatenate(values), np.cumsum([0, *map(len, values)])
