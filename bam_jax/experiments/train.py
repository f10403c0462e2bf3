"""The commands `prepare`, `run` and `evaluate` for the runs of a plan.

Finished runs are kept, interrupted runs continue, and missing runs are trained.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
import functools
import logging
import time

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.core import packing as packing_lib
from bam_jax.experiments import background as background_lib
from bam_jax.experiments import baselines
from bam_jax.experiments import labelling
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import probes
from bam_jax.experiments import records
from bam_jax.experiments import report
from bam_jax.experiments import runs as runs_lib
from bam_jax.experiments import search
from bam_jax.runtime import phases
from bam_jax.runtime import processes
from bam_jax.runtime import trackers
from bam_jax.training import checkpoints as checkpoints_lib
from bam_jax.training import evaluate as evaluate_lib
from bam_jax.training import loop
from bam_jax.training import mesh as mesh_lib


def prepare(plan: plan_lib.Plan) -> None:
  """Prepares the features of all training, dev and unlabelled splits."""
  _ = plan.features
  plan.workspace.save_config(plan.config)


def run(plan: plan_lib.Plan) -> None:
  """Trains the whole plan, from raw rows to the report."""
  trackers.check(plan.config.train.trackers)
  config_lib.check_students(plan.config)
  if searched := plan.search_runs:
    tried = Counter(key for run in searched for key in run.choices)
    logging.info(
      'config.search: runs of %s seeds and all settings: %s',
      len(plan.config.search.seeds),
      ', '.join(f'{count} ({key})' for key, count in tried.items()),
    )
    train_runs(plan, searched)
    logging.info('searched: %s', search.describe(plan.search_result))
  train_runs(plan, plan.runs)
  baselines.compute(plan)
  report.report(plan)


def evaluate(plan: plan_lib.Plan) -> None:
  """Scores the last checkpoints of all finished runs; writes the report.

  Also computes missing baselines.

  Raises:
    errors.UserError: no run is finished.
  """
  finished = [run for run in plan.runs if plan.workspace.read_record(run.name)]
  if not finished:
    raise errors.UserError(
      f'{plan.workspace.root}: no finished run to evaluate; run'
      ' --mode=run first'
    )
  plan.open_runs(plan.runs, finished)
  for run in finished:
    outputs, scores = evaluate_lib.evaluate(
      plan.setup.programs,
      plan.restore_params(run.name),
      plan.data.scored_splits(run),
      plan.config.packing,
      lambda _: plan.preemption_signal.check(),
    )
    record = plan.workspace.read_record(run.name)
    records.save_outputs(plan, run, record, outputs, scores)
  baselines.compute(plan)
  report.report(plan)


def train_runs(plan: plan_lib.Plan, runs: Sequence[runs_lib.Run]) -> None:
  """Trains the runs that are not finished; writes missing teacher logits.

  `runs` are in training order and include every run that they build on.
  """
  if not runs:
    return
  identities = plan.open_runs(runs)
  todo = [each for each in runs if not plan.workspace.read_record(each.name)]
  lengths = [plan.data.decide_steps(each) for each in todo]
  steps = [count for count, _ in lengths]
  left = sum(steps) - sum(map(plan.latest_step, todo))
  finished = len(runs) - len(todo)
  what = ''
  if todo and finished:
    what = f': {errors.some(each.name for each in todo)}'
  elif todo:
    seeds = sorted({each.seed for each in todo})
    what = f' with seed{"s" * (len(seeds) > 1)} {errors.some(seeds)}'
  logging.info(
    '%d runs: %d finished, %d to train, %s steps%s',
    *(len(runs), finished, len(todo), f'{left:,}', what),
  )
  for message in runs_lib.describe_lengthened_runs(zip(todo, lengths)):
    logging.info('%s', message)
  for warning in runs_lib.describe_short_runs(zip(todo, steps)):
    logging.warning('%s', warning)
  _check_starts(plan, todo)
  by_name = {each.name: each for each in runs}
  with background_lib.Background() as background:
    teachers = labelling.TeacherLogits(plan, identities, by_name, background)
    teachers.check_external(todo)
    for each in runs:
      plan.preemption_signal.check()
      if each not in todo:
        teachers.write(each, todo)
    if not todo:
      return
    try:
      _compile_ahead(plan, todo)
      heads = probes.ProbedHeads(plan)
      for group in plan.group_runs(todo):
        trained = _train_group(plan, group, teachers, heads)
        for each, params in zip(group, trained):
          teachers.write(each, todo, params)
    finally:
      plan.setup.programs.stop_compiling()


def _check_starts(plan: plan_lib.Plan, todo: Sequence[runs_lib.Run]) -> None:
  """Raises if the checkpoint that a run starts from is missing."""
  names = {each.name for each in todo}
  for each in todo:
    if not each.start or each.start in names:
      continue
    steps = plan.workspace.read_record(each.start)['steps']
    directory = plan.workspace.checkpoints(each.start)
    if processes.run_on_first(directory.is_dir):
      with checkpoints_lib.Checkpoints(directory) as saved:
        if saved.has(steps):
          continue
    raise errors.UserError(
      f'{directory}: {each.name} starts from the checkpoint of step {steps},'
      f' which is missing; copy it from where {each.start} was trained, or'
      f' remove {plan.workspace.run(each.start)} to train {each.start} again'
    )


def _compile_ahead(plan: plan_lib.Plan, todo: Sequence[runs_lib.Run]) -> None:
  """Compiles the training step for all batch shapes, in the background."""
  if plan.packing.enabled:
    groups, programs = [*plan.group_runs(todo)], plan.setup.programs
    specs = [plan.data.make_spec(run, plan.packing) for run in groups[0]]
    step = plan.latest_step(groups[0][0])
    filled = max(spec.batches.rows_filled(step) for spec in specs)
    rows = packing_lib.bucket(
      filled, plan.packing.row_buckets, programs.rows_multiple
    )
    programs.compile_ahead(
      plan.packing, sorted({*map(len, groups)}), first=(len(groups[0]), rows)
    )
    logging.info(
      'Compiling training steps for batches of %s rows of %d tokens; training'
      ' waits for the first one',
      ', '.join(map(str, plan.packing.row_buckets)),
      plan.packing.row_length,
    )


@phases.phase(phases.BEGINNING)
def _train_group(
  plan: plan_lib.Plan,
  group: Sequence[runs_lib.Run],
  teachers: labelling.TeacherLogits,
  heads: probes.ProbedHeads,
) -> list[Mapping[str, object]]:
  """Trains a group of runs, writes their records, returns their parameters."""
  started = time.perf_counter()
  programs = plan.setup.programs
  own_rows = None
  if len(group) == 1 and processes.is_multi_process():
    own_rows = functools.partial(mesh_lib.own_rows, programs.mesh)
  specs = [
    plan.data.make_spec(
      each,
      plan.packing,
      [teachers.read_probs(each, name) for name in each.tasks],
      programs.rows_multiple,
      plan.workspace.run(each.name),
      own_rows,
    )
    for each in group
  ]
  by_seed = {each.seed: each for each in group}

  def initial_params(seed: int) -> Mapping[str, object]:
    run = by_seed[seed]
    if run.start:
      return mesh_lib.fetch(plan.restore_params(run.start))
    if plan.config.model.head_init == 'linear_probe':
      return heads.initial_params(run)
    return plan.setup.initial_params(seed)

  results = loop.train(specs, programs, initial_params, plan.preemption_signal)
  seconds = (time.perf_counter() - started) / len(group)
  with phases.phase(phases.CHECKPOINTS):
    for each, spec, result in zip(group, specs, results):
      record = records.make_record(plan, spec, result, seconds, len(group))
      if each.held_out:
        logging.info(
          '%s: ended at step %d of %d; step %d is the best by held-out rows',
          *(each.name, result.stopped_at, spec.num_steps, result.best_step),
        )
      records.save_outputs(plan, each, record, result.outputs, result.scores)
  return [result.params for result in results]
