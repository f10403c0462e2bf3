"""Makes raw rows from records: mappings of columns or fields to values.

The readers of all formats except CoNLL make their rows here.
"""

from collections.abc import Mapping
import contextlib
import difflib
import itertools
import json
from typing import Any

from bam_jax import errors
from bam_jax import plain_text
from bam_jax.data import lines
from bam_jax.tasks import raw_values
from bam_jax.tasks import task as task_lib

# How JSON spells a missing value.
_NULL = 'null'

# Column or field -> value.
Record = Mapping[Any, object]


def make_row(
  index: int, line: int, record: Record, table: task_lib.Table, where: str
) -> lines.Row:
  """Makes a raw row from the fields that a table names.

  Args:
    index: index of the row in its file, from 0.
    line: first line of the row, from 1; 0 if the file has no lines.
    record: the fields of the row.
    table: names the text and label fields; a name may be a path, see `find`.
    where: file and line, for errors.

  Raises:
    errors.UserError: a field is missing, or a value is not a text. If the row
      is to be predicted, the error is stored in `Row.error` instead.
  """
  kept = {
    name: find(record, name, where) for name in table.kept if has(record, name)
  }
  if table.input_kind is not None:
    texts, error = (), None
    try:
      texts = input_texts(record, table, where)
    except errors.UserError as e:
      error = e.with_traceback(None)
    return lines.Row(index, line, texts, None, kept=kept, error=error)
  names = text_columns(table, record, where)
  texts = tuple([_text(record, name, table, where) for name in names])
  label = None
  if (
    table.no_label and _NULL in table.no_label and not has(record, table.label)
  ):
    label = _NULL
  elif table.label is not None:
    label = _label(record, texts, table, where)
  group = ''
  if table.group is not None:
    value = find(record, table.group, where)
    group = _spell(value, f'{where}: field {table.group!r}')
  return lines.Row(index, line, texts, label, group, kept)


def input_texts(
  record: Record, table: task_lib.Table, where: str
) -> tuple[str, ...]:
  """Returns the texts of a row to predict.

  Raises:
    errors.UserError: a field is missing, or a value is not a text.
  """
  values = {
    name if isinstance(name, str) else f'column {name}': find(
      record, name, where
    )
    for name in text_columns(table, record, where)
  }
  return table.input_kind.parse_input(values, where)


def _text(
  record: Record, name: int | str, table: task_lib.Table, where: str
) -> str:
  """Returns the text in a field; joins a list of words by spaces."""
  value = find(record, name, where)
  if table.holds != 'words':
    # Fast path: most texts are valid and need no error message.
    if isinstance(value, str) and value.isascii():
      return value
    return raw_values.check_text(value, f'{where}: field {name!r}')
  where = f'{where}: field {name!r}'
  if not isinstance(value, list) or not value:
    raise errors.UserError(
      f'{where} is not a list of words; give a list of strings'
    )
  return ' '.join(
    raw_values.check_word(word, f'{where}, item {place}')
    for place, word in enumerate(value)
  )


def _label(
  record: Record, texts: tuple[str, ...], table: task_lib.Table, where: str
) -> task_lib.RawLabel:
  """Returns the raw label of a row, in the form that `Kind.parse` takes."""
  if table.holds == 'answers':
    return _answers(record, texts[1], table, where)
  value = find(record, table.label, where)
  if isinstance(value, str) and table.holds == 'texts':
    return value
  where = f'{where}: field {table.label!r}'
  if table.holds == 'words':
    words = texts[0].count(' ') + 1
    if not isinstance(value, list) or len(value) != words:
      raise errors.UserError(
        f'{where} is not a list of {words} tags, one for each word; fix the row'
      )
  if isinstance(value, list) and (table.takes_list or table.holds == 'words'):
    return tuple(_spell(each, where) for each in value)
  return _spell(value, where)


