"""Compares a packed batch of mixed tasks with each of its examples alone.

  python -m benchmarks.check_kinds --config=configs/demo.py

Not a timing. Batches of the plan's multi-task runs go through the training step
twice: packed, and task by task with one example a row. Half of each target is
the gold label, half a teacher's, whose logits are drawn. Float32 at highest
precision, no dropout, a learning rate of 0. Printed
are, for each task, the largest relative difference of the sum of its losses in
a batch, and for the batch's gradient that of any parameter as a share of its
largest value (key biases, whose gradient is zero in theory, left out); above
--tolerance the exit status is 1.

Parameters are those that runs start from, or with --workdir and --run the last
ones of a finished run of the plan.
"""

import argparse
from collections.abc import Iterator
import dataclasses
import functools
from pathlib import Path
import runpy
import sys
import tempfile
from typing import NamedTuple

import jax
import numpy as np
import optax

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import fields
from bam_jax.core import sampling
from bam_jax.core import step as step_lib
from bam_jax.data import batches
from bam_jax.data import shards
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import train
from bam_jax.experiments import workspace as workspace_lib
from bam_jax.tasks import task as task_lib
from bam_jax.training import checkpoints
from bam_jax.training import transfer

_SCHEDULE = step_lib.StepSchedule(0.0, 0.5, 1.0)
# Rows are filled up to a multiple of it, so that programs are few.
_ROWS = 8
_ZERO = 'key/bias'


class Sums(NamedTuple):
  """Losses and gradient, summed over some examples.

  Attributes:
    loss: [T] sums of the losses, by task.
    count: [T] numbers of examples.
    gradient: of the sum of all losses, tree of host arrays.
  """

  loss: np.ndarray
  count: np.ndarray
  gradient: object


class _Chosen:
  """Sampler that always returns the given tasks and rows."""

  def __init__(self, num_tasks: int, task: np.ndarray, row: np.ndarray):
    self.weights = np.ones(num_tasks, np.float32)
    self.shares = np.full(num_tasks, 1 / num_tasks)
    self._examples = task, row

  def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
    return self._examples


