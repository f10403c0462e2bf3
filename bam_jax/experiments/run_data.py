"""Selects the rows that a run learns from and is scored on."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import NamedTuple

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
from bam_jax.tasks import windows
from bam_jax.training import evaluate
from bam_jax.training import spec as spec_lib

# The task sampler counts the examples of a run as int32.
_MAX_EXAMPLES = 2**31 - 1
# The number of rows in a bucket is a multiple of four, or of a smaller number
# if that many rows hold this many tokens. So batches of long rows need little
# padding.
_BUCKET_TOKENS = 512
# An `auto` loss weight is 1 / the loss of a constant prediction. A loss below
# this value counts as this value.
_LEAST_LOSS = 1e-3

# task -> split -> rows
Features = Mapping[str, Mapping[str, shards.Columns]]


class Division(NamedTuple):
  """Division of a task's training rows for a run.

  Each field holds indices of training rows, ascending, [n] int64.
  """

  kept: np.ndarray  # Rows that the run is trained on.
  fold: np.ndarray  # Rows of the run's fold.
  held_out: np.ndarray  # Rows on which the run's best step is chosen.


@dataclasses.dataclass(frozen=True)
class PlanData:
  """Datasets of a plan, with methods that select the rows of one run."""

  tasks: task_lib.TaskTable
  features: Features
  _divided: dict[object, Division] = dataclasses.field(
    default_factory=dict, init=False, repr=False, compare=False
  )

  def learnt_splits(self, run: runs_lib.Run, task: str) -> list[str]:
    """Returns the splits that a run trains on, the labelled split first."""
    splits = [self.tasks[task].train_split]
    if run.learns_unlabelled and task_lib.UNLABELLED in self.features[task]:
      splits.append(task_lib.UNLABELLED)
    return splits

  def scored_splits(self, run: runs_lib.Run) -> evaluate.Splits:
    """Returns the rows that a run is scored on, by task and split.

    These are the dev splits. A run of the search is scored on the training rows
    that it left out, without swapped copies.
    """
    if run.is_search:
      return {
        name: self._select_once(name, self._divide(run, name).fold)
        for name in run.tasks
      }
    return {
      name: {
        split: self.features[name][split]
        for split in self.tasks[name].dev_splits
      }
      for name in run.tasks
    }

  def choosing_splits(self, run: runs_lib.Run) -> evaluate.Splits | None:
    """Returns the held-out training rows on which a run's best step is chosen.

    Returns None if the run has no patience.
    """
    if not run.held_out:
      return None
    return {
      name: self._select_once(name, self._divide(run, name).held_out)
      for name in run.tasks
    }

  def _select_once(
    self, task: str, indices: np.ndarray
  ) -> dict[str, shards.Columns]:
    """Returns training rows as a split, without swapped copies."""
    rows = self.features[task][self.tasks[task].train_split]
    uids = rows.uids
    once = [i for i in indices if not task_lib.is_swapped(uids[i])]
    return {task_lib.HELD_OUT: rows.select(np.array(once))}

  def splits_to_label(
    self, run: runs_lib.Run, students: Sequence[runs_lib.Run]
  ) -> list[tuple[str, str]]:
    """Returns the (task, split) pairs that a teacher run labels."""
    found = {
      (task, split): None
      for student in students
      for task, teachers in student.teachers.items()
      if run.name in teachers
      for split in self.learnt_splits(student, task)
    }
    return list(found)

  def num_steps(self, run: runs_lib.Run) -> int:
    """Returns the number of training steps of a run; see `decide_steps`."""
    return self.decide_steps(run)[0]

  def decide_steps(self, run: runs_lib.Run) -> tuple[int, str]:
    """Returns a run's number of training steps, and the field that decides it.

    The field is `epochs`, `min_steps` or `min_passes`. It is `epochs` even if
    `max_steps` ends the run before its epochs are complete.

    Raises:
      errors.UserError: the run has more examples than can be counted, or needs
        more steps than its `max_steps`.
    """
    sizes = []
    for name in run.tasks:
      labelled, *unlabelled = self._learnt_rows(run, name)
      count = self._num_labelled(run, self.tasks[name], labelled)
      sizes.append(count + sum(map(len, unlabelled)))
    return _decide_steps(run, sizes, _make_sampler(run, sizes))

  def make_spec(
    self,
    run: runs_lib.Run,
    packing: config_lib.PackingConfig,
    teacher_probs: Sequence[np.ndarray | None] | None = None,
    rows_multiple: int = 1,
    directory: Path = Path(),
    own_rows: Callable[[int], np.ndarray] | None = None,
  ) -> spec_lib.TrainSpec:
    """Returns the data, sampler and settings that a run is trained with.

    Args:
      run: the run.
      packing: row buckets and sizes of the plan's batches.
      teacher_probs: for each of the run's tasks, the result of
        `TeacherLogits.read_probs`. By default, zeros if the task has rows
        without labels, because such rows need predictions; otherwise None.
      rows_multiple, own_rows: see `batches.TrainBatches`.
      directory: folder of the run.
    """
    learnt = [self._learnt_rows(run, name) for name in run.tasks]
    train = [rows[0] for rows in learnt]
    sizes = [sum(map(len, rows)) for rows in learnt]
    if teacher_probs is None:
      teacher_probs = [
        np.broadcast_to(np.float32(0), (size, self.tasks[name].num_outputs))
        if len(rows) > 1
        else None
        for name, rows, size in zip(run.tasks, learnt, sizes)
      ]
    kept = None
    if run.fold or run.held_out:
      kept = [
        np.concatenate(
          [self._divide(run, name).kept, np.arange(len(rows), size)]
        )
        for name, rows, size in zip(run.tasks, train, sizes)
      ]
      sizes = [len(rows) for rows in kept]
    sampler = _make_sampler(run, sizes)
    steps, _ = _decide_steps(run, sizes, sampler)
    sampler.weights *= self._loss_weights(run)
    return spec_lib.TrainSpec(
      name=run.name,
      directory=directory,
      seed=run.seed,
      batches=batches.TrainBatches(
        self._weigh(run),
        [self.tasks.index[name] for name in run.tasks],
        train,
        teacher_probs,
        sampling.SubsetSampler(sampler, kept) if kept else sampler,
        packing,
        rows_multiple,
        own_rows,
        [rows[1] if len(rows) > 1 else None for rows in learnt],
      ),
      num_steps=steps,
      length=run.length,
      is_taught=run.is_taught,
      dev=self.scored_splits(run),
      choosing=self.choosing_splits(run),
      config=run.config,
    )

  def labelled_rows(
    self, run: runs_lib.Run, task: str
  ) -> tuple[shards.Columns, np.ndarray | None]:
    """Returns a task's training rows, and the indices that a run trains on.

    The indices are None if the run trains on all rows.
    """
    rows = self.features[task][self.tasks[task].train_split]
    is_divided = run.fold or run.held_out
    return rows, self._divide(run, task).kept if is_divided else None

  def choose_packing(
    self, runs: Sequence[runs_lib.Run], packing: config_lib.PackingConfig
  ) -> config_lib.PackingConfig:
    """Returns packing settings; chooses row buckets if the user gave none.

    Runs with equal variant, tasks, batch size and sampling settings fill about
    equally many rows, so only one of them is sampled. The last bucket is large
    enough for the estimated largest step of all runs, because a larger step
    would compile a program in the middle of a run.
    """
    if packing.row_buckets or not packing.enabled:
      return packing
    keys = [
      (run.tasks, run.variant, run.length.batch_size, run.config.sampling)
      for run in runs
    ]
    similar = Counter(keys)
    steps: Counter[int] = Counter()
    largest = 0
    sampled_runs = dict(zip(reversed(keys), reversed(runs)))
    for key, run in sampled_runs.items():
      spec = self.make_spec(run, packing)
      filled = [spec.batches.rows_filled(step) for step in spec.sampled_steps]
      for rows in filled:
        steps[rows] += spec.num_steps / len(filled)
      all_steps = similar[key] * spec.num_steps
      largest = max(largest, packing_lib.most_rows(filled, all_steps))
    multiple = min(4, -(-_BUCKET_TOKENS // packing.row_length))
    buckets = packing_lib.choose_buckets(steps, largest, multiple=multiple)
    return dataclasses.replace(packing, row_buckets=buckets)

  def _learnt_rows(self, run: runs_lib.Run, task: str) -> list[shards.Columns]:
    return [self.features[task][s] for s in self.learnt_splits(run, task)]

  def _num_labelled(
    self, run: runs_lib.Run, task: task_lib.Task, rows: shards.Columns
  ) -> int:
    """Counts the labelled rows that a run is trained on."""
    if not run.fold and not run.held_out:
      return len(rows)
    if task.has_windows or run.is_search or run.held_out:
      return len(self._divide(run, task.name).kept)
    copies = 2 if task.name in run.config.data.swap else 1
    return copies * folds.examples_outside(len(rows) // copies, run.fold)

  def _counted_rows(self, run: runs_lib.Run, task: str) -> shards.Columns:
    """Returns the task's rows that a run trains on, one row per example."""
    rows, kept = self.labelled_rows(run, task)
    rows = rows if kept is None else rows.select(kept)
    return counted_rows(self.tasks[task], rows)

  def _weigh(self, run: runs_lib.Run) -> task_lib.TaskTable:
    """Returns all tasks, with class weights from a run's training labels."""
    tasks = {task.name: task for task in self.tasks.tasks}
    for name in run.tasks:
      if tasks[name].class_weights:
        rows = self._counted_rows(run, name)
        tasks[name] = tasks[name].kind.weigh(tasks[name], rows)
    return task_lib.TaskTable(tuple(tasks.values()))

  def _loss_weights(self, run: runs_lib.Run) -> list[float]:
    """Returns the loss weight of each task of a run.

    An automatic weight is 1 / the loss of the best constant prediction of the
    run's training labels. GradNorm similarly compares tasks by L(t) / L(0)
    (Chen et al. 2018, section 3.1). The weight is 1 for a task whose labels are
    all equal.
    """
    if run.is_single:
      return [1.0]
    weights = config_lib.loss_weights(run.config)
    if config_lib.AUTO in run.config.sampling.loss_weights:
      tasks = self._weigh(run)
      for name in run.tasks:
        task, rows = tasks[name], self._counted_rows(run, name)
        loss = task.kind.constant_loss(task, rows)
        weights.setdefault(name, 1 / max(loss, _LEAST_LOSS) if loss else 1)
    return [weights.get(name, 1.0) for name in run.tasks]

  def _divide(self, run: runs_lib.Run, task: str) -> Division:
    """Divides a task's training rows for a run.

    Held-out rows are chosen outside the run's fold. So the rows of the fold,
    which the run labels or is scored on, do not influence the chosen step.
    """
    key = task, run.fold, run.held_out
    if key not in self._divided:
      rows = self.features[task][self.tasks[task].train_split]
      kept = np.arange(len(rows))
      fold = held_out = kept[:0]
      if run.is_search:
        kept, fold = folds.hold_out(self.tasks[task], rows, run.fold)
      elif run.fold:
        kept, fold = folds.split(rows.uids, run.fold)
      if run.held_out:
        own = rows.select(kept) if run.fold else rows
        parts = folds.hold_out(self.tasks[task], own, run.held_out)
        kept, held_out = (kept[part] for part in parts)
      self._divided[key] = Division(kept, fold, held_out)
    return self._divided[key]


