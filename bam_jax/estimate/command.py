"""The command `estimate`: counts what is left of a plan, and measures its cost.

Compiling, which this command does for the runs, is not counted; neither are the
report and whatever else keeps the machine busy.
"""

import collections
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import logging
from pathlib import Path
import shutil
import time

import numpy as np
import rich.box
import rich.console
import rich.table

from bam_jax import config as config_lib
from bam_jax import files
from bam_jax.core import packing as packing_lib
from bam_jax.data import shards
from bam_jax.data import tfrecord
from bam_jax.distillation import logit_sets
from bam_jax.estimate import costs as costs_lib
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import run_data
from bam_jax.experiments import runs as runs_lib
from bam_jax.runtime import telemetry
from bam_jax.tasks import task as task_lib

FILE = 'estimate.json'

# Steps per sort of run whose rows are counted, and whose batches are timed.
_COUNTED_STEPS, _TIMED_STEPS = 64, 3
# Bytes of length and checksums around a TFRecord.
_FRAME = 16


@dataclasses.dataclass(frozen=True)
class Remaining:
  """What is left to do for one run.

  Attributes:
    run: the run.
    steps: of the whole run.
    done: steps that its latest checkpoint has; all if it is finished.
    labels: task and split of the rows that it has yet to label for students.
  """

  run: runs_lib.Run
  steps: int
  done: int
  labels: tuple[tuple[str, str], ...]

  @property
  def is_trained(self) -> bool:
    return self.done == self.steps

  @property
  def left(self) -> int:
    return self.steps - self.done

  @property
  def examples(self) -> int:
    return self.left * self.run.length.batch_size

  @property
  def sort(self) -> tuple[str, tuple[str, ...], str]:
    """Equal for runs that differ in seed, or in a fold of the same number."""
    fold = self.run.fold
    part = f'fold {fold.number} of {fold.of}' if fold else ''
    return self.run.variant, self.run.tasks, part

  def steps_due(self, every: int) -> set[int]:
    """The remaining steps, except the last one, that are multiples."""
    if not every:
      return set()
    return set(range((self.done // every + 1) * every, self.steps, every))


def estimate(plan: plan_lib.Plan) -> None:
  """Prints the time, memory and disk that the remaining runs need.

  Prepares features, trains nothing. If the search has not chosen yet, its
  choices are left open: they change no number of steps.

  Raises:
    errors.UserError: no run would learn from rows without labels, external
      logits are missing or of other rows, a run was trained with other
      settings, or a step needs more memory than a device has.
  """
  config_lib.check_students(plan.config)
  is_chosen = all(plan.read_record(run) for run in plan.search_runs)
  runs = plan.runs if is_chosen else runs_lib.plan_runs(plan.config)
  runs = [*plan.search_runs, *runs]
  plan.identities(runs)
  todo = [run for run in runs if plan.read_record(run) is None]
  remaining = count_remaining(plan, runs, todo)
  path = plan.workspace.root / FILE
  if not remaining:
    logging.info('nothing is left to train')
    files.write_json(path, {'seconds': 0, 'runs': []})
    return
  groups = plan.group_runs(todo)
  at_once = {run.name: len(group) for group in groups for run in group}
  rows, hosts, batches = _sample_steps(
    plan, remaining, {*at_once.values()} or {1}
  )
  memory = costs_lib.compile_steps(plan.setup.programs, plan.packing, batches)
  task = plan.tasks[remaining[0].run.tasks[0]]
  costs = costs_lib.measure(
    plan.setup,
    batches,
    plan.features[task.name][task.dev_splits[0]],
    plan.tasks.index[task.name],
    plan.config,
    plan.workspace.root,
  )
  steps = {}
  for each in remaining:
    if count := at_once.get(each.run.name):
      device = np.mean([costs.step[count, size] for size in rows[each.sort]])
      # The host makes batches while the devices compute.
      steps[each.run.name] = max(float(device) / count, hosts[each.sort])
  seconds = {
    each.run.name: _seconds(plan, each, steps.get(each.run.name, 0.0), costs)
    for each in remaining
  }
  disk = _disk(plan, remaining, max(at_once.values(), default=1), costs)
  console = rich.console.Console()
  console.print(_table(remaining, steps, seconds))
  for line in _lines(memory, disk, path):
    console.print(line, markup=False, highlight=False, soft_wrap=True)
  files.write_json(
    path,
    {
      'seconds': sum(seconds.values()),
      'steps': sum(each.left for each in remaining),
      'examples': sum(each.examples for each in remaining),
      'runs': [
        {
          'name': each.run.name,
          'steps': each.steps,
          'done': each.done,
          'examples': each.examples,
          'labels': [logit_sets.folder_name(*rows) for rows in each.labels],
          'seconds': seconds[each.run.name],
        }
        for each in remaining
      ],
      'memory': memory | {'device': costs_lib.device_memory()},
      'disk': disk,
      'measured': {
        'step': {f'{k}x{b}': value for (k, b), value in costs.step.items()},
        'start': costs.start,
        'evaluation_batch': costs.batch,
        'checkpoint': costs.checkpoint,
      },
    },
  )


def count_remaining(
  plan: plan_lib.Plan,
  runs: Sequence[runs_lib.Run],
  todo: Sequence[runs_lib.Run],
) -> list[Remaining]:
  """Counts the rest of every run that is not complete.

  Args:
    plan: the plan.
    runs: all its runs.
    todo: those that are not finished.
  """
  unfinished = {run.name for run in todo}
  result = []
  for run in runs:
    labels = tuple(
      (task, split)
      for task, split in run_data.splits_to_label(
        run, todo, plan.tasks, plan.features
      )
      if not has_logits(plan, run, task, split)
    )
    if labels or run.name in unfinished:
      steps = run_data.num_steps(run, plan.tasks, plan.features)
      done = plan.latest_step(run) if run.name in unfinished else steps
      result.append(Remaining(run, steps, done, labels))
  return result


def has_logits(
  plan: plan_lib.Plan, run: runs_lib.Run, task: str, split: str
) -> bool:
  """Whether a run has written its logits on a split."""
  folder = logit_sets.folder_name(task, split)
  return shards.exists(plan.workspace.teacher(run.name, folder))


def _sample_steps(
  plan: plan_lib.Plan, remaining: Sequence[Remaining], counts: set[int]
) -> tuple[
  dict[object, list[int]],
  dict[object, float],
  dict[costs_lib.Shape, costs_lib.Batch],
]:
  """Samples the steps of each sort of run.

  Returns:
    Rows B of each sampled step by sort of run; seconds of a batch on the host
    by sort; a batch of each shape (K, B).
  """
  rows, hosts, batches = {}, {}, {}
  multiple = plan.setup.programs.rows_multiple
  buckets = plan.packing.row_buckets if plan.packing.enabled else (1,)
  for sort, run in {each.sort: each.run for each in remaining}.items():
    job = run_data.make_job(
      run,
      plan.packing,
      plan.tasks,
      plan.features,
      [
        run_data.placeholder_probs(run, plan.tasks[name], plan.features)
        for name in run.tasks
      ],
      multiple,
      Path(),
    )
    steps = range(0, job.num_steps, max(job.num_steps // _COUNTED_STEPS, 1))
    rows[sort] = [
      packing_lib.bucket(job.batches.rows_filled(step), buckets, multiple)
      for step in steps
    ]
    began = time.perf_counter()
    for step in steps[:_TIMED_STEPS]:
      job.batches(step)
    hosts[sort] = (time.perf_counter() - began) / len(steps[:_TIMED_STEPS])
    for size, step in zip(rows[sort], steps):
      if (min(counts), size) not in batches:
        batches |= dict.fromkeys(
          [(count, size) for count in counts], job.batches(step)
        )
  return rows, hosts, batches


def _seconds(
  plan: plan_lib.Plan, each: Remaining, step: float, costs: costs_lib.Costs
) -> float:
  """Seconds of everything that is left of a run."""
  batches = sum(
    _evaluation_batches(plan, task, split) / parts
    for task, split, parts in _labelled(each)
  )
  if each.is_trained:
    return batches * costs.batch
  train = each.run.config.train
  evaluations = each.steps_due(train.evaluate_every)
  # An evaluated step is saved too.
  saves = evaluations | each.steps_due(train.checkpoint_every)
  batches += (1 + len(evaluations)) * sum(
    _evaluation_batches(plan, task, split)
    for task in each.run.tasks
    for split in plan.tasks[task].dev_splits
  )
  return (
    costs.start
    + each.left * step
    + batches * costs.batch
    + (1 + len(saves)) * costs.checkpoint['seconds']
  )


def _evaluation_batches(plan: plan_lib.Plan, task: str, split: str) -> int:
  return costs_lib.evaluation_batches(
    plan.setup.programs, plan.features[task][split], plan.packing
  )


def _labelled(each: Remaining) -> Iterator[tuple[str, str, int]]:
  """Task, split and the number of runs that share the rows to label."""
  for task, split in each.labels:
    fold = None if split == task_lib.UNLABELLED else each.run.fold
    yield task, split, fold.of if fold else 1


def _disk(
  plan: plan_lib.Plan,
  remaining: Sequence[Remaining],
  at_once: int,
  costs: costs_lib.Costs,
) -> dict[str, int]:
  """Bytes that the plan has yet to write, by what they are for."""
  train, checkpoint = plan.config.train, costs.checkpoint
  kept = checkpoint['whole' if train.keep_optimizer else 'params']
  runs = sum(not each.is_trained for each in remaining)
  return {
    # The best one and the last, which may be the same.
    'checkpoints': runs * kept * (2 if train.evaluate_every else 1),
    # A new checkpoint is written before the old one is deleted.
    'while training': at_once * 2 * checkpoint['whole'] if runs else 0,
    'logits': sum(
      _logit_bytes(plan.tasks[task], plan.features[task][split]) // parts
      for each in remaining
      for task, split, parts in _labelled(each)
    ),
    'free': shutil.disk_usage(plan.workspace.root).free,
  }


def _logit_bytes(task: task_lib.Task, rows: shards.Columns) -> int:
  """Bytes of a task's logits on some rows, as records and as columns."""
  count, width, of_tokens = len(rows), task.num_outputs, 0
  if task.kind.per_token:
    of_tokens = width * int(rows.ragged('input_ids')[1][-1])
    width = 0
  uid = rows.uids[count - 1].encode()
  record = tfrecord.encode({'uid': [uid], 'logits': np.zeros(width, 'f4')})
  row = len(record) + _FRAME + len(uid) + 8 + 4 * width
  return count * row + 2 * 4 * of_tokens


def _table(
  remaining: Sequence[Remaining],
  steps: Mapping[str, float],
  seconds: Mapping[str, float],
) -> rich.table.Table:
  """A row for each sort of run, and one for all runs."""
  table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
  table.add_column('variant', no_wrap=True)
  table.add_column('tasks', overflow='fold')
  for name in ('runs', 'steps', 'examples', 'ms a step', 'time'):
    table.add_column(name, justify='right', no_wrap=True)
  sorts = collections.defaultdict(list)
  for each in remaining:
    sorts[each.sort].append(each)
  rows = [
    (
      f'{variant} {fold}'.rstrip(),
      tasks[0] if len(tasks) == 1 else f'{len(tasks)} tasks',
      own,
    )
    for (variant, tasks, fold), own in sorts.items()
  ]
  for name, tasks, own in [*rows, ('in all', '', remaining)]:
    took = [steps[e.run.name] for e in own if e.run.name in steps]
    if own is remaining:
      table.add_section()
      took = []
    table.add_row(
      name,
      tasks,
      f'{len(own):,}',
      f'{sum(each.left for each in own):,}',
      f'{sum(each.examples for each in own):,}',
      f'{1e3 * np.mean(took):.4g}' if took else '',
      telemetry.duration(sum(seconds[each.run.name] for each in own)),
    )
  return table


def _lines(
  memory: Mapping[str, int], disk: Mapping[str, int], path: Path
) -> Iterator[str]:
  """Memory and disk in sentences."""
  memory = memory | {'device': costs_lib.device_memory()}
  size = {k: costs_lib.format_bytes(n) for k, n in {**memory, **disk}.items()}
  yield (
    f'Memory of a device: {size["needed"]} of {size["device"]}, for a step of'
    f' {memory["seeds"]} x {memory["rows"]} rows: state and batch'
    f' {size["arguments"]}, temporary {size["temporary"]}.'
  )
  yield (
    f'Disk: {size["checkpoints"]} of checkpoints, {size["logits"]} of logits,'
    f' {size["while training"]} more while training; {size["free"]} are free.'
  )
  yield (
    'Compiling, the report and whatever else the machine does come on top.'
    f' {path} has it run by run.'
  )
