"""From a run of the plan to a job for the training loop."""

from collections import Counter
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from pathlib import Path

import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.core import packing as packing_lib
from bam_jax.core import sampling
from bam_jax.data import batches
from bam_jax.data import folds
from bam_jax.data import shards
from bam_jax.experiments import plan as plan_lib
from bam_jax.tasks import task as task_lib
from bam_jax.training import evaluate
from bam_jax.training import job as job_lib

# Examples that the steps of a run may take: their sampling is counted ahead.
_MOST_EXAMPLES = 2**31 - 1
# Steps of a run whose rows are counted to choose its buckets.
_LOOKED_AT = 64

# task -> split -> rows
Features = Mapping[str, Mapping[str, shards.Columns]]


def make(
  run: plan_lib.Run,
  packing: config_lib.PackingConfig,
  tasks: task_lib.TaskTable,
  features: Features,
  targets: Sequence[np.ndarray | None],
  rows_multiple: int,
  directory: Path,
  own_rows: Callable[[int], np.ndarray] | None = None,
) -> job_lib.Job:
  """Everything that training a run needs.

  Args:
    run: the run.
    packing: of the plan.
    tasks: the tasks of the plan.
    features: of the run's tasks at least.
    targets: for each of the run's tasks the teachers' predictions on its
      training rows, and on those of `unlabelled` after them, [rows, outputs];
      None without teachers.
    rows_multiple: what the rows of a batch must divide by.
    directory: of the run.
    own_rows: the rows of a batch that this process reads; None: all.
  """
  length = run.length
  train = [features[name][tasks[name].train_split] for name in run.tasks]
  rows = [len(columns) for columns in train]
  more = [unlabelled(run, name, features) for name in run.tasks]
  kept = None
  if run.fold:
    kept = [folds.split(columns.uids, run.fold)[0] for columns in train]
  for number, columns in enumerate(more):
    if columns is not None:
      there = rows[number] + np.arange(len(columns))
      rows[number] += len(columns)
      if kept:
        kept[number] = np.concatenate([kept[number], there])
  if kept:
    rows = [len(left) for left in kept]
  num_steps = _steps_over(run, sum(rows))
  mix = _mix(run, rows, num_steps)
  return job_lib.Job(
    name=run.name,
    directory=directory,
    seed=run.seed,
    batches=batches.TrainBatches(
      tasks,
      [tasks.index[name] for name in run.tasks],
      train,
      targets,
      sampling.PartMix(mix, kept) if kept else mix,
      packing,
      rows_multiple,
      own_rows,
      more,
    ),
    num_steps=num_steps,
    length=length,
    taught=run.is_taught,
    dev=dev_splits(run, tasks, features),
  )


def num_steps(
  run: plan_lib.Run, tasks: task_lib.TaskTable, features: Features
) -> int:
  """The length of a run, from the numbers of its rows alone.

  Args:
    run: the run.
    tasks: the tasks of the plan.
    features: of the run's tasks at least.
  """
  return _steps_over(
    run,
    sum(
      _rows_kept(run, tasks[name], features[name][tasks[name].train_split])
      + _rows_without_labels(run, name, features)
      for name in run.tasks
    ),
  )


def _steps_over(run: plan_lib.Run, rows: int) -> int:
  """The steps of a run over so many rows.

  Raises:
    errors.UserError: they are too many to be counted.
  """
  length = run.length
  steps = sampling.num_steps(length.epochs, rows, length.batch_size)
  steps = min(steps, length.max_steps) if length.max_steps else steps
  most = _MOST_EXAMPLES // length.batch_size
  if steps > most:
    raise errors.UserError(
      f'config.{"single" if run.is_single else "multi"}.epochs={length.epochs}:'
      f' makes {steps} steps over {rows} rows, over {most}; give fewer, or'
      ' max_steps'
    )
  return steps


