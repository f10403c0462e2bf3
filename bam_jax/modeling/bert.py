"""BERT's encoder over packed rows (Devlin et al. 2019, arXiv 1810.04805)."""

import dataclasses

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from bam_jax.modeling import attention
from bam_jax.modeling import dropout
from bam_jax.modeling import norm

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
    mesh: the rows lie spread over all its axes; None: on one device.
    attention_kernel: use the platform's own kernel, if it has one.
  """

  config: BertConfig
  dtype: jnp.dtype = jnp.float32
  remat: bool = False
  mesh: Mesh | None = None
  attention_kernel: bool = True

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
      x = layer(
        self.config,
        self.dtype,
        self.mesh,
        self.attention_kernel,
        name=f'layer_{i}',
      )(x, segment_ids, deterministic)
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
    x = norm.LayerNorm(config.layer_norm_eps, name='norm')(x).astype(self.dtype)
    return dropout.Dropout(config.dropout_embedding)(x, deterministic)


class Layer(nn.Module):
  """Self-attention and a feed-forward network, each added and normalised."""

  config: BertConfig
  dtype: jnp.dtype
  mesh: Mesh | None
  attention_kernel: bool

  @nn.compact
  def __call__(
    self, x: jax.Array, segment_ids: jax.Array, deterministic: bool
  ) -> jax.Array:
    config, dtype = self.config, self.dtype
    drop = dropout.Dropout(config.dropout_hidden)
    y = SelfAttention(
      config, dtype, self.mesh, self.attention_kernel, name='attention'
    )(x, segment_ids, deterministic)
    x = norm.LayerNorm(config.layer_norm_eps, name='attention_norm')(
      x + drop(y, deterministic)
    )
    kernel, bias = Linear(
      config.hidden_size, config.intermediate_size, name='intermediate'
    )()
    # [B, L, intermediate_size]
    y = _biased_gelu(x @ kernel.astype(dtype), bias.astype(dtype))
    y = _dense(config.hidden_size, dtype, 'output')(y)
    return norm.LayerNorm(config.layer_norm_eps, name='output_norm')(
      x + drop(y, deterministic)
    )


@jax.checkpoint
def _biased_gelu(x: jax.Array, bias: jax.Array) -> jax.Array:
  """GELU(x + bias), of which nothing but x is kept for the backward pass.

  It is the widest array of a layer: to compute it twice is cheaper than to
  write two more like it and read them back.
  """
  return nn.gelu(x + bias[None, None], approximate=False)


class SelfAttention(nn.Module):
  """Multi-head attention with its output projection."""

  config: BertConfig
  dtype: jnp.dtype
  mesh: Mesh | None
  attention_kernel: bool

  @nn.compact
  def __call__(
    self, x: jax.Array, segment_ids: jax.Array, deterministic: bool
  ) -> jax.Array:
    config, dtype, size = self.config, self.dtype, self.config.hidden_size
    # Three parameters to the outside, one product here.
    kernels, biases = zip(
      *(Linear(size, size, name=name)() for name in ('query', 'key', 'value'))
    )
    kernel = jnp.concatenate(kernels, axis=1).astype(dtype)
    qkv = x @ kernel + jnp.concatenate(biases).astype(dtype)[None, None]
    use_dropout = not deterministic and config.dropout_attention > 0
    context = attention.attend(
      # [B, L, 3, H, hd]
      qkv.reshape(*x.shape[:2], 3, config.num_heads, -1),
      segment_ids,
      config.dropout_attention,
      deterministic,
      self.make_rng('dropout') if use_dropout else None,
      self.mesh,
      self.attention_kernel,
    )
    return _dense(size, dtype, 'output')(context.reshape(x.shape))


class Linear(nn.Module):
  """The parameters of an `nn.Dense`, for a caller who multiplies himself."""

  inputs: int
  outputs: int

  @nn.compact
  def __call__(self) -> tuple[jax.Array, jax.Array]:
    """[inputs, outputs] kernel and [outputs] bias, float32."""
    shape = (self.inputs, self.outputs)
    kernel = self.param('kernel', initializer, shape)
    bias = self.param('bias', nn.initializers.zeros, shape[1:])
    return kernel, bias


def _dense(features: int, dtype: jnp.dtype, name: str) -> nn.Dense:
  return nn.Dense(features, dtype=dtype, kernel_init=initializer, name=name)
