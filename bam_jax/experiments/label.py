"""The command `label`: logits of finished runs for students of other plans."""

import dataclasses
import functools
import logging
from pathlib import Path

import numpy as np

from bam_jax import errors
from bam_jax import schema
from bam_jax.data import prepare
from bam_jax.data import shards
from bam_jax.data import sources
from bam_jax.distillation import external
from bam_jax.distillation import logit_sets
from bam_jax.experiments import background as background_lib
from bam_jax.experiments import labelling
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import run_data
from bam_jax.experiments import runs as runs_lib
from bam_jax.runtime import processes
from bam_jax.tasks import task as task_lib


def label(
  plan: plan_lib.Plan, group: str | None, output: Path, data_dir: str | None
) -> None:
  """Writes the logits of a group of runs as external logits, `OUTPUT/TASK/`.

  Rows without labels go to `OUTPUT/TASK.unlabelled/`. Sets of the same runs
  that are there already are kept.

  Args:
    plan: the plan.
    group: see `Plan.find_group`.
    output: the folder that `config.distill.logits` of the other plan names.
    data_dir: `config.data.dir` of that plan; None: it has the same rows.

  Raises:
    errors.UserError: see `Plan.find_group`; or the runs label a fold alone,
      rows can't be read, a set of something else is in the way, a logit is not
      finite, or the folder can't be written.
  """
  _, runs = plan.find_group(group)
  if data_dir is None:
    plan.open_runs(plan.runs, runs)
    features = plan.features
  else:
    features = _prepare_other_rows(plan, data_dir, runs)
  processes.run_on_first(_make_directory, output)
  with background_lib.Background() as background:
    for run in runs:
      if run.fold:
        raise errors.UserError(
          f'--group={run.group}: was trained to label {run.fold} alone; name a'
          ' group of one of config.variants'
        )
      _label_all(plan, run, features, output, background)
  logging.info('logits: %s', output)


def _label_all(
  plan: plan_lib.Plan,
  run: runs_lib.Run,
  features: run_data.Features,
  output: Path,
  background: background_lib.Background,
) -> None:
  """Writes the sets of one run that are not there."""
  parameters = plan.workspace.read_record(run.name)['parameters']
  get_params = functools.cache(functools.partial(plan.restore_params, run.name))
  teacher = f'{run.name} of {plan.config.name}, from {plan.encoder.description}'
  for name in run.tasks:
    task = plan.tasks[name]
    for split in (task.train_split, task_lib.UNLABELLED):
      rows = features[name].get(split)
      if rows is None:
        continue
      target = logit_sets.LogitSet(
        output / logit_sets.folder_name(name, split),
        external.fingerprint(
          task,
          rows.fingerprint['rows'],
          teacher,
          parameters,
          rows.fingerprint,
        ),
      )
      if processes.run_on_first(external.exists, target, len(rows)):
        logging.info('%s: is there already', target.directory)
        continue
      convert = functools.partial(_to_external, task)
      labelling.write_logits(
        plan, run, target, task, rows, get_params(), background, convert
      )


def _to_external(task: task_lib.Task, logits: np.ndarray) -> np.ndarray:
  """External scores are predictions, whichever head computed them."""
  if not task.kind.has_scale:
    return logits
  return task.kind.teacher_probs(logits, 1.0)


def _prepare_other_rows(
  plan: plan_lib.Plan, data_dir: str, runs: list[runs_lib.Run]
) -> dict[str, dict[str, shards.Columns]]:
  """Prepares the training and unlabelled rows that another plan has.

  Args:
    plan: the plan, whose tokenizer is used and whose work directory keeps the
      features.
    data_dir: `config.data.dir` of the other plan.
    runs: whose tasks are prepared.

  Returns:
    Task -> split -> rows.

  Raises:
    errors.UserError: a task's file is not below `data_dir`, or can't be read.
  """
  data = dataclasses.replace(plan.config.data, dir=data_dir)
  # The features of each folder are kept apart.
  folder = schema.digest(str(Path(data_dir).resolve()))[:8]
  result: dict[str, dict[str, shards.Columns]] = {}
  for name in (name for run in runs for name in run.tasks):
    task = plan.tasks[name]
    for split in (task.train_split, task_lib.UNLABELLED):
      table = task.tables.get(split)
      if table is None:
        continue
      is_tfds = sources.source_of(task, split, plan.config.data) == 'tfds'
      if not table.file or is_tfds:
        raise errors.UserError(
          f'--input={data_dir}: the rows of {name} are in no file below'
          ' config.data.dir; leave --input out'
        )
      if Path(table.file).is_absolute():
        raise errors.UserError(
          f'--input={data_dir}: the file of {name} is {table.file} wherever'
          ' config.data.dir is; name it without its folder'
        )
      result.setdefault(name, {})[split] = prepare.prepare(
        task,
        split,
        data,
        plan.encoder.tokenizer,
        plan.workspace.features(name, f'{split}-of-{folder}'),
      )
  return result


def _make_directory(output: Path) -> None:
  """Makes the folder before hours of work are spent on its content."""
  try:
    output.mkdir(parents=True, exist_ok=True)
  except OSError as e:
    raise errors.UserError(
      f'--output={output}: {e.strerror}; give a folder that can be made'
    ) from e
