"""The programs compiled from the steps, and where their arrays lie.

Whatever differs between the runs of a plan is data: learning rate, weight of
the gold labels, layer decay, seed, task. One program a batch shape serves all.
B rows, S segment slots, C outputs of the widest head, T tasks.
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Sequence
import functools
import threading
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.core import optimizer as optimizer_lib
from bam_jax.core import packing as packing_lib
from bam_jax.modeling import heads
from bam_jax.modeling import layers
from bam_jax.tasks import task as task_lib
from bam_jax.training import ahead as ahead_lib
from bam_jax.training import mesh as mesh_lib
from bam_jax.training import seeds as seeds_lib
from bam_jax.training import step as step_lib
from bam_jax.training import transfer

# By platform. On a GPU kernels that do not wait for one another run at the same
# time, and products go to cuBLAS, as fast as XLA's own through Triton and
# compiled several times faster (benchmarks/README.md).
COMPILER_OPTIONS = {
  'gpu': {
    'xla_gpu_command_buffer_scheduling_mode': 'CONCURRENT',
    'xla_gpu_enable_triton_gemm': False,
  }
}

# Besides, of the training step of GPUs that have the whole parameters each. A
# sum over them begins when its terms are there, however many are under way, and
# is launched with the rest of the step: the last is XLA's default with
# COLLECTIVES, in full, since `+COLLECTIVES` is understood as a flag alone.
OPTIONS_OF_REPLICAS = {
  'xla_gpu_experimental_parallel_collective_overlap_limit': 1000,
  'xla_gpu_experimental_collective_start_as_early_as_possible': True,
  'xla_gpu_enable_command_buffer': (
    'FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,DYNAMIC_SLICE_FUSION,CONDITIONAL,'
    'COLLECTIVES'
  ),
}

_OF_TOKENS = ('input_ids', 'token_type_ids', 'positions', 'segment_ids')
_OF_SLOTS = ('cls_index', 'task_id')
_OF_TARGETS = ('target', 'teacher')


class Programs:
  """The compiled programs of a plan, and where their arrays lie.

  Attributes:
    mesh: the devices.
    tasks: in the order of the heads.
    rows_multiple: what B, over all processes, must divide by.
    state_shardings: tree of shardings of a TrainState.
    abstract_state: tree of `jax.ShapeDtypeStruct` with shardings, for restoring
      a checkpoint.
    seeds: the training step of several seeds at once.
    compilations: programs traced so far: one a batch shape for training, one
      for predicting, one for `init_state`.
  """

  def __init__(
    self,
    model: heads.MultiTaskBert,
    tasks: task_lib.TaskTable,
    config: config_lib.Config,
    mesh: Mesh,
  ):
    """Decides the shardings; compiles nothing yet.

    Raises:
      errors.UserError: a row bucket that config.train.accumulate does not
        divide, or seeds that the devices cannot share.
    """
    accumulate = config.train.accumulate
    seeds = config.train.seeds_at_once
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
    self.mesh = mesh
    self.tasks = tasks
    self.rows_multiple = mesh_lib.rows_multiple(mesh) * accumulate
    self.compilations = 0
    self._counting = threading.Lock()
    self._ahead: ahead_lib.Ahead[tuple[int, int]] = ahead_lib.Ahead()
    self._accumulate = accumulate
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
    in_use = mesh_lib.state_shardings(mesh, model_params)
    self.abstract_state = jax.tree.map(
      lambda x, sharding: jax.ShapeDtypeStruct(
        x.shape, x.dtype, sharding=sharding
      ),
      shapes,
      self.state_shardings,
    )
    param_shardings = self.state_shardings.params
    platform = mesh.devices.flat[0].platform
    options = COMPILER_OPTIONS.get(platform, {})
    # Measured there alone: one process, its batch in one part.
    hides_sums = (
      mesh_lib.has_replicas_on_gpus(mesh)
      and accumulate == 1
      and jax.process_count() == 1
    )
    self._create = ahead_lib.Together(
      jax.jit(
        self._counted(create),
        in_shardings=(param_shardings, self._replicated),
        out_shardings=self.state_shardings,
      )
    )

    def make_train(model, param_shardings, stack_late=False):
      step = step_lib.make_train_step(
        model,
        optimizer,
        tasks.class_mask,
        tasks.kinds,
        regression_head=config.model.regression_head,
        reduction=config.optimizer.reduction,
        accumulate=accumulate,
        param_shardings=param_shardings,
        stack_late=stack_late,
      )

      def train(state, batch, schedule):
        schedule = step_lib.StepSchedule(*schedule)
        state, metrics = step(state, transfer.unpack(batch), schedule)
        return state, transfer.pack_metrics(metrics)

      return train

    predict_step = step_lib.make_predict_step(model, in_use)

    def predict(params, batch):
      return predict_step(params, transfer.unpack(batch))

    self._train = ahead_lib.Together(
      jax.jit(
        self._counted(make_train(model, in_use, hides_sums)),
        in_shardings=(
          self.state_shardings,
          self._batch_sharding,
          self._replicated,
        ),
        out_shardings=(self.state_shardings, self._replicated),
        donate_argnums=0,
        compiler_options=options | (OPTIONS_OF_REPLICAS if hides_sums else {}),
      )
    )
    # The model of one device, whichever it is.
    self.seeds = seeds_lib.Seeds(
      self._counted(make_train(model.clone(mesh=None), None)),
      self.abstract_state,
      mesh,
      options,
    )
    # Logits are small: whole on every device, so any process can fetch them.
    self._predict = ahead_lib.Together(
      jax.jit(
        self._counted(predict),
        in_shardings=(param_shardings, self._batch_sharding),
        out_shardings=self._replicated,
        compiler_options=options,
      )
    )

  def _counted(self, function: Callable) -> Callable:
    """The function, counting its traces: each is one program compiled."""

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
      seed: of dropout.

    Raises:
      ValueError: a tree or a shape that is not the model's.
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

  def lower(
    self, rows: int, row_length: int, slots: int, seeds: int = 1
  ) -> jax.stages.Lowered:
    """The training step of one batch shape, traced and not yet compiled.

    Args:
      rows: B, over all processes.
      row_length: L.
      slots: S.
      seeds: K, trained at once.
    """
    batch = self._abstract_batch(rows, row_length, slots)
    schedule = jax.ShapeDtypeStruct(
      (len(step_lib.StepSchedule._fields),),
      np.float32,
      sharding=self._replicated,
    )
    if seeds == 1:
      return self._train.lower(self.abstract_state, batch, schedule)
    return self.seeds.lower(seeds, batch, schedule)

  def compile_ahead(
    self, packing: config_lib.PackingConfig, seeds: Collection[int] = (1,)
  ) -> None:
    """Has threads trace and compile the training step of each row bucket.

    Returns at once: a step waits for its own program alone. Without it each is
    compiled when it is first called, one after the other. What is there or
    begun already is left out.

    Args:
      packing: of the plan.
      seeds: how many are trained at once.
    """
    sizes = {
      packing_lib.bucket(rows, (1,), self.rows_multiple)
      for rows in packing.row_buckets
    }
    for count in seeds:
      for rows in sizes:
        lower = functools.partial(
          self.lower, rows, packing.row_length, packing.slots, count
        )
        self._ahead.begin((count, rows), lower)

  def compiled(self) -> dict[tuple[int, int], jax.stages.Compiled]:
    """(K, B) -> the step of K seeds and B rows; waits for those begun ahead."""
    return self._ahead.get_all()

  def stop_compiling(self) -> None:
    """Leaves out those that were to be compiled ahead and are not begun.

    Not where several processes compile: one may wait for what another finds.
    """
    if jax.process_count() == 1:
      self._ahead.drop()

  def _abstract_batch(
    self, rows: int, row_length: int, slots: int
  ) -> transfer.PackedBatch:
    targets = (slots, self.tasks.num_outputs)
    batch = {
      **{key: np.empty((1, row_length), np.int32) for key in _OF_TOKENS},
      **self._abstract_tokens(row_length),
      **{key: np.empty((1, slots), np.int32) for key in _OF_SLOTS},
      **{key: np.empty((1, *targets), np.float32) for key in _OF_TARGETS},
      'weight': np.empty((1, slots), np.float32),
    }
    packed = transfer.pack(batch)
    values = jax.ShapeDtypeStruct(
      (rows, packed.values.shape[1]), np.int32, sharding=self._batch_sharding
    )
    return packed.replace(values=values)

  def _abstract_tokens(self, row_length: int) -> dict[str, np.ndarray]:
    """What batches hold besides where a head is of tokens."""
    if not self.tasks.token_heads:
      return {}
    targets = (1, row_length, self.tasks.token_outputs)
    return {
      'token_target': np.empty(targets, np.float32),
      'token_teacher': np.empty(targets, np.float32),
      'token_share': np.empty((1, row_length), np.float32),
    }

  def put(
    self, batch: step_lib.Batch | transfer.PackedBatch
  ) -> transfer.PackedBatch:
    """This process's share of the rows, on the devices.

    For a single device it stays on the host: the call that takes it hands it
    over in a tenth of the time.

    Args:
      batch: host arrays of `mesh.own_rows`; what this returned before is
        returned.

    Raises:
      errors.UserError: rows that the devices cannot share.
    """
    if isinstance(batch, transfer.PackedBatch):
      return batch
    packed = transfer.pack(batch)
    own, width = packed.values.shape
    own_devices = len(self._batch_sharding.addressable_devices)
    rows = own * self.mesh.size // own_devices
    self._check_rows(rows)
    if jax.process_count() == 1:
      return self._place(packed)
    return packed.replace(
      values=jax.make_array_from_process_local_data(
        self._batch_sharding, packed.values, (rows, width)
      )
    )

  def put_seeds(
    self, batches: Sequence[step_lib.Batch]
  ) -> transfer.PackedBatch:
    """A step's batches of K seeds, on the devices as `put` has it.

    Args:
      batches: host arrays; a batch of fewer rows is filled up with padding.
    """
    packed = transfer.stack([transfer.pack(batch) for batch in batches])
    if self.mesh.size == 1:
      return packed
    return mesh_lib.place(packed, self.seeds.sharding)

  def put_whole(
    self, batch: step_lib.Batch | transfer.PackedBatch
  ) -> transfer.PackedBatch:
    """As `put`, where every process holds all B rows."""
    if isinstance(batch, transfer.PackedBatch):
      return batch
    packed = transfer.pack(batch)
    self._check_rows(len(packed))
    return self._place(packed)

  def _place(self, packed: transfer.PackedBatch) -> transfer.PackedBatch:
    if self.mesh.size == 1:
      return packed
    return mesh_lib.place(packed, self._batch_sharding)

  def _check_rows(self, rows: int) -> None:
    if rows % self.mesh.size:
      raise errors.UserError(
        f'config.mesh: a batch of {rows} rows cannot be shared by'
        f' {self.mesh.size} devices; make the rows a multiple of'
        f' {self.mesh.size}'
      )

  def train_step(
    self,
    state: step_lib.TrainState,
    batch: step_lib.Batch | transfer.PackedBatch,
    schedule: step_lib.StepSchedule,
  ) -> tuple[step_lib.TrainState, jax.Array]:
    """One step; returns before the devices are done.

    Args:
      state: donated: not to be used afterwards. That of K seeds takes a batch
        that `put_seeds` returned, and metrics have K rows.
      batch: this process's rows on the host, or as `put` returns.
      schedule: host numbers.

    Returns:
      The state, and metrics on the devices, for `transfer.unpack_metrics`:
      `loss` [T] and `count` [T] sums, `grad_norm` scalar.

    Raises:
      errors.UserError: rows that the devices or the parts cannot share.
    """
    batch = self.put(batch)
    rows = len(batch)
    if rows % self.rows_multiple:
      raise errors.UserError(
        f'config.train.accumulate={self._accumulate}: a batch of {rows} rows'
        f' cannot be split into that many parts on {self.mesh.size} devices;'
        f' make the rows a multiple of {self.rows_multiple}'
      )
    seeds, step = 1, self._train
    if batch.values.ndim == 3:
      seeds, step = len(batch.values), self.seeds.train
    if (seeds, rows) in self._ahead:
      step = self._ahead.get((seeds, rows))
    return step(state, batch, np.array(schedule, np.float32))

  def predict(
    self, params: Any, batch: step_lib.Batch | transfer.PackedBatch
  ) -> heads.Logits:
    """Logits of all rows, whole on every device, without dropout.

    Args:
      params: of a state.
      batch: all rows on the host of every process, or as `put` returns.

    Raises:
      errors.UserError: rows that the devices cannot share.
    """
    return self._predict(params, self.put_whole(batch))
