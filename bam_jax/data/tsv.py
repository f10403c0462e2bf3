"""Reads tab-separated files without quoting: " is an ordinary character."""

from collections.abc import Iterator, Sequence
import itertools
import logging
from pathlib import Path
import textwrap

from bam_jax import errors
from bam_jax.data import foreign
from bam_jax.data import lines
from bam_jax.tasks import task as task_lib

# Characters of a first line that an error repeats.
_SHOWN = 100


def read(
  path: Path,
  table: task_lib.Table,
  fault: lines.Fault = lines.stop,
  decoding_errors: str = 'strict',
) -> Iterator[lines.Row]:
  """Reads the rows of a tab-separated file; see `formats.Reader`."""
  filled = lines.read_filled(path, decoding_errors)
  yield from parse(filled, table, str(path), fault)


def parse(
  numbered: Iterator[tuple[int, str]],
  table: task_lib.Table,
  path: str,
  fault: lines.Fault = lines.stop,
) -> Iterator[lines.Row]:
  """Parses the first line and returns an iterator over the rows.

  Args:
    numbered: line numbers and lines, none of them empty.
    table: the columns to read, with a label or without.
    path: of the file, for errors; empty: standard input.
    fault: receives the error of each row that cannot be used.

  Raises:
    errors.UserError: a column is missing.
  """
  first = next(numbered, None)
  if first is None:
    return iter(())
  number, line = first
  where = f'{path or foreign.STDIN}:{number}'
  fields = line.split('\t')
  names = lines.text_columns(table, fields if table.header else ())
  label = () if table.label is None else (table.label,)
  if not table.tfds:  # Official files are fetched again, not converted.
    choices = [(*t, *label) for t in (table.text, table.other_text) if t]
    foreign.check_separator(line, choices, path, where)
  columns = [_column(c, fields, table.header, where) for c in (*names, *label)]
  rest = numbered if table.header else itertools.chain([first], numbered)
  return _rows(rest, table, columns, len(fields), path, fault)


def _rows(
  numbered: Iterator[tuple[int, str]],
  table: task_lib.Table,
  columns: Sequence[int],
  width: int,
  path: str,
  fault: lines.Fault,
) -> Iterator[lines.Row]:
  """Yields rows that have `width` cells; the last of `columns` is the label."""
  has_label = table.label is not None
  index = skipped = 0
  for index, (number, line) in enumerate(numbered):
    fields = line.split('\t')
    # TFDS leaves out rows without a value for a label too.
    is_good = len(fields) == width and (not has_label or fields[columns[-1]])
    if not is_good and table.skip_malformed:
      skipped += 1
    elif len(fields) != width:
      where = f'{path or foreign.STDIN}:{number}'
      fault(
        errors.UserError(
          f'{where}: {len(fields)} columns where the first line has {width};'
          ' fix the row'
        )
      )
    else:
      texts = tuple(fields[column] for column in columns)
      label = texts[-1] if has_label else None
      yield lines.Row(index, number, texts[:-1] if has_label else texts, label)
  if skipped:
    logging.info(
      '%s: skipped %d malformed rows of %d', path, skipped, index + 1
    )


def _column(
  column: int | str, first: Sequence[str], header: bool, where: str
) -> int:
  """Converts a column's name or number to its number; raises if missing."""
  if isinstance(column, int):
    if -len(first) <= column < len(first):
      return column
    raise errors.UserError(
      f'{where}: no column {column}; the first line has columns 0 to'
      f' {len(first) - 1}; fix the file, or name another column'
    )
  if not header or column not in first:
    raise errors.UserError(
      f'{where}: no column {column!r}; the first line has'
      f' {textwrap.shorten(", ".join(first), _SHOWN)}; name one of these, or'
      ' set header=False if the first line is data'
    )
  if first.count(column) > 1:
    raise errors.UserError(
      f'{where}: two columns are named {column!r}; rename or remove one of them'
    )
  return first.index(column)
