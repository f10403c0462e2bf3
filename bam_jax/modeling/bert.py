"""BERT's encoder over packed rows (Devlin et al. 2019, arXiv 1810.04805)."""

import functools
import re

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from bam_jax.modeling import attention
from bam_jax.modeling import dropout
from bam_jax.modeling import family
from bam_jax.modeling import gelu
from bam_jax.modeling import lookup
from bam_jax.modeling import residual

# Where a layer drops out: probabilities, and the output of either half.
_SITES = 3


def _size(hidden: int, layers: int, heads: int, intermediate: int) -> dict:
  return {
    'hidden_size': hidden,
    'num_layers': layers,
    'num_heads': heads,
    'intermediate_size': intermediate,
  }


_PRESETS = {
  'bert-base': _size(768, 12, 12, 3072),
  'bert-large': _size(1024, 24, 16, 4096),
  'l3-h128': _size(128, 3, 4, 512),
  'minilm-l6': _size(384, 6, 12, 1536),
  'tiny': _size(64, 2, 2, 256),
}


class BertEncoder(nn.Module):
  """Embeddings and transformer layers.

  Attributes:
    config: shape and dropout rates.
    dtype: type of the computation. Parameters, softmax, LayerNorm statistics
      and the sum of the embeddings are float32 whatever it is.
    remat: recompute each layer in the backward pass, to save memory.
    mesh: the rows lie spread over all its axes; None: on one device.
    platform: whose own kernels are used, where it has any, as
      `kernels.of_device` names it; empty: XLA's.
  """

  config: family.EncoderConfig
  dtype: jnp.dtype = jnp.float32
  remat: bool = False
  mesh: Mesh | None = None
  platform: str = ''

  @nn.compact
  def __call__(
    self,
    input_ids: jax.Array,
    token_type_ids: jax.Array,
    positions: jax.Array,
    segment_ids: jax.Array,
    deterministic: bool,
  ) -> jax.Array:
    """Encodes rows of segments that do not see each other.

    Args:
      input_ids: [B, L] int.
      token_type_ids: [B, L] int, below `type_vocab_size`.
      positions: [B, L] int, counted from 0 in each segment.
      segment_ids: [B, L] int; 0 marks padding.
      deterministic: no dropout; else the rng collection 'dropout' is used.

    Returns:
      [B, L, D] of `dtype`.
    """
    chex.assert_rank(input_ids, 2)
    chex.assert_equal_shape([input_ids, token_type_ids, positions, segment_ids])
    config = self.config
    if deterministic:
      config = config.without_dropout()
    words = dropout.draw_words(
      self, 1 + _SITES * config.num_layers, deterministic
    )
    x = Embeddings(config, self.dtype, self.mesh, name='embeddings')(
      input_ids, token_type_ids, positions, words[0]
    )  # [B, L, D]
    kind = functools.partial(
      Layer, config, self.dtype, self.mesh, self.platform
    )

    def apply(params, x, segment_ids, words):
      layer = kind(parent=None)
      return layer.apply({'params': params}, x, segment_ids, words)

    # Traced and lowered once, and called by every layer.
    apply = jax.jit(jax.checkpoint(apply) if self.remat else apply)
    for i in range(config.num_layers):
      first, name = 1 + _SITES * i, f'layer_{i}'
      own = words[first : first + _SITES]
      if self.is_initializing():
        x = kind(name=name)(x, segment_ids, own)
      else:
        x = apply(self.variables['params'][name], x, segment_ids, own)
    return x


class Embeddings(nn.Module):
  """Word, position and token-type embeddings, added and normalised."""

  config: family.EncoderConfig
  dtype: jnp.dtype
  mesh: Mesh | None

  @nn.compact
  def __call__(
    self,
    input_ids: jax.Array,
    token_type_ids: jax.Array,
    positions: jax.Array,
    words: jax.Array,
  ) -> jax.Array:
    config = self.config

    def table(name: str, rows: int) -> jax.Array:
      return nn.Embed(
        rows, config.hidden_size, embedding_init=family.initializer, name=name
      ).embedding

    def rows(name: str, count: int, ids: jax.Array) -> jax.Array:
      return lookup.lookup(table(name, count), ids, self.dtype, self.mesh)

    # A product and no lookup: every token's gradient goes to one of two rows,
    # and a scatter would have to wait for each.
    chosen = jax.nn.one_hot(token_type_ids, config.type_vocab_size)
    x = (
      rows('word', config.vocab_size, input_ids)
      + rows('position', config.max_positions, positions)
      + jnp.matmul(
        chosen,
        table('token_type', config.type_vocab_size),
        precision=jax.lax.Precision.HIGHEST,
      )
    )  # [B, L, D]
    x = nn.LayerNorm(
      config.layer_norm_eps, use_fast_variance=False, name='norm'
    )(x).astype(self.dtype)
    return dropout.dropout(x, config.dropout_embedding, words)


