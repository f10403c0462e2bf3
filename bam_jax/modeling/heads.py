"""The multi-task model: one encoder, its pooling, and a head for each task.

`FrozenEncoder` is the encoder alone, for the baseline of the same name.
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

# Products that select rows, or are small, are never rounded to TensorFloat.
_EXACT = jax.lax.Precision.HIGHEST


class Outputs(NamedTuple):
  """Logits of a batch, or vectors of the encoder, float32.

  Attributes:
    slots: [B, S, C] for each segment; finite but meaningless for empty slots.
    tokens: [B, L, K] for each token; logits outside of segments are 0. None if
      no head is applied to tokens.
  """

  slots: jax.Array
  tokens: jax.Array | None


class MultiTaskModel(nn.Module):
  """Computes each segment's logits by the head of the segment's task.

  Attributes:
    config: shape of the encoder and dropout rates.
    num_tasks: T, number of heads.
    num_outputs: C, outputs of the widest head. Loss and metrics mask the
      surplus outputs of narrower heads.
    token_heads: numbers of the heads that are applied to tokens too.
    token_outputs: K, outputs of the widest of these heads.
    compute: how the encoder is computed; pooler and heads are float32.
    glorot_outputs: [T] outputs of each head if their random weights are
      Glorot's; empty: they are BERT's.
    bi_encoder_heads: numbers of the heads of pairs whose texts are encoded
      apart; only with mean pooling.
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
        its row; task_id [B, S] int. Other keys are not read.
      deterministic: no dropout; else the rng collection 'dropout' is used.
    """
    chex.assert_rank([batch['cls_index'], batch['task_id']], 2)
    task_id, slots = batch['task_id'], batch['cls_index'].shape[1]
    encoded = batch
    if self.bi_encoder_heads:
      is_pair = jnp.isin(task_id, np.array(self.bi_encoder_heads))  # [B, S]
      encoded = _separate_pairs(batch, is_pair)
    pools_first = not self.bi_encoder_heads and self.config.pooling == 'cls'
    # The last layer computes no token that nothing reads.
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
      # Vectors that are compared are the encoder's own.
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
    """Returns a copy of the model for batches that are on one device."""
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

  With `read` [B, S], only those of the tokens at these places, [B, S, D]. The
  encoder is the submodule `encoder` of the module that calls this.
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
  """Gives the second text of bi-encoder pairs a segment of its own.

  Such a text is encoded as if it were alone: its positions count from 0, and
  its token type is 0.

  Args:
    batch: of `MultiTaskModel`; the first text of a pair has token type 0.
    is_pair: [B, S] bool, the segments to separate.

  Returns:
    The batch with segment 2 s - 1 in place of segment s, and with segment 2 s
    for its second text if it is separated.
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
  """Computes the input of heads for segments and for separated pairs.

  A pair with the unit vectors u and v has u, and v, |u - v| and u * v (Conneau
  et al. 2017, "InferSent").

  Args:
    vectors: [B, 2 S, D], those of a segment's first and second text.
    is_pair: [B, S] bool, the separated pairs.

  Returns:
    [B, S, D] vectors of the segments, and [B, S, 3 D] for pairs.
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

  It takes the mean of the last hidden states whatever the pooling of the model
  is: without fine-tuning BERT's [CLS] vector is worse (Reimers and Gurevych
  2019, "Sentence-BERT", table 1). Its parameters are {'encoder'}.
  """

  config: family.EncoderConfig
  compute: family.Compute
  has_tokens: bool

  @nn.compact
  def __call__(
    self, batch: Mapping[str, jax.Array], deterministic: bool = True
  ) -> Outputs:
    """Encodes a batch of `MultiTaskModel` without dropout."""
    hidden = encode(self.config, self.compute, batch, deterministic)
    hidden = hidden.astype(jnp.float32)  # [B, L, D]
    slots = average_segments(
      hidden, batch['segment_ids'], batch['cls_index'].shape[1]
    )
    return Outputs(slots, hidden if self.has_tokens else None)


class TaskHeads(nn.Module):
  """One linear head per task; all are in one table [T, D, C] and [T, C].

  The P heads of bi-encoders have a further table, [P, 3 D, C].
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
    """Applies the head of each vector's task to it.

    Args:
      pooled: [B, S, D] float32.
      task_id: [B, S] int.
      tokens: [B, L, D] float32; None if no head is applied to tokens.
      segment_ids: [B, L] int, slot number plus 1; 0 is padding.
      compared: [B, S, 3 D] float32, for the heads of bi-encoders.
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
    # A gather of kernels would cost a copy of D x C a segment, and its
    # gradient a scatter, whose order of additions varies on a GPU.
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
    # The few heads that are applied to tokens, [U, D, K]; slices, not a gather.
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
    # Its limits depend on the outputs of the head, not of the table.
    sizes = shape[1] + jnp.array(self.glorot_outputs)[:, None, None]
    return jnp.sqrt(6 / sizes) * jax.random.uniform(key, shape, minval=-1)


def average_segments(
  hidden: jax.Array, segment_ids: jax.Array, num_slots: int
) -> jax.Array:
  """Averages the vectors of each segment's tokens, [CLS] and [SEP] included.

  Args:
    hidden: [B, L, D], finite.
    segment_ids: [B, L] int, slot number plus 1; 0 is padding.
    num_slots: S.

  Returns:
    [B, S, D] float32, summed in float32; 0 for empty slots.
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

  There is no pooler with mean pooling. Don't compile it by `jax.jit` if all
  parameters are used: for a GPU, a program of a hundred draws takes minutes to
  compile. Otherwise each shape is compiled once.
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
