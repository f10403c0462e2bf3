"""The train and predict steps, and the programs compiled from them.

Whatever differs between the runs of a plan is data: learning rate, weight of
the gold labels, layer decay, seed, task. One program a batch shape serves all.
B rows, L tokens, S segment slots, C outputs of the widest head, T tasks.
"""

from collections.abc import Callable
from collections.abc import Mapping
import functools
from typing import Any
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np
import optax

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.modeling import heads
from bam_jax.tasks import task as task_lib
from bam_jax.training import gradients
from bam_jax.training import losses
from bam_jax.training import mesh as mesh_lib
from bam_jax.training import optimizer as optimizer_lib

Batch = Mapping[str, Any]
_KEY_TYPE = 'threefry2x32'


class TrainState(flax.struct.PyTreeNode):
  """What a step changes; with the configuration, all that a resume needs.

  Attributes:
    step: int32 scalar, steps done.
    params: {'encoder', 'pooler', 'heads'}, float32.
    opt_state: of `optimizer.make_optimizer`.
    dropout_key: [2] uint32, raw threefry key of the run; never changes.
  """

  step: jax.Array
  params: Any
  opt_state: Any
  dropout_key: jax.Array


class StepSchedule(NamedTuple):
  """What the schedules say for one step: float32 scalars, data to the program.

  Attributes:
    learning_rate: of the heads.
    gold_weight: λ, 0-1.
    layer_decay: α, above 0, at most 1.
  """

  learning_rate: Any
  gold_weight: Any
  layer_decay: Any


def create_state(
  optimizer: optax.GradientTransformation, params: Any, seed: Any
) -> TrainState:
  """The state before step 0.

  Args:
    optimizer: of `optimizer.make_optimizer`.
    params: complete tree.
    seed: of dropout; uint32 scalar, may be traced.
  """
  key = jax.random.key(seed, impl=_KEY_TYPE)
  return TrainState(
    step=jnp.zeros([], jnp.int32),
    params=params,
    opt_state=optimizer.init(params),
    dropout_key=jax.random.key_data(key),
  )


def make_train_step(
  model: heads.MultiTaskBert,
  optimizer: optax.GradientTransformation,
  class_mask: np.ndarray,
  is_regression: np.ndarray,
  *,
  regression_head: str,
  reduction: str,
  accumulate: int,
  param_shardings: Any = None,
) -> Callable[[TrainState, Batch, StepSchedule], tuple[TrainState, dict]]:
  """The pure function of one step.

  Args:
    model: maps (batch, deterministic) to logits [B, S, C].
    optimizer: of `optimizer.make_optimizer`.
    class_mask: [T, C] bool, the outputs of each head.
    is_regression: [T] bool.
    regression_head: `sigmoid` or `linear`.
    reduction: `sum` over the examples (released code) or `mean`.
    accumulate: parts that the batch is computed in, to save memory; must
      divide B. Dropout differs between numbers of parts, nothing else does.
    param_shardings: tree of shardings of parameters spread over devices, which
      are then gathered for use; None: they are whole.

  Returns:
    (state, batch, schedule) -> (state, metrics), metrics being `loss` [T] and
    `count` [T], the sums of `losses.multitask_loss`, and `grad_norm`, a scalar,
    before clipping.
  """

  def train_step(
    state: TrainState, batch: Batch, schedule: StepSchedule
  ) -> tuple[TrainState, dict]:
    def loss(params: Any, rows: Batch, key: jax.Array) -> tuple:
      if param_shardings is not None:
        params = mesh_lib.gathered(params, param_shardings)
      logits = model.apply(
        {'params': params}, rows, deterministic=False, rngs={'dropout': key}
      )  # [B, S, C]
      return losses.multitask_loss(
        logits,
        rows,
        class_mask,
        is_regression,
        schedule.gold_weight,
        regression_head,
      )

    key = jax.random.wrap_key_data(state.dropout_key, impl=_KEY_TYPE)
    key = jax.random.fold_in(key, state.step)
    gradient, metrics = gradients.gradient(
      loss, state.params, batch, key, accumulate
    )
    if reduction == 'mean':
      count = jnp.maximum(jnp.sum(metrics['count']), 1.0)
      gradient = jax.tree.map(lambda g: g / count, gradient)
    opt_state = state.opt_state._replace(
      hyperparams={
        'learning_rate': schedule.learning_rate,
        'layer_decay': schedule.layer_decay,
      }
    )
    updates, opt_state = optimizer.update(gradient, opt_state, state.params)
    state = state.replace(
      step=state.step + 1,
      params=optax.apply_updates(state.params, updates),
      opt_state=opt_state,
    )
    return state, metrics | {'grad_norm': optax.tree.norm(gradient)}

  return train_step


def make_predict_step(
  model: heads.MultiTaskBert, param_shardings: Any = None
) -> Callable[[Any, Batch], jax.Array]:
  """The pure function (params, batch) -> logits [B, S, C], without dropout.

  Args:
    model: maps (batch, deterministic) to logits.
    param_shardings: as for `make_train_step`.
  """

  def predict_step(params: Any, batch: Batch) -> jax.Array:
    if param_shardings is not None:
      params = mesh_lib.gathered(params, param_shardings)
    return model.apply({'params': params}, batch, deterministic=True)

  return predict_step