def counted_rows(task: task_lib.Task, rows: shards.Columns) -> shards.Columns:
  """Selects one row per example if the task's rows are windows of examples."""
  if not task.windows:
    return rows
  return rows.select(windows.examples_of(rows.uids)[1][:-1])


def _decide_steps(
  run: runs_lib.Run,
  sizes: Sequence[int],
  sampler: sampling.ProportionalSampler | sampling.CopiesSampler,
) -> tuple[int, str]:
  """Implements `PlanData.decide_steps`; `sizes` holds row counts per task."""
  length = run.length
  steps = sampler.num_steps(length.epochs)
  steps, by = min(steps, length.max_steps or steps), 'epochs'
  if length.min_steps > steps:
    steps, by = length.min_steps, 'min_steps'
  passes = sampling.steps_for_passes(
    length.min_passes, sizes, sampler.shares, length.batch_size
  )
  if passes > steps:
    steps, by = passes, 'min_passes'
  where = f'{run.field_path(by)}={getattr(length, by)}'
  if by == 'min_passes' and 0 < length.max_steps < steps:
    raise errors.UserError(
      f'{where}: needs {steps} steps over {sum(sizes)} rows, and'
      f' {run.field_path("max_steps")}={length.max_steps}; lower the first or'
      ' raise the second'
    )
  most = _MAX_EXAMPLES // length.batch_size
  if steps > most:
    less = 'fewer epochs, or max_steps' if by == 'epochs' else 'less'
    raise errors.UserError(
      f'{where}: makes {steps} steps over {sum(sizes)} rows, and a run has at'
      f' most {most} steps; give {less}'
    )
  return steps, by


def _make_sampler(
  run: runs_lib.Run, sizes: Sequence[int]
) -> sampling.ProportionalSampler | sampling.CopiesSampler:
  settings, batch_size = run.config.sampling, run.length.batch_size
  # With one task there is nothing to balance, so its rows are just permuted.
  if settings.mode == 'copies' and not run.is_single:
    return sampling.CopiesSampler(
      sizes, settings.exponent, batch_size, run.seed
    )
  unswapped = [
    size // 2 if name in run.config.data.swap else size
    for name, size in zip(run.tasks, sizes)
  ]
  return sampling.ProportionalSampler(
    unswapped, sizes, settings.exponent, batch_size, run.seed
  )
