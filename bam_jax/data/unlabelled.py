"""Reads unlabelled texts from a user's file, standard input or JSON objects.

The task's kind decides what a row holds and under which names: those of the
task's columns, or `text` and, for a pair, `text_pair`, as in Hugging Face's
pipelines.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import io
import itertools
from pathlib import Path
import re
import sys
from typing import Literal, NamedTuple, TextIO

import numpy as np

from bam_jax import errors
from bam_jax.data import compressed
from bam_jax.data import foreign
from bam_jax.data import jsonl
from bam_jax.data import lines as lines_lib
from bam_jax.data import records
from bam_jax.data import tsv
from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import task as task_lib

STDIN = '-'

# Python decodes bytes that are not UTF-8 to these; no text has them.
_SURROGATE = re.compile('[\ud800-\udfff]')
_COMPRESSED = re.compile(r'\.(gz|bz2|xz|zst)$')

# One text, or the two of a pair, as `task.Example` has them.
Texts = tuple[str, ...]


class Rows(NamedTuple):
  """An opened file of unlabelled rows.

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
  """Returns `tsv` or `jsonl` by the path's suffix, else None."""
  suffix = Path(path).suffix.removeprefix('.')
  return suffix if suffix in ('tsv', 'jsonl') else None


@contextlib.contextmanager
def open_rows(path: str, task: task_lib.Task) -> Iterator[Rows]:
  """Opens a file of unlabelled rows and reads its first line.

  Args:
    path: of a `.tsv` or `.jsonl` file, which may be compressed; `-`: standard
      input, which is JSON lines where it begins with `{`.
    task: that the rows are for.

  Raises:
    errors.UserError: there is no such file, no row in it, or no such column.
  """
  path = '' if path == STDIN else path
  with contextlib.ExitStack() as stack:
    stream = sys.stdin.buffer
    try:
      if path:
        stream = stack.enter_context(Path(path).open('rb'))
    except OSError as e:
      raise errors.UserError(f'--input={path}: {e.strerror}') from None
    raw = io.BufferedReader(stream)
    content = compressed.decompress(raw, path)
    # Universal newlines, and no byte-order mark, as in the tasks' own files.
    file = io.TextIOWrapper(
      content, encoding='utf-8-sig', errors='surrogateescape'
    )
    try:
      head = content.peek(foreign.HEAD_BYTES)[: foreign.HEAD_BYTES]
      foreign.check(head, path)
      name = _COMPRESSED.sub('', path)
      if path and format_of(name) is None:
        is_csv = path.endswith('.csv')
        remedy = foreign.csv_remedy(path) if is_csv else 'rename the file'
        raise errors.UserError(
          f'--input={path}: is neither .tsv nor .jsonl; {remedy}'
        )
      if format_of(name) != 'tsv':
        foreign.check_json_lines(head, path)
      yield _rows(_lines(file, path or foreign.STDIN), path, task)
    finally:
      # Otherwise the end of either would close standard input.
      file.detach()
      raw.detach()


def texts_of(
  task: task_lib.Task, row: Mapping[str, object], where: str
) -> Texts:
  """Returns the texts that a task reads from a JSON object.

  Raises:
    errors.UserError: one is missing, or is not a text.
  """
  choices = task.kind.input_names(task)
  names = next(
    (n for n in choices if all(records.has(row, name) for name in n)), None
  )
  if names is None:
    raise errors.UserError(f'{where}: no {_wanted(choices)}')
  found = {name: records.find(row, name, where) for name in names}
  return task.kind.parse_input(found, where)


def unnamed_texts(
  task: task_lib.Task, values: Sequence[object], where: str
) -> Texts:
  """Converts a list of texts to the input of a task.

  Raises:
    errors.UserError: their number is wrong, or one is not a text.
  """
  texts = [kind_lib.check_text(value, where) for value in values]
  names = task.kind.input_names(task)[-1]
  if len(texts) != len(names):
    raise errors.UserError(
      f'{where}: {len(texts)} texts, but task {task.name} needs {len(names)}'
    )
  return task.kind.parse_input(dict(zip(names, texts)), where)


def _wanted(choices: Sequence[tuple[str, ...]]) -> str:
  """Describes the missing text fields or columns, for an error message."""
  named = [' and '.join(map(repr, names)) for names in choices]
  return ', nor '.join(named) + '; give the texts under such names'


def _lines(file: TextIO, name: str) -> Iterator[tuple[int, str]]:
  """Yields line numbers and lines; raises if a line is empty."""
  empty = 0
  for number, line in lines_lib.numbered(file, name):
    if not line:
      empty = empty or number
      continue
    if empty:
      # If it were skipped, output and input lines would no longer correspond.
      raise errors.UserError(f'{name}:{empty}: the line is empty; remove it')
    if _SURROGATE.search(line):
      raise errors.UserError(
        f'{name}:{number}: not UTF-8; convert the file to UTF-8'
      )
    yield number, line


def _rows(
  lines: Iterator[tuple[int, str]], path: str, task: task_lib.Task
) -> Rows:
  """Reads the first line and returns the rows, which are read lazily."""
  name = path or foreign.STDIN
  first = next(lines, None)
  if first is None:
    raise errors.UserError(f'{name}: has no rows; write one row per line')
  whole = itertools.chain([first], lines)
  format = format_of(_COMPRESSED.sub('', path))
  format = format or ('jsonl' if first[1][0] == '{' else 'tsv')
  if format == 'jsonl':
    places = ((f'{name}:{number}', line) for number, line in whole)
    texts = (
      texts_of(task, jsonl.parse(line, where), where) for where, line in places
    )
    return Rows(format, False, texts)
  names, table = _table(task, first[1], path, f'{name}:{first[0]}')
  cells = ((number, line.split('\t')) for number, line in whole)
  texts = (
    task.kind.parse_input(dict(zip(names, row.text)), f'{name}:{row.line}')
    for row in tsv.parse(cells, table, path)
  )
  return Rows(format, table.header, texts)


def _table(
  task: task_lib.Task, line: str, path: str, where: str
) -> tuple[tuple[str, ...], task_lib.Table]:
  """Finds the text columns of a TSV file by its first line.

  If the first line does not name the columns, they have the same numbers as in
  the task's own files.
  """
  choices = task.kind.input_names(task)
  first = line.split('\t')
  for names in choices:
    if set(names) <= set(first):
      return names, task_lib.Table(text=names)
  foreign.check_separator(line, choices, path, where, is_of_task=False)
  split = task.test_splits[0] if task.test_splits else task.train_split
  own = task.tables[split]
  # Columns of a file in another format say nothing of this one.
  is_like = own.format in ('tsv', 'jsonl')
  if not is_like or not any(isinstance(column, int) for column in own.text):
    raise errors.UserError(f'{where}: no column {_wanted(choices)}')
  return choices[-1], task_lib.Table(text=own.text, header=own.header)


class Held:
  """An in-memory dataset of features with the interface of `shards.Columns`."""

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
