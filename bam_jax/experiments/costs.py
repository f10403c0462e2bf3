"""What steps, predictions and checkpoints cost here, in seconds and in bytes.

Measured on the devices that are there, on rows of the plan; nothing is kept but
the compiled programs, which the runs load.
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
import dataclasses
import itertools
import os
from pathlib import Path
import tempfile
import time
from typing import NamedTuple
from typing import TypeVar

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

# A step is timed for so long, but not more often than that.
_SECONDS, _MOST_STEPS = 3.0, 50

# K seeds at once, B rows
Shape = tuple[int, int]
Batch = Mapping[str, np.ndarray]
Item = TypeVar('Item')


class Memory(NamedTuple):
  """Bytes of one device while the largest training step runs.

  Attributes:
    seeds: K, trained at once.
    rows: B.
    arguments: the state, whose place the new one takes, and a batch.
    temporary: as XLA plans it.
    code: of the program.
    copies: what seeds' states take besides, while they become one.
  """

  seeds: int
  rows: int
  arguments: int
  temporary: int
  code: int
  copies: int

  @property
  def needed(self) -> int:
    step = self.arguments + self.temporary + self.code
    return max(step, self.arguments + self.copies)


class Checkpoint(NamedTuple):
  """Of one run.

  Attributes:
    seconds: from the call until it is on disk.
    whole: bytes, while a run goes on.
    params: bytes, without what only a resumed run needs.
  """

  seconds: float
  whole: int
  params: int


@dataclasses.dataclass(frozen=True)
class Costs:
  """All that was measured.

  Attributes:
    step: (K, B) -> seconds of a training step on the devices.
    start: seconds until a run's state is there.
    batch: seconds of an evaluation batch, its packing included.
    checkpoint: of one run.
  """

  step: Mapping[Shape, float]
  start: float
  batch: float
  checkpoint: Checkpoint


def device_memory() -> int:
  """Bytes that a device has for a program.

  On a CPU its share of the machine's memory; elsewhere what the allocator may
  take.
  """
  device = jax.local_devices()[0]
  told = device.memory_stats() or {}
  if 'bytes_limit' in told:
    return told['bytes_limit']
  whole = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  return whole // len(jax.local_devices())


def memory(programs: programs_lib.Programs) -> Memory:
  """Of the training step that needs most, of those compiled ahead."""
  return max(
    (
      _memory(programs, shape, compiled)
      for shape, compiled in programs.compiled().items()
    ),
    key=lambda found: found.needed,
  )


def _memory(
  programs: programs_lib.Programs, shape: Shape, compiled: jax.stages.Compiled
) -> Memory:
  seeds, rows = shape
  told = compiled.memory_analysis()
  # A seed's state before it is put among the others, and what that is made of:
  # parameters, or where a run goes on the state that the saved one replaces.
  copies = 2 * state_bytes(programs) if seeds > 1 else 0
  return Memory(
    seeds,
    rows,
    told.argument_size_in_bytes,
    told.temp_size_in_bytes,
    told.generated_code_size_in_bytes,
    copies,
  )


def state_bytes(programs: programs_lib.Programs) -> int:
  """Bytes of one run's state on one device."""
  return sum(
    leaf.dtype.itemsize * int(np.prod(leaf.sharding.shard_shape(leaf.shape)))
    for leaf in jax.tree.leaves(programs.abstract_state)
  )


