"""How long what is left of a plan will take, and how much.

Steps and rows are counted by `remaining`, seconds are measured by `costs`. Left
out are compiling, which it has done for the runs, the report, and whatever else
keeps the machine busy then.
"""

import collections
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import logging
import math
from pathlib import Path
import shutil

import numpy as np
import rich.box
import rich.console
import rich.table

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import files
from bam_jax.core import packing as packing_lib
from bam_jax.data import shards
from bam_jax.data import tfrecord
from bam_jax.distillation import logit_sets
from bam_jax.experiments import costs as costs_lib
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import remaining
from bam_jax.experiments import run_data
from bam_jax.experiments import runs as runs_lib
from bam_jax.runtime import telemetry
from bam_jax.tasks import task as task_lib
from bam_jax.training import evaluate
from bam_jax.training import setup as setup_lib

FILE = 'estimate.json'

# Steps of a run of each kind whose rows are counted, and whose batches are
# made.
_LOOKED_AT = 64
_MADE = 3
# Length and checksums around a record.
_FRAME = 16


def estimate(plan: plan_lib.Plan) -> None:
  """Measures and prints what the rest of a plan needs: the command `estimate`.

  Prepares features, writes `estimate.json`, trains nothing. If a search has not
  chosen yet, this changes no number of steps.

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
  works = remaining.of_plan(
    runs,
    todo,
    plan.tasks,
    plan.features,
    plan.latest_step,
    lambda run, *rows: shards.exists(
      plan.workspace.teacher(run, logit_sets.folder_name(*rows))
    ),
  )
  Estimator(
    plan.config,
    plan.tasks,
    plan.features,
    plan.packing,
    plan.setup,
    plan.workspace.root,
  ).report(works, list(plan.group_runs(todo)))


class Estimator:
  """Counts and measures for one plan."""

  def __init__(
    self,
    config: config_lib.Config,
    tasks: task_lib.TaskTable,
    features: run_data.Features,
    packing: config_lib.PackingConfig,
    setup: setup_lib.Setup,
    workdir: Path,
  ):
    """Computes nothing yet; features are of all tasks of the plan."""
    self._config = config
    self._tasks = tasks
    self._features = features
    self._packing = packing
    self._setup = setup
    self._workdir = workdir

  def report(
    self,
    works: Sequence[remaining.Work],
    groups: Sequence[Sequence[runs_lib.Run]],
  ) -> None:
    """Measures, prints a table, and writes `estimate.json`.

    Args:
      works: what is left.
      groups: the runs to be trained, as one program trains them.

    Raises:
      errors.UserError: a step needs more memory than a device has.
    """
    if not works:
      logging.info('nothing is left to train')
      files.write_json(self._workdir / FILE, {'seconds': 0, 'runs': []})
      return
    by_name = {work.run.name: work for work in works}
    counts = {run.name: len(group) for group in groups for run in group}
    filled, hosts, batches = self._batches(works, set(counts.values()) or {1})
    memory = self._compile(batches)
    first = self._tasks[works[0].run.tasks[0]]
    costs = costs_lib.measure(
      self._setup,
      batches,
      self._features[first.name][first.dev_splits[0]],
      self._tasks.index[first.name],
      self._config,
      self._workdir,
    )
    steps = {
      name: self._step(
        filled[by_name[name].kind], hosts[by_name[name].kind], count, costs
      )
      for name, count in counts.items()
    }
    seconds = {
      work.run.name: self._seconds(work, steps.get(work.run.name, 0.0), costs)
      for work in works
    }
    disk = self._disk(works, max(counts.values(), default=1), costs.checkpoint)
    console = rich.console.Console()
    console.print(_table(works, steps, seconds))
    for line in _needs(memory, disk, self._workdir):
      console.print(line, markup=False, highlight=False, soft_wrap=True)
    files.write_json(
      self._workdir / FILE,
      {
        'seconds': sum(seconds.values()),
        'steps': sum(work.left for work in works),
        'examples': sum(work.examples for work in works),
        'runs': [
          {
            'name': work.run.name,
            'steps': work.steps,
            'done': work.steps if work.trained else work.done,
            'examples': work.examples,
            'labels': [logit_sets.folder_name(*rows) for rows in work.labels],
            'seconds': seconds[work.run.name],
          }
          for work in works
        ],
        'memory': memory._asdict()
        | {'needed': memory.needed, 'device': costs_lib.device_memory()},
        'disk': disk,
        'measured': {
          'step': {
            f'{count}x{rows}': value
            for (count, rows), value in costs.step.items()
          },
          'start': costs.start,
          'evaluation_batch': costs.batch,
          'checkpoint': costs.checkpoint._asdict(),
        },
      },
    )

  def _batches(
    self, works: Sequence[remaining.Work], counts: set[int]
  ) -> tuple[
    dict[remaining.Kind, dict[int, float]],
    dict[remaining.Kind, float],
    dict[costs_lib.Shape, costs_lib.Batch],
  ]:
    """What the steps of each kind of run are made of.

    Returns:
      Kind -> B -> its share of the steps; kind -> seconds of a batch on the
      host; and of each shape (K, B) a batch.
    """
    filled, hosts, batches = {}, {}, {}
    multiple = self._setup.programs.rows_multiple
    buckets = self._packing.row_buckets if self._packing.enabled else (1,)
    for work in {work.kind: work for work in works}.values():
      job = run_data.make_job(
        work.run,
        self._packing,
        self._tasks,
        self._features,
        [
          run_data.placeholder_probs(
            work.run, self._tasks[name], self._features
          )
          for name in work.run.tasks
        ],
        multiple,
        Path(),
      )
      looked_at = range(0, job.num_steps, max(job.num_steps // _LOOKED_AT, 1))
      rows = [
        packing_lib.bucket(job.batches.rows_filled(step), buckets, multiple)
        for step in looked_at
      ]
      filled[work.kind] = {
        size: count / len(rows)
        for size, count in collections.Counter(rows).items()
      }
      hosts[work.kind] = costs_lib.batch_seconds(job.batches, looked_at[:_MADE])
      for size, step in zip(rows, looked_at):
        if (min(counts), size) not in batches:
          batch = job.batches(step)
          batches |= {(count, size): batch for count in counts}
    return filled, hosts, batches

  def _compile(
    self, batches: Mapping[costs_lib.Shape, costs_lib.Batch]
  ) -> costs_lib.Memory:
    """Compiles the steps, and checks that they have room.

    Those of buckets too that no step looked at fills: the largest needs most.
    """
    buckets = self._packing.row_buckets if self._packing.enabled else ()
    packing = dataclasses.replace(
      self._packing,
      row_buckets=tuple(sorted({*buckets, *(rows for _, rows in batches)})),
      slots=self._packing.slots if self._packing.enabled else 1,
    )
    programs = self._setup.programs
    try:
      programs.compile_ahead(packing, {count for count, _ in batches})
      memory = costs_lib.memory(programs)
    finally:
      programs.stop_compiling()
    if memory.needed > costs_lib.device_memory():
      raise errors.UserError(
        f'a training step of {memory.seeds} x {memory.rows} rows needs'
        f' {_bytes(memory.needed)} on each device, which has'
        f' {_bytes(costs_lib.device_memory())}; raise config.train.accumulate,'
        ' set config.model.remat=True, or lower config.train.seeds_at_once'
      )
    return memory

  def _step(
    self,
    filled: Mapping[int, float],
    host: float,
    count: int,
    costs: costs_lib.Costs,
  ) -> float:
    """Seconds of a step of one of so many runs that are trained at once."""
    device = sum(
      share * costs.step[count, rows] for rows, share in filled.items()
    )
    # Batches are made while the devices compute.
    return max(device / count, host)

  def _seconds(
    self, work: remaining.Work, step: float, costs: costs_lib.Costs
  ) -> float:
    """Of all that is left of a run."""
    batches = sum(
      self._evaluation_batches(task, split) / parts
      for task, split, parts in self._labelled(work)
    )
    if work.trained:
      return batches * costs.batch
    train = work.run.config.train
    evaluations = work.dues(train.evaluate_every)
    # What is evaluated is saved too, and nothing twice.
    both = math.lcm(train.evaluate_every, train.checkpoint_every)
    saves = evaluations + work.dues(train.checkpoint_every) - work.dues(both)
    batches += (1 + evaluations) * sum(
      self._evaluation_batches(task, split)
      for task in work.run.tasks
      for split in self._tasks[task].dev_splits
    )
    return (
      costs.start
      + work.left * step
      + batches * costs.batch
      + (1 + saves) * costs.checkpoint.seconds
    )

  def _evaluation_batches(self, task: str, split: str) -> int:
    rows = evaluate.batch_rows(self._setup.programs, self._packing)
    return costs_lib.evaluation_batches(
      self._features[task][split], rows, self._packing
    )

  def _disk(
    self,
    works: Sequence[remaining.Work],
    at_once: int,
    one: costs_lib.Checkpoint,
  ) -> dict[str, int]:
    """Bytes that the plan has yet to write, by what they are for."""
    train = self._config.train
    kept = one.whole if train.keep_optimizer else one.params
    runs = sum(not work.trained for work in works)
    return {
      # The best one and the last, which may be the same.
      'checkpoints': runs * kept * (2 if train.evaluate_every else 1),
      # Of the runs under way: the new one is there before the old one goes.
      'while training': at_once * 2 * one.whole if runs else 0,
      'logits': sum(
        self._logits(*labelled)
        for work in works
        for labelled in self._labelled(work)
      ),
      'free': shutil.disk_usage(self._workdir).free,
    }

  def _labelled(self, work: remaining.Work) -> Iterator[tuple[str, str, int]]:
    """Task, split and the number of runs that share its rows, of a teacher."""
    for task, split in work.labels:
      fold = None if split == task_lib.UNLABELLED else work.run.fold
      yield task, split, fold.of if fold else 1

  def _logits(self, name: str, split: str, parts: int) -> int:
    """Bytes of a run's logits on the rows that it labels, one of some parts."""
    task = self._tasks[name]
    columns = self._features[name][split]
    count, width, of_tokens = len(columns), task.num_outputs, 0
    if task.kind.per_token:
      of_tokens = width * int(columns.ragged('input_ids')[1][-1])
      width = 0
    uid = columns.uids[count - 1].encode()
    record = tfrecord.encode({'uid': [uid], 'logits': np.zeros(width, 'f4')})
    # A set lies there as records and, decoded, as columns.
    row = len(record) + _FRAME + len(uid) + 8 + 4 * width
    return (count * row + 2 * 4 * of_tokens) // parts


