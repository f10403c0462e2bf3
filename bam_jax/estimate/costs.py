"""Measures steps, predictions and checkpoints on this machine's devices."""

from collections.abc import Collection
from collections.abc import Mapping
import dataclasses
import itertools
import os
from pathlib import Path
import tempfile
import time

import jax
import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.core import step as step_lib
from bam_jax.data import shards
from bam_jax.training import checkpoints as checkpoints_lib
from bam_jax.training import evaluate
from bam_jax.training import programs as programs_lib
from bam_jax.training import setup as setup_lib

# Each step is repeated for this many seconds, but not more often than that.
_SECONDS, _MAX_STEPS = 3.0, 50

# K seeds at once, B rows.
Shape = tuple[int, int]
Batch = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Costs:
  """Everything that is measured.

  Attributes:
    step: (K, B) -> seconds of a training step on the devices.
    start: seconds to make the state of a run.
    batch: seconds of an evaluation batch, including its packing.
    checkpoint: `seconds` until a run's checkpoint is on disk, and its bytes:
      `whole` while the run goes on, `params` of the parameters alone.
  """

  step: Mapping[Shape, float]
  start: float
  batch: float
  checkpoint: Mapping[str, float]


def device_memory() -> int:
  """Bytes that a device has for programs; of a CPU device its share of RAM."""
  device = jax.local_devices()[0]
  stats = device.memory_stats() or {}
  if 'bytes_limit' in stats:
    return stats['bytes_limit']
  memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  return memory // len(jax.local_devices())


def compile_steps(
  programs: programs_lib.Programs,
  packing: config_lib.PackingConfig,
  shapes: Collection[Shape],
) -> dict[str, int]:
  """Compiles the training steps, and returns the largest one's memory.

  Besides the shapes it compiles every row bucket: the largest one needs most
  memory, even if few steps fill it.

  Returns:
    `seeds` (K) and `rows` (B) of the step, and the bytes of one device: of the
    state and a batch (`arguments`), as XLA plans them (`temporary`), of the
    program (`code`), of states while K of them are joined (`copies`), and at
    most at one time (`needed`).

  Raises:
    errors.UserError: a step needs more memory than a device has.
  """
  buckets = packing.row_buckets if packing.enabled else ()
  packing = dataclasses.replace(
    packing,
    row_buckets=tuple(sorted({*buckets, *(rows for _, rows in shapes)})),
    slots=packing.slots if packing.enabled else 1,
  )
  try:
    programs.compile_ahead(packing, {count for count, _ in shapes})
    found = []
    for (seeds, rows), compiled in programs.compiled().items():
      stats = compiled.memory_analysis()
      arguments = stats.argument_size_in_bytes
      temporary = stats.temp_size_in_bytes
      code = stats.generated_code_size_in_bytes
      # A seed's state before it is joined with the others, and its source: the
      # parameters, or the state that a checkpoint replaces.
      copies = 2 * state_bytes(programs) if seeds > 1 else 0
      found.append({
        'seeds': seeds,
        'rows': rows,
        'arguments': arguments,
        'temporary': temporary,
        'code': code,
        'copies': copies,
        'needed': arguments + max(temporary + code, copies),
      })  # fmt: skip
  finally:
    programs.stop_compiling()
  largest = max(found, key=lambda memory: memory['needed'])
  if largest['needed'] > device_memory():
    raise errors.UserError(
      f'a training step of {largest["seeds"]} x {largest["rows"]} rows needs'
      f' {format_bytes(largest["needed"])} on each device, which has'
      f' {format_bytes(device_memory())}; raise config.train.accumulate,'
      ' set config.model.remat=True, or lower config.train.seeds_at_once'
    )
  return largest


def state_bytes(programs: programs_lib.Programs) -> int:
  """Bytes of one run's state on one device."""
  return sum(
    leaf.dtype.itemsize * int(np.prod(leaf.sharding.shard_shape(leaf.shape)))
    for leaf in jax.tree.leaves(programs.abstract_state)
  )


def format_bytes(count: int) -> str:
  """Formats bytes like `1.4 GB`, in powers of ten."""
  for unit, size in (('GB', 1e9), ('MB', 1e6)):
    if count >= size:
      return f'{count / size:.1f} {unit}'
  return f'{count / 1e3:.1f} kB'


