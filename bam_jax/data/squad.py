"""Reads JSON files of the SQuAD format: questions, contexts and answers."""

from collections.abc import Iterator, Mapping
import dataclasses
from pathlib import Path

from bam_jax import errors
from bam_jax import files
from bam_jax.data import lines
from bam_jax.data import records
from bam_jax.tasks import task as task_lib

_LAYOUT = (
  'give the JSON layout of SQuAD 1.1 or 2.0; rows of questions are of format'
  ' jsonl'
)


def read(
  path: Path, table: task_lib.Table, fault: lines.Fault | None = None
) -> Iterator[lines.Row]:
  """Reads questions and contexts; see `formats.Reader`.

  `Row.line` is 0, because a question has no line in this format. The label has
  a pair per gold answer: the answer's text, and where in the context the answer
  starts (as a character index). The label is empty if the question cannot be
  answered.
  """
  with lines.open_text(path, lines.decoding(fault, table)) as file:
    content = file.read()
  try:
    questions = list(_questions(files.parse_json(content)))
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    what = f'{type(error).__name__}: {error}'
    raise errors.UserError(f'{path}: {what}; {_LAYOUT}') from None

  table = dataclasses.replace(table, holds='answers')

  def make(index: int, record: records.Record) -> lines.Row:
    where = f'{path}, question {index} of the file'
    return records.make_row(index, 0, record, table, where)

  yield from lines.usable(questions, make, fault)


def _questions(content: Mapping) -> Iterator[dict[str, object]]:
  """Yields each question's fields, with `context` and the article's `title`."""
  for article in content['data']:
    for paragraph in article['paragraphs']:
      above = {
        'title': article.get('title', ''),
        'context': paragraph['context'],
      }
      for question in paragraph['qas']:
        yield {**above, **question.copy()}