def measure(
  setup: setup_lib.Setup,
  batches: Mapping[Shape, Batch],
  columns: shards.Columns,
  task_id: int,
  config: config_lib.Config,
  workdir: Path,
) -> Costs:
  """Takes a few real steps, predicts some rows and writes a checkpoint.

  Args:
    setup: the model and its programs, those of the batches compiled.
    batches: of each shape a batch of one seed.
    columns: rows to predict.
    task_id: their head.
    config: of the plan.
    workdir: in which a checkpoint is written, and removed again.
  """
  programs = setup.programs

  def started() -> step_lib.TrainState:
    return jax.block_until_ready(
      programs.init_state(setup.initial_params(0), 0)
    )

  # Of both the second time, as of all runs but the first.
  state, _ = _timed(started)
  state, start = _timed(started)
  for _ in range(2):
    checkpoint = _checkpoint(state, workdir)
  batch = _evaluation_batch(programs, state.params, columns, task_id, config)
  seconds = {}
  for count, shapes in itertools.groupby(sorted(batches), lambda s: s[0]):
    many = state
    if count > 1:
      many = programs.seeds.stack((started() for _ in range(count)), count)
    for shape in shapes:
      many, seconds[shape] = _step(programs, many, batches[shape], count)
    del many
  return Costs(seconds, start, batch, checkpoint)


def _timed(function: Callable[[], Item]) -> tuple[Item, float]:
  began = time.perf_counter()
  result = function()
  return result, time.perf_counter() - began


def _step(
  programs: programs_lib.Programs,
  state: step_lib.TrainState,
  batch: Batch,
  seeds: int,
) -> tuple[step_lib.TrainState, float]:
  """The state afterwards, as it was donated, and the seconds of a step."""
  # Without a learning rate: nothing is trained.
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
  first = steps(1)
  count = int(np.clip(_SECONDS / first, 1, _MOST_STEPS))
  return state, steps(count) / count


def _evaluation_batch(
  programs: programs_lib.Programs,
  params: object,
  columns: shards.Columns,
  task_id: int,
  config: config_lib.Config,
) -> float:
  """Seconds a batch, of a few of them."""
  rows = evaluate.batch_rows(programs, config.packing)
  one = len(columns) / evaluation_batches(columns, rows, config.packing)
  only = np.arange(min(len(columns), max(int(4 * one), 1)))
  for _ in range(2):
    counted: list[int] = []
    began = time.perf_counter()
    evaluate.predict(
      programs, params, columns, task_id, config.packing, counted.append, only
    )
    # The second time, when the program is compiled.
    seconds = (time.perf_counter() - began) / len(counted)
  return seconds


def evaluation_batches(
  columns: shards.Columns, rows: int, packing: config_lib.PackingConfig
) -> int:
  """Batches of B rows that a split fills, where packing leaves no gaps."""
  filled = len(columns)
  if packing.enabled:
    tokens = int(columns.ragged('input_ids')[1][-1])
    filled = max(tokens / packing.row_length, filled / packing.slots)
  return max(int(-(-filled // rows)), 1)


def _checkpoint(state: step_lib.TrainState, workdir: Path) -> Checkpoint:
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workdir, prefix='.estimate-') as name:
      seconds, params = _save(state, Path(name))
  except OSError as e:
    raise errors.UserError(
      f'{workdir}: a checkpoint could not be tried there ({e.strerror}); make'
      ' room, or choose another --workdir'
    ) from e
  # The moments, all zero yet, take next to nothing; later, as the parameters.
  share = _bytes(state) / _bytes(state.params)
  return Checkpoint(seconds, round(params * share), params)


def _save(state: step_lib.TrainState, directory: Path) -> tuple[float, int]:
  """Seconds that it takes, and the bytes of the parameters."""
  with checkpoints_lib.Checkpoints(directory) as saved:

    def save() -> None:
      saved.save(state, 0.0)
      saved.wait()

    _, seconds = _timed(save)
    saved.drop_optimizer()
    return seconds, _size(directory)


def _bytes(tree: object) -> int:
  return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _size(directory: Path) -> int:
  return sum(
    path.stat().st_size for path in directory.rglob('*') if path.is_file()
  )


def batch_seconds(
  make: Callable[[int], Batch], steps: Collection[int]
) -> float:
  """Seconds that a batch takes on the host."""
  began = time.perf_counter()
  for step in steps:
    make(step)
  return (time.perf_counter() - began) / len(steps)
