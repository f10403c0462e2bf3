"""One encoder, one pooler, and a head for each task over packed rows."""

from collections.abc import Mapping

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from bam_jax.modeling import bert
from bam_jax.modeling import dropout

# Products that merely select, or that are small: never rounded to TensorFloat.
_EXACT = jax.lax.Precision.HIGHEST


class MultiTaskBert(nn.Module):
  """Logits of every segment under the head of the segment's own task.

  Attributes:
    config: shape of the encoder and dropout rates.
    num_tasks: T, number of heads.
    num_outputs: C, outputs of the widest head. A narrower head has outputs
      that mean nothing: the loss and the metrics mask them.
    dtype: type of the encoder's computation; pooler and heads are float32.
    remat: recompute each layer in the backward pass, to save memory.
    mesh: the rows lie spread over all its axes; None: on one device.
    platform: whose own kernels are used, where it has any, as
      `kernels.of_device` names it; empty: XLA's.
  """

  config: bert.BertConfig
  num_tasks: int
  num_outputs: int
  dtype: jnp.dtype = jnp.float32
  remat: bool = False
  mesh: Mesh | None = None
  platform: str = ''

  @nn.compact
  def __call__(
    self, batch: Mapping[str, jax.Array], deterministic: bool
  ) -> jax.Array:
    """Computes logits.

    Args:
      batch: input_ids, token_type_ids, positions, segment_ids [B, L] int;
        cls_index [B, S] int, the position of each segment's first token in
        its row; task_id [B, S] int. Other keys are not read.
      deterministic: no dropout; else the rng collection 'dropout' is used.

    Returns:
      [B, S, C] float32. The logits of empty slots are finite and mean nothing.
    """
    chex.assert_rank([batch['cls_index'], batch['task_id']], 2)
    hidden = bert.BertEncoder(
      self.config,
      self.dtype,
      self.remat,
      self.mesh,
      self.platform,
      name='encoder',
    )(
      batch['input_ids'],
      batch['token_type_ids'],
      batch['positions'],
      batch['segment_ids'],
      deterministic,
    )  # [B, L, D]
    pooled = nn.Dense(
      self.config.hidden_size,
      precision=_EXACT,
      kernel_init=bert.initializer,
      name='pooler',
    )(select_tokens(hidden, batch['cls_index']))
    (words,) = dropout.draw_words(self, 1, deterministic)
    pooled = dropout.dropout(
      jnp.tanh(pooled),
      0.0 if deterministic else self.config.dropout_head,
      words,
    )  # [B, S, D]
    return TaskHeads(self.num_tasks, self.num_outputs, name='heads')(
      pooled, batch['task_id']
    )


class TaskHeads(nn.Module):
  """T linear heads as one table, [T, D, C] and [T, C]."""

  num_tasks: int
  num_outputs: int

  @nn.compact
  def __call__(self, pooled: jax.Array, task_id: jax.Array) -> jax.Array:
    """[B, S, D] float32 and [B, S] int -> [B, S, C] float32."""
    kernel = self.param(
      'kernel',
      bert.initializer,
      (self.num_tasks, pooled.shape[-1], self.num_outputs),
    )
    bias = self.param(
      'bias', nn.initializers.zeros, (self.num_tasks, self.num_outputs)
    )
    logits = jnp.einsum('bsd,tdc->bstc', pooled, kernel, precision=_EXACT)
    # A gather of kernels would cost a copy of D x C a segment, and its
    # gradient a scatter, whose order of additions varies on a GPU.
    chosen = jax.nn.one_hot(task_id, self.num_tasks)  # [B, S, T]
    return jnp.einsum(
      'bstc,bst->bsc', logits + bias[None, None], chosen, precision=_EXACT
    )


def select_tokens(hidden: jax.Array, index: jax.Array) -> jax.Array:
  """Vectors at some positions, in float32, without a scatter gradient.

  Args:
    hidden: [B, L, D], finite.
    index: [B, S] int, 0 to L - 1.

  Returns:
    [B, S, D] float32.
  """
  chosen = jax.nn.one_hot(index, hidden.shape[1], dtype=hidden.dtype)
  return jnp.einsum(
    'bsl,bld->bsd',
    chosen,
    hidden,
    precision=_EXACT,
    preferred_element_type=jnp.float32,
  )


def init_params(model: MultiTaskBert, key: jax.Array) -> Mapping[str, object]:
  """Random parameters: {'encoder', 'pooler', 'heads'}, float32.

  Not for `jax.jit` where all are used: a hundred draws in one program take
  minutes to compile for a GPU; drawn one by one, each shape is compiled once.

  Args:
    model: whose shapes alone decide; those of a batch do not matter.
    key: PRNG key.
  """
  number = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  batch = {
    'input_ids': number,
    'token_type_ids': number,
    'positions': number,
    'segment_ids': number,
    'cls_index': number,
    'task_id': number,
  }
  # One row cannot be shared by several devices.
  model = model.clone(mesh=None)
  return model.lazy_init(key, batch, deterministic=True)['params']


def abstract_params(model: MultiTaskBert) -> Mapping[str, object]:
  """The tree of `init_params` as `jax.ShapeDtypeStruct`, nothing computed."""
  return jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
