"""BERT's encoder over packed rows (Devlin et al. 2019, arXiv 1810.04805)."""

import dataclasses

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from bam_jax.modeling import attention
from bam_jax.modeling import dropout

# Every matrix of BERT: a normal distribution cut off at two deviations.
initializer = nn.initializers.truncated_normal(0.02)


@dataclasses.dataclass(frozen=True)
class BertConfig:
  """Shape of an encoder, and its dropout rates (0 to below 1)."""

  vocab_size: int
  hidden_size: int
  num_layers: int
  num_heads: int
  intermediate_size: int
  max_positions: int = 512
  type_vocab_size: int = 2
  layer_norm_eps: float = 1e-12
  dropout_embedding: float = 0.1
  dropout_attention: float = 0.1
  dropout_hidden: float = 0.1
  dropout_head: float = 0.1


def _size(hidden: int, layers: int, heads: int, intermediate: int) -> dict:
  return {
    'hidden_size': hidden,
    'num_layers': layers,
    'num_heads': heads,
    'intermediate_size': intermediate,
  }


SIZES: dict[str, dict[str, int]] = {
  'bert-base': _size(768, 12, 12, 3072),
  'bert-large': _size(1024, 24, 16, 4096),
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
  """

  config: BertConfig
  dtype: jnp.dtype = jnp.float32
  remat: bool = False

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
    x = Embeddings(self.config, self.dtype, name='embeddings')(
      input_ids, token_type_ids, positions, deterministic
    )  # [B, L, D]
    layer = nn.remat(Layer, static_argnums=(3,)) if self.remat else Layer
    for i in range(self.config.num_layers):
      x = layer(self.config, self.dtype, name=f'layer_{i}')(
        x, segment_ids, deterministic
      )
    return x


class Embeddings(nn.Module):
  """Word, position and token-type embeddings, added and normalised."""

  config: BertConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self,
    input_ids: jax.Array,
    token_type_ids: jax.Array,
    positions: jax.Array,
    deterministic: bool,
  ) -> jax.Array:
    config = self.config

    # Float32: the gradient of a lookup adds up one term a token, and the many
    # terms of a frequent row would be lost in a narrower type.
    def embed(name: str, rows: int, index: jax.Array) -> jax.Array:
      return nn.Embed(
        rows, config.hidden_size, embedding_init=initializer, name=name
      )(index)

    x = (
      embed('word', config.vocab_size, input_ids)
      + embed('position', config.max_positions, positions)
      + embed('token_type', config.type_vocab_size, token_type_ids)
    )  # [B, L, D]
    x = _norm(config, self.dtype, 'norm')(x)
    return dropout.Dropout(config.dropout_embedding)(x, deterministic)


class Layer(nn.Module):
  """Self-attention and a feed-forward network, each added and normalised."""

  config: BertConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, x: jax.Array, segment_ids: jax.Array, deterministic: bool
  ) -> jax.Array:
    config, dtype = self.config, self.dtype
    drop = dropout.Dropout(config.dropout_hidden)
    y = SelfAttention(config, dtype, name='attention')(
      x, segment_ids, deterministic
    )
    x = _norm(config, dtype, 'attention_norm')(x + drop(y, deterministic))
    y = _dense(config.intermediate_size, dtype, 'intermediate')(x)
    y = nn.gelu(y, approximate=False)  # [B, L, intermediate_size]
    y = _dense(config.hidden_size, dtype, 'output')(y)
    return _norm(config, dtype, 'output_norm')(x + drop(y, deterministic))


class SelfAttention(nn.Module):
  """Multi-head attention with its output projection."""

  config: BertConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, x: jax.Array, segment_ids: jax.Array, deterministic: bool
  ) -> jax.Array:
    config = self.config
    heads = (config.num_heads, config.hidden_size // config.num_heads)

    def project(name: str) -> jax.Array:
      y = _dense(config.hidden_size, self.dtype, name)(x)
      return y.reshape(*x.shape[:2], *heads)  # [B, L, H, hd]

    use_dropout = not deterministic and config.dropout_attention > 0
    context = attention.attend(
      project('query'),
      project('key'),
      project('value'),
      segment_ids,
      config.dropout_attention,
      deterministic,
      self.make_rng('dropout') if use_dropout else None,
    )
    return _dense(config.hidden_size, self.dtype, 'output')(
      context.reshape(x.shape)
    )


def _dense(features: int, dtype: jnp.dtype, name: str) -> nn.Dense:
  return nn.Dense(features, dtype=dtype, kernel_init=initializer, name=name)


def _norm(config: BertConfig, dtype: jnp.dtype, name: str) -> nn.LayerNorm:
  """Flax takes mean and variance in float32 whatever `dtype` is."""
  return nn.LayerNorm(
    epsilon=config.layer_norm_eps,
    dtype=dtype,
    use_fast_variance=False,
    name=name,
  )
