"""Checks encoding, header and quoting of a raw data file."""

from collections.abc import Iterator, Sequence
import contextlib
import csv
import itertools
from pathlib import Path

from bam_jax import errors
from bam_jax import plain_text
from bam_jax.data import compressed
from bam_jax.data import foreign
from bam_jax.data import formats
from bam_jax.data import lines
from bam_jax.doctor import findings
from bam_jax.doctor import official
from bam_jax.doctor import rows as rows_lib
from bam_jax.tasks import glue
from bam_jax.tasks import task as task_lib

# Column names of public files, in lower case.
_NAMES = frozenset(
  name.lower() for names in official.COLUMNS.values() for name in names
) | {'text', 'text1', 'text2', 'label', 'labels', 'class', 'target', 'index'}


def check(
  rows: rows_lib.Rows, path: Path
) -> tuple[list[findings.Finding], bool]:
  """Checks the encoding, header and quoting of a file.

  Returns:
    The findings, and whether it makes sense to read the file's rows.
  """
  if not formats.FORMATS[rows.task.tables[rows.split].format].is_text:
    return [], True
  with compressed.open_binary(path) as file:
    content = file.read()
  if other := foreign.describe(content[: foreign.HEAD_BYTES], str(path)):
    places = [f'{rows.file}:1']
    return [rows.find('error', 'encoding', *other, places=places)], False
  found = []
  if broken := _broken_lines(content):
    what, remedy = 'lines that are not UTF-8', foreign.TO_UTF_8
    places = [f'{rows.file}:{line}' for line in broken]
    found += [rows.find('error', 'encoding', what, remedy, len(broken), places)]
  if rows.task.tables[rows.split].format == 'tsv':
    with lines.open_text(path, 'replace') as file:
      first = next((line for line in file if line != '\n'), '')
    found += _check_header(rows, first.rstrip('\n').split('\t'))
    if b'"' in content:
      found += _check_quotes(rows, path)
  return found, not any(f.check == 'swapped' for f in found)


def _broken_lines(content: bytes) -> list[int]:
  """Returns the numbers, from 1, of the lines that are not UTF-8."""
  return [
    number
    for number, line in enumerate(content.splitlines(), 1)
    if line.decode(errors='ignore').encode() != line
  ]


def _columns(table: task_lib.Table) -> list[int | str]:
  """Returns the text columns of a table, then its label column."""
  return [*table.text, *([] if table.label is None else [table.label])]


def _check_header(
  rows: rows_lib.Rows, first: Sequence[str]
) -> Iterator[findings.Finding]:
  """Checks whether the first line of a TSV file is the expected header or row.

  Yields:
    `header` if the first line has column names but should be a row, or is a row
    but should have column names.
    `swapped` if the columns are those of another GLUE task, so that the rows
    make no sense for this task.
    `columns` if the column names differ from the official ones.
  """
  task, split = rows.task, rows.split
  table = task.tables[split]
  is_official = task.name in official.COLUMNS
  columns = _columns(table)
  numbers = [column for column in columns if isinstance(column, int)]
  cells = [first[c] if -len(first) <= c < len(first) else '' for c in numbers]
  places = [f'{rows.file}:1']
  what = ''
  if not table.header and any(cell.lower() in _NAMES for cell in cells):
    what = 'the first line names columns, but would be read as a row'
    remedy = (
      f'remove it, or set config.custom_tasks.{task.name}.header=True and name'
      ' the columns in text and label'
    )
    if is_official:
      remedy = 'remove it: this file has no header'
  # If a column is found by its name, the first line is certainly a header.
  named = len(numbers) < len(columns)
  if table.header and not named and _is_row(task, table, first):
    what = 'the first line is a row, but would be skipped as a header'
    remedy = 'put the line with the names of the columns back'
  if what:
    yield rows.find('error', 'header', what, remedy, places=places)
  is_known = table.header and is_official and split != task_lib.UNLABELLED
  if what or not is_known:
    return
  read = _columns(glue.TASKS[task.name].tables[split])
  names = official.COLUMNS[task.name][: len(read)]
  if cells == [*names]:
    return
  if owner := _owner(first):
    what = f'the columns are those of {owner}'
    remedy = (
      f"put {task.name}'s own {split} file there; GLUE's script once had the"
      ' addresses of QQP and STS-B swapped'
    )
    yield rows.find('error', 'swapped', what, remedy, places=places)
  elif '' not in cells:
    what = f'columns {errors.some(cells)} are read as {errors.some(names)}'
    remedy = 'check that their content is the same'
    yield rows.find('warning', 'columns', what, remedy, places=places)


def _is_row(
  task: task_lib.Task, table: task_lib.Table, first: Sequence[str]
) -> bool:
  """Returns whether a file's first line is a data row, not a header."""
  if table.label is None:
    return plain_text.is_index(first[0])
  with contextlib.suppress(errors.UserError):
    if table.label < len(first):
      task.kind.parse(task, first[table.label], '')
      return True
  return False


def _owner(first: Sequence[str]) -> str:
  """Guesses from a header which GLUE file this is.

  Returns:
    `TASK/SPLIT`, or '' if the file is unknown.
  """
  owners = {'': 0}
  for name, task in glue.TASKS.items():
    for split, table in task.tables.items():
      columns = _columns(table)
      wanted = official.COLUMNS[name][: len(columns)]
      is_known = table.header and max(columns) < len(first)
      if is_known and wanted == tuple(first[column] for column in columns):
        owners.setdefault(f'{name}/{split}', len(columns))
  return max(owners, key=owners.__getitem__)


def _check_quotes(
  rows: rows_lib.Rows, path: Path
) -> Iterator[findings.Finding]:
  """Finds lines that a CSV reader would join to the previous row.

  BAM-JAX reads rows without quoting, so nothing has to be fixed. But other
  programs may read fewer rows, and number them differently.
  """
  ends = [0]
  with lines.open_text(path, 'replace') as file:
    reader = csv.reader(file, delimiter='\t')
    with contextlib.suppress(csv.Error):  # A field has far too many lines.
      ends += (reader.line_num for _ in reader)
    ends.append(reader.line_num)
  joined = [(a, b) for a, b in itertools.pairwise(ends) if b > a + 1]
  if joined:
    yield rows.find(
      'note',
      'quotes',
      'lines that a CSV reader would skip, because quotation marks are not'
      f' closed in {len(joined):,} rows',
      'read this file without quoting elsewhere too',
      sum(b - a - 1 for a, b in joined),
      [f'{rows.file}:{a + 1}' for a, _ in joined],
    )