def _rows_kept(
  run: plan_lib.Run, task: task_lib.Task, columns: shards.Columns
) -> int:
  """Training rows but for those of the fold that the run leaves out."""
  if not run.fold:
    return len(columns)
  if task.kind.in_windows:
    return len(folds.split(columns.uids, run.fold)[0])
  copies = 2 if task.name in run.config.data.swap else 1
  return copies * folds.examples_outside(len(columns) // copies, run.fold)


def unlabelled(
  run: plan_lib.Run, task: str, features: Features
) -> shards.Columns | None:
  """The rows without labels that a run learns a task from, if any."""
  if run.learns_unlabelled:
    return features[task].get(task_lib.UNLABELLED)
  return None


def splits_learnt(
  run: plan_lib.Run, task: task_lib.Task, features: Features
) -> list[str]:
  """Those whose rows a run learns a task from, those with labels first."""
  if unlabelled(run, task.name, features) is None:
    return [task.train_split]
  return [task.train_split, task_lib.UNLABELLED]


def to_label(
  run: plan_lib.Run,
  students: Sequence[plan_lib.Run],
  tasks: task_lib.TaskTable,
  features: Features,
) -> list[tuple[str, str]]:
  """Task and split of all rows that some students need a run's logits on.

  Args:
    run: the run.
    students: those yet to be trained.
    tasks: the tasks of the plan.
    features: of all of them.
  """
  taught = plan_lib.tasks_taught_by(students, run.name)
  learners = [student for student in students if student.learns_unlabelled]
  return [(name, tasks[name].train_split) for name in taught] + [
    (name, task_lib.UNLABELLED)
    for name in plan_lib.tasks_taught_by(learners, run.name)
    if task_lib.UNLABELLED in features[name]
  ]


def _rows_without_labels(
  run: plan_lib.Run, task: str, features: Features
) -> int:
  columns = unlabelled(run, task, features)
  return 0 if columns is None else len(columns)


def choose_packing(
  runs: Sequence[plan_lib.Run],
  packing: config_lib.PackingConfig,
  tasks: task_lib.TaskTable,
  features: Features,
) -> config_lib.PackingConfig:
  """The packing of a plan, its row buckets chosen if the user left them open.

  Looks at steps spread over one run of each kind; the seeds fill rows alike.
  The last bucket is for the fullest step of all runs: one beyond it would mean
  a program compiled in the middle of a run.

  Args:
    runs: the plan.
    packing: as configured.
    tasks: the tasks of the plan.
    features: of all of them.
  """
  if packing.row_buckets or not packing.enabled:
    return packing
  looked_at_runs = {(run.tasks, run.variant): run for run in reversed(runs)}
  alike = Counter((run.tasks, run.variant) for run in runs)
  steps: Counter[int] = Counter()
  largest = 0
  for kind, run in looked_at_runs.items():
    # What they are to be taught changes no row.
    targets = [no_targets(run, tasks[name], features) for name in run.tasks]
    job = make(run, packing, tasks, features, targets, 1, Path())
    looked_at = range(0, job.num_steps, max(job.num_steps // _LOOKED_AT, 1))
    seen = [job.batches.rows_filled(step) for step in looked_at]
    for rows in seen:
      steps[rows] += job.num_steps / len(looked_at)
    all_steps = alike[kind] * job.num_steps
    largest = max(largest, packing_lib.most_rows(seen, all_steps))
  return dataclasses.replace(
    packing, row_buckets=packing_lib.choose_buckets(steps, largest)
  )


def no_targets(
  run: plan_lib.Run, task: task_lib.Task, features: Features
) -> np.ndarray | None:
  """In the place of teachers' predictions where rows cannot be without."""
  more = unlabelled(run, task.name, features)
  if more is None:
    return None
  rows = len(features[task.name][task.train_split]) + len(more)
  return np.broadcast_to(np.float32(0), (rows, task.num_outputs))


def dev_splits(
  run: plan_lib.Run, tasks: task_lib.TaskTable, features: Features
) -> evaluate.Splits:
  """The rows that a run is scored on."""
  return {
    name: {split: features[name][split] for split in tasks[name].dev_splits}
    for name in run.tasks
  }


def _mix(
  run: plan_lib.Run,
  rows: Sequence[int],
  num_steps: int,
) -> sampling.Mix:
  """Which rows make a step; `rows` counts swapped copies."""
  config, batch_size = run.config, run.length.batch_size
  exponent = config.sampling.exponent
  # One task leaves nothing to mix: its rows come by fresh permutations.
  if config.sampling.mode == 'copies' and not run.is_single:
    return sampling.CopiesMix(rows, exponent, batch_size, num_steps, run.seed)
  sizes = [
    count // 2 if name in config.data.swap else count
    for name, count in zip(run.tasks, rows)
  ]
  return sampling.SampledMix(
    sizes, rows, exponent, batch_size, num_steps, run.seed
  )
