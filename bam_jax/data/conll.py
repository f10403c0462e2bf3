"""Reads CoNLL files: one tagged word per line, empty line between sentences."""

from collections.abc import Iterator, Sequence
import itertools
from pathlib import Path

from bam_jax import errors
from bam_jax import plain_text
from bam_jax.data import lines
from bam_jax.tasks import task as task_lib

_NEW_DOCUMENT = '-DOCSTART-'
_COMMENT = '#'

# A line's number (from 1) and its text.
_Line = tuple[int, str]


def read(
  path: Path, table: task_lib.Table, fault: lines.Fault | None = None
) -> Iterator[lines.Row]:
  """Reads the sentences of a CoNLL file; see `formats.Reader`.

  Columns are separated by tabs or, in a line without tabs, by spaces. No other
  character separates columns. A line whose first column is `-DOCSTART-` ends a
  sentence. A line that begins with `#` is a comment if it comes before the
  words of its sentence and does not look like a line with a word: the number of
  columns or the separator differs, or the first column contains a space.
  """

  def make(index: int, block: list[_Line]) -> lines.Row:
    words, tags = _columns(block, table, path)
    return lines.Row(index, block[0][0], (' '.join(words),), tags)

  with lines.read(path, lines.decoding(fault, table)) as numbered:
    yield from lines.usable(_sentences(numbered), make, fault)


def _sentences(numbered: Iterator[_Line]) -> Iterator[list[_Line]]:
  """Yields the lines of each sentence, without comments."""
  # Only a line with a word shows which lines are comments, so all sentences
  # before the first such line wait for it.
  waiting: list[list[_Line]] = []
  like = None
  for block in _blocks(numbered):
    words = (line for _, line in block if not line.startswith(_COMMENT))
    like = next(words, like)
    waiting.append(block)
    if like is None:
      continue
    yield from filter(None, (_drop_comments(each, like) for each in waiting))
    waiting = []
  yield from waiting


def _drop_comments(block: list[_Line], like: str) -> list[_Line]:
  """Removes the comment lines at the beginning of a sentence."""
  return list(
    itertools.dropwhile(lambda line: _is_comment(line[1], like), block)
  )


def _blocks(numbered: Iterator[_Line]) -> Iterator[list[_Line]]:
  """Groups lines; a blank line or a `-DOCSTART-` line ends a group."""

  def is_break(numbered_line: _Line) -> bool:
    _, line = numbered_line
    return plain_text.is_blank(line) or (
      line.startswith(_NEW_DOCUMENT)
      and plain_text.cells(line)[0] == _NEW_DOCUMENT
    )

  for is_between, block in itertools.groupby(numbered, is_break):
    if not is_between:
      yield list(block)


def _is_comment(line: str, like: str) -> bool:
  """Whether a line is a comment, not a line with a word such as `like`."""
  if not line.startswith(_COMMENT):
    return False
  cells = plain_text.cells(line)
  return (
    len(cells) != len(plain_text.cells(like))
    or ('\t' in line) != ('\t' in like)
    or ' ' in cells[0]
  )


def _columns(
  block: Sequence[_Line], table: task_lib.Table, path: Path
) -> tuple[list[str], tuple[str, ...] | None]:
  """Returns the words of a sentence, and its tags if there is a tag column."""
  chosen = [*table.text, *(() if table.label is None else (table.label,))]
  cells = []
  for number, line in block:
    fields = plain_text.cells(line)
    if not all(-len(fields) <= column < len(fields) for column in chosen):
      raise errors.UserError(
        f'{path}:{number}: the row has {len(fields)} columns, but those with'
        f' the numbers {chosen} are read, counted from 0; fix the row, or the'
        ' text and label of the task'
      )
    if cells and _is_comment(line, block[0][1]):
      raise errors.UserError(
        f'{path}:{number}: looks like a comment inside a sentence: it begins'
        ' with # and has other columns than the row before it; move it above'
        ' the sentence, or write the columns as in that row'
      )
    cells.append([fields[column] for column in chosen])
    if not cells[-1][0] or ' ' in cells[-1][0]:
      raise errors.UserError(
        f'{path}:{number}: {cells[-1][0]!r} is not a word; give one per line,'
        ' without blanks'
      )
  words, *tags = zip(*cells, strict=True)
  return list(words), tags[0] if tags else None