class Programs:
  """The compiled programs of a plan, and where their arrays lie.

  Attributes:
    mesh: the devices.
    tasks: in the order of the heads.
    rows_multiple: what B, over all processes, must divide by.
    state_shardings: tree of shardings of a TrainState.
    abstract_state: tree of `jax.ShapeDtypeStruct` with shardings, for restoring
      a checkpoint.
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
        divide.
    """
    accumulate = config.train.accumulate
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
    self._accumulate = accumulate
    self._batch_sharding = mesh_lib.batch_sharding(mesh)
    self._replicated = mesh_lib.replicated(mesh)

    optimizer = optimizer_lib.make_optimizer(
      config.optimizer, model.config.num_layers
    )
    create = functools.partial(create_state, optimizer)
    shapes = jax.eval_shape(create, abstract_params(model), np.uint32(0))
    self.state_shardings = mesh_lib.state_shardings(mesh, shapes)
    self.abstract_state = jax.tree.map(
      lambda x, sharding: jax.ShapeDtypeStruct(
        x.shape, x.dtype, sharding=sharding
      ),
      shapes,
      self.state_shardings,
    )
    param_shardings = self.state_shardings.params
    self._create = jax.jit(
      self._counted(create),
      in_shardings=(param_shardings, self._replicated),
      out_shardings=self.state_shardings,
    )
    self._train = jax.jit(
      self._counted(
        make_train_step(
          model,
          optimizer,
          tasks.class_mask,
          tasks.is_regression,
          regression_head=config.model.regression_head,
          reduction=config.optimizer.reduction,
          accumulate=accumulate,
          param_shardings=param_shardings,
        )
      ),
      in_shardings=(
        self.state_shardings,
        self._batch_sharding,
        self._replicated,
      ),
      out_shardings=(self.state_shardings, self._replicated),
      donate_argnums=0,
    )
    # Logits are small: whole on every device, so any process can fetch them.
    self._predict = jax.jit(
      self._counted(make_predict_step(model, param_shardings)),
      in_shardings=(param_shardings, self._batch_sharding),
      out_shardings=self._replicated,
    )

  def _counted(self, function: Callable) -> Callable:
    """The function, counting its traces: each is one program compiled."""

    def counted(*args):
      self.compilations += 1
      return function(*args)

    return counted

  def init_state(self, params: Any, seed: int) -> TrainState:
    """The state before step 0, on the devices.

    Args:
      params: complete tree of host arrays, the same in every process; copied,
        so the state may be donated.
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

  def put(self, batch: Batch) -> Batch:
    """This process's share of the rows, on the devices.

    Args:
      batch: host arrays of B / processes rows; one that is on the devices
        already is returned.

    Raises:
      errors.UserError: rows that the devices cannot share.
    """
    if isinstance(batch['weight'], jax.Array):
      return batch
    self._check_rows(len(batch['weight']) * jax.process_count())
    if jax.process_count() == 1:
      return mesh_lib.place(dict(batch), self._batch_sharding)
    return {
      key: jax.make_array_from_process_local_data(self._batch_sharding, value)
      for key, value in batch.items()
    }

  def put_whole(self, batch: Batch) -> Batch:
    """As `put`, where every process holds all B rows."""
    if isinstance(batch['weight'], jax.Array):
      return batch
    self._check_rows(len(batch['weight']))
    return mesh_lib.place(dict(batch), self._batch_sharding)

  def put_schedule(self, schedule: StepSchedule) -> StepSchedule:
    """The numbers of a step, on the devices; those that are there stay."""
    if isinstance(schedule.learning_rate, jax.Array):
      return schedule
    return mesh_lib.place(
      StepSchedule(*map(np.float32, schedule)), self._replicated
    )

  def _check_rows(self, rows: int) -> None:
    if rows % self.mesh.size:
      raise errors.UserError(
        f'config.mesh: a batch of {rows} rows cannot be shared by'
        f' {self.mesh.size} devices; make the rows a multiple of'
        f' {self.mesh.size}'
      )

  def train_step(
    self, state: TrainState, batch: Batch, schedule: StepSchedule
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step; returns before the devices are done.

    Args:
      state: donated: not to be used afterwards.
      batch: this process's rows on the host, or as `put` returns.
      schedule: host numbers, or as `put_schedule` returns.

    Returns:
      The state, and metrics on the devices: `loss` [T] and `count` [T] sums,
      `grad_norm` scalar.

    Raises:
      errors.UserError: rows that the devices or the parts cannot share.
    """
    batch = self.put(batch)
    rows = batch['weight'].shape[0]
    if rows % self.rows_multiple:
      raise errors.UserError(
        f'config.train.accumulate={self._accumulate}: a batch of {rows} rows'
        f' cannot be split into that many parts on {self.mesh.size} devices;'
        f' make the rows a multiple of {self.rows_multiple}'
      )
    return self._train(state, batch, self.put_schedule(schedule))

  def predict(self, params: Any, batch: Batch) -> jax.Array:
    """Logits [B, S, C] of all rows, whole on every device, without dropout.

    Args:
      params: of a state.
      batch: all rows on the host of every process, or as `put` returns.

    Raises:
      errors.UserError: rows that the devices cannot share.
    """
    return self._predict(params, self.put_whole(batch))


def abstract_params(model: heads.MultiTaskBert) -> Any:
  """The parameter tree as `jax.ShapeDtypeStruct`, without computing it."""
  tokens = jax.ShapeDtypeStruct((1, 8), jnp.int32)
  slots = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  batch = {
    'input_ids': tokens,
    'token_type_ids': tokens,
    'positions': tokens,
    'segment_ids': tokens,
    'cls_index': slots,
    'task_id': slots,
  }
  init = functools.partial(model.init, deterministic=True)
  key = jax.eval_shape(lambda: jax.random.key(0, impl=_KEY_TYPE))
  return jax.eval_shape(init, key, batch)['params']
