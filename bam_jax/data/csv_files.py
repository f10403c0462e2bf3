"""Reads CSV files; quoted cells may contain separators and line breaks."""

from collections.abc import Iterator
import csv
from pathlib import Path
import re

from bam_jax import errors
from bam_jax.data import foreign
from bam_jax.data import lines
from bam_jax.data import tsv
from bam_jax.tasks import task as task_lib

# A line before the header, such as `sep=;`, that tells Excel the separator.
SAID = re.compile(r'sep=(.)\r?\n')
# Suffixes of files with tabs between the cells. A suffix of a compressed file,
# such as `.gz`, may follow.
_TAB_SUFFIXES = frozenset({'.tsv', '.tab'})

# A cell may be as long as a line; the module's own limit is 131,072 characters.
csv.field_size_limit(lines.LONGEST)


def read(
  path: Path, table: task_lib.Table, fault: lines.Fault | None = None
) -> Iterator[lines.Row]:
  """Reads the rows of a CSV file; see `formats.Reader`.

  A row may have several lines; `Row.line` is the number of the first.
  """
  head = lines.check_text(path).decode('utf-8-sig', 'replace')
  said = SAID.match(head)
  mark = said[1] if said else _separator(path, head, table)
  with lines.open_text(path, lines.decoding(fault, table), newline='') as file:
    content = lines.with_ends(file, str(path))
    cells = _cells(content, mark, path)
    if said:
      next(cells)
    is_input = table.input_kind is not None
    filled = lines.filled(cells, path, keeps_gaps=is_input)
    rows = ((number, row or ['']) for number, row in filled)
    yield from tsv.parse(rows, table, str(path), fault)


def _separator(path: Path, head: str, table: task_lib.Table) -> str:
  """Returns the character that separates the cells of a file.

  The file's suffix decides between a tab and a comma. If the first row, split
  at this separator, lacks columns of the table, other separators are tried,
  because spreadsheet programs in many countries write semicolons. If no
  separator gives all of the columns, the function returns the first separator
  that gives at least one column. The later error then names a missing column.
  """
  is_tab = not _TAB_SUFFIXES.isdisjoint(path.suffixes)
  usual = '\t' if is_tab else ','
  marks = (usual, *foreign.SEPARATORS)
  choices = tsv.column_choices(table)
  singles = [(column,) for columns in choices for column in columns]
  found = foreign.find_separator(head, choices, marks)
  return found or foreign.find_separator(head, singles, marks) or usual


def _cells(
  content: Iterator[str], mark: str, path: Path
) -> Iterator[tuple[int, list[str]]]:
  """Yields, for each row, the number of its first line and its cells.

  An empty line has no cells.
  """
  # Without `strict`, a quotation mark that is never closed would make the rest
  # of the file one cell.
  reader = csv.reader(content, delimiter=mark, strict=True)
  number = 1
  try:
    for cells in reader:
      yield number, cells
      number = reader.line_num + 1
  except csv.Error as error:
    raise errors.UserError(
      f'{path}:{number}: not CSV ({error}); close the quotation marks of the'
      ' row, and double those inside of them'
    ) from None
