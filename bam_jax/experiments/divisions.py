"""Records which rows of a training file are a task's development rows.

`DIR/divisions/TASK.json` holds the inputs of the division and the indices of
the development rows. If the training file changed after a run was trained, a
new division could choose rows that the run was trained on. So a changed
training file raises an error.
"""

from collections.abc import Mapping
import dataclasses
import itertools
import logging
from pathlib import Path

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import files
from bam_jax import schema
from bam_jax.data import sources
from bam_jax.tasks import task as task_lib

# A division gets a warning if its number of development rows differs from the
# requested number by more than this share of the requested number.
_MOST_OFF = 0.2
_REMEDY = 'restore what it was, or choose another --workdir'


def recorded(
  tasks: task_lib.TaskTable, paths: Mapping[str, Path]
) -> dict[str, list[int]]:
  """Returns task -> indices of its recorded development rows.

  These rows stay the task's development rows, even if a new draw would choose
  other rows. `paths` maps each task that a run has trained on to the path of
  the task's record. Other tasks, and tasks without a division or a record, are
  left out.

  Raises:
    errors.UserError: a record is damaged.
  """
  found = {}
  for task in tasks.tasks:
    path = paths.get(task.name)
    if path and task.tables[task.train_split].division and path.exists():
      rows = files.read_json(path, _REMEDY).get('dev')
      if not isinstance(rows, list) or not {*map(type, rows)} <= {int}:
        raise errors.UserError(f'{path}: has no list of row numbers; {_REMEDY}')
      found[task.name] = rows
  return found


def add(
  tasks: task_lib.TaskTable, found: Mapping[str, list[int]]
) -> task_lib.TaskTable:
  """Returns the tasks with the development rows that `recorded` returned."""
  return task_lib.TaskTable(
    tuple(
      _with_rows(task, frozenset(found[task.name]))
      if task.name in found
      else task
      for task in tasks.tasks
    )
  )


def without_record(task: task_lib.Task) -> task_lib.Task:
  """Returns a task whose development rows are drawn anew, for other files."""
  return _with_rows(task, None)


def _with_rows(
  task: task_lib.Task, rows: frozenset[int] | None
) -> task_lib.Task:
  tables = {}
  for split, table in task.tables.items():
    if table.division:
      division = table.division._replace(recorded=rows)
      table = dataclasses.replace(table, division=division)
    tables[split] = table
  return dataclasses.replace(task, tables=tables)


def check(
  task: task_lib.Task,
  data: config_lib.DataConfig,
  path: Path,
  is_final: bool = True,
) -> dict[str, list[task_lib.Example]]:
  """Writes the record of a task's division, or checks an existing record.

  The record is final (`is_final`) once a run has trained on the task. The
  current rows must match a final record. Any other record is replaced.

  Returns:
    Split -> examples, for the training and the dev split, so that the caller
    need not read the file again. Empty for a task that has a dev file.

  Raises:
    errors.UserError: the rows can't be read; or a final record is damaged, or
      belongs to another division or other rows.
  """
  dev = task.dev_splits[0]
  division = task.tables[dev].division
  if division is None:
    return {}
  train_rows, dev_rows = sources.read_divided(task, data)
  found = {
    'dev_share': division.share,
    'dev_seed': division.seed,
    'dev_group': task.tables[dev].group,
    'train_rows': len(train_rows),
    'dev_rows': len(dev_rows),
    'rows': sources.rows_digest(itertools.chain(train_rows, dev_rows)),
    'dev': [task_lib.row_index(row.uid) for row in dev_rows],
  }
  if not path.exists() or not is_final:
    _warn_of_share(task.name, division.share, len(dev_rows), len(train_rows))
    files.write_json(path, found)
    return {task.train_split: train_rows, dev: dev_rows}
  before = files.read_json(path, _REMEDY)
  changed = [key for key, value in found.items() if before.get(key) != value]
  if not changed:
    return {task.train_split: train_rows, dev: dev_rows}
  key = changed[0]
  what = f'{key} {schema.describe_change(before.get(key), found[key])}'
  if key in ('rows', 'dev'):
    what = 'texts or labels of the training file have changed'
  raise errors.UserError(
    f'{path}: the development rows of {task.name} were chosen with other rows'
    f' or settings: {what}; {_REMEDY}'
  )


def _warn_of_share(name: str, share: float, dev: int, train: int) -> None:
  """Logs a warning if there are far more or fewer dev rows than requested."""
  asked = share * (dev + train)
  if abs(dev - asked) > max(_MOST_OFF * asked, 1):
    logging.warning(
      '%s: %s of %s rows are development rows (%.1f%%), where dev_share=%g asks'
      ' for %.1f%%: rows of equal texts, or of one group, stay on one side;'
      ' give another share, or a dev file',
      *(name, f'{dev:,}', f'{dev + train:,}', 100 * dev / (dev + train)),
      *(share, 100 * share),
    )
