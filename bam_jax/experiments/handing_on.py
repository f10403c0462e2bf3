"""What finished runs say of training rows, for the students of other plans."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import logging
from pathlib import Path

import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import schema
from bam_jax.data import features as features_lib
from bam_jax.data import prepare
from bam_jax.data import shards
from bam_jax.data import sources
from bam_jax.distillation import logit_sets
from bam_jax.distillation import outside
from bam_jax.distillation import teachers
from bam_jax.experiments import jobs
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import workspace as workspace_lib
from bam_jax.runtime import processes
from bam_jax.runtime import telemetry
from bam_jax.tasks import task as task_lib
from bam_jax.training import programs as programs_lib


def write(
  output: Path,
  group: Sequence[tuple[plan_lib.Run, Mapping[str, object]]],
  tasks: task_lib.TaskTable,
  features: jobs.Features,
  config: config_lib.Config,
  encoder: str,
  programs: programs_lib.Programs,
  restore: Callable[[str, Mapping[str, object]], Mapping[str, object]],
) -> None:
  """Writes the logit sets of a group of runs, `OUTPUT/TASK/`.

  And `OUTPUT/TASK.unlabelled/` of a task with rows without labels.

  Sets of the same runs that are there are kept.

  Args:
    output: what a student's `config.distill.logits` is to name.
    group: finished runs and their records.
    tasks: the tasks of the plan.
    features: of all of them.
    config: of the plan.
    encoder: what the runs started from, in words.
    programs: the compiled steps.
    restore: name and record of a run -> its last parameters.

  Raises:
    errors.UserError: a run speaks of a part of the rows alone, a set of
      something else is in its place, a logit is not finite, or the folder
      can't be written.
  """
  _make(output)
  for run, record in group:
    if run.fold:
      raise errors.UserError(
        f'--group={run.group}: was trained to label {run.fold} alone; name a'
        ' group of one of config.variants'
      )
    params = functools.cache(functools.partial(restore, run.name, record))
    for name, split in _splits(run, tasks, features):
      task, rows = tasks[name], features[name][split]
      target = logit_sets.LogitSet(
        output / logit_sets.folder(name, split),
        outside.fingerprint(
          task,
          rows.fingerprint['rows'],
          f'{run.name} of {config.name}, from {encoder}',
          record['parameters'],
          rows.fingerprint,
        ),
      )
      if processes.run_on_first(outside.is_there, target, len(rows)):
        logging.info('%s: is there already', target.directory)
        continue
      told = f'{run.name} labels {logit_sets.folder(name, split)}'
      values = _label(told, programs, params(), rows, task, config)
      _write(target, rows, values, task)
  logging.info('logits: %s', output)


def _splits(
  run: plan_lib.Run, tasks: task_lib.TaskTable, features: jobs.Features
) -> Iterator[tuple[str, str]]:
  """Task and split, of training rows and of those without labels."""
  for name in run.tasks:
    yield name, tasks[name].train_split
    if task_lib.UNLABELLED in features[name]:
      yield name, task_lib.UNLABELLED


def rows_of_others(
  data_dir: str,
  tasks: Sequence[task_lib.Task],
  data: config_lib.DataConfig,
  tokenizer: features_lib.Tokenizer,
  workspace: workspace_lib.Workspace,
) -> dict[str, dict[str, shards.Columns]]:
  """The training rows that tasks have elsewhere, as features.

  Args:
    data_dir: stands in for `data.dir`.
    tasks: whose files are below it.
    data: of the plan that is to label them.
    tokenizer: its own.
    workspace: its own, which keeps the features.

  Returns:
    Task -> split -> rows: of training, and those without labels.

  Raises:
    errors.UserError: a task's rows are nowhere below `data.dir`, or can't be
      read.
  """
  here = dataclasses.replace(data, dir=data_dir)
  # Rows of another folder, or changed ones, are other features.
  label = schema.digest(str(Path(data_dir).resolve()))[:8]
  result: dict[str, dict[str, shards.Columns]] = {}
  wanted = [
    (task, split)
    for task in tasks
    for split in (task.train_split, task_lib.UNLABELLED)
    if split in task.tables
  ]
  for task, split in wanted:
    table = task.tables[split]
    if not table.file or sources.source_of(task, split, data) == 'tfds':
      raise errors.UserError(
        f'--input={data_dir}: the rows of {task.name} are in no file below'
        ' config.data.dir; leave --input out'
      )
    if Path(table.file).is_absolute():
      raise errors.UserError(
        f'--input={data_dir}: the file of {task.name} is {table.file} wherever'
        ' config.data.dir is; name it without its folder'
      )
    columns = prepare.prepare(
      task,
      split,
      here,
      tokenizer,
      workspace.features(task.name, f'{split}-of-{label}'),
    )
    result.setdefault(task.name, {})[split] = columns
  return result


def _label(
  told: str,
  programs: programs_lib.Programs,
  params: Mapping[str, object],
  rows: shards.Columns,
  task: task_lib.Task,
  config: config_lib.Config,
) -> np.ndarray:
  """The run's logits on all rows; predictions in place of a score's."""
  with telemetry.progress(told, len(rows), 'examples') as progress:
    _, values = teachers.label(
      programs, params, rows, task, config.packing, None, progress.advance
    )
  if task.kind.has_scale:
    values = task.kind.teacher_targets(
      values, 1.0, config.model.regression_head
    )
  return values


@processes.runs_on_first
def _make(output: Path) -> None:
  """Makes the folder, before hours go into what it is to hold."""
  try:
    output.mkdir(parents=True, exist_ok=True)
  except OSError as e:
    raise errors.UserError(
      f'--output={output}: {e.strerror}; give a folder that can be made'
    ) from e


@processes.runs_on_first
def _write(
  target: logit_sets.LogitSet,
  rows: shards.Columns,
  values: np.ndarray,
  task: task_lib.Task,
) -> None:
  logit_sets.write(
    target,
    list(rows.uids),
    values,
    prepare.label_metadata(task),
    logit_sets.token_lengths(rows, task, logit_sets.rows_of(rows, None)),
  )