class Layer(nn.Module):
  """Self-attention and a feed-forward network, each added and normalised."""

  config: family.EncoderConfig
  dtype: jnp.dtype
  mesh: Mesh | None
  platform: str

  @nn.compact
  def __call__(
    self, x: jax.Array, segment_ids: jax.Array, words: jax.Array
  ) -> jax.Array:
    """[B, L, D], [B, L] and [_SITES, 2] -> [B, L, D]."""
    config, dtype, size = self.config, self.dtype, self.config.hidden_size

    def add_norm(name: str) -> residual.AddNorm:
      return residual.AddNorm(
        config.layer_norm_eps, self.mesh, self.platform, name=name
      )

    y, bias = SelfAttention(
      config, dtype, self.mesh, self.platform, name='attention'
    )(x, segment_ids, words[0])
    rate = config.dropout_hidden
    x = add_norm('attention_norm')(x, y, bias, rate, words[1])
    y, bias = Linear(config.intermediate_size, dtype, name='intermediate')(x)
    # [B, L, intermediate_size]
    y = gelu.biased_gelu(y, bias, self.mesh, self.platform)
    y, bias = Linear(size, dtype, name='output')(y)
    return add_norm('output_norm')(x, y, bias, rate, words[2])


class SelfAttention(nn.Module):
  """Multi-head attention with its output projection, but for the bias."""

  config: family.EncoderConfig
  dtype: jnp.dtype
  mesh: Mesh | None
  platform: str

  @nn.compact
  def __call__(
    self, x: jax.Array, segment_ids: jax.Array, words: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """[B, L, D], [B, L] and [2] -> [B, L, D], and the bias [D] to be added."""
    config, dtype, size = self.config, self.dtype, self.config.hidden_size
    # Three parameters to the outside, one product here.
    kernels, biases = zip(
      *(
        Linear(size, dtype, name=name).parameters(size)
        for name in ('query', 'key', 'value')
      )
    )
    qkv = x @ jnp.concatenate(kernels, axis=1)
    heads = (3, config.num_heads, size // config.num_heads)
    context = attention.attend(
      qkv.reshape(*x.shape[:2], *heads),
      jnp.concatenate(biases).reshape(heads),
      segment_ids,
      config.dropout_attention,
      words,
      self.mesh,
      self.platform,
    )
    return Linear(size, dtype, name='output')(context.reshape(x.shape))


class Linear(nn.Module):
  """An `nn.Dense` whose bias is left to what comes after it.

  Attributes:
    outputs: size of what it returns.
    dtype: of the product.
  """

  outputs: int
  dtype: jnp.dtype

  @nn.compact
  def parameters(self, inputs: int) -> tuple[jax.Array, jax.Array]:
    """[inputs, outputs] kernel and [outputs] bias, of `dtype`."""
    shape = (inputs, self.outputs)
    kernel = self.param('kernel', family.initializer, shape)
    bias = self.param('bias', nn.initializers.zeros, shape[1:])
    return kernel.astype(self.dtype), bias.astype(self.dtype)

  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[..., inputs] -> [..., outputs], and the bias [outputs] to be added."""
    kernel, bias = self.parameters(x.shape[-1])
    return x @ kernel, bias


BERT = family.Family(
  name='bert',
  class_prefix='Bert',
  encoder=BertEncoder,
  modules=(
    ('embeddings/word', 'embeddings.word_embeddings', 'embed', 'VD'),
    ('embeddings/position', 'embeddings.position_embeddings', 'embed', 'PD'),
    (
      'embeddings/token_type',
      'embeddings.token_type_embeddings',
      'embed',
      'YD',
    ),
    ('embeddings/norm', 'embeddings.LayerNorm', 'norm', 'D'),
    ('{i}/attention/query', '{i}.attention.self.query', 'dense', 'DD'),
    ('{i}/attention/key', '{i}.attention.self.key', 'dense', 'DD'),
    ('{i}/attention/value', '{i}.attention.self.value', 'dense', 'DD'),
    ('{i}/attention/output', '{i}.attention.output.dense', 'dense', 'DD'),
    ('{i}/attention_norm', '{i}.attention.output.LayerNorm', 'norm', 'D'),
    ('{i}/intermediate', '{i}.intermediate.dense', 'dense', 'DF'),
    ('{i}/output', '{i}.output.dense', 'dense', 'FD'),
    ('{i}/output_norm', '{i}.output.LayerNorm', 'norm', 'D'),
    ('pooler', 'pooler.dense', 'dense', 'DD'),
  ),
  layer_name='encoder.layer.{i}',
  tensor_prefix='bert.',
  # A buffer that counts from 0, and the heads of pretraining and fine-tuning.
  dropped=re.compile(
    r'embeddings\.position_ids$|(cls|classifier|qa_outputs|heads)\.'
  ),
  sizes={
    'vocab_size': 'vocab_size',
    'hidden_size': 'hidden_size',
    'num_layers': 'num_hidden_layers',
    'num_heads': 'num_attention_heads',
    'intermediate_size': 'intermediate_size',
    'max_positions': 'max_position_embeddings',
    'type_vocab_size': 'type_vocab_size',
  },
  required={
    'model_type': 'bert',
    'hidden_act': 'gelu',
    'position_embedding_type': 'absolute',
    'is_decoder': False,
  },
  # All that transformers itself writes: some readers have no defaults for it.
  written={
    'classifier_dropout': None,
    'initializer_range': family.INITIALIZER_RANGE,
    'bos_token_id': None,
    'eos_token_id': None,
    'add_cross_attention': False,
    'tie_word_embeddings': True,
    'use_cache': True,
  },
  presets=_PRESETS,
)
