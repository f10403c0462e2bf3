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

# Maximum number of characters per line, far more than any encoder reads.
LONGEST = 1 << 20
# A byte that is not UTF-8, as `surrogateescape` decodes it.
_BROKEN = re.compile('[\udc80-\udcff]')

_Unit = TypeVar('_Unit')
_Line = TypeVar('_Line', str, list[str])

# Callback that gets the error of each unusable row; the reader skips the row.
# Without a callback, the reader raises the error, and also the error for bytes
# that are not UTF-8 (see `decoding`).
Fault = Callable[[errors.UserError], None]


class Row(NamedTuple):
  """A raw row of a file.

  Attributes:
    index: number of the row in its file, from 0.
    line: number of the row's first line, from 1; 0 if the file has no lines.
    text: one text, or the two texts of a pair.
    label: the label as in the file, or parsed; None if there is no label.
    group: value of the column `Table.group`.
    kept: values of the columns in `Table.kept`, by name.
    error: why the row cannot be predicted; only in rows of `task.INPUT`.
  """

  index: int
  line: int
  text: tuple[str, ...]
  label: task_lib.RawLabel | task_lib.Label | None
  group: str = ''
  kept: Mapping[str, object] = MappingProxyType({})
  error: errors.UserError | None = None


def decoding(fault: Fault | None, table: task_lib.Table) -> str:
  """Returns the `errors` argument of `open`, for bytes that are not UTF-8.

  With `fault`, such bytes are replaced; without it, they raise an error. In
  rows to predict they always raise an error, because a replaced character could
  change the prediction.
  """
  is_looked_over = fault is not None and table.input_kind is None
  return 'replace' if is_looked_over else 'strict'


def usable(
  units: Iterable[_Unit],
  make: Callable[[int, _Unit], Row],
  fault: Fault | None,
) -> Iterator[Row]:
  """Converts lines or blocks to rows, and skips those that raise a `UserError`.

  The error goes to `fault`; without `fault`, it is raised.
  """
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

  For a compressed file, the decompressed content is checked.

  Returns:
    The first bytes of the content, at most `foreign.HEAD_BYTES`.

  Raises:
    errors.UserError: the path is not a regular file (a pipe may never end), or
      the file is not text, such as a spreadsheet.
    OSError: the file cannot be opened.
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
  """Opens a file of UTF-8 text like `open`; the file may be compressed.

  Raises:
    errors.UserError: the file is not text.
    OSError: the file cannot be opened.
  """
  check_text(path)
  # utf-8-sig skips the byte-order mark at the start of files of MRPC and Excel.
  return io.TextIOWrapper(
    compressed.open_binary(path), 'utf-8-sig', decoding_errors, newline
  )


@contextlib.contextmanager
def read(
  path: Path, decoding_errors: str = 'strict'
) -> Iterator[Iterator[tuple[int, str]]]:
  """Context that yields an iterator over a file's line numbers and lines.

  Line numbers start at 1.

  Raises:
    errors.UserError: the file is not text, or a line is too long to be text.
  """
  # Universal newlines: a line may end with \n, \r or \r\n, same as in TFDS.
  with open_text(path, decoding_errors) as file:
    ends = with_ends(file, str(path))
    yield enumerate((line.removesuffix('\n') for line in ends), 1)


def with_ends(file: TextIO, name: str) -> Iterator[str]:
  """Yields the lines of an open file with their line breaks.

  Raises:
    errors.UserError: a line is too long to be text.
  """
  number = 0
  while line := file.readline(LONGEST):
    number += 1
    if len(line) == LONGEST and line[-1] != '\n':
      raise errors.UserError(
        f'{name}:{number}: a line of {LONGEST} characters or more; fix the row'
      )
    yield line


def filled(
  numbered_lines: Iterable[tuple[int, _Line]],
  path: Path,
  keeps_gaps: bool = False,
) -> Iterator[tuple[int, _Line]]:
  """Yields line numbers and lines, or their cells, without empty lines.

  With `keeps_gaps`, empty lines between other lines are kept, so that output
  line n belongs to input line n. Empty lines at the end are still dropped.

  Raises:
    errors.UserError: with `keeps_gaps`, if the file begins with an empty line.
  """
  gap: list[tuple[int, _Line]] = []
  has_begun = False
  for number, line in numbered_lines:
    if line:
      if gap and not has_begun:
        where = f'{path}:{gap[0][0]}'
        raise errors.UserError(f'{where}: the line is empty; remove it')
      has_begun = True
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
