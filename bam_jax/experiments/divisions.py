"""Records which rows of a file a task's development rows are.

`DIR/divisions/TASK.json` holds what the division depends on and the indices of
the development rows. With a changed file other rows would be chosen, and rows
that a run was trained on could be among them; so the change is refused.
"""

import itertools
from pathlib import Path

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import files
from bam_jax import schema
from bam_jax.data import sources
from bam_jax.tasks import task as task_lib


def check(
  task: task_lib.Task,
  data: config_lib.DataConfig,
  path: Path,
  is_final: bool = True,
) -> dict[str, list[task_lib.Example]]:
  """Writes the record of a divided task, or compares it with its rows.

  Returns the examples of both splits, so that the file is read once; none for a
  task with a dev file of its own. Unless the record is
  final, which it is once a run has trained on the task, another division
  replaces it.

  Raises:
    errors.UserError: the rows can't be read, the record is damaged, or it is of
      another division or of other rows.
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
    files.write_json(path, found)
    return {task.train_split: train_rows, dev: dev_rows}
  remedy = 'restore what it was, or choose another --workdir'
  before = files.read_json(path, remedy)
  changed = [key for key, value in found.items() if before.get(key) != value]
  if not changed:
    return {task.train_split: train_rows, dev: dev_rows}
  key = changed[0]
  what = f'{key} {schema.describe_change(before.get(key), found[key])}'
  if key in ('rows', 'dev'):
    what = 'texts or labels of the training file have changed'
  raise errors.UserError(
    f'{path}: the development rows of {task.name} were chosen from other rows:'
    f' {what}; {remedy}'
  )
