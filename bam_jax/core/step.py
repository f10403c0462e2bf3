"""The training step as a pure function of arrays.

Letters in shapes: B rows, L tokens per row, S slots per row, C outputs of the
widest head, K outputs of the widest token head, T tasks.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from bam_jax.core import gradients
from bam_jax.core import losses
from bam_jax.tasks import kind as kind_lib

Batch = Mapping[str, Any]
# (params, batch, dropout key) -> logits with the attributes `slots` [B, S, C]
# and `tokens`, [B, L, K] or None.
ApplyModel = Callable[[Any, Batch, jax.Array], Any]
_KEY_TYPE = 'threefry2x32'


class TrainState(flax.struct.PyTreeNode):
  """All arrays that a run needs to resume."""

  step: jax.Array  # int32 scalar, the number of steps taken.
  params: Any  # {'encoder', 'pooler', 'heads'}, float32, with stacked layers.
  opt_state: Any  # State of `optimizer.make_optimizer`.
  dropout_key: jax.Array  # [2] uint32, raw threefry key of the run; constant.


class StepSchedule(NamedTuple):
  """Learning rate and other scheduled values: inputs of the compiled step."""

  learning_rate: Any  # Learning rate of the heads.
  gold_weight: Any  # λ, 0-1.
  layer_decay: Any  # α, above 0, at most 1.


def create_state(
  optimizer: optax.GradientTransformation, params: Any, seed: Any
) -> TrainState:
  """Makes the state before step 0; `seed` is the uint32 seed of dropout."""
  key = jax.random.key(seed, impl=_KEY_TYPE)
  return TrainState(
    step=jnp.zeros([], jnp.int32),
    params=params,
    opt_state=optimizer.init(params),
    dropout_key=jax.random.key_data(key),
  )


def make_train_step(
  apply_model: ApplyModel,
  optimizer: optax.GradientTransformation,
  class_mask: np.ndarray,
  kinds: Sequence[kind_lib.Kind],
  *,
  reduction: str,
  accumulate: int,
) -> Callable[[TrainState, Batch, StepSchedule], tuple[TrainState, dict]]:
  """Makes the pure function that computes one training step.

  Args:
    apply_model: computes the logits, with dropout.
    optimizer: from `optimizer.make_optimizer`.
    class_mask: [T, C] bool, which outputs each head has.
    kinds: the kinds of the T tasks.
    reduction: `sum` (released code) or `mean` of the losses of the examples.
    accumulate: number of parts for `gradients.gradient`; must divide the
      number of rows on each device.

  Returns:
    (state, batch, schedule) -> (state, metrics): `loss` and `count` [T] from
    `losses.multitask_loss`, and the scalar `grad_norm` before clipping.
  """

  def train_step(
    state: TrainState, batch: Batch, schedule: StepSchedule
  ) -> tuple[TrainState, dict]:
    def loss(params: Any, rows: Batch, key: jax.Array) -> tuple:
      logits = apply_model(params, rows, key)
      return losses.multitask_loss(
        logits.slots,
        rows,
        class_mask,
        kinds,
        schedule.gold_weight,
        logits.tokens,
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