def _answers(
  record: Record, context: str, table: task_lib.Table, where: str
) -> task_lib.Answers:
  """Returns a pair (text, start) per answer; none if `is_impossible` is set.

  The label field holds either a list with one object per answer, or one object
  with a list of texts and a list of starts (as Hugging Face's library does).
  """
  if record.get('is_impossible', False):
    return ()
  value = find(record, table.label, where)
  try:
    if isinstance(value, Mapping):
      texts, starts = value['text'], value['answer_start']
      answers = list(zip(texts, starts, strict=True))
    else:
      answers = [(each['text'], each['answer_start']) for each in value]
  except (KeyError, TypeError, ValueError):
    raise errors.UserError(
      f'{where}: field {table.label!r} is not a list of answers; give each as'
      ' {"text": ..., "answer_start": ...}'
    ) from None
  for text, start in answers:
    good = isinstance(text, str) and type(start) is int and start >= 0
    if not good or not text or not context.startswith(text, start):
      raise errors.UserError(
        f'{where}: the answer {text!r} is not at character {start!r} of'
        ' the context; fix the row'
      )
  return tuple(answers)


def has(record: Record, name: int | str) -> bool:
  """Whether a row has a field; the name may be a path, see `find`."""
  return not _follow(record, name)[1]


def find(record: Record, name: int | str, where: str) -> object:
  """Looks up a field of a row; the name may be a path, such as `entry.text`.

  If the row has no field of this name, the name is read as a path: keys and
  list indices (from 0), separated by dots.

  >>> find({'data': {'texts': ['a', 'b']}}, 'data.texts.1', '')
  'b'

  Raises:
    errors.UserError: there is no such field.
  """
  value, missing = _follow(record, name)
  if not missing:
    return value
  has_what = f'is a {type(value).__name__}'
  if isinstance(value, Mapping) and not value:
    has_what = 'is empty'
  elif isinstance(value, Mapping):
    has_what = f'has {errors.some(value)}'
    if near := difflib.get_close_matches(missing[0], map(str, value), 1):
      has_what += f'; the nearest is {near[0]!r}'
  elif isinstance(value, list):
    has_what = f'is a list of length {len(value)}'
  parts = str(name).split('.')
  above = '.'.join(parts[: len(parts) - len(missing)])
  subject = repr(above) if above else 'the object'
  raise errors.UserError(f'{where}: no field {name!r}; {subject} {has_what}')


def _follow(record: Record, name: int | str) -> tuple[Any, list[str]]:
  """Returns the last value on a path, and the parts of the path after it."""
  if name in record:
    return record[name], []
  value: Any = record
  parts = str(name).split('.')
  for place, part in enumerate(parts):
    if isinstance(value, Mapping) and part in value:
      value = value[part]
    elif (
      isinstance(value, list)
      and plain_text.is_index(part)
      and int(part) < len(value)
    ):
      value = value[int(part)]
    else:
      return value, parts[place:]
  return value, []


def text_columns(
  table: task_lib.Table, record: Record, where: str
) -> tuple[int | str, ...]:
  """Returns the first set of text columns that a row has, else `table.text`.

  The sets are `table.text` and `table.other_texts`.

  Raises:
    errors.UserError: the row is to be predicted and has none of these sets,
      and `table.text` holds names, not numbers.
  """
  choices = (table.text, *table.other_texts)
  if len(choices) == 1 and table.input_kind is None:
    return table.text
  for names in choices:
    if all(has(record, name) for name in names):
      return names
  if table.input_kind is not None and isinstance(table.text[0], str):
    wanted = ', nor '.join(' and '.join(map(repr, each)) for each in choices)
    known = [*itertools.chain.from_iterable(choices)]
    absent = known
    # If only one text of a pair is present, report the other text as missing.
    for names in choices:
      there = [name for name in names if has(record, name)]
      if there:
        absent = [name for name in names if name not in there]
        wanted = f'{absent[0]!r} beside {there[0]!r}'
        break
    others = [str(name) for name in record if name not in known]
    near = (difflib.get_close_matches(name, others, 1) for name in absent)
    found = f'; here are {errors.some_quoted(others)}' if others else ''
    found = next((f'; the nearest is {n[0]!r}' for n in near if n), found)
    raise errors.UserError(
      f'{where}: no {wanted}{found}; give the texts under such names'
    )
  return table.text


def _spell(value: object, where: str) -> str:
  """Returns a string unchanged; converts a number, Boolean or null to JSON.

  Raises:
    errors.UserError: the value is of another type.
  """
  if isinstance(value, str):
    return value
  with contextlib.suppress(TypeError):
    if not isinstance(value, Mapping | list):
      return json.dumps(value)
  raise errors.UserError(
    f'{where} is a {type(value).__name__}; write it as a string or a number'
  )
