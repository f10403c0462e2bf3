"""The command `estimate`: time, memory and disk that unfinished runs need."""

from collections import Counter
from collections.abc import Mapping, Sequence
import logging
import shutil
import time

import numpy as np
import rich.console

from bam_jax import config as config_lib
from bam_jax import files
from bam_jax.core import packing as packing_lib
from bam_jax.distillation import logit_sets
from bam_jax.estimate import costs as costs_lib
from bam_jax.estimate import memory as memory_lib
from bam_jax.estimate import remaining as remaining_lib
from bam_jax.estimate import tables
from bam_jax.experiments import identity
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import runs as runs_lib
from bam_jax.experiments import search
from bam_jax.runtime import phases
from bam_jax.runtime import processes
from bam_jax.runtime import progress as progress_lib

FILE = 'estimate.json'

# Number of batches to build and time, per group of similar runs.
_TIMED_STEPS = 3
# Bytes that an example takes besides its logits and its uid, summed over both
# stored copies.
_FRAME = 60


def estimate(plan: plan_lib.Plan) -> None:
  """Prints the time, memory and disk that the remaining runs need.

  Prepares features but trains nothing. Until the search has finished, its
  choice is unknown. So the runs that will use the choice are estimated with the
  searched settings that have the most epochs.

  Raises:
    errors.UserError: no variant learns from a given unlabelled file, external
      logits are missing or belong to other rows, a run was trained with other
      settings, or a step needs more memory than a device has.
  """
  config_lib.check_students(plan.config)
  runs = _list_runs(plan)
  todo = [run for run in runs if plan.read_record(run) is None]
  remaining = remaining_lib.count_remaining(plan, runs, todo)
  probes = remaining_lib.list_probes(plan, remaining)
  path = plan.workspace.root / FILE
  if not remaining and not probes:
    logging.info('nothing is left to train')
    files.write_json(path, {'seconds': 0, 'runs': []})
    return
  for warning in runs_lib.describe_short_runs(
    (each.run, each.steps) for each in remaining if each.left
  ):
    logging.warning('%s', warning)
  groups = plan.group_runs(todo)
  at_once = {run.name: len(group) for group in groups for run in group}
  counts = {*at_once.values()} or {1}
  rows, hosts, batches = _sample_steps(plan, remaining)
  # Training will take as long to start as this command did.
  start = phases.phase.so_far()[phases.START]
  programs = plan.setup.programs
  # If no run is left, only baselines remain, and there are no batches.
  sizes = batches or [programs.rows_multiple]
  memory = memory_lib.compile_steps(programs, plan.packing, sizes, counts)
  costs = costs_lib.measure(plan, batches, counts, probes)
  steps = {}
  for each in remaining:
    if count := at_once.get(each.run.name):
      device = [costs['step'][f'{count}x{size}'] for size in rows[each.group]]
      # The host makes batches while the devices compute.
      steps[each.run.name] = max(np.mean(device) / count, hosts[each.group])
  seconds = {
    each.run.name: _seconds(plan, each, steps.get(each.run.name, 0.0), costs)
    for each in remaining
  }
  by_phase = sum(seconds.values(), Counter()) + Counter(
    {
      phases.START: start,
      phases.COMPILING: phases.phase.compiled_again,
      phases.PROBES: sum(costs['linear_probes'].values()),
      phases.REPORT: costs['report'],
    }
  )
  disk = _disk(plan, remaining, max(counts), costs)
  found = {
    'seconds': by_phase.total(),
    'phases': by_phase,
    'steps': sum(each.left for each in remaining),
    'examples': sum(each.examples for each in remaining),
    'runs': [
      {
        'name': each.run.name,
        'steps': each.steps,
        'done': each.done,
        'examples': each.examples,
        'labels': [logit_sets.folder_name(*rows) for rows in each.labels],
        'seconds': seconds[each.run.name].total(),
      }
      for each in remaining
    ],
    'memory': memory,
    'disk': disk,
    'measured': costs,
  }
  files.write_json(path, found)
  console = rich.console.Console()
  console.print(tables.make_table(remaining, steps, seconds, by_phase))
  longest = describe_longest(plan, remaining, seconds)
  text = tables.sentences({**memory, **disk}, by_phase, longest, path)
  console.print(text, markup=False, highlight=False, soft_wrap=True)


@processes.runs_on_first
def log_time(plan: plan_lib.Plan) -> None:
  """Logs how long this process took, and how long `estimate` predicted.

  The prediction is logged only if it is for the same number of steps.
  """
  taken = phases.phase.so_far()
  logging.info('took %s', tables.describe_phases(taken))
  path = plan.workspace.root / FILE
  if path.exists():
    found = files.read_json(path, 'remove it')
    if found.get('steps') == phases.phase.steps and 'phases' in found:
      logging.info('estimated %s', tables.describe_phases(found['phases']))


def _list_runs(plan: plan_lib.Plan) -> list[runs_lib.Run]:
  """Lists all runs, those of the search first.

  Raises:
    errors.UserError: a run of the search was trained with other settings, or
      external logits are missing or belong to other rows.
  """
  if all(plan.read_record(run) for run in plan.search_runs):
    runs = plan.runs
  else:
    logging.info(
      'config.search is not finished: runs with searched settings count with'
      ' those of the most steps'
    )
    runs = plan.plan_runs(search.longest_choices(plan.config))
  runs = [*plan.search_runs, *runs]
  identity.identities(plan, runs)
  return runs


