"""Finds the labels of tasks that give none, and keeps their order in a file.

`DIR/labels/TASK.json` is written once, by the first command that makes a plan.
From then on it decides them, so that no new row moves an output.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
import dataclasses
import logging
from pathlib import Path

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import files
from bam_jax import plain_text
from bam_jax.data import registry
from bam_jax.data import sources
from bam_jax.tasks import task as task_lib

# More different labels are texts or numbers in a column of another meaning.
_MOST = 1000


def find(
  tasks: task_lib.TaskTable,
  data: config_lib.DataConfig,
  workdir: Path | None,
  keeps: bool = True,
) -> dict[str, list[str]]:
  """Returns the labels of each task that gives none, by its name.

  They are those that the work directory keeps, or else those of the training
  rows: in the order of the numbers if all are whole numbers, else in that of
  their code points. What is found is logged with counts, and kept.

  Args:
    tasks: from `registry.resolve`.
    data: where the training rows are.
    workdir: keeps the labels; None: none does.
    keeps: whether labels are written where there are none yet.

  Raises:
    errors.UserError: training rows can't be read, have too few or too many
      labels, or the kept file is damaged.
  """
  found = {}
  for task in tasks.tasks:
    if task.labels or not task.kind.infers_labels:
      continue
    path = None if workdir is None else _path(workdir, task)
    if path is not None and path.exists():
      found[task.name] = _read(path)
      continue
    counts = _count(task, data)
    labels = found[task.name] = _sort(counts)
    errors.raise_first(
      f'config.custom_tasks.{task.name}{mistake}; or give labels'
      for mistake in registry.label_mistakes(
        task.kind, tuple(labels), task.scale, task.metrics
      )
    )
    logging.info(
      '%s: labels of the training rows, in the order of the outputs: %s',
      task.name,
      ', '.join(f'{label} ({counts[label]:,})' for label in labels),
    )
    if path is not None and keeps:
      rows = {label: counts[label] for label in labels}
      files.write_json(path, {'labels': labels, 'rows': rows})
  return found


def add(
  tasks: task_lib.TaskTable,
  found: Mapping[str, Sequence[str]],
  workdir: Path | None,
) -> task_lib.TaskTable:
  """Returns the tasks with the labels that `find` has found."""
  new = []
  for task in tasks.tasks:
    if task.name in found:
      path = '' if workdir is None else str(_path(workdir, task))
      task = dataclasses.replace(
        task, labels=tuple(found[task.name]), labels_file=path
      )
    new.append(task)
  return task_lib.TaskTable(tuple(new))


def _path(workdir: Path, task: task_lib.Task) -> Path:
  return workdir / 'labels' / f'{task.name}.json'


def _count(task: task_lib.Task, data: config_lib.DataConfig) -> Counter[str]:
  """Counts the labels of the training rows, or the tags of their words."""
  counts: Counter[str] = Counter()
  split = task.train_split
  for value in sources.read_labels(task, split, data):
    counts.update(task.kind.label_names(task, value))
    if len(counts) > _MOST:
      name = sources.Source(task, split, data).name
      raise errors.UserError(
        f'{name}: the column {task.tables[split].label!r} has more than'
        f' {_MOST:,} different labels; name the column of the labels, or give'
        f' config.custom_tasks.{task.name}.labels'
      )
  return counts


def _sort(labels: Mapping[str, int]) -> list[str]:
  by_name = sorted(labels)
  try:
    return sorted(by_name, key=plain_text.parse_integer)
  except ValueError:
    return by_name


def _read(path: Path) -> list[str]:
  """Reads the labels that a work directory keeps."""
  remedy = 'restore it, or remove it and choose another --workdir'
  labels = files.read_json(path, remedy).get('labels')
  if not isinstance(labels, list) or not all(
    isinstance(label, str) for label in labels
  ):
    raise errors.UserError(f'{path}: has no list of labels; {remedy}')
  return labels