class Check:
  """A plan's features, model and training step."""

  def __init__(self, config: config_lib.Config, directory: Path):
    """Prepares the features in a directory of its own."""
    self._config = config
    self._plan = plan_lib.make_plan(config, directory)
    train.prepare(self._plan)
    self.tasks = self._plan.tasks
    self._train = [
      self._plan.features[task.name][task.train_split]
      for task in self.tasks.tasks
    ]
    rng = np.random.default_rng(0)
    self._teachers = [
      task.kind.teacher_probs(
        rng.normal(size=(_units(task, columns), task.num_outputs)),
        config.distill.temperature,
        columns,
      )
      for task, columns in zip(self.tasks.tasks, self._train)
    ]
    self._programs = self._plan.setup.programs
    self.start(self._plan.setup.initial_params(config.seeds[0]))

  def start(self, params: object) -> None:
    """Computes with these parameters from now on."""
    self._state = self._programs.init_state(params, 0)

  def restore(self, workdir: Path, run: str) -> None:
    """Restores the last parameters of a finished run."""
    workspace = workspace_lib.Workspace(workdir)
    record = workspace.read_record(run)
    if record is None:
      raise errors.UserError(
        f'--run={run}: {workspace.run(run)} holds no finished run; give one'
      )
    with checkpoints.Checkpoints(workspace.checkpoints(run)) as saved:
      params = saved.restore_params(
        self._programs.abstract_state.params, record['steps']
      )
    self.start(jax.device_get(params))

  def mixes(self, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields task and row of each example, for some batches of the plan."""
    rows = [len(columns) for columns in self._train]
    sampler = sampling.ProportionalSampler(
      rows,
      rows,
      self._config.sampling.exponent,
      self._config.multi.batch_size,
      self._config.seeds[0],
    )
    yield from map(sampler, range(count))

  def packed(
    self, task: np.ndarray, row: np.ndarray
  ) -> tuple[Sums, np.ndarray]:
    """Returns the sums of a packed batch, and the number of tasks per row."""
    batch = self._batch(task, row, True)
    found = [
      len(set(of[weight > 0]))
      for of, weight in zip(batch['task_id'], batch['weight'])
    ]
    return self._sums(batch), np.array(found)

  def alone(self, task: np.ndarray, row: np.ndarray) -> Sums:
    """Returns the sums of the same examples, one task and example per row."""
    parts = []
    for number in range(len(self.tasks)):
      own = row[task == number]
      for first in range(0, len(own), _ROWS):
        some = own[first : first + _ROWS]
        of = np.full(len(some), number)
        parts.append(self._sums(self._batch(of, some, packed=False)))
    return jax.tree.map(lambda *values: np.sum(values, axis=0), *parts)

  def _batch(
    self, task: np.ndarray, row: np.ndarray, packed: bool
  ) -> dict[str, np.ndarray]:
    """Makes the batch of some examples."""
    packing = dataclasses.replace(
      self._config.packing, enabled=packed, row_buckets=()
    )
    make = batches.TrainBatches(
      self.tasks,
      range(len(self.tasks)),
      self._train,
      self._teachers,
      _Chosen(len(self.tasks), task, row),
      packing,
      _ROWS,
    )
    return make(0)

  def _sums(self, batch: dict[str, np.ndarray]) -> Sums:
    # The state is given away; at a rate of 0 its parameters stay as they are.
    self._state, metrics = self._programs.train_step(
      self._state, batch, _SCHEDULE
    )
    metrics = transfer.unpack_metrics(np.asarray(metrics))
    # Without decay the first moment is the gradient.
    gradient = jax.device_get(optax.tree.get(self._state.opt_state, 'mu'))
    return Sums(metrics['loss'], metrics['count'], gradient)


def _units(task: task_lib.Task, columns: shards.Columns) -> int:
  """Returns the number of outputs: one per example, or one per token."""
  if task.kind.per_token:
    return int(columns.ragged('input_ids')[1][-1])
  return len(columns)


def largest_difference(found: object, expected: object) -> float:
  """Returns the largest relative difference of two gradients."""
  shares = [0.0]
  for path, value in jax.tree.leaves_with_path(expected):
    if jax.tree_util.keystr(path, simple=True, separator='/').endswith(_ZERO):
      continue
    other = functools.reduce(lambda tree, key: tree[key.key], path, found)
    if value.any() or other.any():
      shares.append(np.abs(other - value).max() / np.abs(value).max())
  return float(np.max(shares))


def comparable(config: config_lib.Config) -> config_lib.Config:
  """Returns the multi-task plan in float32, without dropout and clipping."""
  return dataclasses.replace(
    config,
    variants=('multi',),
    seeds=config.seeds[:1],
    model=dataclasses.replace(
      config.model,
      dtype='float32',
      dropout_embedding=0.0,
      dropout_attention=0.0,
      dropout_hidden=0.0,
      dropout_head=0.0,
    ),
    # Its state holds the gradient of the last step, as it is.
    optimizer=dataclasses.replace(
      config.optimizer, b1=0.0, clip_norm=0.0, reduction='sum'
    ),
    mesh=config_lib.MeshConfig(data=1),
    packing=dataclasses.replace(config.packing, row_buckets=()),
    train=dataclasses.replace(config.train, accumulate=1, seeds_at_once=1),
    plan=fields.PlanConfig(),
    search=fields.SearchConfig(),
  )


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--config', required=True, help='file of a plan')
  parser.add_argument('--workdir', help='with finished runs of the plan')
  parser.add_argument('--run', help='whose parameters: multi-s0')
  parser.add_argument('--batches', default=3, type=int)
  parser.add_argument('--tolerance', default=1e-5, type=float)
  args = parser.parse_args()
  if bool(args.workdir) != bool(args.run):
    parser.error('--workdir and --run go together')
  jax.config.update('jax_default_matmul_precision', 'highest')
  values = runpy.run_path(args.config)['get_config']()
  try:
    config = config_lib.from_config_dict(values)
    with tempfile.TemporaryDirectory() as directory:
      check = Check(comparable(config), Path(directory))
      if args.run:
        check.restore(Path(args.workdir), args.run)
      compare(check, args.batches, args.tolerance)
  except errors.UserError as e:
    sys.exit(f'check_kinds: {e}')


def compare(check: Check, count: int, tolerance: float) -> None:
  """Prints a table; exits if losses or gradients differ by more."""
  size = len(check.tasks)
  examples, losses, worst = np.zeros((3, size))
  mixed, gradient = [], 0.0
  for task, row in check.mixes(count):
    packed, tasks_of_rows = check.packed(task, row)
    alone = check.alone(task, row)
    np.testing.assert_array_equal(packed.count, alone.count)
    examples += alone.count
    losses += alone.loss
    there = alone.count > 0
    difference = np.abs(packed.loss - alone.loss)[there] / alone.loss[there]
    worst[there] = np.maximum(worst[there], difference)
    mixed.append(tasks_of_rows[tasks_of_rows > 0])
    gradient = np.maximum(
      gradient, largest_difference(packed.gradient, alone.gradient)
    )
  tasks_of_rows = np.concatenate(mixed)
  print(
    f'{count} batches, {len(tasks_of_rows)} rows of'
    f' {tasks_of_rows.mean():.1f} tasks each, at most {tasks_of_rows.max()}'
  )
  print('| task | kind | examples | mean loss | largest difference |')
  print('|---|---|--:|--:|--:|')
  for number, task in enumerate(check.tasks.tasks):
    print(
      f'| {task.name} | {task.kind} | {examples[number]:.0f} |'
      f' {losses[number] / examples[number]:.4f} | {worst[number]:.1e} |'
    )
  print(f'gradient: largest difference {gradient:.1e}')
  if tasks_of_rows.max() < 2 or not examples.all():
    sys.exit('no row holds two tasks, or a task has no example: give others')
  # A NaN is no number below the tolerance.
  if not (np.append(worst, gradient) <= tolerance).all():
    sys.exit(f'a packed batch differs by more than {tolerance:.0e}')


if __name__ == '__main__':
  main()
