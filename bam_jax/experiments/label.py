"""The command `label`: writes teacher logits for students of other plans."""

import dataclasses
import logging
from pathlib import Path

from bam_jax import errors
from bam_jax import schema
from bam_jax.data import prepare
from bam_jax.data import shards
from bam_jax.data import sources
from bam_jax.distillation import external
from bam_jax.distillation import logit_sets
from bam_jax.experiments import background as background_lib
from bam_jax.experiments import divisions
from bam_jax.experiments import labelling
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import run_data
from bam_jax.experiments import runs as runs_lib
from bam_jax.runtime import processes
from bam_jax.tasks import task as task_lib


def label(
  plan: plan_lib.Plan, group: str | None, output: Path, data_dir: str | None
) -> None:
  """Writes the logits of a group of runs to `OUTPUT/TASK/`, for other plans.

  Logits of rows without labels go to `OUTPUT/TASK.unlabelled/`. Existing sets
  of the same runs are kept.

  Args:
    plan: the plan of the runs.
    group: name of the group; for None see `Plan.find_group`.
    output: the folder to give as `config.distill.logits` of the other plan.
    data_dir: `config.data.dir` of the other plan; None: the other plan has the
      rows of this plan.

  Raises:
    errors.UserError: there is no such group, or its runs label only one fold; a
      row can't be read, a logit is not finite, or a set can't be written.
  """
  _, runs = plan.find_group(group)
  if runs[0].fold:
    raise errors.UserError(
      f'--group={runs[0].group}: its runs label only {runs[0].fold};'
      ' give a group of a variant in config.variants'
    )
  if data_dir is None:
    plan.open_runs(plan.runs, runs)
    features = plan.features
  else:
    features = _prepare_other_rows(plan, data_dir, runs)
  # The folder is made now, so that a failure comes before hours of labelling.
  try:
    processes.run_on_first(output.mkdir, parents=True, exist_ok=True)
  except OSError as e:
    raise errors.UserError(
      f'--output={output}: {e.strerror}; give a folder that can be made'
    ) from e
  with background_lib.Background() as background:
    for run in runs:
      _label_rows(plan, run, features, output, background)
  logging.info('logits: %s', output)


def _label_rows(
  plan: plan_lib.Plan,
  run: runs_lib.Run,
  features: run_data.Features,
  output: Path,
  background: background_lib.Background,
) -> None:
  """Writes one run's logits for students of other plans, unless they exist."""
  parameters = plan.workspace.read_record(run.name)['parameters']
  params = None
  teacher = f'{run.name} of {plan.config.name}, from {plan.encoder.description}'
  for task in map(plan.tasks.__getitem__, run.tasks):
    for split, rows in features[task.name].items():
      if split in task.dev_splits:
        continue
      made_from = rows.fingerprint
      target = logit_sets.LogitSet(
        output / logit_sets.folder_name(task.name, split),
        external.fingerprint(
          task, made_from['rows'], teacher, parameters, made_from
        ),
      )
      if processes.run_on_first(external.exists, target, len(rows)):
        logging.info('%s: already exists, skipping it', target.directory)
        continue
      params = params or plan.restore_params(run.name)
      labelling.write_logits(
        plan, run, target, task, rows, params, background, is_external=True
      )


def _prepare_other_rows(
  plan: plan_lib.Plan, data_dir: str, runs: list[runs_lib.Run]
) -> dict[str, dict[str, shards.Columns]]:
  """Tokenizes the rows in another data directory for this plan's model.

  Returns task -> split -> features.
  """
  data = dataclasses.replace(plan.config.data, dir=data_dir)
  # Part of a folder name, so that each data directory has its own features.
  folder = schema.digest(str(Path(data_dir).resolve()))[:8]
  result: dict[str, dict[str, shards.Columns]] = {}
  for name in (name for run in runs for name in run.tasks):
    # The recorded rows are those of this plan's files.
    task = divisions.without_record(plan.tasks[name])
    for split in (task.train_split, task_lib.UNLABELLED):
      table = task.tables.get(split)
      if table is None:
        continue
      source = sources.Source(task, split, plan.config.data)
      is_tfds = source.format == 'tfds'
      files = (table.file, *table.more_files)
      if is_tfds or not all(f and not Path(f).is_absolute() for f in files):
        raise errors.UserError(
          f'--input={data_dir}: replaces config.data.dir, but the file of'
          f' {name} is not read from there; remove --input, or set the'
          " task's file to a path below config.data.dir"
        )
      if not Path(data_dir).is_dir():
        raise errors.UserError(
          f'--input={data_dir}: is not a folder; give the folder that takes the'
          ' place of config.data.dir'
        )
      result.setdefault(name, {})[split] = prepare.prepare(
        task,
        split,
        data,
        plan.encoder.tokenizer,
        plan.workspace.features(name, f'{split}-of-{folder}'),
      )
  return result
