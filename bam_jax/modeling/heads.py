"""The multi-task model: one encoder, its pooling, and a head for each task.

`FrozenEncoder` is only the encoder, for the frozen-encoder baseline.
"""

from collections.abc import Mapping
import dataclasses
import functools
from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bam_jax.modeling import dropout
from bam_jax.modeling import families
from bam_jax.modeling import family

# Precision of products that select rows or are small: no TensorFloat rounding.
_EXACT = jax.lax.Precision.HIGHEST


class Outputs(NamedTuple):
  """Float32 logits of a batch; or vectors, if `FrozenEncoder` returns them.

  Attributes:
    slots: [B, S, C] logits of each segment, or [B, S, D] vectors; finite but
      meaningless for empty slots.
    tokens: [B, L, K] logits of each token, which are 0 outside of segments; or
      [B, L, D] vectors. None if no head is applied to tokens.
  """

  slots: jax.Array
  tokens: jax.Array | None


class MultiTaskModel(nn.Module):
  """Computes each segment's logits with the head of the segment's task.

  Attributes:
    config: shape of the encoder and dropout rates.
    num_tasks: T, number of heads.
    num_outputs: C, number of outputs of the widest head. Loss and metrics mask
      the surplus outputs of narrower heads.
    token_heads: numbers of the heads that are also applied to each token.
    token_outputs: K, number of outputs of the widest head in `token_heads`.
    compute: how the encoder is computed; pooler and heads are float32.
    glorot_outputs: [T] number of outputs of each head, if the heads' random
      weights have Glorot's distribution; empty if they have BERT's.
    bi_encoder_heads: numbers of the heads for pairs whose texts are encoded
      separately; requires mean pooling.
  """

  config: family.EncoderConfig
  num_tasks: int
  num_outputs: int
  token_heads: tuple[int, ...] = ()
  token_outputs: int = 0
  compute: family.Compute = family.ONE_DEVICE
  glorot_outputs: tuple[int, ...] = ()
  bi_encoder_heads: tuple[int, ...] = ()

  @nn.compact
  def __call__(
    self, batch: Mapping[str, jax.Array], deterministic: bool
  ) -> Outputs:
    """Computes the logits of a batch.

    Args:
      batch: input_ids, token_type_ids, positions, segment_ids [B, L] int;
        cls_index [B, S] int, the position of each segment's first token in
        its row; task_id [B, S] int. Other keys are ignored.
      deterministic: True: no dropout; False: dropout uses the rng collection
        'dropout'.
    """
    chex.assert_rank([batch['cls_index'], batch['task_id']], 2)
    task_id, slots = batch['task_id'], batch['cls_index'].shape[1]
    encoded = batch
    if self.bi_encoder_heads:
      is_pair = jnp.isin(task_id, np.array(self.bi_encoder_heads))  # [B, S]
      encoded = _separate_pairs(batch, is_pair)
    pools_first = not self.bi_encoder_heads and self.config.pooling == 'cls'
    # If only first tokens are read, the last layer computes no other tokens.
    reads_first = pools_first and not self.token_heads
    hidden = encode(
      self.config,
      self.compute,
      encoded,
      deterministic,
      batch['cls_index'] if reads_first else None,
    )
    # XLA's CPU backend lacks some products of bfloat16 arrays.
    is_cpu = self.compute.platform == 'cpu'
    of_slots = hidden.astype(jnp.float32) if is_cpu else hidden
    compared = None
    if self.bi_encoder_heads:
      pooled, compared = _compare_pairs(
        average_segments(of_slots, encoded['segment_ids'], 2 * slots), is_pair
      )
    elif pools_first:
      left = None if reads_first else batch['cls_index']
      pooled = family.take_tokens(hidden, left).astype(jnp.float32)
    else:
      pooled = average_segments(of_slots, batch['segment_ids'], slots)
    of = families.FAMILIES[self.config.family]
    pooler = of.pooler(self.config, name='pooler')
    if self.config.pooling in of.pools:
      # The vectors of separated pairs do not go through the pooler.
      own, pooled = pooled, pooler(pooled, deterministic)
      if self.bi_encoder_heads:
        pooled = jnp.where(is_pair[..., None], own, pooled)
    rate = 0.0 if deterministic else self.config.dropout_head
    (dropout_bits,) = dropout.draw_bits(self, 1, deterministic)
    pooled = dropout.dropout(pooled, rate, dropout_bits)  # [B, S, D]
    tokens = None
    if self.token_heads:
      (dropout_bits,) = dropout.draw_bits(self, 1, deterministic)
      tokens = hidden.astype(jnp.float32)
      if 'tokens' in of.pools:
        tokens = pooler(tokens, deterministic)
      tokens = dropout.dropout(tokens, rate, dropout_bits)
    if compared is not None:
      (dropout_bits,) = dropout.draw_bits(self, 1, deterministic)
      compared = dropout.dropout(compared, rate, dropout_bits)
    return TaskHeads(
      self.num_tasks,
      self.num_outputs,
      self.token_heads,
      self.token_outputs,
      self.glorot_outputs,
      self.bi_encoder_heads,
      name='heads',
    )(pooled, task_id, tokens, batch['segment_ids'], compared)

  def on_one_device(self) -> 'MultiTaskModel':
    """Returns a copy of the model for batches on one device."""
    compute = dataclasses.replace(self.compute, mesh=None)
    return self.clone(compute=compute)


