"""The command `estimate`: time, memory and disk that unfinished runs need."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import logging
from pathlib import Path
import shutil
import time

import numpy as np
import rich.box
import rich.console
from rich.filesize import decimal
import rich.table

from bam_jax import config as config_lib
from bam_jax import files
from bam_jax.core import packing as packing_lib
from bam_jax.data import shards
from bam_jax.distillation import logit_sets
from bam_jax.estimate import costs as costs_lib
from bam_jax.experiments import baselines
from bam_jax.experiments import identity
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import probes
from bam_jax.experiments import runs as runs_lib
from bam_jax.experiments import search
from bam_jax.runtime import telemetry
from bam_jax.tasks import task as task_lib

FILE = 'estimate.json'

# Steps per group of similar runs whose batches are timed.
_TIMED_STEPS = 3
# Bytes of an example around its logits and its uid, in both stored forms.
_FRAME = 60


@dataclasses.dataclass(frozen=True)
class Remaining:
  """Remaining work of one run.

  Attributes:
    run: the run.
    steps: number of steps of the whole run.
    done: number of steps in its latest checkpoint; all steps if it is finished.
    labels: task and split of the rows that it must still label for students.
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
  def group(self) -> tuple[str, tuple[str, ...]]:
    """Returns a key that is equal for runs whose steps take equally long."""
    part, fold = '', self.run.fold
    if self.run.is_search:
      part = f' batch {self.run.length.batch_size}'
    elif fold:
      part = f' fold {fold.number} of {fold.of}'
    return self.run.variant + part, self.run.tasks

  def steps_due(self, every: int) -> set[int]:
    """Returns the remaining multiples of `every`, without the last step."""
    first = (self.done // every + 1) * every if every else self.steps
    return set(range(first, self.steps, every or 1))

  def rows_to_label(self) -> Iterator[tuple[str, str, int]]:
    """Yields task, split, and the number of teachers that share its rows."""
    for task, split in self.labels:
      fold = None if split == task_lib.UNLABELLED else self.run.fold
      yield task, split, fold.of if fold else 1


def estimate(plan: plan_lib.Plan) -> None:
  """Prints the time, memory and disk that the remaining runs need.

  Prepares features but trains nothing. Until a search has finished, the runs
  that use its choice count with the settings of the most epochs.

  Raises:
    errors.UserError: rows without labels have no student, external logits are
      missing or belong to other rows, a run was trained with other settings, or
      a step needs more memory than a device has.
  """
  config_lib.check_students(plan.config)
  is_chosen = all(plan.read_record(run) for run in plan.search_runs)
  if is_chosen:
    runs = plan.runs
  else:
    logging.info(
      'config.search is not finished: runs with searched settings count with'
      ' those of the most epochs'
    )
    runs = plan.plan_runs(search.longest_choices(plan.config))
  runs = [*plan.search_runs, *runs]
  identity.identities(plan, runs)
  todo = [run for run in runs if plan.read_record(run) is None]
  remaining = count_remaining(plan, runs, todo)
  probed = count_probed_rows(plan, remaining)
  path = plan.workspace.root / FILE
  if not remaining and not probed:
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
  programs = plan.setup.programs
  # Without a run to train, only baselines are left.
  sizes = batches or [programs.rows_multiple]
  memory = costs_lib.compile_steps(programs, plan.packing, sizes, counts)
  costs = costs_lib.measure(plan, batches, counts)
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
  probe_seconds = {
    task: costs['evaluation_batch']
    * costs_lib.evaluation_batches(
      plan, plan.features[task][plan.tasks[task].train_split], count
    )
    for task, count in probed.items()
  }
  disk = _disk(plan, remaining, max(counts), costs['checkpoint'])
  found = {
    'seconds': sum(seconds.values()) + sum(probe_seconds.values()),
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
    'linear_probes': probe_seconds,
    'memory': memory,
    'disk': disk,
    'measured': costs,
  }
  files.write_json(path, found)
  console = rich.console.Console()
  console.print(_table(remaining, steps, seconds, probe_seconds))
  text = _sentences({**memory, **disk}, path)
  console.print(text, markup=False, highlight=False, soft_wrap=True)


def count_remaining(
  plan: plan_lib.Plan,
  runs: Sequence[runs_lib.Run],
  todo: Sequence[runs_lib.Run],
) -> list[Remaining]:
  """Lists the runs that must still train, which are `todo`, or write logits."""
  unfinished = {run.name for run in todo}
  result = []
  for run in runs:
    labels = tuple(
      (task, split)
      for task, split in plan.data.splits_to_label(run, todo)
      if not has_logits(plan, run, task, split)
    )
    if labels or run.name in unfinished:
      steps = plan.data.num_steps(run)
      done = plan.latest_step(run) if run.name in unfinished else steps
      result.append(Remaining(run, steps, done, labels))
  return result


def count_probed_rows(
  plan: plan_lib.Plan, remaining: Sequence[Remaining]
) -> dict[str, int]:
  """Counts the rows that linear probes will encode, by task.

  They are probes of missing baselines, with the dev rows that these predict,
  and those that heads start from.
  """
  result: Counter[str] = Counter()
  for name in baselines.find_missing(plan):
    task, features = plan.tasks[name], plan.features[name]
    chosen = probes.choose_rows(task, features[task.train_split])
    dev = sum(len(features[split]) for split in task.dev_splits)
    result[name] += len(chosen) + dev
  if plan.config.model.head_init == 'linear_probe':
    heads = probes.ProbedHeads(plan)
    new = [e.run for e in remaining if not e.done and not e.run.start]
    pairs = [(run, name) for run in new for name in run.tasks]
    for run, name in {heads.key(*pair): pair for pair in pairs}.values():
      result[name] += len(heads.choose_rows(run, plan.tasks[name])[1])
  return dict(result)


def has_logits(
  plan: plan_lib.Plan, run: runs_lib.Run, task: str, split: str
) -> bool:
  """Whether a run has written its logits for a split."""
  folder = logit_sets.folder_name(task, split)
  return shards.exists(plan.workspace.teacher(run.name, folder))


def _sample_steps(
  plan: plan_lib.Plan, remaining: Sequence[Remaining]
) -> tuple[
  dict[object, list[int]], dict[object, float], dict[int, costs_lib.Batch]
]:
  """Builds a few training batches for each group of similar runs.

  Returns the rows B of the sampled steps by group, the seconds that the host
  needs for a batch by group, and a batch of each number of rows.
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
  plan: plan_lib.Plan, each: Remaining, step: float, costs: Mapping
) -> float:

  def predict(rows: shards.Columns) -> float:
    return costs['evaluation_batch'] * costs_lib.evaluation_batches(plan, rows)

  seconds = sum(
    predict(plan.features[task][split]) / parts
    for task, split, parts in each.rows_to_label()
  )
  if each.is_trained:
    return seconds
  train = each.run.config.train
  evaluations = each.steps_due(train.evaluate_every)
  # An evaluated step is saved too.
  saves = evaluations | each.steps_due(train.checkpoint_every)
  dev = plan.data.scored_splits(each.run)
  for times, splits in (
    (1, dev),
    (len(evaluations), plan.data.choosing_splits(each.run) or dev),
  ):
    seconds += times * sum(
      predict(rows) for part in splits.values() for rows in part.values()
    )
  seconds += (1 + len(saves)) * costs['checkpoint']['seconds']
  return seconds + costs['start'] + each.left * step


def _disk(
  plan: plan_lib.Plan,
  remaining: Sequence[Remaining],
  at_once: int,
  checkpoint: Mapping[str, int],
) -> dict[str, int]:
  """Estimates the bytes of checkpoints and logits, and the free bytes."""
  train = plan.config.train
  kept = checkpoint['whole' if train.keep_optimizer else 'params']
  runs = sum(not each.is_trained for each in remaining)
  logits = 0
  for each in remaining:
    for task, split, parts in each.rows_to_label():
      rows = plan.features[task][split]
      count = len(rows)
      if plan.tasks[task].kind.per_token:
        count = int(rows.ragged('input_ids')[1][-1])
      # Logits are stored as records and as columns, and a uid beside both.
      logit_bytes = 2 * 4 * plan.tasks[task].num_outputs * count
      uid_bytes = 2 * len(rows.uids[0].encode())
      logits += (logit_bytes + len(rows) * (uid_bytes + _FRAME)) // parts
  return {
    # The best one and the last, which may be the same.
    'checkpoints': runs * kept * (2 if train.evaluate_every else 1),
    # A new checkpoint is written before the old one is deleted.
    'while training': at_once * 2 * checkpoint['whole'] if runs else 0,
    'logits': logits,
    'free': shutil.disk_usage(plan.workspace.root).free,
  }


def _table(
  remaining: Sequence[Remaining],
  steps: Mapping[str, float],
  seconds: Mapping[str, float],
  probe_seconds: Mapping[str, float],
) -> rich.table.Table:
  """Makes a table with a row per group of similar runs, and a total."""
  table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
  table.add_column('variant', no_wrap=True)
  table.add_column('tasks', overflow='fold')
  for name in ('runs', 'steps', 'examples', 'ms a step', 'time'):
    table.add_column(name, justify='right', no_wrap=True)

  def add_row(name: str, tasks: str, runs: Sequence[Remaining]) -> None:
    took = [steps[e.run.name] for e in runs if tasks and e.run.name in steps]
    table.add_row(
      name,
      tasks,
      f'{len(runs):,}',
      f'{sum(each.left for each in runs):,}',
      f'{sum(each.examples for each in runs):,}',
      f'{1e3 * np.mean(took):.4g}' if took else '',
      telemetry.duration(sum(seconds[each.run.name] for each in runs)),
    )

  for group in dict.fromkeys(each.group for each in remaining):
    name, tasks = group
    label = tasks[0] if len(tasks) == 1 else f'{len(tasks)} tasks'
    add_row(name, label, [each for each in remaining if each.group == group])
  if probe_seconds:
    label = f'{len(probe_seconds)} tasks'
    took = telemetry.duration(sum(probe_seconds.values()))
    table.add_row('linear probes', label, '', '', '', '', took)
  table.add_section()
  add_row('in all', '', remaining)
  return table


def _sentences(counts: Mapping[str, int], path: Path) -> str:
  size = {name: decimal(count) for name, count in counts.items()}
  return (
    f'Memory of a device: {size["needed"]} of {size["device"]}, for a step of'
    f' {counts["seeds"]} x {counts["rows"]} rows: state and batch'
    f' {size["arguments"]}, temporary {size["temporary"]}.\n'
    f'Disk: {size["checkpoints"]} of checkpoints, {size["logits"]} of logits,'
    f' {size["while training"]} more while training; {size["free"]} are free.\n'
    'Not included: compiling, fitting linear probes, the report, and other'
    ' work of this machine.'
    f' {path} lists every run.'
  )
