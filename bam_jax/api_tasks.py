"""Tasks of the Python API, whose rows may be frames or lists instead of files.

Rows become JSON lines in `DIR/data/TASK/SPLIT.jsonl`. These files are then used
as the files of custom tasks, exactly as on the command line.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import difflib
import os
from pathlib import Path

import pandas as pd

from bam_jax import errors
from bam_jax import fields
from bam_jax import trainer_names

# A pandas frame; a value that `pandas.DataFrame` accepts, such as a list of
# dicts; or one or several files, as in a config.
Rows = (
  pd.DataFrame
  | Sequence[Mapping[str, object]]
  | Mapping[str, Sequence[object]]
  | str
  | os.PathLike
  | Sequence[str | os.PathLike]
)

# Splits of a task that may be given as rows, and the format in which rows are
# written. Files of train, dev and test have the task's format. The format of an
# unlabelled file follows from its name.
_SPLITS = ('train', 'dev', 'test', 'unlabelled')
_FORMAT = 'jsonl'


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Task(fields.TaskConfig):
  """A task: its rows, and the same fields as a custom task in a config.

  `docs/guides/own_tasks.md` explains the fields. `train`, `dev`, `test` and
  `unlabelled` may be rows instead of files. A custom task in a config has no
  field `unlabelled`. If there is one text column, `text` may be a string.
  """

  train: Rows = ''
  dev: Rows | None = ''
  test: Rows | None = ''
  unlabelled: Rows | None = ''
  text: str | tuple[str, ...] = ()

  def __new__(cls, **given: object) -> 'Task':
    """Raises a `UserError` for an argument that is not a field of tasks."""
    names = [field.name for field in dataclasses.fields(cls)]
    for name in (name for name in given if name not in names):
      (near,) = difflib.get_close_matches(name, names, 1, 0.0)
      hint = trainer_names.describe_task_field(name)
      raise errors.UserError(
        f'bam_jax.Task: {name!r} is not a field'
        + (hint or f'; the nearest is {near!r}')
      )
    return super().__new__(cls)


def add_tasks(
  values: dict, tasks: Mapping[str, Task], folder: Path
) -> dict[Path, str]:
  """Adds tasks to a config's values; returns path -> text of files to write."""
  written: dict[Path, str] = {}
  for name, task in tasks.items():
    where = f'config.custom_tasks.{name}'
    if not isinstance(task, Task):
      raise errors.UserError(
        f'{where}: a {type(task).__name__} is not a task; give a bam_jax.Task'
      )
    own = {**vars(task)}
    if isinstance(task.text, str):
      own['text'] = (task.text,)
    given = {split: _find_files(own[split]) for split in _SPLITS}
    rows = [split for split in _SPLITS if given[split] is None]
    if {*rows} & {*_SPLITS[:3]} and task.format != _FORMAT:
      for split in filter(given.get, _SPLITS[:3]):
        raise errors.UserError(
          f'{where}: {rows[0]} is given as rows, but {split} as a file of'
          f' another format, {task.format}; read that file into a frame too,'
          f' or give format={_FORMAT!r} if it has JSON lines'
        )
      own['format'] = _FORMAT
    for split in rows:
      path = folder / name / f'{split}.{_FORMAT}'
      written[path] = to_json_lines(own[split], f'{where}.{split}')
      given[split] = os.path.abspath(path)
    own |= given
    if more := own.pop('unlabelled'):
      values['data']['unlabelled'] += (f'{name}={more}',)
    values['custom_tasks'][name] = own
  values['tasks'] = tuple(dict.fromkeys((*values['tasks'], *tasks)))
  return written


def _find_files(rows: Rows | None) -> str | tuple[str, ...] | None:
  """Returns a split's files, '' if there are none, or None if it has rows."""
  if rows is None:
    return ''
  if isinstance(rows, str | os.PathLike):
    return os.fspath(rows)
  if isinstance(rows, list | tuple) and all(
    isinstance(each, str | os.PathLike) for each in rows
  ):
    return tuple(map(os.fspath, rows)) or None
  return None


def to_json_lines(rows: Rows, where: str) -> str:
  """Returns rows as JSON lines; raises a `UserError` if it cannot."""
  try:
    if not isinstance(rows, pd.DataFrame):
      rows = pd.DataFrame(rows, dtype=object)  # Integers stay integers.
    text = rows.to_json(
      orient='records',
      lines=True,
      force_ascii=False,
      date_format='iso',
      double_precision=15,
    )
  except (OverflowError, TypeError, ValueError) as e:
    raise errors.UserError(
      f'{where}: cannot be written as JSON lines ({e}); give a frame of texts,'
      ' numbers and lists'
    ) from e
  if rows.empty:
    raise errors.UserError(f'{where}: has no rows; give at least one')
  return text
