"""The data of a run: its batches, its number of steps and its dev splits."""

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
from bam_jax.experiments import runs as runs_lib
from bam_jax.tasks import task as task_lib
from bam_jax.training import evaluate
from bam_jax.training import job as job_lib

# The task sampler of a run counts its examples as int32.
_MAX_EXAMPLES = 2**31 - 1
# Steps of a run whose rows are counted to choose its row buckets.
_SAMPLED_STEPS = 64

# task -> split -> rows
Features = Mapping[str, Mapping[str, shards.Columns]]


def make_job(
  run: runs_lib.Run,
  packing: config_lib.PackingConfig,
  tasks: task_lib.TaskTable,
  features: Features,
  teacher_probs: Sequence[np.ndarray | None],
  rows_multiple: int,
  directory: Path,
  own_rows: Callable[[int], np.ndarray] | None = None,
) -> job_lib.Job:
  """Returns what the training loop needs to train a run.

  Args:
    run: the run.
    packing: of the plan.
    tasks: the tasks of the plan.
    features: of the run's tasks at least.
    teacher_probs: for each of the run's tasks the teachers' predictions on its
      training rows, then on its rows without labels if the run learns from
      them, [rows, outputs] or [tokens, outputs]; None without teachers.
    rows_multiple: the number of rows of a batch is a multiple of it.
    directory: of the run.
    own_rows: number of rows -> the rows of a batch that this process reads;
      None: all.
  """
  steps = num_steps(run, tasks, features)
  train = [features[name][tasks[name].train_split] for name in run.tasks]
  extra = [unlabelled_rows(run, name, features) for name in run.tasks]
  sizes = [len(rows) + len(more or ()) for rows, more in zip(train, extra)]
  kept = None
  if run.fold:
    kept = [
      np.concatenate(
        [folds.split(rows.uids, run.fold)[0], np.arange(len(rows), size)]
      )
      for rows, size in zip(train, sizes)
    ]
    sizes = [len(rows) for rows in kept]
  sampler = _make_sampler(run, sizes, steps)
  return job_lib.Job(
    name=run.name,
    directory=directory,
    seed=run.seed,
    batches=batches.TrainBatches(
      tasks,
      [tasks.index[name] for name in run.tasks],
      train,
      teacher_probs,
      sampling.PartMix(sampler, kept) if kept else sampler,
      packing,
      rows_multiple,
      own_rows,
      extra,
    ),
    num_steps=steps,
    length=run.length,
    taught=run.is_taught,
    dev=dev_splits(run, tasks, features),
  )


def num_steps(
  run: runs_lib.Run, tasks: task_lib.TaskTable, features: Features
) -> int:
  """Returns the number of training steps of a run.

  Args:
    run: the run.
    tasks: the tasks of the plan.
    features: of the run's tasks at least.

  Raises:
    errors.UserError: the run has more examples than can be counted.
  """
  rows = 0
  for name in run.tasks:
    rows += _num_labelled(run, tasks[name], features)
    rows += len(unlabelled_rows(run, name, features) or ())
  return _num_steps(run, rows)


def _num_steps(run: runs_lib.Run, rows: int) -> int:
  """Number of steps of a run over so many rows."""
  length = run.length
  steps = sampling.num_steps(length.epochs, rows, length.batch_size)
  steps = min(steps, length.max_steps) if length.max_steps else steps
  most = _MAX_EXAMPLES // length.batch_size
  if steps > most:
    raise errors.UserError(
      f'config.{"single" if run.is_single else "multi"}.epochs={length.epochs}:'
      f' makes {steps} steps over {rows} rows, over {most}; give fewer, or'
      ' max_steps'
    )
  return steps