def encode(
  config: family.EncoderConfig,
  compute: family.Compute,
  batch: Mapping[str, jax.Array],
  deterministic: bool,
  read: jax.Array | None = None,
) -> jax.Array:
  """Computes the last hidden states of a batch, [B, L, D].

  If `read` [B, S] is given, returns only the hidden states at these positions,
  [B, S, D]. The encoder becomes the submodule `encoder` of the Flax module that
  calls this function.
  """
  encoder = families.FAMILIES[config.family].encoder
  return encoder(config, compute, name='encoder')(
    batch['input_ids'],
    batch['token_type_ids'],
    batch['positions'],
    batch['segment_ids'],
    deterministic,
    read,
  )


def _separate_pairs(
  batch: Mapping[str, jax.Array], is_pair: jax.Array
) -> dict[str, jax.Array]:
  """Moves the second text of bi-encoder pairs to a separate segment.

  The second text is encoded like a single text: its positions count from 0, and
  its token type is 0.

  Args:
    batch: see `MultiTaskModel`; the first text of a pair has token type 0.
    is_pair: [B, S] bool, the segments to separate.

  Returns:
    The batch with new segment ids: segment s becomes segment 2 s - 1, and the
    second text of a separated pair becomes segment 2 s.
  """
  segments, types = batch['segment_ids'], batch['token_type_ids']
  of_slot = jax.nn.one_hot(segments - 1, is_pair.shape[1])  # [B, L, S]

  def to_tokens(values: jax.Array) -> jax.Array:
    chosen = jnp.einsum('bls,bs->bl', of_slot, values, precision=_EXACT)
    return chosen.astype(jnp.int32)

  second = types * to_tokens(is_pair.astype(jnp.float32))  # [B, L], 0 or 1
  is_first = (1 - types).astype(jnp.float32)
  lengths = jnp.einsum('bls,bl->bs', of_slot, is_first, precision=_EXACT)
  return {
    **batch,
    'segment_ids': 2 * segments - (segments > 0) + second,
    'positions': batch['positions'] - second * to_tokens(lengths),
    'token_type_ids': types - second,
  }


