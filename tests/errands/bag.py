"""An encoder family in one file: averages of embeddings within a segment."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from bam_jax.modeling import families
from bam_jax.modeling import family


class BagEncoder(nn.Module):
  """Each layer adds to every token a product of its segment's mean."""

  config: family.EncoderConfig
  compute: family.Compute = family.Compute()

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
    config = self.config
    x = _Embeddings(config, name='embeddings')(input_ids)
    same = segment_ids[:, :, None] == segment_ids[:, None, :]  # [B, L, L]
    mean = same / jnp.sum(same, axis=-1, keepdims=True)
    for i in range(config.num_layers):
      x = _Layer(config, name=f'layer_{i}')(x, mean)
    return family.take_tokens(x, read).astype(self.compute.dtype)


class _Embeddings(nn.Module):
  config: family.EncoderConfig

  @nn.compact
  def __call__(self, input_ids: jax.Array) -> jax.Array:
    return nn.Embed(
      self.config.vocab_size, self.config.hidden_size, name='word'
    )(input_ids)


class _Layer(nn.Module):
  config: family.EncoderConfig

  @nn.compact
  def __call__(self, x: jax.Array, mean: jax.Array) -> jax.Array:
    mixed = jnp.einsum('blm,bmd->bld', mean, x)
    return x + jnp.tanh(nn.Dense(self.config.hidden_size, name='mix')(mixed))


BAG = family.Family(
  name='bag',
  class_prefix='Bag',
  encoder=BagEncoder,
  modules=(
    ('embeddings/word', 'embeddings.word_embeddings', 'embed', 'VD'),
    ('{i}/mix', '{i}.mix', 'dense', 'DD'),
    ('pooler', 'pooler.dense', 'dense', 'DD'),
  ),
  layer_name='layers.{i}',
  tensor_prefix='bag.',
  dropped=(),
  sizes={
    'vocab_size': 'vocab_size',
    'hidden_size': 'hidden_size',
    'num_layers': 'num_hidden_layers',
    'num_heads': 'num_attention_heads',
    'intermediate_size': 'intermediate_size',
  },
  required={'model_type': 'bag'},
  written={},
  presets={
    'bag-tiny': {
      'hidden_size': 32,
      'num_layers': 2,
      'num_heads': 1,
      'intermediate_size': 1,
    }
  },
)

families.FAMILIES[BAG.name] = BAG
