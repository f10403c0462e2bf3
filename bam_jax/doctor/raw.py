"""Checks of a raw file, before its rows are taken for rows."""

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

# What the columns of public files are called, in lower case.
_NAMES = frozenset(
  {'text', 'text1', 'text2', 'label', 'labels', 'class', 'target', 'index'}
  | {
    name.lower()
    for texts, label in official.COLUMNS.values()
    for name in (*texts, label)
  }
)


def encoding(
  task: task_lib.Task, split: str, data: bytes, path: Path
) -> Iterator[findings.Finding]:
  """Whether a file is another format, or has lines that are no UTF-8."""
  file = task.tables[split].file

  def found(what: str, remedy: str, lines: Sequence[int]) -> findings.Finding:
    return findings.Finding(
      'error',
      task.name,
      split,
      'encoding',
      what,
      remedy,
      len(lines),
      tuple(f'{file}:{line}' for line in lines[: findings.MAX_PLACES]),
    )

  if other := describe(data, path):
    yield found(*other, [1])
    return
  try:
    data.decode()
  except UnicodeDecodeError:
    lines = enumerate(data.splitlines(), 1)
    yield found(
      'lines that are no UTF-8',
      'convert the file to UTF-8',
      [n for n, line in lines if not _is_utf_8(line)],
    )


def describe(data: bytes, path: Path) -> tuple[str, str] | None:
  """What a file is that is no text in UTF-8, and the remedy; None: unknown."""
  return foreign.describe(data[: foreign.HEAD_BYTES], str(path))


def _is_utf_8(line: bytes) -> bool:
  try:
    line.decode()
  except UnicodeDecodeError:
    return False
  return True


def header(
  task: task_lib.Task, split: str, first: Sequence[str]
) -> Iterator[findings.Finding]:
  """Whether the first line is what the table says it is.

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
  place = (f'{table.file}:1',)
  columns = [*table.text, *(() if table.label is None else (table.label,))]
  numbers = [column for column in columns if isinstance(column, int)]
  cells = [first[c] if -len(first) <= c < len(first) else '' for c in numbers]
  if not table.header:
    if any(cell.lower() in _NAMES for cell in cells):
      yield findings.Finding(
        'error',
        task.name,
        split,
        'header',
        'the first line names columns, but would be read as a row',
        'remove it: this file has no header'
        if task.name in official.COLUMNS
        else f'remove it, or set config.custom_tasks.{task.name}.header=True',
        places=place,
      )
    return
  # A column that is found by its name shows that the names are there.
  if len(numbers) == len(columns) and _is_row(task, table, first):
    yield findings.Finding(
      'error',
      task.name,
      split,
      'header',
      'the first line is a row, but would be passed over as a header',
      'put the line with the names of the columns back',
      places=place,
    )
    return
  names = _official_names(task.name, split)
  if not names or cells == names:
    return
  other = _owner(first)
  if other:
    yield findings.Finding(
      'error',
      task.name,
      split,
      'swapped',
      f'the columns are those of {other}',
      f"put {task.name}'s own {split} file there; GLUE's script once had the"
      ' addresses of QQP and STS-B swapped',
      places=place,
    )
  elif '' not in cells:
    yield findings.Finding(
      'warning',
      task.name,
      split,
      'columns',
      f'read as {errors.some(names)} are columns named {errors.some(cells)}',
      'check that they hold the same',
      places=place,
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
  """What the columns that a GLUE task reads are called in its file."""
  if name not in official.COLUMNS or split == task_lib.UNLABELLED:
    return []
  texts, label = official.COLUMNS[name]
  table = glue.TASKS[name].tables[split]
  return [*texts, *([] if table.label is None else [label])]


def _owner(first: Sequence[str]) -> str:
  """The split of GLUE that most of a header's columns are of, if any."""
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


def quotes(
  task: task_lib.Task, split: str, path: Path
) -> Iterator[findings.Finding]:
  """Lines that a reader with quoting would take into the row before them.

  Nothing to mend, since rows are read without quoting here; but other tools
  read fewer rows, and number them otherwise.
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
    yield findings.Finding(
      'note',
      task.name,
      split,
      'quotes',
      'lines that a reader with quoting would swallow, as quotation marks stay'
      f' open in {len(begins):,} rows',
      'read this file without quoting elsewhere too',
      lost,
      tuple(f'{name}:{line}' for line in begins[: findings.MAX_PLACES]),
    )