def _table(
  works: Sequence[remaining.Work],
  steps: Mapping[str, float],
  seconds: Mapping[str, float],
) -> rich.table.Table:
  """A row a kind of run, and one for all."""
  table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
  table.add_column('variant', no_wrap=True)
  table.add_column('tasks', overflow='fold')
  for name in ('runs', 'steps', 'examples', 'ms a step', 'time'):
    table.add_column(name, justify='right', no_wrap=True)

  def add(what: str, tasks: str, own: Sequence[remaining.Work], step: str):
    table.add_row(
      what,
      tasks,
      f'{len(own):,}',
      f'{sum(work.left for work in own):,}',
      f'{sum(work.examples for work in own):,}',
      step,
      telemetry.duration(sum(seconds[work.run.name] for work in own)),
    )

  by_kind = collections.defaultdict(list)
  for work in works:
    by_kind[work.kind].append(work)
  for (variant, tasks, fold), own in by_kind.items():
    took = [steps[w.run.name] for w in own if w.run.name in steps]
    add(
      f'{variant} {fold}'.rstrip(),
      tasks[0] if len(tasks) == 1 else f'{len(tasks)} tasks',
      own,
      f'{1e3 * np.mean(took):.4g}' if took else '',
    )
  table.add_section()
  add('in all', '', works, '')
  return table


def _needs(
  memory: costs_lib.Memory, disk: Mapping[str, int], workdir: Path
) -> Iterator[str]:
  yield (
    f'Memory of a device: {_bytes(memory.needed)} of'
    f' {_bytes(costs_lib.device_memory())}, for a step of'
    f' {memory.seeds} x {memory.rows} rows: state and batch'
    f' {_bytes(memory.arguments)}, temporary {_bytes(memory.temporary)}.'
  )
  yield (
    f'Disk: {_bytes(disk["checkpoints"])} of checkpoints,'
    f' {_bytes(disk["logits"])} of logits,'
    f' {_bytes(disk["while training"])} more while training;'
    f' {_bytes(disk["free"])} are free.'
  )
  yield (
    'Compiling, the report and whatever else the machine does come on top.'
    f' {workdir / FILE} has it run by run.'
  )


def _bytes(count: int) -> str:
  """Such as `1.4 GB`, in powers of ten."""
  for unit, size in (('GB', 1e9), ('MB', 1e6)):
    if count >= size:
      return f'{count / size:.1f} {unit}'
  return f'{count / 1e3:.1f} kB'
