"""Baselines that need no training run: the majority, and a frozen encoder.

`majority` predicts the same for every example: the most frequent label of the
training rows, or their mean score. `frozen_encoder` is a linear model on the
vectors of the encoder that all runs start from, before any training.

Both are computed once, not once per seed. The outputs of both are in
`DIR/baselines/TASK`. The sentinel file `DONE`, with the scores, is written
last. Both are computed again if the weights, the features or the task's
declaration change.
"""

from collections.abc import Mapping

import numpy as np

from bam_jax import config as config_lib
from bam_jax import schema
from bam_jax import variants
from bam_jax.data import shards
from bam_jax.experiments import identity as identity_lib
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import probes
from bam_jax.experiments import run_data
from bam_jax.runtime import phases
from bam_jax.runtime import processes
from bam_jax.runtime import progress as progress_lib
from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import task as task_lib
from bam_jax.training import evaluate

# Number of rows that are encoded at once, to limit memory.
_CHUNK_ROWS = 1024


@phases.phase(phases.PROBES)
def compute(plan: plan_lib.Plan) -> None:
  """Computes the baselines that are missing in the work directory."""
  todo = find_missing(plan)
  if not todo:
    return
  programs = plan.setup.programs
  params = programs.split_layers(
    programs.place_encoder(plan.setup.initial_params(plan.config.seeds[0]))
  )
  with progress_lib.show('baselines', len(todo), 'tasks') as progress:
    for name, identity in todo.items():
      _compute_task(plan, plan.tasks[name], params, identity)
      progress.advance(1)


def find_missing(plan: plan_lib.Plan) -> dict[str, identity_lib.Identity]:
  """Returns task -> identity of the baselines that are not computed yet."""
  if not plan.config.plan.baselines:
    return {}
  found = {}
  for task in plan.tasks.tasks:
    identity = settings(plan, task) | {
      f'data.{split}': schema.digest(rows.fingerprint)
      for split, rows in plan.features[task.name].items()
      if split != task_lib.UNLABELLED
    }
    if plan.workspace.read_baselines(task.name, identity) is None:
      found[task.name] = identity
  return found


def read(plan: plan_lib.Plan) -> dict[str, Mapping[str, object]]:
  """Reads the computed baselines; returns task -> record.

  A record holds `scores` (baseline -> dev split -> metric -> value),
  `undefined` (baseline -> dev split -> metric -> reason) and `about` (baseline
  -> how it was made, or why it is missing).
  """
  if not plan.config.plan.baselines:
    return {}
  records = {
    task.name: plan.workspace.read_baselines(task.name, settings(plan, task))
    for task in plan.tasks.tasks
  }
  return {task: record for task, record in records.items() if record}


def describe(known: Mapping[str, Mapping]) -> dict[str, str]:
  """Returns baseline -> a note for the report on how the baseline was made.

  `known` is the result of `read`.
  """
  found: dict[str, list[str]] = {}
  for task, record in known.items():
    for name, text in record['about'].items():
      found.setdefault(name.replace('_', ' '), []).append(f'{task} {text}')
  return {name: '; '.join(texts) for name, texts in found.items()}


def describe_missing(
  known: Mapping[str, Mapping], tasks: task_lib.TaskTable
) -> list[str]:
  """Returns a warning if some tasks have baselines and others have none.

  `known` is the result of `read`.
  """
  missing = [name for name in tasks.names if name not in known]
  if not known or not missing:
    return []
  return [
    f'{", ".join(missing)}: no baselines were computed with these settings, and'
    ' none are shown; the command without --mode computes them'
  ]


def settings(plan: plan_lib.Plan, task: task_lib.Task) -> identity_lib.Identity:
  """Returns the settings that a task's baselines depend on."""
  weights = plan.encoder.digest
  # A frozen encoder has no dropout.
  unused = ['model.dropout_']
  if weights:
    unused += identity_lib.COVERED_BY_WEIGHTS
  result = {
    'weights': weights,
    'seed': None if weights else plan.config.seeds[0],
    'metrics': list(task.metrics),
  }
  result |= identity_lib.encoder_settings(plan.encoder)
  for key, value in task.definition().items():
    result[f'task.{key}'] = value
  if task.class_weights:
    result['task.class_weights'] = list(task.class_weights)
  for key, value in config_lib.fingerprint_values(plan.config).items():
    if key.startswith('model.') and not key.startswith(tuple(unused)):
      result[f'config.{key}'] = value
  return result


def _compute_task(
  plan: plan_lib.Plan,
  task: task_lib.Task,
  params: Mapping[str, object],
  identity: identity_lib.Identity,
) -> None:
  """Computes and writes the baselines of one task."""
  dev = {task.name: {s: plan.features[task.name][s] for s in task.dev_splits}}
  record = {'identity': identity, 'scores': {}, 'undefined': {}, 'about': {}}
  for name, (logits, about) in {
    variants.MAJORITY: _majority(plan, task),
    variants.FROZEN: _frozen(plan, task, params),
  }.items():
    record['about'][name] = about
    if not logits:
      continue
    scores = {
      split: task.kind.score(task, found, dev[task.name][split])
      for split, found in logits.items()
    }
    outputs = {task.name: logits}
    path = plan.workspace.baselines(task.name) / f'{name}.npz'
    processes.run_on_first(evaluate.save, path, plan.tasks, dev, outputs)
    reasons = evaluate.why_undefined(
      dev, outputs, {task.name: scores}, plan.tasks
    )
    record['scores'][name] = scores
    record['undefined'][name] = reasons.get(task.name, {})
  plan.workspace.write_baselines(task.name, record)


# Two values. The first maps a split to the logits of its rows; it is empty if
# there are none. The second is a text: what the logits were made from, or why
# they are missing.
_Logits = tuple[dict[str, np.ndarray], str]


def _majority(plan: plan_lib.Plan, task: task_lib.Task) -> _Logits:
  features = plan.features[task.name]
  train = run_data.counted_rows(task, features[task.train_split])
  try:
    logits = {
      split: task.kind.constant_logits(task, train, features[split])
      for split in task.dev_splits
    }
  except kind_lib.NoConstant as reason:
    return {}, f'none: {reason}'
  return logits, f'{len(train):,} training rows'


def _frozen(
  plan: plan_lib.Plan, task: task_lib.Task, params: Mapping[str, object]
) -> _Logits:
  """Fits a linear probe and applies it to the dev splits."""
  features = plan.features[task.name]
  train = features[task.train_split]
  chosen = probes.choose_rows(task, train)
  if len(chosen) < 2:
    return {}, 'none: a linear model takes at least two training rows'
  model = probes.fit(plan, task, params, train, chosen, is_apart=True)
  count = len(run_data.counted_rows(task, train.select(chosen)))

  def logits(rows: shards.Columns) -> np.ndarray:
    chunks = np.split(
      np.arange(len(rows)), range(_CHUNK_ROWS, len(rows), _CHUNK_ROWS)
    )
    return np.concatenate(
      [
        model.logits(probes.encode(plan, task, params, rows, own, True))
        for own in chunks
      ]
    )

  return (
    {split: logits(features[split]) for split in task.dev_splits},
    f'{count:,} training rows, L2 {model.strength:g}',
  )
