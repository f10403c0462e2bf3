"""One encoder, one pooler, and a head for each task over packed rows."""

from collections.abc import Mapping
from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np

from bam_jax.modeling import dropout
from bam_jax.modeling import families
from bam_jax.modeling import family

# Products that merely select, or that are small: never rounded to TensorFloat.
_EXACT = jax.lax.Precision.HIGHEST


class Logits(NamedTuple):
  """What the heads say.

  Attributes:
    slots: [B, S, C] float32, of each segment's pooled vector. Those of empty
      slots are finite and mean nothing.
    tokens: [B, L, K] float32, of each token, 0 outside of segments; None where
      no head is of tokens.
  """

  slots: jax.Array
  tokens: jax.Array | None


class MultiTaskModel(nn.Module):
  """Logits of every segment under the head of the segment's own task.

  Attributes:
    config: shape of the encoder and dropout rates.
    num_tasks: T, number of heads.
    num_outputs: C, outputs of the widest head. A narrower head has outputs
      that mean nothing: the loss and the metrics mask them.
    token_heads: numbers of the heads that are applied to tokens too.
    token_outputs: K, outputs of the widest of these.
    dtype: type of the encoder's computation; pooler and heads are float32.
    remat: recompute each layer in the backward pass, to save memory.
    mesh: the rows lie spread over all its axes; None: on one device.
    platform: whose own kernels are used, where it has any, as
      `kernels.of_device` names it; empty: XLA's.
  """

  config: family.EncoderConfig
  num_tasks: int
  num_outputs: int
  token_heads: tuple[int, ...] = ()
  token_outputs: int = 0
  dtype: jnp.dtype = jnp.float32
  remat: bool = False
  mesh: Mesh | None = None
  platform: str = ''

  @nn.compact
  def __call__(
    self, batch: Mapping[str, jax.Array], deterministic: bool
  ) -> Logits:
    """Computes logits.

    Args:
      batch: input_ids, token_type_ids, positions, segment_ids [B, L] int;
        cls_index [B, S] int, the position of each segment's first token in
        its row; task_id [B, S] int. Other keys are not read.
      deterministic: no dropout; else the rng collection 'dropout' is used.
    """
    chex.assert_rank([batch['cls_index'], batch['task_id']], 2)
    hidden = families.FAMILIES[self.config.family].encoder(
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
    # As in `attention`: there XLA lacks products of bfloat16 arrays.
    of_slots = hidden.astype(jnp.float32) if self.platform == 'cpu' else hidden
    pooled = nn.Dense(
      self.config.hidden_size,
      precision=_EXACT,
      kernel_init=family.initializer,
      name='pooler',
    )(select_tokens(of_slots, batch['cls_index']))
    rate = 0.0 if deterministic else self.config.dropout_head
    (words,) = dropout.draw_words(self, 1, deterministic)
    pooled = dropout.dropout(jnp.tanh(pooled), rate, words)  # [B, S, D]
    tokens = None
    if self.token_heads:
      (words,) = dropout.draw_words(self, 1, deterministic)
      tokens = dropout.dropout(hidden.astype(jnp.float32), rate, words)
    return TaskHeads(
      self.num_tasks,
      self.num_outputs,
      self.token_heads,
      self.token_outputs,
      name='heads',
    )(pooled, batch['task_id'], tokens, batch['segment_ids'])


class TaskHeads(nn.Module):
  """T linear heads as one table, [T, D, C] and [T, C]."""

  num_tasks: int
  num_outputs: int
  token_heads: tuple[int, ...] = ()
  token_outputs: int = 0

  @nn.compact
  def __call__(
    self,
    pooled: jax.Array,
    task_id: jax.Array,
    tokens: jax.Array | None = None,
    segment_ids: jax.Array | None = None,
  ) -> Logits:
    """Applies to each vector the head of its own task.

    Args:
      pooled: [B, S, D] float32.
      task_id: [B, S] int.
      tokens: [B, L, D] float32; None where no head is of tokens.
      segment_ids: [B, L] int, from 1 on the slots of a row, 0 is padding.
    """
    kernel = self.param(
      'kernel',
      family.initializer,
      (self.num_tasks, pooled.shape[-1], self.num_outputs),
    )
    bias = self.param(
      'bias', nn.initializers.zeros, (self.num_tasks, self.num_outputs)
    )
    logits = jnp.einsum('bsd,tdc->bstc', pooled, kernel, precision=_EXACT)
    # A gather of kernels would cost a copy of D x C a segment, and its
    # gradient a scatter, whose order of additions varies on a GPU.
    chosen = jax.nn.one_hot(task_id, self.num_tasks)  # [B, S, T]
    slots = jnp.einsum(
      'bstc,bst->bsc', logits + bias[None, None], chosen, precision=_EXACT
    )
    if not self.token_heads:
      return Logits(slots, None)
    # The few heads that are of tokens, [U, D, K]; slices, not a gather.
    kernel, bias = (
      jnp.stack(
        [x[head, ..., : self.token_outputs] for head in self.token_heads]
      )
      for x in (kernel, bias)
    )
    logits = jnp.einsum('bld,udk->bluk', tokens, kernel, precision=_EXACT)
    of_slot = jax.nn.one_hot(segment_ids - 1, task_id.shape[1])  # [B, L, S]
    of_token = jnp.einsum(
      'bls,bsu->blu',
      of_slot,
      chosen[..., np.array(self.token_heads)],
      precision=_EXACT,
    )
    return Logits(
      slots,
      jnp.einsum(
        'bluk,blu->blk', logits + bias[None, None], of_token, precision=_EXACT
      ),
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


def init_params(model: MultiTaskModel, key: jax.Array) -> Mapping[str, object]:
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


def abstract_params(model: MultiTaskModel) -> Mapping[str, object]:
  """The tree of `init_params` as `jax.ShapeDtypeStruct`, nothing computed."""
  return jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
