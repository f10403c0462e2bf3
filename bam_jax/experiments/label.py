"""The command `label`: writes logits to train students elsewhere."""

import dataclasses
import functools
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
    group: see `Plan.find_group`.
    output: the folder that `config.distill.logits` of the other plan names.
    data_dir: `config.data.dir` of that plan; None: it has the same rows.

  Raises:
    errors.UserError: see `Plan.find_group`; or the runs label one fold alone, a
      row can't be read, a logit is not finite, or a set can't be written.
  """
  _, runs = plan.find_group(group)
  if runs[0].fold:
    raise errors.UserError(
      f'--group={runs[0].group}: is a teacher of fold {runs[0].fold} only;'
      ' give a group of a variant in config.variants'
    )
  if data_dir is None:
    plan.open_runs(plan.runs, runs)
    features = plan.features
  else:
    features = _prepare_other_rows(plan, data_dir, runs)
  # Before hours of work are spent on its content.
  processes.run_on_first(_make_directory, output)
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
  get_params = functools.cache(functools.partial(plan.restore_params, run.name))
  teacher = f'{run.name} of {plan.config.name}, from {plan.encoder.description}'
  for task in map(plan.tasks.__getitem__, run.tasks):
    for split, rows in features[task.name].items():
      if split not in (task.train_split, task_lib.UNLABELLED):
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
      params = get_params()
      labelling.write_logits(
        plan, run, target, task, rows, params, background, is_external=True
      )


def _prepare_other_rows(
  plan: plan_lib.Plan, data_dir: str, runs: list[runs_lib.Run]
) -> dict[str, dict[str, shards.Columns]]:
  """Tokenizes the rows in another data directory for this plan's model."""
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
      source = sources.Source(task, split, plan.config.data)
      is_tfds = source.format == 'tfds'
      if is_tfds or not table.file or Path(table.file).is_absolute():
        raise errors.UserError(
          f'--input={data_dir}: the rows of {name} are not in a file below'
          ' config.data.dir, so --input cannot replace them; leave it out, or'
          ' name the file of the task relative to config.data.dir'
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
  try:
    output.mkdir(parents=True, exist_ok=True)
  except OSError as e:
    raise errors.UserError(
      f'--output={output}: {e.strerror}; give a folder that can be made'
    ) from e
