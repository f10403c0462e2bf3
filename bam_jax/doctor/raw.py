"""Checks of a raw file before its rows are read."""

from collections.abc import Iterator
from collections.abc import Sequence
import csv
from pathlib import Path

from bam_jax import errors
from bam_jax import plain_text
from bam_jax.data import foreign
from bam_jax.doctor import findings
from bam_jax.doctor import official
from bam_jax.tasks import glue
from bam_jax.tasks import task as task_lib

# Column names of public files, in lower case.
_NAMES = frozenset(
  {'text', 'text1', 'text2', 'label', 'labels', 'class', 'target', 'index'}
  | {
    name.lower()
    for texts, label in official.COLUMNS.values()
    for name in (*texts, label)
  }
)


def check(
  task: task_lib.Task, split: str, path: Path
) -> tuple[list[findings.Finding], bool]:
  """Checks encoding, header and quoting of a file.

  Returns:
    The findings, and whether the rows are worth reading.
  """
  content = path.read_bytes()
  head = content[: foreign.HEAD_BYTES]
  if other := foreign.describe(head, str(path)):
    return [_encoding(task, split, *other, lines=[1])], False
  found = []
  broken = _broken_lines(content)
  if broken:
    what, remedy = 'lines that are no UTF-8', 'convert the file to UTF-8'
    found.append(_encoding(task, split, what, remedy, broken))
  if task.tables[split].format == 'tsv':
    with path.open(encoding='utf-8-sig', errors='replace') as file:
      first = next((line for line in file if line != '\n'), '')
    found += _check_header(task, split, first.rstrip('\n').split('\t'))
    if b'"' in content:
      found += _check_quotes(task, split, path)
  return found, not any(f.check == 'swapped' for f in found)


def _encoding(
  task: task_lib.Task,
  split: str,
  what: str,
  remedy: str,
  lines: Sequence[int],
) -> findings.Finding:
  return findings.find(
    task,
    split,
    'error',
    'encoding',
    what,
    remedy,
    len(lines),
    [f'{task.tables[split].file}:{line}' for line in lines],
  )


def _broken_lines(content: bytes) -> list[int]:
  """Numbers of the lines that are not UTF-8."""
  try:
    content.decode()
    return []
  except UnicodeDecodeError:
    lines = content.splitlines()
  replaced = (line.decode(errors='replace').encode() for line in lines)
  return [n for n, (a, b) in enumerate(zip(lines, replaced), 1) if a != b]


def _check_header(
  task: task_lib.Task, split: str, first: Sequence[str]
) -> Iterator[findings.Finding]:
  """Checks that the first line is what the table says it is.

  Args:
    task: the task.
    split: of a TSV file.
    first: the fields of its first line.

  Yields:
    `header`: names where rows should begin, or a row where names should stand;
    `swapped`: the columns of another GLUE task, whose rows make no sense here;
    `columns`: other names than the official ones.
  """
  table = task.tables[split]

  def find(
    severity: findings.Severity, check: str, what: str, remedy: str
  ) -> findings.Finding:
    places = (f'{table.file}:1',)
    return findings.find(task, split, severity, check, what, remedy, 1, places)

  columns = [*table.text, *(() if table.label is None else (table.label,))]
  numbers = [column for column in columns if isinstance(column, int)]
  cells = [first[c] if -len(first) <= c < len(first) else '' for c in numbers]
  if not table.header:
    if any(cell.lower() in _NAMES for cell in cells):
      yield find(
        'error',
        'header',
        'the first line names columns, but would be read as a row',
        'remove it: this file has no header'
        if task.name in official.COLUMNS
        else f'remove it, or set config.custom_tasks.{task.name}.header=True',
      )
    return
  # A column that is found by its name shows that the names are there.
  if len(numbers) == len(columns) and _is_row(task, table, first):
    yield find(
      'error',
      'header',
      'the first line is a row, but would be passed over as a header',
      'put the line with the names of the columns back',
    )
    return
  names = _official_names(task.name, split)
  if not names or cells == names:
    return
  if owner := _owner(first):
    yield find(
      'error',
      'swapped',
      f'the columns are those of {owner}',
      f"put {task.name}'s own {split} file there; GLUE's script once had the"
      ' addresses of QQP and STS-B swapped',
    )
  elif '' not in cells:
    yield find(
      'warning',
      'columns',
      f'read as {errors.some(names)} are columns named {errors.some(cells)}',
      'check that they hold the same',
    )


def _is_row(
  task: task_lib.Task, table: task_lib.Table, first: Sequence[str]
) -> bool:
  """Whether the first line has a label, or a number, where a name should be."""
  if table.label is None:
    return plain_text.is_index(first[0])
  if table.label >= len(first):
    return False
  try:
    task.kind.parse(task, first[table.label], '')
  except errors.UserError:
    return False
  return True


def _official_names(name: str, split: str) -> list[str]:
  """Official names of the columns that a GLUE task reads, else none."""
  if name not in official.COLUMNS or split == task_lib.UNLABELLED:
    return []
  texts, label = official.COLUMNS[name]
  table = glue.TASKS[name].tables[split]
  return [*texts, *([] if table.label is None else [label])]


def _owner(first: Sequence[str]) -> str:
  """The GLUE split with the most columns of this header; empty for none."""
  owners = {'': 0}
  for name, task in glue.TASKS.items():
    for split, table in task.tables.items():
      names = _official_names(name, split)
      columns = [*table.text, *([] if table.label is None else [table.label])]
      if table.header and all(
        column < len(first) and first[column] == wanted
        for column, wanted in zip(columns, names, strict=True)
      ):
        owners.setdefault(f'{name}/{split}', len(names))
  return max(owners, key=owners.__getitem__)


def _check_quotes(
  task: task_lib.Task, split: str, path: Path
) -> Iterator[findings.Finding]:
  """Reports lines that a reader with quoting would join to the row before.

  Rows are read without quoting here, so nothing has to be mended; but other
  programs would read fewer rows, and number them differently.
  """
  last, begins, lost = 0, [], 0
  with path.open(encoding='utf-8-sig', errors='replace') as file:
    reader = csv.reader(file, delimiter='\t')
    try:
      for _ in reader:
        if reader.line_num > last + 1:
          begins.append(last + 1)
          lost += reader.line_num - last - 1
        last = reader.line_num
    except csv.Error:  # A field of far too many lines.
      begins.append(last + 1)
      lost += reader.line_num - last - 1
  if begins:
    name = task.tables[split].file
    yield findings.find(
      task,
      split,
      'note',
      'quotes',
      'lines that a reader with quoting would swallow, as quotation marks stay'
      f' open in {len(begins):,} rows',
      'read this file without quoting elsewhere too',
      lost,
      [f'{name}:{line}' for line in begins],
    )
