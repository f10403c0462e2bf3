"""Reads the lines of text files; defines `Row`, the raw row of a file."""

from collections.abc import Callable, Iterable, Iterator, Mapping
import contextlib
import io
from pathlib import Path
import re
from types import MappingProxyType
from typing import NamedTuple, TextIO, TypeVar

from bam_jax import errors
from bam_jax.data import compressed
from bam_jax.data import foreign
from bam_jax.tasks import task as task_lib

# Characters per line: far more than any encoder reads.
_LONGEST = 1 << 20
# A byte that is no UTF-8, as Python escapes it.
_BROKEN = re.compile('[\udc80-\udcff]')

_Unit = TypeVar('_Unit')

# Receives the error of each row that cannot be used; the reader leaves the row
# out. Without one it raises the error, and that of bytes that are no UTF-8
# (see `decoding`).
Fault = Callable[[errors.UserError], None]


class Row(NamedTuple):
  """A row: its index (from 0), its first line (from 1), texts and label.

  The label is as in the file, or parsed. `group` is the value of the column
  that `Table.group` names, and `kept` has those of `Table.kept`. `error` says
  why a row cannot be predicted; only files of `task.INPUT` have such rows.
  """

  index: int
  line: int
  text: tuple[str, ...]
  label: task_lib.RawLabel | task_lib.Label | None
  group: str = ''
  kept: Mapping[str, object] = MappingProxyType({})
  error: errors.UserError | None = None


def decoding(fault: Fault | None, table: task_lib.Table) -> str:
  """Returns how to decode bytes that are not UTF-8: the `errors` of `open`.

  Rows to predict are not guessed: such bytes end the reading.
  """
  is_looked_over = fault is not None and table.input_kind is None
  return 'replace' if is_looked_over else 'strict'


def usable(
  units: Iterable[_Unit],
  make: Callable[[int, _Unit], Row],
  fault: Fault | None,
) -> Iterator[Row]:
  """Converts lines or blocks to rows; passes each `UserError` to `fault`."""
  for index, unit in enumerate(units):
    try:
      row = make(index, unit)
    except errors.UserError as error:
      if fault is None:
        raise
      fault(error)
    else:
      yield row


def check_text(path: Path) -> bytes:
  """Raises if a path is not a regular file that begins with UTF-8 text.

  A compressed file is judged by its content.

  Returns:
    The first bytes, at most `foreign.HEAD_BYTES`.

  Raises:
    errors.UserError: it is something else: a pipe that could be read for ever,
      a sheet.
    OSError: it cannot be opened.
  """
  if path.exists() and not path.is_file():
    raise errors.UserError(
      f'{path}: is not a regular file; give one that holds the rows'
    )
  with compressed.open_binary(path) as file:
    head = file.read(foreign.HEAD_BYTES)
  foreign.check(head, str(path))
  return head


def open_text(
  path: Path, decoding_errors: str = 'strict', newline: str | None = None
) -> TextIO:
  """Opens a file of UTF-8 text, which may be compressed, like `open`.

  Raises:
    errors.UserError: the file is not text.
    OSError: it cannot be opened.
  """
  check_text(path)
  # utf-8-sig for the byte-order mark that MRPC's files and Excel's start with.
  return io.TextIOWrapper(
    compressed.open_binary(path), 'utf-8-sig', decoding_errors, newline
  )


@contextlib.contextmanager
def read(
  path: Path, decoding_errors: str = 'strict'
) -> Iterator[Iterator[tuple[int, str]]]:
  """Opens a file for its lines and their numbers, from 1.

  Raises:
    errors.UserError: the file is not text, or a line is too long to be text.
  """
  # Universal newlines, as TFDS reads.
  with open_text(path, decoding_errors) as file:
    yield numbered(file, str(path))


def numbered(file: TextIO, name: str) -> Iterator[tuple[int, str]]:
  """Yields the numbers and lines of an open file; `name` is used in errors."""
  for number, line in enumerate(with_ends(file, name), 1):
    yield number, line.removesuffix('\n')


def with_ends(file: TextIO, name: str) -> Iterator[str]:
  """Yields the lines of an open file with their line breaks.

  Raises:
    errors.UserError: a line is too long to be text.
  """
  number = 0
  while line := file.readline(_LONGEST):
    number += 1
    if len(line) == _LONGEST and line[-1] != '\n':
      raise errors.UserError(
        f'{name}:{number}: a line of {_LONGEST} characters or more; fix the row'
      )
    yield line


def filled(
  numbered_lines: Iterable[tuple[int, str]],
  path: Path,
  keeps_gaps: bool = False,
) -> Iterator[tuple[int, str]]:
  """Yields the numbers and lines of a file, without empty lines.

  With `keeps_gaps`, empty lines between others are rows, so that lines that are
  written for them stay beside them.

  Raises:
    errors.UserError: a file whose gaps are kept begins with an empty line.
  """
  gap: list[tuple[int, str]] = []
  for number, line in numbered_lines:
    if line:
      if len(gap) == number - 1 > 0:
        raise errors.UserError(f'{path}:1: the line is empty; remove it')
      yield from gap
      gap = []
      yield number, line
    elif keeps_gaps:
      gap.append((number, line))


def broken(path: Path) -> int:
  """Returns the number of the first line that is not UTF-8."""
  with read(path, 'surrogateescape') as numbered_lines:
    return next(
      number for number, line in numbered_lines if _BROKEN.search(line)
    )
