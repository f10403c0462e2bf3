"""The compiled programs that all runs of a plan share.

The runs of a plan differ only in inputs of the programs: learning rate, weight
of the gold labels, layer decay, seed and task. So one program per batch shape
serves all runs. `compile_ahead` compiles these programs in background threads,
and `train_step` calls them.

Dimensions: B rows, L tokens, S segment slots, T tasks, K seeds trained at once.
"""

from collections.abc import Callable, Collection, Sequence
import functools
import threading
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np
import optax

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.core import optimizer as optimizer_lib
from bam_jax.core import packing as packing_lib
from bam_jax.core import step as step_lib
from bam_jax.modeling import heads
from bam_jax.modeling import layers
from bam_jax.tasks import task as task_lib
from bam_jax.training import compilation
from bam_jax.training import mesh as mesh_lib
from bam_jax.training import seeds as seeds_lib
from bam_jax.training import transfer


class Programs:
  """Compiles and runs the programs, and places their arrays on the devices.

  Attributes:
    mesh: mesh of the devices.
    tasks: the tasks in the order of the heads.
    rows_multiple: number that must divide B (the rows of all processes).
    abstract_state: TrainState of `jax.ShapeDtypeStruct`s with shardings.
    seeds: the training step of several seeds at once.
    hidden_size: D, the length of the encoder's vectors.
    compilations: number of programs traced so far.
  """

  def __init__(
    self,
    model: heads.MultiTaskModel,
    tasks: task_lib.TaskTable,
    config: config_lib.Config,
    mesh: Mesh,
  ):
    """Chooses the shardings of the arrays; compiles nothing yet.

    Raises:
      errors.UserError: the number of devices does not divide `seeds_at_once`,
        or `accumulate` does not divide a row bucket.
    """
    _check(config, mesh)
    self.mesh = mesh
    self.tasks = tasks
    self.hidden_size = model.config.hidden_size
    accumulate = config.train.accumulate
    self.rows_multiple = mesh.size * accumulate
    self.compilations = 0
    self._counting = threading.Lock()
    self._ahead = compilation.AheadCompiler()
    self._batch_sharding = mesh_lib.batch_sharding(mesh)
    self._replicated = mesh_lib.replicated(mesh)
    platform = mesh.devices.flat[0].platform
    self._options = compilation.COMPILER_OPTIONS.get(platform, {})
    optimizer = optimizer_lib.make_optimizer(
      config.optimizer, model.config.num_layers
    )
    create = functools.partial(step_lib.create_state, optimizer)
    model_params = heads.abstract_params(model)
    shapes = jax.eval_shape(
      lambda params: create(layers.stack(params), np.uint32(0)), model_params
    )
    shardings = mesh_lib.state_shardings(mesh, shapes)
    self.abstract_state = jax.tree.map(
      lambda x, sharding: x.update(sharding=sharding), shapes, shardings
    )
    # The model takes parameters with single layers, not stacked layers.
    self._layer_shardings = mesh_lib.state_shardings(mesh, model_params)
    self._split = self._jit_split(model.compute.dtype)
    self._predict = self._jit_forward(model, model_params)
    encoder = heads.FrozenEncoder(
      model.config, model.compute, bool(model.token_heads)
    )
    self._encode = self._jit_forward(encoder, ['encoder'])
    self._create = compilation.synchronized(
      jax.jit(
        self._counted(create),
        in_shardings=(shardings.params, self._replicated),
        out_shardings=shardings,
      )
    )
    # `REPLICA_OPTIONS` were only measured in one process, without accumulation.
    hides_sums = (
      mesh_lib.has_replicas_on_gpus(mesh)
      and accumulate == 1
      and jax.process_count() == 1
    )
    replica_options = compilation.REPLICA_OPTIONS if hides_sums else {}
    make_train = functools.partial(self._make_train, optimizer, config)
    self._train_jit = jax.jit(
      make_train(model, self._layer_shardings, hides_sums),
      in_shardings=(shardings, self._batch_sharding, self._replicated),
      out_shardings=(shardings, self._replicated),
      donate_argnums=0,
      compiler_options=self._options | replica_options,
    )
    self._train = compilation.synchronized(self._train_jit)
    # Each device trains its own seeds, so it uses the model for one device.
    self.seeds = seeds_lib.Seeds(
      make_train(model.on_one_device(), None, False),
      self.abstract_state,
      mesh,
      self._options,
    )

  def _make_train(
    self,
    optimizer: optax.GradientTransformation,
    config: config_lib.Config,
    model: heads.MultiTaskModel,
    param_shardings: Any,
    stack_late: bool,
  ) -> Callable[..., Any]:
    """Makes a training step that takes packed batches and packs its metrics.

    See `_make_apply` for `param_shardings` and `layers.unstack` for
    `stack_late`.
    """
    apply = _make_apply(model, param_shardings)

    def apply_stacked(params, *arguments):
      single = layers.unstack(params, model.compute.dtype, stack_late)
      return apply(single, *arguments)

    step = step_lib.make_train_step(
      apply_stacked,
      optimizer,
      self.tasks.class_mask,
      self.tasks.kinds,
      reduction=config.optimizer.reduction,
      accumulate=config.train.accumulate,
    )

    def train(state, batch, schedule):
      schedule = step_lib.StepSchedule(*schedule)
      state, metrics = step(state, transfer.unpack(batch), schedule)
      return state, transfer.pack_metrics(metrics)

    return self._counted(train)

  def _jit_forward(
    self, model: Any, parts: Collection[str]
  ) -> Callable[..., heads.Outputs]:
    """Returns the jitted forward pass of a model.

    `parts` are the top-level names of the parameters that the model uses.
    """
    own = {part: self._layer_shardings[part] for part in parts}
    forward = _make_apply(model, own)
    # Logits are small, so every device holds all of them and any process can
    # fetch them.
    return compilation.synchronized(
      jax.jit(
        self._counted(
          lambda params, batch: forward(params, transfer.unpack(batch))
        ),
        in_shardings=(own, self._batch_sharding),
        out_shardings=self._replicated,
        compiler_options=self._options,
      )
    )

  def _jit_split(self, dtype: Any) -> Callable[..., dict[str, Any]]:
    """Returns a jitted function that splits and shards stacked layers."""

    def split(params: Any) -> dict[str, Any]:
      single = layers.unstack(params, dtype)
      encoder = {
        name: branch
        if name in params['encoder']
        else jax.lax.with_sharding_constraint(
          branch, self._layer_shardings['encoder'][name]
        )
        for name, branch in single['encoder'].items()
      }
      return {**single, 'encoder': encoder}

    return compilation.synchronized(jax.jit(self._counted(split)))

  def _counted(self, function: Callable) -> Callable:
    """Wraps a function so that `compilations` counts its traces."""

    # XLA takes the program's name from this function.
    def counted(*args):
      with self._counting:
        self.compilations += 1
      return function(*args)

    return counted

  def init_state(self, params: Any, seed: int) -> step_lib.TrainState:
    """Makes the state before step 0 on the devices.

    Args:
      params: host arrays with stacked layers, equal in every process.
      seed: seed of the dropout masks.

    Raises:
      ValueError: the tree or a shape differs from the model's parameters.
    """
    params = self._place(self.abstract_state.params, params)
    return self._create(
      params, mesh_lib.place(np.uint32(seed), self._replicated)
    )

  def place_encoder(self, params: Any) -> dict[str, Any]:
    """Copies the encoder's parameters from the host to the devices."""
    expected = {'encoder': self.abstract_state.params['encoder']}
    return self._place(expected, {'encoder': params['encoder']})

  def _place(self, like: Any, params: Any) -> Any:
    def place(expected: jax.ShapeDtypeStruct, value: Any) -> jax.Array:
      value = np.asarray(value, expected.dtype)
      if value.shape != expected.shape:
        raise ValueError(
          f'a parameter has shape {value.shape}; the model has {expected.shape}'
        )
      return mesh_lib.place(value, expected.sharding)

    return jax.tree.map(place, like, params)

  def compile_ahead(
    self,
    packing: config_lib.PackingConfig,
    seeds: Collection[int] = (1,),
    first: tuple[int, int] | None = None,
  ) -> None:
    """Starts to compile the training step of each row bucket in threads.

    Without this call, each program is compiled when it is first used.

    Args:
      packing: config that gives the row buckets and the shape of a row.
      seeds: all values of K to compile for.
      first: (K, B) of the program to compile first.
    """
    buckets = {
      packing_lib.bucket(rows, (1,), self.rows_multiple)
      for rows in packing.row_buckets
    }
    shapes = [(count, rows) for count in seeds for rows in buckets]
    for count, rows in sorted(shapes, key=lambda shape: shape != first):
      lower = functools.partial(
        self.lower, rows, packing.row_length, packing.slots, count
      )
      self._ahead.start((count, rows), lower)

  def lower(
    self, rows: int, row_length: int, slots: int, seeds: int = 1
  ) -> jax.stages.Lowered:
    """Traces the training step for one batch shape; compiles nothing."""
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

  def compiled(self) -> dict[tuple[int, int], jax.stages.Compiled]:
    """Waits for `compile_ahead`; returns its programs by (K, B)."""
    return self._ahead.wait()

  def stop_compiling(self) -> None:
    """Drops programs of `compile_ahead` that no thread has begun to trace.

    In a multi-process run it does nothing, because another process may need
    these programs.
    """
    if jax.process_count() == 1:
      self._ahead.cancel_queued()

  def put(
    self, batch: step_lib.Batch | transfer.PackedBatch, is_whole: bool = False
  ) -> transfer.PackedBatch:
    """Moves a batch to the devices; returns a packed batch unchanged.

    If there is only one device, the packed batch stays on the host. The program
    copies it when it starts, in a tenth of the time of a separate copy.

    Args:
      batch: this process's rows of the batch (see `mesh.own_rows`).
      is_whole: whether `batch` has all B rows, in every process, instead.
    """
    if isinstance(batch, transfer.PackedBatch):
      return batch
    packed = transfer.pack(batch)
    if self.mesh.size == 1:
      return packed
    if is_whole or jax.process_count() == 1:
      return mesh_lib.place(packed, self._batch_sharding)
    rows, width = packed.values.shape
    own_devices = len(self._batch_sharding.addressable_devices)
    rows = rows * self.mesh.size // own_devices
    return packed.replace(
      values=jax.make_array_from_process_local_data(
        self._batch_sharding, packed.values, (rows, width)
      )
    )

  def put_seeds(
    self, batches: Sequence[step_lib.Batch]
  ) -> transfer.PackedBatch:
    """Pads the host batches of K seeds to equal size; moves them to devices."""
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
    """Starts one training step; returns before the devices are done.

    Args:
      state: state of one seed, or of K seeds from `seeds.stack`. It is donated,
        so it must not be used afterwards.
      batch: result of `put` or `put_seeds`, or this process's rows on the host.
      schedule: values of the schedules, as numbers on the host.

    Returns:
      The new state, and the packed metrics (see `transfer.unpack_metrics`).
    """
    batch = self.put(batch)
    seeds = len(batch.values) if batch.values.ndim == 3 else 1
    step = self._train if seeds == 1 else self.seeds.train
    if (shape := (seeds, len(batch))) in self._ahead:
      step = self._ahead[shape]
    return step(state, batch, np.array(schedule, np.float32))

  def split_layers(self, params: Any) -> dict[str, Any]:
    """Splits the stacked layers of parameters, for `predict` and `encode`.

    Call it once for many batches: it copies all layers in the compute dtype,
    which took a sixth of the time of one batch on a CPU. Parameters that are
    already split are returned unchanged.
    """
    return self._split(params) if layers.are_stacked(params) else params

  def predict(
    self, params: Any, batch: step_lib.Batch | transfer.PackedBatch
  ) -> heads.Outputs:
    """Computes the logits of a batch without dropout.

    Args:
      params: result of `split_layers`.
      batch: result of `put`, or all rows on the host in every process.

    Returns:
      The logits of all rows, on every device.
    """
    return self._predict(params, self.put(batch, is_whole=True))

  def encode(
    self, params: Any, batch: step_lib.Batch | transfer.PackedBatch
  ) -> heads.Outputs:
    """Computes the encoder's vectors of a batch, like `predict`."""
    own = {'encoder': params['encoder']}
    return self._encode(own, self.put(batch, is_whole=True))


