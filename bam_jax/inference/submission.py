"""Writes predictions of test files: TSV files, and a GLUE submission (a zip).

In a submission, the majority label of the training rows can replace a task's
predictions. This is useful for WNLI: its dev set repeats sentences of its
training set with the opposite label, so a trained model scores worse on the
test set than the majority label. Devlin et al. (2019) also submitted the
majority label.
"""

from collections.abc import Mapping, Sequence
import io
from pathlib import Path
from types import MappingProxyType
import zipfile

import numpy as np

from bam_jax import errors
from bam_jax import escape
from bam_jax import files
from bam_jax.inference import own_file
from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import task as task_lib

# A fixed time stamp, so that equal predictions make identical zip files.
_EPOCH = (1980, 1, 1, 0, 0, 0)

# Task -> test split -> uid -> prediction as text, ordered as in the test file.
Predictions = Mapping[str, Mapping[str, Mapping[str, str]]]


def write_tsv(
  path: Path,
  task: task_lib.Task,
  predictions: Sequence[kind_lib.Prediction],
  kept: Mapping[str, Mapping[str, object]] = MappingProxyType({}),
) -> None:
  r"""Writes a line `uid<TAB>prediction<TAB>probabilities...` for each row.

  The task's kind decides which probability columns there are, if any. `kept`
  holds additional columns, uid -> column -> value, which are written after the
  uid. A tab or a line break inside a label is written as `\t` or `\n`.

  Raises:
    errors.UserError: the file can't be written.
  """
  columns = list(dict.fromkeys(n for row in kept.values() for n in row))
  names = task.kind.prediction_columns(task, columns)
  lines = [escape.tsv(('uid', *columns, 'prediction', *names))]
  for each in predictions:
    own = kept.get(each.uid, {})
    cells = (own_file.cell(own.get(name)) for name in columns)
    lines.append(escape.tsv((each.uid, *cells, *each.as_fields())))
  files.write_text(path, '\n'.join(lines) + '\n')


def write_by_id(
  path: Path,
  task: task_lib.Task,
  ids: Mapping[str, str],
  predictions: Sequence[kind_lib.Prediction],
) -> None:
  """Writes predictions as a JSON object, id -> prediction, for a scorer.

  SQuAD's official scorer reads such a file. If the model predicts that a
  question has no answer, an empty string is written. `ids` is uid -> id, for
  all rows of a test file.

  Raises:
    errors.UserError: two rows have the same id, or the file can't be written.
  """
  _, value = task.kind.by_id
  found: dict[str, object] = {}
  for each in predictions:
    key = ids[each.uid]
    if key in found:
      raise errors.UserError(
        f'{path}: the id {key!r} of {each.uid} is used twice; make the ids of'
        ' the test file differ'
      )
    found[key] = each.said[value] or ''
  files.write_json(path, found)


def write(
  path: Path, tasks: task_lib.TaskTable, predictions: Predictions
) -> None:
  """Checks predictions and writes the GLUE submission, a zip file.

  Writes nothing if no task is a GLUE task.

  Raises:
    errors.UserError: GLUE would refuse a prediction, a row of a test file has
      no prediction, or the zip can't be written.
  """
  data = io.BytesIO()
  with zipfile.ZipFile(data, 'w') as archive:
    for name, splits in predictions.items():
      task = tasks[name]
      for split, texts in splits.items():
        if file := task.tables[split].submission:
          entry = zipfile.ZipInfo(file, _EPOCH)
          rows = _rows(f'{path}: {file}', task, texts)
          archive.writestr(entry, rows, zipfile.ZIP_DEFLATED)
    is_empty = not archive.namelist()
  if not is_empty:
    files.write_bytes(path, data.getvalue())


def _rows(where: str, task: task_lib.Task, texts: Mapping[str, str]) -> str:
  """Returns the text of a submission's TSV file: a header, then the rows."""
  lines = ['index\tprediction']
  for number, (uid, text) in enumerate(texts.items()):
    # The index counts all rows of the raw file, including malformed rows.
    if uid.rpartition('/')[2] != str(number):
      raise errors.UserError(
        f'{where}: row {number} has no prediction because it was skipped as'
        ' malformed; correct that row of the test file'
      )
    lines.append(f'{number}\t{text}')
    try:
      task.kind.parse(task, text, '')
    except errors.UserError:
      raise errors.UserError(
        f'{where}:{number + 2}: {lines[-1]!r} is not a valid prediction for'
        f' {task.name}; predict it again with a model of that task'
      ) from None
  return '\n'.join(lines) + '\n'


def check_majority(names: Sequence[str], tasks: task_lib.TaskTable) -> None:
  """Checks the tasks whose majority label will be submitted.

  Raises:
    errors.UserError: a name is not the name of a task, or the task has no
      majority label or no file in a submission.
  """
  for name in names:
    task = tasks[name] if name in tasks.index else None
    if task is None:
      reason = f'the plan has only the tasks {", ".join(tasks.names)}'
    elif not task.kind.one_class:
      reason = f'a {task.kind} task has no majority label'
    elif not any(task.tables[split].submission for split in task.test_splits):
      reason = 'the task has no file in a GLUE submission'
    else:
      continue
    raise errors.UserError(f'--majority={name}: {reason}; leave it out')


def majority(
  task: task_lib.Task,
  train: kind_lib.Rows,
  by_split: Mapping[str, Mapping[str, str]],
) -> dict[str, dict[str, str]]:
  """Replaces each prediction by the most frequent training label.

  `check_majority` must have accepted the task. If several labels are equally
  frequent, the first of them in `task.labels` is used.

  Args:
    task: the task.
    train: the task's training rows.
    by_split: test split -> uid -> prediction.

  Returns:
    A copy of `by_split` in which each prediction is that label.

  Raises:
    errors.UserError: no test row of the task was predicted.
  """
  if not by_split:
    raise errors.UserError(
      f'--majority={task.name}: no test row of this task was predicted; add its'
      ' test file to config.data.dir, or choose a --group that has the task'
    )
  counts = np.bincount(task.kind.gold(task, train), minlength=len(task.labels))
  label = task.labels[int(np.argmax(counts))]
  return {split: dict.fromkeys(uids, label) for split, uids in by_split.items()}