def _sample_steps(
  plan: plan_lib.Plan, remaining: Sequence[remaining_lib.Remaining]
) -> tuple[
  dict[object, list[int]], dict[object, float], dict[int, costs_lib.Batch]
]:
  """Builds a few training batches for each group of similar runs.

  Returns:
    Three dicts: group -> number of rows B of each sampled step; group ->
    seconds that the host takes to make a batch; B -> a batch with B rows.
  """
  rows, hosts, batches = {}, {}, {}
  multiple = plan.setup.programs.rows_multiple
  buckets = plan.packing.row_buckets if plan.packing.enabled else (1,)
  for group, run in {each.group: each.run for each in remaining}.items():
    spec = plan.data.make_spec(run, plan.packing, rows_multiple=multiple)
    steps = spec.sampled_steps
    rows[group] = [
      packing_lib.bucket(spec.batches.rows_filled(step), buckets, multiple)
      for step in steps
    ]
    began = time.perf_counter()
    for step in steps[:_TIMED_STEPS]:
      spec.batches(step)
    hosts[group] = (time.perf_counter() - began) / len(steps[:_TIMED_STEPS])
    for size, step in zip(rows[group], steps):
      if size not in batches:
        batches[size] = spec.batches(step)
  return rows, hosts, batches


def _seconds(
  plan: plan_lib.Plan,
  each: remaining_lib.Remaining,
  step: float,
  costs: Mapping,
) -> Counter[str]:
  """Estimates a run's seconds by phase; `step` is the seconds per step."""

  def predict(rows: costs_lib.Rows) -> float:
    return costs['evaluation_batch'] * costs_lib.evaluation_batches(plan, rows)

  labelling = sum(
    predict(plan.features[task][split]) / parts
    for task, split, parts in each.rows_to_label()
  )
  if each.is_trained:
    return Counter({phases.LABELLING: labelling})
  train = each.run.config.train
  evaluations = each.steps_due(train.evaluate_every)
  # An evaluated step is saved too.
  saves = evaluations | each.steps_due(train.checkpoint_every)
  dev = plan.data.scored_splits(each.run)
  evaluation = sum(
    times * predict(rows)
    for times, splits in (
      (1, dev),
      (len(evaluations), plan.data.choosing_splits(each.run) or dev),
    )
    for part in splits.values()
    for rows in part.values()
  )
  return Counter(
    {
      phases.BEGINNING: costs['start'],
      phases.TRAINING: each.left * step,
      phases.EVALUATION: evaluation,
      phases.CHECKPOINTS: (
        (1 + len(saves)) * costs['checkpoint'] + costs['record']
      ),
      phases.LABELLING: labelling,
    }
  )


def describe_longest(
  plan: plan_lib.Plan,
  remaining: Sequence[remaining_lib.Remaining],
  seconds: Mapping[str, Counter[str]],
) -> str:
  """Names the variant that takes longest, and the settings that shorten it."""
  by_variant: Counter[str] = Counter()
  for each in remaining:
    by_variant[each.run.variant] += seconds[each.run.name].total()
  if not by_variant:
    return 'Longest: the linear probes.'
  ((variant, taken),) = by_variant.most_common(1)
  those = (each for each in remaining if each.run.variant == variant)
  longest = max(those, key=lambda each: each.steps)
  run, field = longest.run, plan.data.decide_steps(longest.run)[1]
  if longest.steps == run.length.max_steps:
    field = 'max_steps'
  return (
    f'Longest: {variant}, {progress_lib.duration(taken)}. To shorten it, lower'
    f' {run.field_path(field)} (now {getattr(run.length, field):g}), or use'
    f' fewer config.seeds (now {len(plan.config.seeds)}) or config.variants.'
  )


def _disk(
  plan: plan_lib.Plan,
  remaining: Sequence[remaining_lib.Remaining],
  at_once: int,
  costs: Mapping,
) -> dict[str, int]:
  """Estimates the bytes of checkpoints and logits, and the free bytes."""
  train = plan.config.train
  whole = costs['checkpoint_bytes']
  kept = whole if train.keep_optimizer else costs['params_bytes']
  runs = sum(not each.is_trained for each in remaining)
  logits = 0
  for each in remaining:
    for task, split, parts in each.rows_to_label():
      rows = plan.features[task][split]
      count = len(rows)
      if plan.tasks[task].kind.per_token:
        count = int(rows.ragged('input_ids')[1][-1])
      # Logits are stored twice, as records and as columns, each with uids.
      logit_bytes = 2 * 4 * plan.tasks[task].num_outputs * count
      uid_bytes = 2 * len(rows.uids[0].encode())
      logits += (logit_bytes + len(rows) * (uid_bytes + _FRAME)) // parts
  return {
    # The best checkpoint and the last one; they may be the same.
    'checkpoints': runs * kept * (2 if train.evaluate_every else 1),
    # A new checkpoint is written before the old one is deleted.
    'while training': at_once * 2 * whole if runs else 0,
    'logits': logits,
    'free': shutil.disk_usage(plan.workspace.root).free,
  }