def _num_labelled(
  run: runs_lib.Run, task: task_lib.Task, features: Features
) -> int:
  """Labelled rows that a run is trained on, without the fold it leaves out."""
  rows = features[task.name][task.train_split]
  if not run.fold:
    return len(rows)
  if task.kind.in_windows:
    return len(folds.split(rows.uids, run.fold)[0])
  copies = 2 if task.name in run.config.data.swap else 1
  return copies * folds.examples_outside(len(rows) // copies, run.fold)


def unlabelled_rows(
  run: runs_lib.Run, task: str, features: Features
) -> shards.Columns | None:
  """Rows without labels that a run learns a task from; None: there are none."""
  if run.learns_unlabelled:
    return features[task].get(task_lib.UNLABELLED)
  return None


def learnt_splits(
  run: runs_lib.Run, task: task_lib.Task, features: Features
) -> list[str]:
  """Splits that a run learns a task from; the one with labels comes first."""
  if unlabelled_rows(run, task.name, features) is None:
    return [task.train_split]
  return [task.train_split, task_lib.UNLABELLED]


def splits_to_label(
  run: runs_lib.Run,
  students: Sequence[runs_lib.Run],
  tasks: task_lib.TaskTable,
  features: Features,
) -> list[tuple[str, str]]:
  """Task and split of all rows on which students need a run's logits.

  Args:
    run: the teacher.
    students: runs that are not trained yet.
    tasks: the tasks of the plan.
    features: of all of them.
  """
  learners = [student for student in students if student.learns_unlabelled]
  return [
    (name, tasks[name].train_split)
    for name in runs_lib.tasks_taught_by(students, run.name)
  ] + [
    (name, task_lib.UNLABELLED)
    for name in runs_lib.tasks_taught_by(learners, run.name)
    if task_lib.UNLABELLED in features[name]
  ]


def choose_packing(
  runs: Sequence[runs_lib.Run],
  packing: config_lib.PackingConfig,
  tasks: task_lib.TaskTable,
  features: Features,
) -> config_lib.PackingConfig:
  """Returns the packing with its row buckets chosen if the user gave none.

  One run of each variant and set of tasks is sampled, because other seeds fill
  rows alike. The last bucket holds the largest step of all runs: a larger step
  would compile a program in the middle of a run.

  Args:
    runs: the runs of the plan.
    packing: as configured.
    tasks: the tasks of the plan.
    features: of all of them.
  """
  if packing.row_buckets or not packing.enabled:
    return packing
  sampled_runs = {(run.tasks, run.variant): run for run in reversed(runs)}
  similar = Counter((run.tasks, run.variant) for run in runs)
  steps: Counter[int] = Counter()
  largest = 0
  for key, run in sampled_runs.items():
    # Teachers' predictions do not change the number of rows.
    probs = [
      placeholder_probs(run, tasks[name], features) for name in run.tasks
    ]
    job = make_job(run, packing, tasks, features, probs, 1, Path())
    sampled = range(0, job.num_steps, max(job.num_steps // _SAMPLED_STEPS, 1))
    filled = [job.batches.rows_filled(step) for step in sampled]
    for rows in filled:
      steps[rows] += job.num_steps / len(sampled)
    all_steps = similar[key] * job.num_steps
    largest = max(largest, packing_lib.most_rows(filled, all_steps))
  return dataclasses.replace(
    packing, row_buckets=packing_lib.choose_buckets(steps, largest)
  )


def placeholder_probs(
  run: runs_lib.Run, task: task_lib.Task, features: Features
) -> np.ndarray | None:
  """Zeros instead of teachers' predictions, where batches must have some.

  Returns:
    [rows, outputs] float32 without memory of its own; None if the run learns
    the task from labelled rows alone.
  """
  extra = unlabelled_rows(run, task.name, features)
  if extra is None:
    return None
  rows = len(features[task.name][task.train_split]) + len(extra)
  return np.broadcast_to(np.float32(0), (rows, task.num_outputs))


def dev_splits(
  run: runs_lib.Run, tasks: task_lib.TaskTable, features: Features
) -> evaluate.Splits:
  """Rows that a run is scored on, by task and dev split."""
  return {
    name: {split: features[name][split] for split in tasks[name].dev_splits}
    for name in run.tasks
  }


def _make_sampler(
  run: runs_lib.Run, sizes: Sequence[int], steps: int
) -> sampling.Mix:
  """Returns the task sampler; `sizes` are of rows with swapped copies."""
  config, batch_size = run.config, run.length.batch_size
  exponent = config.sampling.exponent
  # With one task there is nothing to balance: its rows come in permutations.
  if config.sampling.mode == 'copies' and not run.is_single:
    return sampling.CopiesMix(sizes, exponent, batch_size, steps, run.seed)
  examples = [
    size // 2 if name in config.data.swap else size
    for name, size in zip(run.tasks, sizes)
  ]
  return sampling.SampledMix(
    examples, sizes, exponent, batch_size, steps, run.seed
  )
