"""Reads JSON files of the SQuAD format: questions, contexts and answers."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from bam_jax import errors
from bam_jax import files
from bam_jax.data import lines
from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import task as task_lib

_LAYOUT = 'give the JSON layout of SQuAD 1.1 or 2.0'


def read(
  path: Path,
  table: task_lib.Table,
  fault: lines.Fault = lines.stop,
  decoding_errors: str = 'strict',
) -> Iterator[lines.Row]:
  """Reads questions and contexts; see `formats.Reader`.

  Questions have no line of their own, so their line is 0. The label has a pair
  for each gold answer, its text and its start in the context in characters;
  it is empty for a question that cannot be answered.
  """
  lines.check_text(path)
  content = path.read_text(encoding='utf-8-sig', errors=decoding_errors)
  try:
    pairs = list(_questions(files.parse_json(content)))
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    what = f'{type(error).__name__}: {error}'
    raise errors.UserError(f'{path}: {what}; {_LAYOUT}') from None

  def make(index: int, pair: tuple[object, Mapping]) -> lines.Row:
    where = f'{path}, question {index} of the file'
    return lines.Row(index, 0, *_texts(*pair, table, where))

  yield from lines.usable(pairs, make, fault)


def _questions(content: Mapping) -> Iterator[tuple[object, Mapping]]:
  """Yields the context and the JSON entry of each question."""
  for article in content['data']:
    for paragraph in article['paragraphs']:
      for question in paragraph['qas']:
        question.keys()  # An entry, or an error of the layout.
        yield paragraph['context'], question


def _texts(
  context: object, entry: Mapping, table: task_lib.Table, where: str
) -> tuple[tuple[str, str], tuple[tuple[str, int], ...] | None]:
  """Returns the texts and the answers of one question."""
  texts = (
    kind_lib.check_text(entry.get('question'), f'{where}: its question'),
    kind_lib.check_text(context, f'{where}: its context'),
  )
  if table.label is None or entry.get('is_impossible', False):
    return texts, None if table.label is None else ()
  try:
    answers = [(a['text'], a['answer_start']) for a in entry[table.label]]
  except (KeyError, TypeError):
    raise errors.UserError(
      f'{where}: {table.label!r} is not a list of answers; {_LAYOUT}'
    ) from None
  for text, start in answers:
    good = isinstance(text, str) and type(start) is int and start >= 0
    if not good or not text or context[start : start + len(text)] != text:
      raise errors.UserError(
        f'{where}: the answer {text!r} is not at character {start!r} of'
        ' the context; fix the row'
      )
  return texts, tuple(answers)
