"""Reads tab-separated files without quoting: " is an ordinary character.

`parse` makes rows from cells. The reader of CSV files also calls it.
"""

from collections.abc import Iterator, Mapping, Sequence
import difflib
import itertools
import logging
from pathlib import Path
import textwrap

from bam_jax import errors
from bam_jax.data import foreign
from bam_jax.data import lines
from bam_jax.data import records
from bam_jax.tasks import task as task_lib

# Maximum number of characters of the first line that an error message quotes.
_SHOWN = 100
# Remedies if a file is CSV: for the files of a task, and for rows to predict.
_OF_TASK = (
  "set the task's format='csv', or give an unlabelled file the suffix .csv"
)
_TO_PREDICT = 'give it as a file with the suffix .csv'


def read(
  path: Path, table: task_lib.Table, fault: lines.Fault | None = None
) -> Iterator[lines.Row]:
  """Reads the rows of a tab-separated file; see `formats.Reader`."""
  is_input = table.input_kind is not None
  with lines.read(path, lines.decoding(fault, table)) as numbered:
    filled = lines.filled(numbered, path, keeps_gaps=is_input)
    cells = ((number, line.split('\t')) for number, line in filled)
    yield from parse(cells, table, str(path), fault)


def parse(
  numbered: Iterator[tuple[int, list[str]]],
  table: task_lib.Table,
  path: str,
  fault: lines.Fault | None = None,
) -> Iterator[lines.Row]:
  """Parses the first line and returns an iterator over the rows.

  Args:
    numbered: yields (line number, cells) for each line to parse.
    table: the columns to read, with or without a label.
    path: path of the file, for errors.
    fault: receives the error of each unusable row; None: the error is raised.

  Raises:
    errors.UserError: a column is missing, two columns have the same name, or
      the file is not tab-separated.
  """
  first = next(numbered, None)
  if first is None:
    return iter(())
  number, fields = first
  where = f'{path}:{number}'
  # Not for official files: a user downloads them again instead of converting.
  if table.format == 'tsv' and not table.tfds:
    remedy = _TO_PREDICT if table.input_kind else _OF_TASK
    foreign.check_separator(
      '\t'.join(fields), column_choices(table), where, remedy
    )
  texts = records.text_columns(table, dict.fromkeys(fields), where)
  has_header = table.header or texts in table.other_texts
  names = [*texts]
  if table.label is not None:
    names.append(table.label)
  if table.group is not None:
    names.append(table.group)
  if has_header:
    names += [name for name in table.kept if fields.count(name) == 1]
  columns = {name: _column(name, fields, has_header, where) for name in names}
  rest = numbered if has_header else itertools.chain([first], numbered)
  return _rows(rest, table, columns, len(fields), path, fault)


def column_choices(table: task_lib.Table) -> list[tuple[int | str, ...]]:
  """Returns sets of columns; a file must have all columns of one set."""
  label = () if table.label is None else (table.label,)
  return [(*t, *label) for t in (table.text, *table.other_texts) if t]


def _rows(
  numbered: Iterator[tuple[int, list[str]]],
  table: task_lib.Table,
  columns: Mapping[int | str, int],
  width: int,
  path: str,
  fault: lines.Fault | None,
) -> Iterator[lines.Row]:
  """Yields one row for each line that has `width` cells.

  `columns` maps the name of each column to read to the index of its cell.
  """
  label = None if table.label is None else columns[table.label]
  index = skipped = 0
  for index, (number, fields) in enumerate(numbered):
    # Skip rows with an empty label too, because TFDS leaves them out as well.
    is_good = len(fields) == width and (label is None or fields[label])
    where = f'{path}:{number}'
    if not is_good and table.skip_malformed:
      skipped += 1
    elif len(fields) != width:
      what = f'{len(fields)} columns where the first line has {width}'
      if fault is None:
        raise errors.UserError(f'{where}: {what}; fix the row')
      fault(errors.UserError(f'{where}: {what}; fix the row'))
    else:
      record = {name: fields[column] for name, column in columns.items()}
      yield records.make_row(index, number, record, table, where)
  if skipped:
    logging.info(
      '%s: skipped %d malformed rows of %d', path, skipped, index + 1
    )


def _column(
  column: int | str, first: Sequence[str], header: bool, where: str
) -> int:
  """Returns the index of a column, which is given by its name or number.

  Raises:
    errors.UserError: the column is missing, or its name is not unique.
  """
  if isinstance(column, int):
    if -len(first) <= column < len(first):
      return column
    raise errors.UserError(
      f'{where}: no column {column}; the first line has columns 0 to'
      f' {len(first) - 1}; fix the file, or name another column'
    )
  if not header or column not in first:
    like = {name.strip().casefold(): name for name in reversed(first)}
    near = difflib.get_close_matches(column.strip().casefold(), like, 1)
    raise errors.UserError(
      f'{where}: no column {column!r}; the first line has'
      f' {textwrap.shorten(", ".join(first), _SHOWN)}; name one of these'
      + ''.join(f' (the nearest is {like[each]!r})' for each in near)
      + ', or set header=False if the first line is data'
    )
  if first.count(column) > 1:
    raise errors.UserError(
      f'{where}: two columns are named {column!r}; rename or remove one of them'
    )
  return first.index(column)
