"""The programs of a plan: compiled steps, and where their arrays lie.

Everything that differs between the runs of a plan is data: learning rate,
weight of the gold labels, layer decay, seed, task. So one program per batch
shape serves all runs. Its way is `compile_ahead` -> `lower` (in a thread) ->
`compilation.AheadCompiler` -> `train_step`.

B rows, L tokens, S segment slots, C outputs of the widest head, T tasks, K
seeds trained at once.
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Sequence
import functools
import threading
from typing import Any
from typing import NamedTuple

import jax
from jax.sharding import Mesh
import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.core import optimizer as optimizer_lib
from bam_jax.core import packing as packing_lib
from bam_jax.core import step as step_lib
from bam_jax.modeling import heads
from bam_jax.modeling import layers
from bam_jax.tasks import task as task_lib
from bam_jax.training import apply
from bam_jax.training import compilation
from bam_jax.training import mesh as mesh_lib
from bam_jax.training import seeds as seeds_lib
from bam_jax.training import transfer

# By platform. On a GPU independent kernels run at the same time, and matrix
# products go to cuBLAS, which is as fast as XLA's own Triton kernels and
# compiles several times faster (benchmarks/README.md).
COMPILER_OPTIONS = {
  'gpu': {
    'xla_gpu_command_buffer_scheduling_mode': 'CONCURRENT',
    'xla_gpu_enable_triton_gemm': False,
  }
}

# Further options for the training step on GPUs that each hold all parameters.
# An all-reduce starts as soon as its terms are there, however many are under
# way, and is launched with the rest of the step. The last option is XLA's
# default plus COLLECTIVES, in full because `+COLLECTIVES` is read as a flag.
REPLICA_OPTIONS = {
  'xla_gpu_experimental_parallel_collective_overlap_limit': 1000,
  'xla_gpu_experimental_collective_start_as_early_as_possible': True,
  'xla_gpu_enable_command_buffer': (
    'FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,DYNAMIC_SLICE_FUSION,CONDITIONAL,'
    'COLLECTIVES'
  ),
}


class StepShape(NamedTuple):
  """What a training program is compiled for.

  Attributes:
    seeds: K.
    rows: B, over all processes.
  """

  seeds: int
  rows: int


class Programs:
  """The compiled programs of a plan, and where their arrays lie.

  Attributes:
    mesh: the devices.
    tasks: in the order of the heads.
    rows_multiple: what B, over all processes, must be a multiple of.
    state_shardings: tree of shardings of a TrainState.
    abstract_state: tree of `jax.ShapeDtypeStruct` with shardings, to restore a
      checkpoint.
    seeds: the training step of several seeds at once.
    compilations: number of programs traced so far: one per batch shape for
      training, one for predicting, one for `init_state`.
  """

  def __init__(
    self,
    model: heads.MultiTaskModel,
    tasks: task_lib.TaskTable,
    config: config_lib.Config,
    mesh: Mesh,
  ):
    """Decides the shardings; compiles nothing yet.

    Raises:
      errors.UserError: config.train.accumulate does not divide a row bucket, or
        the devices cannot share the seeds.
    """
    _check(config, mesh)
    self.mesh = mesh
    self.tasks = tasks
    self._accumulate = config.train.accumulate
    self.rows_multiple = mesh.size * self._accumulate
    self.compilations = 0
    self._counting = threading.Lock()
    self._ahead = compilation.AheadCompiler[StepShape]()
    self._batch_sharding = mesh_lib.batch_sharding(mesh)
    self._replicated = mesh_lib.replicated(mesh)

    optimizer = optimizer_lib.make_optimizer(
      config.optimizer, model.config.num_layers
    )
    create = functools.partial(step_lib.create_state, optimizer)
    model_params = heads.abstract_params(model)
    shapes = jax.eval_shape(
      lambda params: create(layers.stack(params), np.uint32(0)), model_params
    )
    self.state_shardings = mesh_lib.state_shardings(mesh, shapes)
    self.abstract_state = jax.tree.map(
      lambda x, sharding: jax.ShapeDtypeStruct(
        x.shape, x.dtype, sharding=sharding
      ),
      shapes,
      self.state_shardings,
    )
    param_shardings = self.state_shardings.params
    # Of single layers, as the model uses them.
    layer_shardings = mesh_lib.state_shardings(mesh, model_params)
    options = COMPILER_OPTIONS.get(mesh.devices.flat[0].platform, {})
    # Measured for one process whose batch is not split.
    hides_sums = (
      mesh_lib.has_replicas_on_gpus(mesh)
      and self._accumulate == 1
      and jax.process_count() == 1
    )

    def make_train(
      model: heads.MultiTaskModel, shardings: Any, stack_late: bool
    ) -> Callable:
      step = step_lib.make_train_step(
        apply.make_apply(model, shardings, stack_late),
        optimizer,
        tasks.class_mask,
        tasks.kinds,
        reduction=config.optimizer.reduction,
        accumulate=self._accumulate,
      )

      def train(state, batch, schedule):
        schedule = step_lib.StepSchedule(*schedule)
        state, metrics = step(state, transfer.unpack(batch), schedule)
        return state, transfer.pack_metrics(metrics)

      return self._counted(train)

    predict_step = apply.make_apply(model, layer_shardings)

    self._create = compilation.synchronized(
      jax.jit(
        self._counted(create),
        in_shardings=(param_shardings, self._replicated),
        out_shardings=self.state_shardings,
      )
    )
    self._train_jit = jax.jit(
      make_train(model, layer_shardings, hides_sums),
      in_shardings=(
        self.state_shardings,
        self._batch_sharding,
        self._replicated,
      ),
      out_shardings=(self.state_shardings, self._replicated),
      donate_argnums=0,
      compiler_options=options | (REPLICA_OPTIONS if hides_sums else {}),
    )
    self._train = compilation.synchronized(self._train_jit)
    # Each device trains its seeds with the model of a single device.
    self.seeds = seeds_lib.Seeds(
      make_train(model.clone(mesh=None), None, False),
      self.abstract_state,
      mesh,
      options,
    )
    # Logits are small: whole on every device, so any process can fetch them.
    self._predict = compilation.synchronized(
      jax.jit(
        self._counted(
          lambda params, batch: predict_step(params, transfer.unpack(batch))
        ),
        in_shardings=(param_shardings, self._batch_sharding),
        out_shardings=self._replicated,
        compiler_options=options,
      )
    )

  def _counted(self, function: Callable) -> Callable:
    """Wraps a function to count its traces, each of which is one program."""

    # XLA names the program by this name.
    def counted(*args):
      with self._counting:
        self.compilations += 1
      return function(*args)

    return counted

  def init_state(self, params: Any, seed: int) -> step_lib.TrainState:
    """The state before step 0, on the devices.

    Args:
      params: complete tree of host arrays, its layers stacked, the same in
        every process; copied, so the state may be donated.
      seed: seed of the dropout masks.

    Raises:
      ValueError: tree or shapes differ from the model's.
    """

    def place(expected: jax.ShapeDtypeStruct, value: Any) -> jax.Array:
      value = np.asarray(value, expected.dtype)
      if value.shape != expected.shape:
        raise ValueError(
          f'a parameter of shape {value.shape}, not {expected.shape}'
        )
      return mesh_lib.place(value, expected.sharding)

    params = jax.tree.map(place, self.abstract_state.params, params)
    return self._create(
      params, mesh_lib.place(np.uint32(seed), self._replicated)
    )

  def compile_ahead(
    self, packing: config_lib.PackingConfig, seeds: Collection[int] = (1,)
  ) -> None:
    """Has threads compile the training step of each row bucket.

    Returns at once: a step waits for its own program alone. Without this call
    each program is compiled when it is first used. Programs that exist or are
    being compiled are skipped.

    Args:
      packing: packing of the plan, with its row buckets.
      seeds: values of K.
    """
    buckets = {
      packing_lib.bucket(rows, (1,), self.rows_multiple)
      for rows in packing.row_buckets
    }
    for count in seeds:
      for rows in buckets:
        lower = functools.partial(
          self.lower, rows, packing.row_length, packing.slots, count
        )
        self._ahead.start(StepShape(count, rows), lower)

  def lower(
    self, rows: int, row_length: int, slots: int, seeds: int = 1
  ) -> jax.stages.Lowered:
    """Traces the training step of one batch shape; compiles nothing.

    Args:
      rows: B, over all processes.
      row_length: L.
      slots: S.
      seeds: K.
    """
    batch = transfer.abstract_batch(
      rows, row_length, slots, self.tasks, self._batch_sharding
    )
    schedule = jax.ShapeDtypeStruct(
      (len(step_lib.StepSchedule._fields),),
      np.float32,
      sharding=self._replicated,
    )
    if seeds == 1:
      return self._train_jit.lower(self.abstract_state, batch, schedule)
    return self.seeds.lower(seeds, batch, schedule)

  def compiled(self) -> dict[StepShape, jax.stages.Compiled]:
    """The programs of `compile_ahead`, once all are compiled."""
    return self._ahead.wait()

  def stop_compiling(self) -> None:
    """Drops programs of `compile_ahead` that no thread has begun to trace.

    Does nothing if there are several processes: another one may need them.
    """
    if jax.process_count() == 1:
      self._ahead.cancel_queued()

  def put(
    self, batch: step_lib.Batch | transfer.PackedBatch, is_whole: bool = False
  ) -> transfer.PackedBatch:
    """Moves a batch to the devices.

    For a single device it stays on the host, because passing it to the program
    from there takes a tenth of the time.

    Args:
      batch: host arrays; a batch that was put before is returned as it is.
      is_whole: whether they hold all B rows, in every process; otherwise those
        of `mesh.own_rows`.

    Raises:
      errors.UserError: the devices cannot share the rows.
    """
    if isinstance(batch, transfer.PackedBatch):
      return batch
    packed = transfer.pack(batch)
    rows, width = packed.values.shape
    if not is_whole:
      own_devices = len(self._batch_sharding.addressable_devices)
      rows = rows * self.mesh.size // own_devices
    if rows % self.mesh.size:
      raise errors.UserError(
        f'config.mesh: a batch of {rows} rows cannot be shared by'
        f' {self.mesh.size} devices; make the rows a multiple of'
        f' {self.mesh.size}'
      )
    if self.mesh.size == 1:
      return packed
    if is_whole or jax.process_count() == 1:
      return mesh_lib.place(packed, self._batch_sharding)
    return packed.replace(
      values=jax.make_array_from_process_local_data(
        self._batch_sharding, packed.values, (rows, width)
      )
    )

  def put_seeds(
    self, batches: Sequence[step_lib.Batch]
  ) -> transfer.PackedBatch:
    """Moves the batches of K seeds to the devices.

    Args:
      batches: host arrays; batches with fewer rows are padded.
    """
    packed = transfer.stack([transfer.pack(batch) for batch in batches])
    if self.mesh.size == 1:
      return packed
    return mesh_lib.place(packed, self.seeds.sharding)

  def train_step(
    self,
    state: step_lib.TrainState,
    batch: step_lib.Batch | transfer.PackedBatch,
    schedule: step_lib.StepSchedule,
  ) -> tuple[step_lib.TrainState, jax.Array]:
    """One step; returns before the devices are done.

    Args:
      state: donated, so it must not be used afterwards; of one seed, or of K
        seeds with a batch from `put_seeds`.
      batch: from `put` or `put_seeds`, or this process's rows on the host.
      schedule: host numbers.

    Returns:
      The state, and metrics on the devices for `transfer.unpack_metrics`:
      `loss` [T] and `count` [T] sums, `grad_norm` scalar; of K seeds, K rows.

    Raises:
      errors.UserError: the devices or the parts cannot share the rows.
    """
    batch = self.put(batch)
    rows = len(batch)
    if rows % self.rows_multiple:
      raise errors.UserError(
        f'config.train.accumulate={self._accumulate}: a batch of {rows} rows'
        f' cannot be split into that many parts on {self.mesh.size} devices;'
        f' make the rows a multiple of {self.rows_multiple}'
      )
    seeds = len(batch.values) if batch.values.ndim == 3 else 1
    shape = StepShape(seeds, rows)
    if shape in self._ahead:
      step = self._ahead[shape]
    else:
      step = self._train if seeds == 1 else self.seeds.train
    return step(state, batch, np.array(schedule, np.float32))

  def predict(
    self, params: Any, batch: step_lib.Batch | transfer.PackedBatch
  ) -> heads.Logits:
    """Logits of all rows, whole on every device, without dropout.

    Args:
      params: parameters of a state.
      batch: from `put`, or all rows on the host of every process.

    Raises:
      errors.UserError: the devices cannot share the rows.
    """
    return self._predict(params, self.put(batch, is_whole=True))


def _check(config: config_lib.Config, mesh: Mesh) -> None:
  """Raises if seeds or row buckets cannot be shared out."""
  seeds, accumulate = config.train.seeds_at_once, config.train.accumulate
  if seeds > 1 and seeds % mesh.size:
    raise errors.UserError(
      f'config.train.seeds_at_once={seeds}: the seeds cannot be shared by'
      f' {mesh.size} devices; make it a multiple of {mesh.size}'
    )
  for rows in config.packing.row_buckets:
    if rows % accumulate:
      raise errors.UserError(
        f'config.train.accumulate={accumulate} does not divide {rows} of'
        f' config.packing.row_buckets; give multiples of {accumulate}'
      )
