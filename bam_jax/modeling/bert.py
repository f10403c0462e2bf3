"""BERT's encoder over packed rows (Devlin et al. 2019, arXiv 1810.04805)."""

from collections.abc import Callable
import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from bam_jax.modeling import attention
from bam_jax.modeling import dropout
from bam_jax.modeling import family
from bam_jax.modeling import gelu
from bam_jax.modeling import lookup
from bam_jax.modeling import residual


class BertEncoder(nn.Module):
  """BERT's encoder: embeddings and transformer layers.

  Encoders of other families override `embed`, `kind_of_layer`, `make_layer` or
  `finish`.

  Attributes:
    config: shape and dropout rates of the encoder.
    compute: how the encoder is computed.
    drops_attention_output: whether dropout is applied to attention outputs.
    has_token_types: whether token types are used; if not, all tokens have
      type 0.
  """

  config: family.EncoderConfig
  compute: family.Compute = family.ONE_DEVICE
  drops_attention_output: bool = True
  has_token_types: bool = True

  sites = 3  # Dropout sites per layer; `Layer.__call__` lists them.

  @nn.compact
  def __call__(
    self,
    input_ids: jax.Array,
    token_type_ids: jax.Array,
    positions: jax.Array,
    segment_ids: jax.Array,
    deterministic: bool,
    read: jax.Array | None = None,
  ) -> jax.Array:
    """Encodes packed rows, whose segments do not see each other.

    Args:
      input_ids: [B, L] int.
      token_type_ids: [B, L] int, below `type_vocab_size`.
      positions: [B, L] int, counted from 0 in each segment.
      segment_ids: [B, L] int; 0 marks padding.
      deterministic: True: no dropout; False: dropout uses the rng collection
        'dropout'.
      read: [B, S] int, positions in the row of the tokens whose hidden states
        are returned; None: all tokens.

    Returns:
      Hidden states [B, L, D] of type `compute.dtype`; with `read`, [B, S, D].
    """
    chex.assert_rank(input_ids, 2)
    chex.assert_equal_shape([input_ids, token_type_ids, positions, segment_ids])
    config = self.config
    if deterministic:
      config = config.without_dropout()
    if not self.has_token_types:
      token_type_ids = jnp.zeros_like(token_type_ids)
    dropout_bits = dropout.draw_bits(
      self, 1 + self.sites * config.num_layers, deterministic
    )
    x, *shared = self.embed(
      config, input_ids, token_type_ids, positions, dropout_bits[0]
    )

    def apply(kind, params, *arrays, read):
      layer = self.make_layer(config, *kind)(parent=None)
      return layer.apply({'params': params}, *arrays, read=read)

    # `jit` traces and lowers each kind of layer once, not every layer.
    if self.compute.remat:
      apply = jax.checkpoint(apply, static_argnums=0)
    apply = jax.jit(apply, static_argnums=0)
    last = config.num_layers - 1
    for i, own_bits in enumerate(
      jnp.split(dropout_bits[1:], config.num_layers)
    ):
      arrays = x, own_bits, segment_ids, *shared
      chosen = read if i == last else None
      name, kind = f'layer_{i}', self.kind_of_layer(i)
      if self.is_initializing():
        x = self.make_layer(config, *kind)(name=name)(*arrays, read=chosen)
      else:
        x = apply(kind, self.variables['params'][name], *arrays, read=chosen)
    return self.finish(config, x)

  def embed(
    self, config: family.EncoderConfig, *inputs: jax.Array
  ) -> tuple[jax.Array, ...]:
    """Returns embeddings [B, L, D], and further inputs of all layers."""
    return (Embeddings(config, self.compute, name='embeddings')(*inputs),)

  def kind_of_layer(self, number: int) -> tuple[bool, ...]:
    """Returns the arguments `kind` of `make_layer` for layer `number`.

    Layers with the same arguments are traced only once.
    """
    del number
    return ()

  def make_layer(
    self, config: family.EncoderConfig, *kind: bool
  ) -> Callable[..., nn.Module]:
    """Returns a function that makes a layer, given `name=` or `parent=`."""
    return functools.partial(
      Layer, config, self.compute, self.drops_attention_output
    )

  def finish(self, config: family.EncoderConfig, x: jax.Array) -> jax.Array:
    """Returns the hidden states, given the output of the last layer."""
    del config
    return x


class Embeddings(nn.Module):
  """Word, position and token-type embeddings, added and normalised.

  If their size differs from the hidden size, a dense layer projects them to the
  hidden size.
  """

  config: family.EncoderConfig
  compute: family.Compute
  has_positions: bool = True
  has_bias: bool = True  # Whether the LayerNorm has a bias.

  @nn.compact
  def __call__(
    self,
    input_ids: jax.Array,
    token_type_ids: jax.Array,
    positions: jax.Array,
    dropout_bits: jax.Array,
  ) -> jax.Array:
    """Returns the embeddings of tokens, [B, L, D].

    `dropout_bits` are two uint32; the other arrays are [B, L] int.
    """
    config, compute = self.config, self.compute

    size = config.embedding_size or config.hidden_size

    def table(name: str, rows: int) -> jax.Array:
      return nn.Embed(
        rows, size, embedding_init=family.initializer, name=name
      ).embedding

    def rows(name: str, count: int, ids: jax.Array) -> jax.Array:
      return lookup.lookup(table(name, count), ids, compute)

    x = rows('word', config.vocab_size, input_ids)
    if self.has_positions:
      x += rows('position', config.max_positions, positions)  # [B, L, E]
    if config.type_vocab_size:
      # A matrix product instead of a lookup. The gradient of a lookup would be
      # a scatter that adds every token's gradient to one of only two rows, so
      # that the additions would have to wait for each other.
      x += jnp.matmul(
        jax.nn.one_hot(token_type_ids, config.type_vocab_size),
        table('token_type', config.type_vocab_size),
        precision=jax.lax.Precision.HIGHEST,
      )
    x = nn.LayerNorm(
      config.layer_norm_eps,
      use_bias=self.has_bias,
      use_fast_variance=False,
      name='norm',
    )(x).astype(compute.dtype)
    x = dropout.dropout(x, config.dropout_embedding, dropout_bits)
    if size == config.hidden_size:
      return x
    return nn.Dense(
      config.hidden_size,
      dtype=compute.dtype,
      kernel_init=family.initializer,
      name='project',
    )(x)


