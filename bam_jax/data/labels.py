"""Finds the labels of tasks declared without labels, and saves their order.

The labels come from the training rows. They are written to
`WORKDIR/labels/TASK.json` after all rows were read. Once a run has been trained
on the task, the labels come from that file, so that new rows cannot change
which output belongs to which label.
"""

from collections import Counter
from collections.abc import Collection, Mapping
import dataclasses
import logging
from pathlib import Path

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import files
from bam_jax import plain_text
from bam_jax.data import registry
from bam_jax.data import sources
from bam_jax.tasks import joined_labels
from bam_jax.tasks import raw_values
from bam_jax.tasks import task as task_lib

# Maximum number of different labels. A column with more of them probably holds
# texts or numbers, not labels.
_MOST = 1000

# Beginnings of a list that JSON or Python wrote into a cell.
_LISTS = ('["', "['")
# An error is raised if more than this share of the labels look like several
# labels joined into one.
_JOINED_SHARE = 0.2

# Task name -> label -> number of training rows (for tagging, number of words)
# that have the label. The labels are in the order of the outputs. The number is
# None if the labels were read from the work directory.
Found = Mapping[str, Mapping[str, int | None]]


def find(
  tasks: task_lib.TaskTable,
  data: config_lib.DataConfig,
  workdir: Path | None = None,
  learnt: Collection[str] = (),
  is_strict: bool = True,
) -> Found:
  """Returns the labels of each task that is declared without labels.

  The labels of a task in `learnt` are read from the work directory, if it has
  saved them. All other labels are collected from the training rows and sorted:
  by value if all of them are whole numbers, otherwise by code points. The first
  few labels of each task are logged with their counts.

  Args:
    tasks: from `registry.resolve`.
    data: where the training rows are.
    workdir: the work directory, which may hold saved labels.
    learnt: names of the tasks that runs of the work directory were trained on.
    is_strict: True: a row without a label raises an error; False: such rows are
      ignored.

  Raises:
    errors.UserError: the training rows can't be read, they have too few or too
      many labels, or the file with the saved labels is damaged.
  """
  found = {}
  for task in tasks.tasks:
    if task.labels or not task.kind.infers_labels:
      continue
    if workdir is not None and task.name in learnt:
      path = _path(workdir, task.name)
      if path.exists():
        found[task.name] = dict.fromkeys(_read(path))
        continue
    counts = _count(task, data, is_strict)
    labels = _sort(counts)
    found[task.name] = {label: counts[label] for label in labels}
    errors.raise_first(
      f'config.custom_tasks.{task.name}{mistake}; the labels are those of the'
      ' training rows: change the rows, or give labels'
      for mistake in registry.label_mistakes(
        task.kind, tuple(labels), task.scale, task.metrics
      )
    )
    logging.info(
      '%s: %s labels of the training rows, in the order of the outputs: %s',
      task.name,
      f'{len(labels):,}',
      errors.some(f'{label!r} ({counts[label]:,})' for label in labels),
    )
  return found


def add(
  tasks: task_lib.TaskTable, found: Found, workdir: Path | None = None
) -> task_lib.TaskTable:
  """Adds the labels that `find` returned to the tasks; returns a new table."""
  new = []
  for task in tasks.tasks:
    if task.name in found:
      remedy = (
        'these are the labels of the training rows; fix the row, or give labels'
      )
      if _is_kept(found[task.name]):
        remedy = (
          f'these were found when {_path(workdir, task.name)} was written, and'
          ' runs keep them; fix the row, or choose another --workdir'
        )
      labels = tuple(found[task.name])
      task = dataclasses.replace(task, labels=labels, labels_remedy=remedy)
    new.append(task)
  return task_lib.TaskTable(tuple(new))


def keep(found: Found, workdir: Path) -> None:
  """Saves the labels that came from training rows, with their counts.

  Labels that were read from the work directory are not written again.
  """
  for name, rows in found.items():
    if not _is_kept(rows):
      path, content = _path(workdir, name), {'labels': [*rows], 'rows': rows}
      files.write_json(path, content)
      logging.info('%s: has all labels of %s, with their counts', path, name)


def _is_kept(rows: Mapping[str, int | None]) -> bool:
  """Whether the labels of a task were read from the work directory."""
  return None in rows.values()


def _path(workdir: Path, task: str) -> Path:
  return workdir / 'labels' / f'{task}.json'


def _count(
  task: task_lib.Task, data: config_lib.DataConfig, is_strict: bool = True
) -> Counter[str]:
  """Counts the labels of the training rows, or the tags of their words."""
  counts: Counter[str] = Counter()
  # Labels from text cells, for `_check_separator`. A label that is a list needs
  # no separator.
  of_texts: set[str] = set()
  split = task.train_split
  for where, value in sources.read_labels(task, split, data):
    names = task.kind.label_names(task, value)
    missing = [name for name in names if raw_values.is_missing(name)]
    if missing and is_strict:
      remedy = raw_values.no_label_remedy(task, missing[0])
      raise errors.UserError(
        f'{where}: {missing[0]!r} looks like a missing label; fix the row, or,'
        ' if it is a label, list all labels in'
        f' config.custom_tasks.{task.name}.labels{remedy}'
      )
    counts.update(name for name in names if name not in missing)
    if isinstance(value, str):
      of_texts.update(names)
      if task.kind.takes_list and value.startswith(_LISTS):
        raise errors.UserError(
          f'{where}: {value!r} is a list in a cell; write its labels with'
          f' {task.separator!r} between them, or the rows as JSON lines'
        )
    if len(counts) > _MOST:
      name = sources.Source(task, split, data).name
      _check_separator(task, of_texts, name)
      raise errors.UserError(
        f'{name}: the column {task.tables[split].label!r} has more than'
        f' {_MOST:,} different labels; name the column of the labels in'
        f' config.custom_tasks.{task.name}.label, or list them all in .labels'
      )
  _check_separator(task, of_texts, sources.Source(task, split, data).name)
  return counts


def _check_separator(
  task: task_lib.Task, labels: Collection[str], name: str
) -> None:
  """Raises if many of the labels look like several labels joined into one."""
  if not task.kind.takes_list:
    return
  mark, joined = joined_labels.find_joined(sorted(labels))
  if len(joined) > _JOINED_SHARE * len(labels):
    raise errors.UserError(
      f'{name}: {len(joined):,} of {len(labels):,} labels are several labels'
      f' each, joined by {mark!r}: {errors.some_quoted(joined)}; set'
      f' config.custom_tasks.{task.name}.separator={mark!r}, or give labels if'
      ' each is one'
    )


def _sort(labels: Mapping[str, int]) -> list[str]:
  by_name = sorted(labels)
  try:
    return sorted(by_name, key=plain_text.parse_integer)
  except ValueError:
    return by_name


def _read(path: Path) -> list[str]:
  """Reads the labels that were saved in a work directory."""
  remedy = 'restore it, or remove it and choose another --workdir'
  labels = files.read_json(path, remedy).get('labels')
  if (
    not labels
    or not isinstance(labels, list)
    or not all(isinstance(label, str) for label in labels)
  ):
    raise errors.UserError(f'{path}: has no list of labels; {remedy}')
  return labels
