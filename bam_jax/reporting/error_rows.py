"""Finds rows that a model gets wrong, and labels that its teachers contradict.

The functions here only use the raw rows and predictions that they are given.
Outputs are interpreted by methods of the task's kind: `decided`,
`contradiction`, `label_value`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
import json
import math
from typing import NamedTuple

from bam_jax import files
from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import task as task_lib

# Why a row is listed. WRONG: the model is wrong. DISAGREEMENT: the model and
# its teacher predict different labels. LABEL: teachers that were not trained on
# the row contradict its label.
WRONG, DISAGREEMENT, LABEL = 'wrong', 'disagreement', 'label'
# Most rows that are kept per reason and task: those with the most confident
# predictions.
MOST_ROWS = 1000
# Placeholder for a missing label, in tasks whose rows may have several labels.
NO_LABEL = '—'

# A row of errors.jsonl.
Row = dict[str, object]


class Rows(NamedTuple):
  """N raw rows of one split, with parsed labels."""

  split: str
  numbers: Sequence[int]  # Row numbers, as in the uids.
  labels: Sequence[task_lib.Label]
  texts: Sequence[Mapping[str, str]]  # Field name -> text.


class TaskErrors(NamedTuple):
  """The error analysis of one task.

  Attributes:
    rows: reason -> the rows found, at most `MOST_ROWS`, the most confident
      first. A reason that could not be searched for is left out.
    counts: reason -> number of rows found, and number of rows searched.
    confusions: (gold, predicted) -> count on dev; empty for kinds without
      classes.
    missing: reason that could not be searched for -> why not.
  """

  rows: Mapping[str, list[Row]]
  counts: Mapping[str, tuple[int, int]]
  confusions: Mapping[tuple[str, str], int]
  missing: Mapping[str, str]


class Analysis(NamedTuple):
  """The error analysis of one model of each task.

  Attributes:
    student: variant of the models.
    seed: seed of the models.
    teacher: variant of the teachers; empty if the student has no teacher.
    tasks: task -> its analysis.
    missing: task -> why it has no analysis.
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
  """Finds which of N rows to list for one reason.

  Args:
    task: the task.
    rows: the N rows.
    reason: `WRONG`, `DISAGREEMENT` or `LABEL`.
    decided: the model's predictions for the rows; for `LABEL`, the teachers'
      predictions.
    teacher: the teacher's predictions for the rows, if known. `DISAGREEMENT`
      needs them.

  Returns:
    At most `MOST_ROWS` rows, and the number of all rows found. The rows with
    the most confident predictions come first; for scores, the rows with the
    largest errors.
  """
  against = rows.labels
  if reason == DISAGREEMENT:
    against = [each.label for each in teacher]
  found = []
  for place, (each, label) in enumerate(zip(decided, against, strict=True)):
    strength = task.kind.contradiction(task, each, label)
    if strength is not None:
      found.append((strength, place))
  # Rows without a known confidence come last, in their original order.
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
  """Counts the pairs of gold and predicted label over all N rows.

  Tags are counted per word. If rows may have several labels, a label that is
  only gold or only predicted is paired with `NO_LABEL`. The result is empty for
  kinds without classes.
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
  """Returns a row without its texts.

  Answers are parts of a text, so they are replaced by `an answer` or
  `no answer`.
  """
  result = {key: value for key, value in row.items() if key != 'texts'}
  if task.kind.holds == 'answers':
    for key in ('gold', 'predicted', 'teacher'):
      if row[key] is not None:
        result[key] = 'an answer' if row[key] else 'no answer'
  return result


def to_json_lines(
  analysis: Analysis, tasks: task_lib.TaskTable, has_texts: bool
) -> str:
  """Returns the content of errors.jsonl; nan becomes null."""
  lines = []
  for name, found in analysis.tasks.items():
    for rows in found.rows.values():
      for row in rows:
        shown = row if has_texts else without_texts(tasks[name], row)
        lines.append(json.dumps(files.finite(shown), ensure_ascii=False))
  return ''.join(f'{line}\n' for line in lines)
