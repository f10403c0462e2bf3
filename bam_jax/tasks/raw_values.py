"""Checks raw values from files and requests."""

import math
import re

from bam_jax import errors
from bam_jax import plain_text
from bam_jax.tasks import task as task_lib

# Cells that mean a missing label in some files; SNLI uses a dash.
_NO_LABEL = frozenset(
  {'', '-', '-1', '?', 'null', 'None', 'NaN', 'nan', 'NA', 'N/A'}
)
# Spellings of a missing value in files and libraries, in lower case.
_MISSING = frozenset({'', 'null', 'nan', '<na>'})
# Code points that UTF-8 cannot hold; Python decodes invalid bytes as these.
_SURROGATE = re.compile('[\ud800-\udfff]')


def is_missing(value: str) -> bool:
  """Whether a label cell means that the label is missing.

  >>> is_missing(' '), is_missing('NaN'), is_missing('none')
  (True, True, False)
  """
  return value.strip().casefold() in _MISSING


def no_label_remedy(task: task_lib.Task, value: str) -> str:
  """Returns a part of an error message: what to do without a label.

  The part is empty for official tasks, and if the value does not look like a
  missing label.
  """
  is_label = value not in _NO_LABEL and not is_missing(value)
  if is_label or task.tables[task.train_split].tfds:
    return ''
  none = ''
  if task.kind.decides_each_label:
    none = '; write an empty list or text if it has none of the labels'
  return (
    f'{none}; or skip rows without a label by'
    f' config.custom_tasks.{task.name}.no_label=({value!r},)'
  )


def check_word(value: object, where: str) -> str:
  """Returns a JSON value if it is a single word; else raises UserError."""
  word = check_text(value, where)
  if not word or ' ' in word or word != plain_text.one_line(word):
    raise errors.UserError(
      f'{where} is {word!r}; give a word, without spaces or line breaks'
    )
  return word


def check_text(value: object, where: str) -> str:
  """Returns a JSON value if it is a valid text; else raises UserError."""
  if value is None or (isinstance(value, float) and math.isnan(value)):
    raise errors.UserError(f'{where} is missing (null or NaN); give a string')
  if not isinstance(value, str):
    raise errors.UserError(f'{where} is not a string; give a string')
  if _SURROGATE.search(value):
    # JSON can encode half of a surrogate pair; tokenizers reject such a text.
    raise errors.UserError(
      f'{where} holds half of a surrogate pair; remove that half'
    )
  return value