def _compare_pairs(
  vectors: jax.Array, is_pair: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Compares the vectors of the two texts of each separated pair.

  u and v are the vectors of a pair's texts, divided by their norms (Conneau et
  al. 2017, "InferSent").

  Args:
    vectors: [B, 2 S, D], for each slot the vectors of its first and its second
      text.
    is_pair: [B, S] bool, whether the slot holds a separated pair.

  Returns:
    Two inputs of `TaskHeads`. The first, [B, S, D], is u for pairs, and the
    vector of the segment for other slots. The second, [B, S, 3 D], is v,
    |u - v| and u * v, concatenated; only meaningful for pairs.
  """
  vectors = vectors.reshape(*is_pair.shape, 2, -1)
  squares = jnp.sum(vectors**2, axis=-1, keepdims=True)
  # An empty slot's vectors are 0, where a norm has no gradient.
  units = vectors * jax.lax.rsqrt(jnp.maximum(squares, 1e-12))
  u, v = units[:, :, 0], units[:, :, 1]
  return (
    jnp.where(is_pair[..., None], u, vectors[:, :, 0]),
    jnp.concatenate([v, jnp.abs(u - v), u * v], axis=-1),
  )


class FrozenEncoder(nn.Module):
  """Computes the mean vector of each segment, and the vectors of all tokens.

  It averages the last hidden states even if the model's pooling is not the
  mean: without fine-tuning, BERT's [CLS] vector is worse (Reimers and Gurevych
  2019, "Sentence-BERT", table 1). The parameters are only {'encoder'}.
  """

  config: family.EncoderConfig
  compute: family.Compute
  has_tokens: bool

  @nn.compact
  def __call__(
    self, batch: Mapping[str, jax.Array], deterministic: bool = True
  ) -> Outputs:
    """Encodes a batch (see `MultiTaskModel`), by default without dropout."""
    hidden = encode(self.config, self.compute, batch, deterministic)
    hidden = hidden.astype(jnp.float32)  # [B, L, D]
    slots = average_segments(
      hidden, batch['segment_ids'], batch['cls_index'].shape[1]
    )
    return Outputs(slots, hidden if self.has_tokens else None)


class TaskHeads(nn.Module):
  """One linear head per task, with one kernel [T, D, C] and one bias [T, C].

  The P bi-encoder heads have a further kernel [P, 3 D, C].
  """

  num_tasks: int
  num_outputs: int
  token_heads: tuple[int, ...] = ()
  token_outputs: int = 0
  glorot_outputs: tuple[int, ...] = ()
  bi_encoder_heads: tuple[int, ...] = ()

  @nn.compact
  def __call__(
    self,
    pooled: jax.Array,
    task_id: jax.Array,
    tokens: jax.Array | None = None,
    segment_ids: jax.Array | None = None,
    compared: jax.Array | None = None,
  ) -> Outputs:
    """Applies each task's head to the vectors of that task's slots and tokens.

    Args:
      pooled: [B, S, D] float32.
      task_id: [B, S] int.
      tokens: [B, L, D] float32; None if no head is applied to tokens.
      segment_ids: [B, L] int, slot number plus 1; 0 is padding.
      compared: [B, S, 3 D] float32, for the bi-encoder heads; else None.
    """
    kernel = self.param(
      'kernel',
      self._draw_kernel if self.glorot_outputs else family.initializer,
      (self.num_tasks, pooled.shape[-1], self.num_outputs),
    )
    bias = self.param(
      'bias', nn.initializers.zeros, (self.num_tasks, self.num_outputs)
    )
    logits = jnp.einsum('bsd,tdc->bstc', pooled, kernel, precision=_EXACT)
    # A gather of kernels would copy D x C numbers per segment. Its gradient
    # would be a scatter, whose order of additions varies on a GPU.
    chosen = jax.nn.one_hot(task_id, self.num_tasks)  # [B, S, T]
    slots = jnp.einsum(
      'bstc,bst->bsc', logits + bias[None, None], chosen, precision=_EXACT
    )
    if self.bi_encoder_heads:
      pair_kernel = self.param(
        'pair_kernel',
        family.initializer,
        (len(self.bi_encoder_heads), compared.shape[-1], self.num_outputs),
      )
      slots += jnp.einsum(
        'bspc,bsp->bsc',
        jnp.einsum('bsd,pdc->bspc', compared, pair_kernel, precision=_EXACT),
        chosen[..., np.array(self.bi_encoder_heads)],
        precision=_EXACT,
      )
    if not self.token_heads:
      return Outputs(slots, None)
    # Kernels [U, D, K] and biases [U, K] of the U heads that are applied to
    # tokens. They are taken by slices instead of a gather.
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
    return Outputs(
      slots,
      jnp.einsum(
        'bluk,blu->blk', logits + bias[None, None], of_token, precision=_EXACT
      ),
    )

  def _draw_kernel(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws each head from Glorot and Bengio's uniform distribution (2010)."""
    # The limits depend on the head's own number of outputs, not on C.
    sizes = shape[1] + jnp.array(self.glorot_outputs)[:, None, None]
    return jnp.sqrt(6 / sizes) * jax.random.uniform(key, shape, minval=-1)


def average_segments(
  hidden: jax.Array, segment_ids: jax.Array, num_slots: int
) -> jax.Array:
  """Averages the vectors of each segment's tokens, [CLS] and [SEP] included.

  Args:
    hidden: [B, L, D], finite.
    segment_ids: [B, L] int, slot number plus 1; 0 is padding.
    num_slots: S, number of slots per row.

  Returns:
    Mean vectors [B, S, D] float32, summed in float32; 0 for empty slots.
  """
  # Padding has index -1, which is in no slot.
  of_slot = jax.nn.one_hot(segment_ids - 1, num_slots, dtype=hidden.dtype)
  total = jnp.einsum(
    'bls,bld->bsd',
    of_slot,
    hidden,
    precision=_EXACT,
    preferred_element_type=jnp.float32,
  )
  tokens = jnp.sum(of_slot, axis=1, dtype=jnp.float32)  # [B, S]
  return total / jnp.maximum(tokens, 1)[..., None]


def init_params(model: MultiTaskModel, key: jax.Array) -> Mapping[str, object]:
  """Draws random parameters {'encoder', 'pooler', 'heads'}, float32.

  'pooler' is missing if the model applies no pooler; see `Family.pools`.

  Do not wrap this function in `jax.jit` if you use all parameters: for a GPU, a
  program of a hundred draws takes minutes to compile. Without `jax.jit`, one
  small program per shape is compiled.
  """
  names = (
    'input_ids', 'token_type_ids', 'positions', 'segment_ids', 'cls_index',
    'task_id',
  )  # fmt: skip
  batch = dict.fromkeys(names, jax.ShapeDtypeStruct((1, 1), jnp.int32))
  # One row cannot be spread over several devices.
  model = model.on_one_device()
  return model.lazy_init(key, batch, deterministic=True)['params']


# Traced once for `abstract_params` and for programs that call it, since tracing
# takes most of a second.
traced_init_params = jax.jit(init_params, static_argnums=0)


def abstract_params(model: MultiTaskModel) -> Mapping[str, object]:
  """Returns the shapes and types of the parameters, but computes none."""
  key = jax.eval_shape(jax.random.key, 0)
  return jax.eval_shape(functools.partial(traced_init_params, model), key)
