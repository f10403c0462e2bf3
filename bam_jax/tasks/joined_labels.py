"""Several labels in one text: joined, split, and found where not declared."""

from collections import Counter
from collections.abc import Sequence
import itertools
import json

from bam_jax import plain_text
from bam_jax.tasks import task as task_lib

# Separators that files use between the labels of a cell; and those among them
# that rarely occur within a label.
_SEPARATORS, _CLEAR_SEPARATORS = (';', '|', '/', ','), (';', '|')


def join_labels(
  labels: Sequence[str], task: task_lib.Task, separator: str
) -> str:
  """Joins labels by a separator, or into a JSON list if `needs_list`."""
  if needs_list(task, separator):
    return json.dumps(list(labels), ensure_ascii=False)
  return separator.join(labels)


def split_labels(text: str, task: task_lib.Task, separator: str) -> list[str]:
  """Splits a text that `join_labels` joined."""
  return (
    json.loads(text) if needs_list(task, separator) else text.split(separator)
  )


def needs_list(task: task_lib.Task, separator: str) -> bool:
  """Whether joining and splitting again would change one of the labels."""
  return any(
    not label
    or label != label.strip(plain_text.BLANKS)
    or (label + separator).index(separator) < len(label)
    for label in task.labels
  )


def split_cell(text: str, separator: str) -> list[str]:
  """Splits a cell into labels and removes the blanks around each label.

  >>> split_cell('joy; anger;', ';')
  ['joy', 'anger']
  """
  names = (name.strip(plain_text.BLANKS) for name in text.split(separator))
  return [name for name in names if name]


def find_joined(labels: Sequence[str]) -> tuple[str, list[str]]:
  """Finds labels that seem to be several labels joined by a separator.

  A label seems joined if more than half of its pieces are labels themselves.
  If the separator is `;` or `|`, a piece that occurs in two or more labels also
  counts as a label.

  >>> find_joined(['bill', 'mail', 'bill; mail', 'TCP/IP'])
  (';', ['bill; mail'])

  Returns:
    The separator with the most joined labels, and the joined labels; '' and []
    if no label seems joined.
  """
  best: tuple[str, list[str]] = ('', [])
  for mark in _SEPARATORS:
    split = {label: {*split_cell(label, mark)} for label in labels}
    known = {*labels}
    if mark in _CLEAR_SEPARATORS:
      counts = Counter(itertools.chain.from_iterable(split.values()))
      known |= {piece for piece, count in counts.items() if count > 1}
    joined = [
      label
      for label, pieces in split.items()
      if len(pieces) > 1 and len(pieces & known) * 2 > len(pieces)
    ]
    best = max(best, (mark, joined), key=lambda found: len(found[1]))
  return best
