"""Reader of tagged words: one a line, sentences parted by empty lines."""

from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path

from bam_jax import errors
from bam_jax.data import lines
from bam_jax.tasks import task as task_lib

_NEW_DOCUMENT = '-DOCSTART-'


def read(
  path: Path,
  table: task_lib.Table,
  fault: lines.Fault = lines.stop,
  decoding_errors: str = 'strict',
) -> Iterator[lines.Row]:
  """Rows of a file: their text has the words with single blanks between them.

  Columns are parted by tabs, or else by blanks. A sentence that begins with
  `-DOCSTART-` is none. The label is a tag a word.

  Args:
    path: of the file.
    table: its columns are numbers.
    fault: told of each sentence that cannot be used.
    decoding_errors: as `open` has it.
  """
  for index, block in enumerate(_sentences(path, decoding_errors)):
    try:
      words, tags = _columns(block, table, path)
    except errors.UserError as error:
      fault(error)
    else:
      yield lines.Row(index, block[0][0], (' '.join(words),), tags)


def _sentences(
  path: Path, decoding_errors: str
) -> Iterator[list[tuple[int, str]]]:
  """Numbers and lines of each sentence."""
  block: list[tuple[int, str]] = []
  for number, line in [*lines.read(path, decoding_errors), (0, '')]:
    if line.strip():
      block.append((number, line))
      continue
    if block and not block[0][1].startswith(_NEW_DOCUMENT):
      yield block
    block = []


def _columns(
  block: Sequence[tuple[int, str]], table: task_lib.Table, path: Path
) -> tuple[list[str], tuple[str, ...] | None]:
  """Words and tags of a sentence; no tags where the table has no label."""
  chosen = [*table.text, *(() if table.label is None else (table.label,))]
  cells = []
  for number, line in block:
    fields = line.split('\t') if '\t' in line else line.split()
    if not all(-len(fields) <= column < len(fields) for column in chosen):
      raise errors.UserError(
        f'{path}:{number}: {len(fields)} columns, of which {chosen} are to be'
        ' read, counted from 0; mend the row'
      )
    cells.append([fields[column] for column in chosen])
    if not cells[-1][0] or ' ' in cells[-1][0]:
      raise errors.UserError(
        f'{path}:{number}: {cells[-1][0]!r} is no word; give one a line,'
        ' without blanks'
      )
  words, *tags = zip(*cells, strict=True)
  return list(words), tags[0] if tags else None
