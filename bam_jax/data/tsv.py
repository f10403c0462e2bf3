"""Reader of tab-separated files, in which a quotation mark is a character."""

from collections.abc import Iterator
from collections.abc import Sequence
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
  """Reads cells between tabs, without quoting; see `formats.Reader`."""
  width, text, label = 0, [], None
  index = skipped = 0
  for line, content in lines.read_filled(path, decoding_errors):
    fields = content.split('\t')
    if not width:
      width = len(fields)
      where = f'{path}:{line}'
      names = lines.text_columns(table, fields if table.header else ())
      _check_separator(content, table, path, where)
      text = [_column(c, fields, table.header, where) for c in names]
      if table.label is not None:
        label = _column(table.label, fields, table.header, where)
      if table.header:
        continue
    # TFDS leaves out rows without a value for a label too.
    broken = len(fields) != width or (label is not None and not fields[label])
    if broken and table.skip_malformed:
      skipped += 1
    elif len(fields) != width:
      fault(wrong_width(len(fields), width, f'{path}:{line}'))
    else:
      texts = tuple(fields[c] for c in text)
      yield lines.Row(
        index, line, texts, None if label is None else fields[label]
      )
    index += 1
  if skipped:
    logging.info('%s: skipped %d malformed rows of %d', path, skipped, index)


def wrong_width(count: int, width: int, where: str) -> errors.UserError:
  """Returns the error for a row of another width than the first line's."""
  return errors.UserError(
    f'{where}: {count} columns where the first line has {width}; mend the row'
  )


def _check_separator(
  line: str, table: task_lib.Table, path: Path, where: str
) -> None:
  """Raises if the first line has a table's columns, but no tabs between them.

  Official files are fetched again, not converted.
  """
  label = () if table.label is None else (table.label,)
  texts = [table.text, *([table.other_text] if table.other_text else [])]
  columns = [(*names, *label) for names in texts]
  fields = line.split('\t')
  if not table.tfds and not any(
    foreign.has_columns(fields, c) for c in columns
  ):
    foreign.check_separator(line, columns, str(path), where)


def _column(
  column: int | str, first: Sequence[str], header: bool, where: str
) -> int:
  """Returns the number of a column that is given by name or number.

  Args:
    column: a name of the header, or a number, from the end if negative.
    first: the fields of the first line.
    header: whether they are names.
    where: file and line, for the error.
  """
  if isinstance(column, str):
    if not header or column not in first:
      raise errors.UserError(
        f'{where}: no column {column!r}; the first line has'
        f' {textwrap.shorten(", ".join(first), _SHOWN)}; name one of these, or'
        ' set header=False where it is a row'
      )
    return lines.columns_by_name([column], first, where)[0]
  if not -len(first) <= column < len(first):
    raise errors.UserError(
      f'{where}: no column {column}; the first line has {len(first)}, counted'
      ' from 0'
    )
  return column
