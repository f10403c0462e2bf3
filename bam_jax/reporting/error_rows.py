"""Rows that a model gets wrong, and labels that its teachers contradict.

Pure functions of raw rows and of what models decided. What a kind makes of its
outputs is asked of the kind: `decided`, `contradiction`, `label_value`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
import json
import math
from typing import NamedTuple

from bam_jax import files
from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import task as task_lib

# Why a row is listed: the model is wrong; it and its teacher decide
# differently; the teachers that were not trained on the row contradict its
# label.
WRONG, DISAGREEMENT, LABEL = 'wrong', 'disagreement', 'label'
# Rows of each reason and task that are kept, the most confident first.
MOST_ROWS = 1000
# Stands for no label at all where any number of labels may be right.
NO_LABEL = '—'

# A row of errors.jsonl.
Row = dict[str, object]


class Rows(NamedTuple):
  """N raw rows of one split, with parsed labels."""

  split: str
  numbers: Sequence[int]  # Of the rows, as in their uids.
  labels: Sequence[task_lib.Label]
  texts: Sequence[Mapping[str, str]]  # By the names that an input has.


class TaskErrors(NamedTuple):
  """The error analysis of one task.

  Attributes:
    rows: by reason, the most confident first, at most `MOST_ROWS`. A reason
      whose rows could not be looked for is missing.
    counts: reason -> how many rows were found, and among how many.
    confusions: (gold, predicted) -> how often, on dev; empty for kinds without
      classes.
    missing: reason -> why its rows could not be looked for.
  """

  rows: Mapping[str, list[Row]]
  counts: Mapping[str, tuple[int, int]]
  confusions: Mapping[tuple[str, str], int]
  missing: Mapping[str, str]


class Analysis(NamedTuple):
  """The error analysis of one model of each task.

  Attributes:
    student: variant of the models.
    seed: their seed.
    teacher: variant that taught them; empty: none did.
    tasks: task -> its analysis.
    missing: task -> why it has none.
  """

  student: str
  seed: int
  teacher: str
  tasks: Mapping[str, TaskErrors]
  missing: Mapping[str, str]


def find(
  task: task_lib.Task,
  rows: Rows,
  reason: str,
  decided: Sequence[kind_lib.Decided],
  teacher: Sequence[kind_lib.Decided] | None = None,
) -> tuple[list[Row], int]:
  """Finds those of N rows that belong in the list of one reason.

  Args:
    task: the task.
    rows: the rows.
    reason: `WRONG`, `DISAGREEMENT` or `LABEL`.
    decided: predictions for the rows; of `LABEL`, those of the teachers.
    teacher: the teacher's predictions for them, if there are any.

  Returns:
    At most `MOST_ROWS` rows, the most confident first, or the largest errors of
    scores; and how many there are.
  """
  against = rows.labels
  if reason == DISAGREEMENT:
    against = [each.label for each in teacher]
  found = []
  for place, (each, label) in enumerate(zip(decided, against, strict=True)):
    strength = task.kind.contradiction(task, each, label)
    if strength is not None:
      found.append((strength, place))
  # Rows without a known confidence come last, in their order.
  found.sort(key=lambda each: math.inf if math.isnan(each[0]) else -each[0])
  low, high = task.scale
  result = []
  for strength, place in found[:MOST_ROWS]:
    values = {
      'gold': rows.labels[place],
      'predicted': decided[place].label,
      'teacher': teacher[place].label if teacher else None,
    }
    if reason == LABEL:
      values |= {'predicted': None, 'teacher': decided[place].label}
    measure = {'confidence': round(strength, 6)}
    if task.kind.has_scale:
      measure = {'error': round(strength * (high - low), 6)}
    result.append(
      {
        'task': task.name,
        'split': rows.split,
        'row': rows.numbers[place],
        'reason': reason,
        **{
          key: None if label is None else task.kind.label_value(task, label)
          for key, label in values.items()
        },
        **measure,
        'texts': rows.texts[place],
      }
    )
  return result, len(found)


def confusions(
  task: task_lib.Task,
  labels: Sequence[task_lib.Label],
  decided: Sequence[kind_lib.Decided],
) -> Counter[tuple[str, str]]:
  """Counts pairs of gold and predicted label over all N rows.

  Of tags they are counted over words. Where any number of labels may be right,
  a label that is missing or too much is paired with `NO_LABEL`. Empty for kinds
  without classes.
  """
  kind, found = task.kind, Counter()
  for label, each in zip(labels, decided, strict=True):
    gold, predicted = (
      kind.label_value(task, one) for one in (label, each.label)
    )
    if kind.one_class:
      found[gold, predicted] += 1
    elif kind.of_words:
      found.update(zip(gold, predicted, strict=True))
    elif kind.decides_each_label:
      for name in {*gold, *predicted}:
        pair = [name if name in of else NO_LABEL for of in (gold, predicted)]
        found[*pair] += 1
  return found


def without_texts(task: task_lib.Task, row: Row) -> Row:
  """Returns a row without its texts; answers are parts of them."""
  result = {key: value for key, value in row.items() if key != 'texts'}
  if task.kind.holds == 'answers':
    for key in ('gold', 'predicted', 'teacher'):
      if row[key] is not None:
        result[key] = 'an answer' if row[key] else 'no answer'
  return result


def to_json_lines(
  analysis: Analysis, tasks: task_lib.TaskTable, has_texts: bool
) -> str:
  """Returns errors.jsonl; nan becomes null."""
  lines = []
  for name, found in analysis.tasks.items():
    for rows in found.rows.values():
      for row in rows:
        shown = row if has_texts else without_texts(tasks[name], row)
        lines.append(json.dumps(files.finite(shown), ensure_ascii=False))
  return ''.join(f'{line}\n' for line in lines)