class Layer(nn.Module):
  """Self-attention and a feed-forward network, each with add-and-norm."""

  config: family.EncoderConfig
  compute: family.Compute
  drops_attention_output: bool = True

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    dropout_bits: jax.Array,
    *shared: jax.Array,
    read: jax.Array | None = None,
  ) -> jax.Array:
    """Applies the layer to x [B, L, D].

    Args:
      x: [B, L, D].
      dropout_bits: [sites, 2] uint32, random bits for dropout of the attention
        probabilities, of the attention's output and of the feed-forward
        network's output, and for further dropout sites of `attend`.
      *shared: further arguments of `attend`, the same for all layers.
      read: [B, S] int, positions of the tokens to compute; None: all.

    Returns:
      [B, L, D]; with `read`, [B, S, D].
    """
    config, compute = self.config, self.compute
    rate = config.dropout_hidden
    attention_rate = rate if self.drops_attention_output else 0.0
    y, bias = self.attend(x, dropout_bits, *shared, read=read)
    x = family.take_tokens(x, read)
    x = residual.AddNorm(config.layer_norm_eps, compute, name='attention_norm')(
      x, y, bias, attention_rate, dropout_bits[1]
    )
    y, bias = Linear(
      config.intermediate_size, compute.dtype, name='intermediate'
    )(x)
    # [B, L, intermediate_size]
    y = gelu.activate(config.activation, y, bias, compute)
    y, bias = Linear(config.hidden_size, compute.dtype, name='output')(y)
    return residual.AddNorm(config.layer_norm_eps, compute, name='output_norm')(
      x, y, bias, rate, dropout_bits[2]
    )

  def attend(
    self,
    x: jax.Array,
    dropout_bits: jax.Array,
    segment_ids: jax.Array,
    read: jax.Array | None,
  ) -> tuple[jax.Array, jax.Array]:
    """Returns attention's output before its bias is added, and the bias."""
    return SelfAttention(self.config, self.compute, name='attention')(
      x, segment_ids, dropout_bits[0], read
    )


class SelfAttention(nn.Module):
  """Multi-head attention with its output projection."""

  config: family.EncoderConfig
  compute: family.Compute

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    segment_ids: jax.Array,
    dropout_bits: jax.Array,
    read: jax.Array | None,
  ) -> tuple[jax.Array, jax.Array]:
    """Returns the output without bias, [B, L, D], and the bias to add, [D].

    With `read` [B, S], the output is [B, S, D], for the tokens at these
    positions.
    """
    size, dtype = self.config.hidden_size, self.compute.dtype
    # Checkpoints have three kernels, but one product with all three is faster.
    kernels, biases = zip(
      *(
        Linear(size, dtype, name=name).parameters(size)
        for name in ('query', 'key', 'value')
      )
    )
    heads = self.config.num_heads, size // self.config.num_heads
    bias = jnp.concatenate(biases).reshape(3, *heads)
    if read is None:
      qkv = x @ jnp.concatenate(kernels, axis=1)
      context = attention.attend(
        qkv.reshape(*x.shape[:2], 3, *heads),
        bias,
        segment_ids,
        self.config.dropout_attention,
        dropout_bits,
        self.compute,
      )
    else:
      queries = family.take_tokens(x, read) @ kernels[0]
      keys_values = x @ jnp.concatenate(kernels[1:], axis=1)
      context = attention.attend_from(
        queries.reshape(*read.shape, *heads),
        keys_values.reshape(*x.shape[:2], 2, *heads),
        bias,
        (jnp.take_along_axis(segment_ids, read, axis=1), segment_ids),
        self.config.dropout_attention,
        dropout_bits,
        self.compute,
      )
    context = context.reshape(*context.shape[:2], size)
    return Linear(size, dtype, name='output')(context)


class Linear(nn.Module):
  """Dense layer that returns its bias, for the next operation to add it."""

  outputs: int
  dtype: jnp.dtype

  @nn.compact
  def parameters(self, inputs: int) -> tuple[jax.Array, jax.Array]:
    """Returns the kernel [inputs, outputs] and the bias [outputs]."""
    shape = (inputs, self.outputs)
    kernel = self.param('kernel', family.initializer, shape)
    bias = self.param('bias', nn.initializers.zeros, shape[1:])
    return kernel.astype(self.dtype), bias.astype(self.dtype)

  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns x @ kernel [..., outputs], and the bias [outputs] to add."""
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
  dropped=('cls',),
  sizes=family.SIZES | {'type_vocab_size': 'type_vocab_size'},
  required={
    'model_type': 'bert',
    'position_embedding_type': 'absolute',
    'is_decoder': False,
  },
  written={'add_cross_attention': False, 'use_cache': True},
  presets={
    'bert-base': family.preset(768, 12, 12, 3072),
    'bert-large': family.preset(1024, 24, 16, 4096),
    'l3-h128': family.preset(128, 3, 4, 512),
    'minilm-l6': family.preset(384, 6, 12, 1536),
    'tiny': family.preset(64, 2, 2, 256),
  },
)
