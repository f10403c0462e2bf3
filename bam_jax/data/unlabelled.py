"""Rows of a user's own without labels: files, standard input, JSON objects.

A row's texts stand under the names by which the task declares its columns, or
under `text` and, for a pair, `text_pair`, as in Hugging Face's pipelines.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import io
import itertools
import json
from pathlib import Path
import re
import sys
from typing import BinaryIO
from typing import Literal
from typing import TextIO

import numpy as np

from bam_jax import errors
from bam_jax import files
from bam_jax.data import features as features_lib
from bam_jax.data import foreign
from bam_jax.data import lines as lines_lib
from bam_jax.tasks import task as task_lib

STDIN = '-'

_NAMES = ('text', 'text_pair')
# What no text holds; so Python escapes a byte that is no UTF-8.
_SURROGATE = re.compile('[\ud800-\udfff]')

# One text, or the two of a pair.
Texts = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Rows:
  """An opened file.

  Attributes:
    format: how it is written.
    has_header: whether its first line names the columns.
    texts: of each row, read as they are asked for; raises `errors.UserError`
      at the line that is none.
  """

  format: Literal['tsv', 'jsonl']
  has_header: bool
  texts: Iterator[Texts]


def format_of(path: str) -> Literal['tsv', 'jsonl'] | None:
  """The format that a file's name tells; None: neither."""
  suffix = Path(path).suffix.removeprefix('.')
  return suffix if suffix in ('tsv', 'jsonl') else None


@contextlib.contextmanager
def open_rows(path: str, task: task_lib.Task) -> Iterator[Rows]:
  """Opens a file, its first line read.

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
  """Raises if a file's name tells no format; empty: standard input."""
  if path and format_of(path) is None:
    remedy = 'name it by its format'
    if path.endswith('.csv'):
      remedy = foreign.csv_remedy(path, ',', has_header=True)
    raise errors.UserError(
      f'--input={path}: is neither .tsv nor .jsonl; {remedy}'
    )


def names_of(task: task_lib.Task) -> list[tuple[str, ...]]:
  """The names that a row's texts may stand under: the task's own first."""
  common = _NAMES[: 2 if task.is_pair else 1]
  own = task.tables[task.train_split].text
  named = all(isinstance(column, str) for column in own)
  return list(dict.fromkeys([own, common] if named else [common]))


def texts_of(
  task: task_lib.Task, row: Mapping[str, object], where: str
) -> Texts:
  """The texts in a JSON object.

  Args:
    task: that they are for.
    row: the object.
    where: it stands, for errors.

  Raises:
    errors.UserError: one is missing, or is no text.
  """
  choices = names_of(task)
  names = next((n for n in choices if row.keys() >= set(n)), None)
  if names is None:
    raise errors.UserError(f'{where}: no {_wanted(choices)}')
  return tuple(check_text(row[name], f'{where}: {name!r}') for name in names)


def check_text(value: object, where: str) -> str:
  """A JSON value that is to be a text.

  Raises:
    errors.UserError: it is none.
  """
  if not isinstance(value, str):
    raise errors.UserError(f'{where} is no string; give one')
  if _SURROGATE.search(value):
    # JSON can spell half of a pair, which no tokenizer takes.
    raise errors.UserError(f'{where} holds a lone surrogate; mend it')
  return value


def _wanted(choices: Sequence[tuple[str, ...]]) -> str:
  named = [' and '.join(map(repr, names)) for names in choices]
  return ', nor '.join(named) + '; give the texts under such names'


def _lines(file: TextIO, name: str) -> Iterator[tuple[int, str]]:
  """Line numbers from 1, and the lines."""
  empty = 0
  for number, line in lines_lib.numbered(file, name):
    if not line:
      empty = empty or number
      continue
    if empty:
      # Passed over, it would part the lines of output from those of input.
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
    return Rows('jsonl', False, _jsonl(whole, name, task))
  fields = line.split('\t')
  where = f'{name}:{number}'
  choices = names_of(task)
  if not any(foreign.has_columns(fields, names) for names in choices):
    foreign.check_separator(line, choices, path, where)
  columns, has_header = _columns(task, fields, where)
  rest = lines if has_header else itertools.chain([first], lines)
  return Rows('tsv', has_header, _tsv(rest, name, columns, len(fields)))


def _columns(
  task: task_lib.Task, first: Sequence[str], where: str
) -> tuple[list[int], bool]:
  """Numbers of the texts' columns, and whether the first line names them."""
  choices = names_of(task)
  for names in choices:
    if set(names) <= set(first):
      return lines_lib.columns_by_name(names, first, where), True
  split = task.test_splits[0] if task.test_splits else task.train_split
  table = task.tables[split]
  numbers = [column for column in table.text if isinstance(column, int)]
  if not numbers:
    raise errors.UserError(f'{where}: no column {_wanted(choices)}')
  if any(not -len(first) <= column < len(first) for column in numbers):
    raise errors.UserError(
      f'{where}: {len(first)} columns, but {task.name} reads'
      f' {", ".join(map(str, numbers))}, counted from 0; or give a header with'
      f' {" and ".join(choices[0])}'
    )
  return numbers, table.header


def _tsv(
  lines: Iterable[tuple[int, str]],
  name: str,
  columns: Sequence[int],
  width: int,
) -> Iterator[Texts]:
  """Rows without quoting: a quotation mark is a character."""
  for number, line in lines:
    fields = line.split('\t')
    if len(fields) != width:
      raise errors.UserError(
        f'{name}:{number}: {len(fields)} columns where the first line has'
        f' {width}; mend the row'
      )
    yield tuple(fields[column] for column in columns)


def _jsonl(
  lines: Iterable[tuple[int, str]], name: str, task: task_lib.Task
) -> Iterator[Texts]:
  for number, line in lines:
    where = f'{name}:{number}'
    try:
      row = files.parse_json(line)
    except json.JSONDecodeError as e:
      raise errors.UserError(
        f'{where}: no JSON ({e.msg} at column {e.colno}); mend the row'
      ) from None
    except ValueError as e:
      raise errors.UserError(
        f'{where}: {e}; give one JSON object a line'
      ) from None
    yield texts_of(task, row, where)


class Held:
  """Features in memory, read like the columns of a shard set."""

  def __init__(self, rows: Sequence[features_lib.Features]):
    self.uids = [row.uid for row in rows]
    lengths = [len(row.input_ids) for row in rows]
    self._tokens = np.concatenate([row.input_ids for row in rows])
    self._offsets = np.cumsum([0, *lengths])
    self._lengths_a = np.array([row.length_a for row in rows], np.int32)

  def __len__(self) -> int:
    return len(self.uids)

  def fixed(self, name: str) -> np.ndarray:
    return {'length_a': self._lengths_a}[name]

  def ragged(self, name: str) -> tuple[np.ndarray, np.ndarray]:
    return {'input_ids': (self._tokens, self._offsets)}[name]
