"""Reader of SQuAD's JSON: questions, and the answers within their contexts."""

from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path

from bam_jax import errors
from bam_jax import files
from bam_jax.data import lines
from bam_jax.tasks import task as task_lib

_LAYOUT = 'give the JSON layout of SQuAD 1.1 or 2.0'


def read(
  path: Path,
  table: task_lib.Table,
  fault: lines.Fault = lines.stop,
  decoding_errors: str = 'strict',
) -> Iterator[lines.Row]:
  """Rows of a file, in its order: question, and context.

  Questions have no line of their own, so it is 0. The label is a pair a gold
  answer, its text and where in the context it begins; none for a question that
  cannot be answered.

  Args:
    path: of the file.
    table: with a label or without.
    fault: told of each question that cannot be used.
    decoding_errors: as `open` has it.
  """
  lines.check_text(path)
  content = path.read_text(encoding='utf-8-sig', errors=decoding_errors)
  try:
    pairs = list(_questions(files.parse_json(content)))
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    what = f'{type(error).__name__}: {error}'
    raise errors.UserError(f'{path}: {what}; {_LAYOUT}') from None
  for index, (context, question) in enumerate(pairs):
    where = f'{path}, question {index} of the file'
    try:
      row = _row(context, question, table, where)
    except errors.UserError as error:
      fault(error)
    else:
      yield lines.Row(index, 0, *row)


def _questions(content: Mapping) -> Iterator[tuple[object, Mapping]]:
  """Context and entry of each question."""
  for article in content['data']:
    for paragraph in article['paragraphs']:
      for question in paragraph['qas']:
        question.keys()  # An entry, or an error of the layout.
        yield paragraph['context'], question


def _row(
  context: object, entry: Mapping, table: task_lib.Table, where: str
) -> tuple[tuple[str, str], tuple[tuple[str, int], ...] | None]:
  """Texts and answers of one question."""
  texts = entry.get('question'), context
  if not all(isinstance(text, str) for text in texts):
    raise errors.UserError(f'{where}: its question is no text; {_LAYOUT}')
  try:
    ''.join(texts).encode()
  except UnicodeEncodeError:
    raise errors.UserError(
      f'{where}: holds a lone surrogate; mend the row'
    ) from None
  if table.label is None:
    return texts, None
  if entry.get('is_impossible', False):
    return texts, ()
  answers = entry.get(table.label)
  try:
    found = tuple((each['text'], each['answer_start']) for each in answers)
  except (KeyError, TypeError):
    raise errors.UserError(
      f'{where}: {table.label!r} is no list of answers; {_LAYOUT}'
    ) from None
  for text, start in found:
    good = isinstance(text, str) and type(start) is int and start >= 0
    if not good or not text or context[start : start + len(text)] != text:
      raise errors.UserError(
        f'{where}: the answer {text!r} does not stand at {start!r} of its'
        ' context; mend the row'
      )
  return texts, found
