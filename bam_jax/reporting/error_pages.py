"""Builds the error analysis section of report.html, as tables."""

from collections.abc import Mapping, Sequence
import math
from typing import NamedTuple

from bam_jax.reporting import error_rows
from bam_jax.reporting import table_formats
from bam_jax.reporting import words
from bam_jax.tasks import task as task_lib

_SHOWN_ROWS = 10
_SHOWN_PAIRS = 10
# With more classes, the most confused pairs are shown instead of a matrix.
_MOST_CLASSES = 10
_MOST_LETTERS = 400  # Most characters shown of a text or a value.
_MOST_WORDS = 6  # Most words of a row that are shown with their tags.
# Reason -> the labels and predictions that its table shows.
_COLUMNS = {
  error_rows.WRONG: ('gold', 'predicted', 'teacher'),
  error_rows.DISAGREEMENT: ('gold', 'predicted', 'teacher'),
  error_rows.LABEL: ('gold', 'teacher'),
}


class Section(NamedTuple):
  """The error analysis section.

  Attributes:
    note: introduction.
    parts: title of each task's part -> the tables in this part. For a table
      without rows, only the table's title and note are shown.
  """

  note: str
  parts: Mapping[str, Sequence[table_formats.Table]]


def section(
  analysis: error_rows.Analysis, tasks: task_lib.TaskTable, place: str
) -> Section:
  """Builds the error analysis section.

  `place` is `config.plan.report_texts`. The tables show the texts of the rows
  only if `place` is `page`.
  """
  sentences = []
  if analysis.tasks:
    about = words.text(
      'errors.note',
      student=words.label(analysis.student),
      seed=analysis.seed,
    )
    most = f'{error_rows.MOST_ROWS:,}'
    sentences += [about, words.text(f'errors.texts_{place}', most=most)]
  if analysis.missing:
    missing = [f'{task} ({why})' for task, why in analysis.missing.items()]
    about = words.text('errors.missing', missing='; '.join(missing))
    sentences.append(about)
  return Section(
    ' '.join(sentences),
    dict(
      _part(analysis, tasks[name], found, place == 'page')
      for name, found in analysis.tasks.items()
    ),
  )


def _part(
  analysis: error_rows.Analysis,
  task: task_lib.Task,
  found: error_rows.TaskErrors,
  has_texts: bool,
) -> tuple[str, list[table_formats.Table]]:
  wrong, count = found.counts[error_rows.WRONG]
  title = f'{task.name}: {wrong:,} of {count:,} dev rows are wrong'
  if task.kind.has_scale:
    title = f'{task.name}: the largest errors on {count:,} dev rows'
  parts = []
  if found.confusions:
    parts.append(_confusions(task, found.confusions))
  for reason in _COLUMNS:
    if reason in found.missing:
      heading = words.text(f'errors.{_key(task, reason)}')
      why = words.text('errors.none', why=found.missing[reason])
      parts.append(table_formats.Table('error-rows', heading, why, [], [], 0))
    else:
      parts.append(_rows(analysis, task, found, reason, has_texts))
  return title, parts


def _confusions(
  task: task_lib.Task, found: Mapping[tuple[str, str], int]
) -> table_formats.Table:
  """Returns the confusion matrix, or the most confused pairs of labels."""
  title = words.text('errors.confusions')
  over = words.text('errors.over_words') if task.kind.of_words else ''
  has_matrix = not task.kind.decides_each_label
  if has_matrix and len(task.labels) <= _MOST_CLASSES:
    rows = [
      [
        gold,
        *(
          table_formats.Cell(
            str(found.get((gold, label), 0)), is_best=gold == label
          )
          for label in task.labels
        ),
      ]
      for gold in task.labels
    ]
    header = [words.text('errors.corner'), *task.labels]
    note = words.text('errors.matrix') + over
    return table_formats.Table('confusions', title, note, header, rows, 1)
  totals: dict[str, int] = {}
  for (gold, _), count in found.items():
    totals[gold] = totals.get(gold, 0) + count
  pairs = [entry for entry in found.items() if entry[0][0] != entry[0][1]]
  pairs.sort(key=lambda entry: (-entry[1], entry[0]))
  rows = [
    [
      gold,
      predicted,
      f'{count:,}',
      words.NOTHING
      if gold == error_rows.NO_LABEL
      else words.number(100 * count / totals[gold]),
    ]
    for (gold, predicted), count in pairs[:_SHOWN_PAIRS]
  ]
  header = ['gold', 'predicted', 'times', '% of gold']
  note = words.text('errors.pairs') + over
  return table_formats.Table('confusions', title, note, header, rows, 2)


def _rows(
  analysis: error_rows.Analysis,
  task: task_lib.Task,
  found: error_rows.TaskErrors,
  reason: str,
  has_texts: bool,
) -> table_formats.Table:
  """Returns a table of the first `_SHOWN_ROWS` rows listed for one reason."""
  count, among = found.counts[reason]
  columns = list(_COLUMNS[reason])
  # Without teacher predictions, the table of wrong rows has no teacher column.
  if error_rows.DISAGREEMENT in found.missing and reason == error_rows.WRONG:
    columns.remove('teacher')
  measure = 'error' if task.kind.has_scale else 'confidence'
  teacher = words.label(analysis.teacher)
  names = {'gold': 'gold', 'predicted': words.label(analysis.student)}
  names['teacher'] = teacher
  if reason == error_rows.LABEL:
    names['teacher'] = 'its teachers'
  rows, text_names = [], {}
  for row in found.rows[reason][:_SHOWN_ROWS]:
    texts = row['texts'] if has_texts else {}
    text_names |= dict.fromkeys(texts)
    shown = row if has_texts else error_rows.without_texts(task, row)
    values = _values(task, [shown[key] for key in columns], texts)
    factor, form = (1, '.2f') if task.kind.has_scale else (100, '.1f')
    number = None if math.isnan(row[measure]) else factor * row[measure]
    rows.append(
      [
        f'{row["split"]}/{row["row"]}',
        *map(_cut, values),
        words.number(number, form),
        *map(_cut, texts.values()),
      ]
    )
  header = ['row', *(names[key] for key in columns), measure, *text_names]
  key = _key(task, reason)
  note = words.text(
    f'errors.{key}_note', count=f'{count:,}', among=f'{among:,}'
  )
  if rows and all(row[len(columns) + 1] == words.NOTHING for row in rows):
    note += words.text('errors.no_confidence')
  title = words.text(f'errors.{key}')
  return table_formats.Table('error-rows', title, note, header, rows, 1)


def _key(task: task_lib.Task, reason: str) -> str:
  return f'{reason}_scores' if task.kind.has_scale else reason


def _values(
  task: task_lib.Task, values: Sequence[object], texts: Mapping[str, str]
) -> list[str]:
  """Formats labels for comparison; shows only the tags that differ."""
  if task.kind.of_words:
    tags = list(zip(*values, strict=True))
    places = [place for place, each in enumerate(tags) if len({*each}) > 1]
    own = next(iter(texts.values())).split(' ') if texts else range(len(tags))
    more = ', …' if len(places) > _MOST_WORDS else ''
    return [
      ', '.join(f'{own[i]}: {value[i]}' for i in places[:_MOST_WORDS]) + more
      for value in values
    ]
  return [_value(value) for value in values]


def _value(value: object) -> str:
  if isinstance(value, float):
    return words.number(value, '.2f')
  if isinstance(value, str):
    return value
  return ', '.join(value) if value else words.NOTHING


def _cut(text: str) -> str:
  return text if len(text) <= _MOST_LETTERS else f'{text[:_MOST_LETTERS]}…'