def _make_apply(
  model: heads.MultiTaskModel, param_shardings: Any
) -> Callable[..., heads.Outputs]:
  """Makes the function (params, batch, dropout key) -> logits.

  The function takes parameters with single layers, not stacked layers. Without
  a key it applies no dropout.

  Args:
    model: maps (batch, deterministic) to logits.
    param_shardings: shardings of the model's parameters; the function
      all-gathers the parameters before use. None if each device holds all
      parameters whole.
  """

  def apply(
    params: Any, batch: step_lib.Batch, key: jax.Array | None = None
  ) -> heads.Outputs:
    if param_shardings is not None:
      params = mesh_lib.gathered(params, param_shardings)
    rngs = {} if key is None else {'dropout': key}
    return model.apply(
      {'params': params}, batch, deterministic=key is None, rngs=rngs
    )

  return apply


def _check(config: config_lib.Config, mesh: Mesh) -> None:
  seeds, accumulate = config.train.seeds_at_once, config.train.accumulate
  if seeds > 1 and seeds % mesh.size:
    raise errors.UserError(
      f'config.train.seeds_at_once={seeds}: {mesh.size} devices cannot share'
      f' that many seeds; give a multiple of {mesh.size}'
    )
  for rows in config.packing.row_buckets:
    if rows % accumulate:
      raise errors.UserError(
        f'config.train.accumulate={accumulate} does not divide {rows} in'
        f' config.packing.row_buckets; give multiples of {accumulate} there'
      )
