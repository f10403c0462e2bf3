"""The identity of a run: everything that decides its outcome.

An identity maps dotted keys to JSON values: the run's own settings, digests of
its rows, and digests of the identities of its teachers and of the run that it
starts from.
"""

from collections.abc import Sequence
import dataclasses
from pathlib import Path
import typing

from bam_jax import config as config_lib
from bam_jax import schema
from bam_jax.distillation import external
from bam_jax.experiments import runs as runs_lib
from bam_jax.experiments import workspace as workspace_lib
from bam_jax.modeling import pretrained
from bam_jax.runtime import processes
from bam_jax.tasks import task as task_lib

if typing.TYPE_CHECKING:
  from bam_jax.experiments import plan as plan_lib

# Prefixes of fields that an identity leaves out, because it has digests of the
# rows, and of pretrained weights.
_COVERED_BY_ROWS = ('data.', 'custom_tasks.')
COVERED_BY_WEIGHTS = 'model.init', 'model.arch', 'model.vocab'

# Fields of an encoder that the configuration also has.
_COVERED_BY_CONFIG = ('dropout_', 'pooling', 'num_layers')

Identity = dict[str, object]


def settings(plan: 'plan_lib.Plan', run: runs_lib.Run) -> Identity:
  """Returns the part of a run's identity that does not depend on its data."""
  # Empty for random weights.
  weights = plan.encoder.digest
  unused = ['multi.' if run.is_single else 'single.', *_COVERED_BY_ROWS]
  if weights:
    unused += COVERED_BY_WEIGHTS
  if not run.is_taught:
    unused.append('distill.')
  if run.is_single:
    unused.append('sampling.')
  result = {
    'run.variant': run.variant,
    'run.seed': run.seed,
    'run.tasks': list(run.tasks),
    'weights': weights,
  }
  if run.fold:
    result['run.fold'] = dataclasses.asdict(run.fold)
  if run.held_out:
    result['run.held_out'] = dataclasses.asdict(run.held_out)
  for key, value in config_lib.fingerprint_values(run.config).items():
    if not key.startswith(tuple(unused)):
      result[f'config.{key}'] = value
  # The configuration may hold `auto` or -1. The digest of the weights does not
  # cover the values that these stand for, so the values are added here.
  encoder = plan.encoder.config
  for name in ('pooling', *encoder.dropout_rates()):
    result[f'config.model.{name}'] = getattr(encoder, name)
  result |= encoder_settings(plan.encoder)
  for name in run.tasks:
    if name in run.config.custom_tasks:
      task = plan.tasks[name]
      # The first metric chooses the best checkpoint.
      meaning = task.definition() | {'metrics': list(task.metrics)}
      if task.class_weights:
        meaning[workspace_lib.CLASS_WEIGHTS] = list(task.class_weights)
      for key, value in meaning.items():
        result[f'config.custom_tasks.{name}.{key}'] = value
  return result


def encoder_settings(encoder: pretrained.Encoder) -> Identity:
  """Returns the encoder settings from the config.json of pretrained weights.

  The digest of the weights does not cover that file, but with another
  activation the same weights compute another function. The result is empty for
  random weights.
  """
  if not encoder.digest:
    return {}
  return {
    f'{workspace_lib.ENCODER}{key}': value
    for key, value in schema.flatten(encoder.config).items()
    if not key.startswith(_COVERED_BY_CONFIG)
  }


def identities(
  plan: 'plan_lib.Plan', runs: Sequence[runs_lib.Run]
) -> dict[str, Identity]:
  """Returns run name -> identity.

  `runs` must be in training order and contain every run that they build on.

  Raises:
    errors.UserError: external logits are missing or belong to other rows.
  """
  result: dict[str, Identity] = {}
  for run in runs:
    identity = settings(plan, run)
    for task in run.tasks:
      learnt = plan.data.learnt_splits(run, task)
      # A run of the search does not read the dev splits.
      unused = {task_lib.UNLABELLED} | set(
        plan.tasks[task].dev_splits if run.is_search else ()
      )
      for split, rows in plan.features[task].items():
        if split in learnt or split not in unused:
          identity[f'data.{task}.{split}'] = schema.digest(rows.fingerprint)
        if run.logits and split in learnt:
          identity |= processes.run_on_first(
            external.identity, Path(run.logits), rows, plan.tasks[task], split
          )
    for names in run.teachers.values():
      for name in names:
        identity[f'teacher.{name}'] = schema.digest(result[name])
    if run.start:
      identity[f'start.{run.start}'] = schema.digest(result[run.start])
    result[run.name] = plan.workspace.recorded(run.name, identity)
  return result