def measure(
  setup: setup_lib.Setup,
  batches: Mapping[Shape, Batch],
  rows: shards.Columns,
  task_id: int,
  config: config_lib.Config,
  workdir: Path,
) -> Costs:
  """Takes a few real steps, predicts some rows and writes a checkpoint.

  Args:
    setup: the model and its programs, those of the batches compiled.
    batches: a batch of one seed for each shape.
    rows: to predict.
    task_id: the head that predicts them.
    config: of the plan.
    workdir: where a checkpoint is written and removed.

  Raises:
    errors.UserError: the checkpoint can't be written.
  """
  programs = setup.programs

  def start() -> step_lib.TrainState:
    return jax.block_until_ready(
      programs.init_state(setup.initial_params(0), 0)
    )

  # The second time counts, since it compiles nothing.
  for _ in range(2):
    began = time.perf_counter()
    state = start()
    start_seconds = time.perf_counter() - began
  for _ in range(2):
    checkpoint = _measure_checkpoint(state, workdir)
  for _ in range(2):
    batch = _evaluation_seconds(programs, state.params, rows, task_id, config)
  seconds = {}
  for count, shapes in itertools.groupby(sorted(batches), lambda s: s[0]):
    states = state
    if count > 1:
      states = programs.seeds.stack((start() for _ in range(count)), count)
    for shape in shapes:
      states, seconds[shape] = _measure_step(
        programs, states, batches[shape], count
      )
    del states
  return Costs(seconds, start_seconds, batch, checkpoint)


def _measure_step(
  programs: programs_lib.Programs,
  state: step_lib.TrainState,
  batch: Batch,
  seeds: int,
) -> tuple[step_lib.TrainState, float]:
  """The state afterwards, since it is donated, and the seconds of a step."""
  # Without a learning rate, nothing is trained.
  schedule = step_lib.StepSchedule(0.0, 1.0, 1.0)

  def steps(count: int) -> float:
    nonlocal state
    began = time.perf_counter()
    for _ in range(count):
      placed = programs.put_seeds([batch] * seeds) if seeds > 1 else batch
      state, _ = programs.train_step(state, placed, schedule)
    jax.block_until_ready(state)
    return time.perf_counter() - began

  steps(1)
  count = int(np.clip(_SECONDS / steps(1), 1, _MAX_STEPS))
  return state, steps(count) / count


def _evaluation_seconds(
  programs: programs_lib.Programs,
  params: object,
  rows: shards.Columns,
  task_id: int,
  config: config_lib.Config,
) -> float:
  """Seconds of an evaluation batch, averaged over about four."""
  batches = evaluation_batches(programs, rows, config.packing)
  few = np.arange(min(len(rows), max(int(4 * len(rows) / batches), 1)))
  counted: list[int] = []
  began = time.perf_counter()
  evaluate.predict(
    programs, params, rows, task_id, config.packing, counted.append, few
  )
  return (time.perf_counter() - began) / len(counted)


def evaluation_batches(
  programs: programs_lib.Programs,
  rows: shards.Columns,
  packing: config_lib.PackingConfig,
) -> int:
  """Number of evaluation batches of a split, if packing leaves no gaps."""
  filled = len(rows)
  if packing.enabled:
    tokens = int(rows.ragged('input_ids')[1][-1])
    filled = max(tokens / packing.row_length, filled / packing.slots)
  return max(int(-(-filled // evaluate.batch_rows(programs, packing))), 1)


def _measure_checkpoint(
  state: step_lib.TrainState, workdir: Path
) -> dict[str, float]:
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    with (
      tempfile.TemporaryDirectory(dir=workdir, prefix='.estimate-') as name,
      checkpoints_lib.Checkpoints(Path(name)) as saved,
    ):
      began = time.perf_counter()
      saved.save(state, 0.0)
      saved.wait()
      seconds = time.perf_counter() - began
      saved.drop_optimizer()
      files = (path for path in Path(name).rglob('*') if path.is_file())
      params = sum(path.stat().st_size for path in files)
  except OSError as e:
    raise errors.UserError(
      f'{workdir}: a checkpoint could not be tried there ({e.strerror}); make'
      ' room, or choose another --workdir'
    ) from e
  # The moments, all zero yet, are compressed to almost nothing; later they take
  # as much as the parameters.
  whole, part = (
    sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
    for tree in (state, state.params)
  )
  whole = round(params * whole / part)
  return {'seconds': seconds, 'whole': whole, 'params': params}
