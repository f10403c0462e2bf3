"""ModernBERT (Warner et al. 2024, arXiv 2412.13663).

Positions are rotary. In global layers a token sees its whole segment, in local
layers only a window; by default, every third layer is global. Feed-forward
networks are gated. There is a norm before each feed-forward network, and before
each attention except the first. No layer has a bias.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from bam_jax.modeling import attention
from bam_jax.modeling import bert
from bam_jax.modeling import dropout
from bam_jax.modeling import entries
from bam_jax.modeling import family
from bam_jax.modeling import gelu
from bam_jax.modeling import rotary

_GLOBAL, _LOCAL = 'full_attention', 'sliding_attention'
# Type of a layer -> (key in older config.json files, default) for the base of
# the rotation's angles.
_THETAS = {
  _GLOBAL: ('global_rope_theta', 160_000.0),
  _LOCAL: ('local_rope_theta', 10_000.0),
}


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings that only ModernBERT has.

  Attributes:
    is_global: for each layer, whether a token sees its whole segment.
    window: how many tokens before and after itself a token sees in local
      layers.
    thetas: bases of the rotation's angles, in global and in local layers.
  """

  is_global: tuple[bool, ...]
  window: int = 64
  thetas: tuple[float, float] = (160_000.0, 10_000.0)


class ModernBertEncoder(bert.BertEncoder):
  """Embeddings, transformer layers, and a norm after the last layer.

  The tokens of a segment must be adjacent, because the window counts positions
  in the row.
  """

  has_token_types: bool = False

  def embed(
    self, config: family.EncoderConfig, *inputs: jax.Array
  ) -> tuple[jax.Array | tuple[jax.Array, jax.Array], ...]:
    """Returns embeddings [B, L, D], and rotations for global and local layers.

    The rotations are two pairs (cosines, sines), first for global layers, then
    for local layers. Each array is [B, L, hd / 2] float32.
    """
    embeddings = bert.Embeddings(
      *(config, self.compute),
      has_positions=False,
      has_bias=False,
      name='embeddings',
    )
    size = config.hidden_size // config.num_heads
    _, _, positions, _ = inputs
    return (
      embeddings(*inputs),
      *(rotary.angles(positions, size, theta) for theta in config.own.thetas),
    )

  def kind_of_layer(self, number: int) -> tuple[bool, bool]:
    """Returns whether a layer is the first one, and whether it is global."""
    return number == 0, self.config.own.is_global[number]

  def make_layer(
    self, config: family.EncoderConfig, *kind: bool
  ) -> Callable[..., nn.Module]:
    """Returns a function that makes a layer, given `name=` or `parent=`."""
    return functools.partial(Layer, config, self.compute, *kind)

  def finish(self, config: family.EncoderConfig, x: jax.Array) -> jax.Array:
    """Applies the norm after the last layer."""
    return _norm(config, 'final_norm')(x).astype(self.compute.dtype)


class Layer(nn.Module):
  """Self-attention and gated feed-forward network, with residual connections.

  Attributes:
    config: shape and dropout rates of the encoder.
    compute: how the encoder is computed.
    is_first: whether it is the first layer, which has no norm before its
      attention.
    is_global: whether a token sees its whole segment.
  """

  config: family.EncoderConfig
  compute: family.Compute
  is_first: bool
  is_global: bool

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    dropout_bits: jax.Array,
    segment_ids: jax.Array,
    *turns: tuple[jax.Array, jax.Array],
    read: jax.Array | None = None,
  ) -> jax.Array:
    """Applies the layer.

    Args:
      x: [B, L, D].
      dropout_bits: [sites, 2] uint32, random bits for dropout of the attention
        probabilities, of the attention's output and of the feed-forward
        network's gated activations.
      segment_ids: [B, L] int; 0 marks padding.
      *turns: rotations from `ModernBertEncoder.embed`.
      read: [B, S] int, positions of the tokens to compute; None: all.

    Returns:
      [B, L, D]; with `read`, [B, S, D].
    """
    config, dtype = self.config, self.compute.dtype
    # The first layer has the parameter too: see `Family.unused_at_first`.
    normal = _norm(config, 'attention_norm')(x).astype(dtype)
    normal = x if self.is_first else normal
    y = SelfAttention(config, self.compute, self.is_global, name='attention')(
      normal, segment_ids, turns[not self.is_global], dropout_bits[0]
    )
    x, y = (family.take_tokens(each, read) for each in (x, y))
    x += dropout.dropout(y, config.dropout_attention, dropout_bits[1])
    normal = _norm(config, 'mlp_norm')(x).astype(dtype)
    size = config.intermediate_size
    y = _dense(config, dtype, 'intermediate', 2 * size)(normal)
    y, gate = jnp.split(y, 2, axis=-1)  # [B, L, intermediate_size]
    no_bias = jnp.zeros(size, dtype)
    y = gelu.activate(config.activation, y, no_bias, self.compute) * gate
    y = dropout.dropout(y, config.dropout_hidden, dropout_bits[2])
    return x + _dense(config, dtype, 'output', config.hidden_size)(y)


class SelfAttention(nn.Module):
  """Multi-head attention with rotary positions."""

  config: family.EncoderConfig
  compute: family.Compute
  is_global: bool

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    segment_ids: jax.Array,
    turns: tuple[jax.Array, jax.Array],
    dropout_bits: jax.Array,
  ) -> jax.Array:
    """Applies attention, global or local; returns [B, L, D]."""
    config, dtype = self.config, self.compute.dtype
    size = config.hidden_size
    heads = (3, config.num_heads, size // config.num_heads)
    qkv = _dense(config, dtype, 'qkv', 3 * size)(x)
    qkv = qkv.reshape(*x.shape[:2], *heads)
    qkv = jnp.concatenate(
      [rotary.rotate(qkv[:, :, :2], *turns), qkv[:, :, 2:]], 2
    )
    contexts = attention.attend(
      qkv,
      jnp.zeros(heads, dtype),
      segment_ids,
      config.dropout_attention,
      dropout_bits,
      self.compute,
      None if self.is_global else config.own.window,
    )
    return _dense(config, dtype, 'output', size)(contexts.reshape(x.shape))


class Pooler(nn.Module):
  """Dense layer, GELU and norm, which are applied before every task's head."""

  config: family.EncoderConfig

  @nn.compact
  def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
    """Pools float32 vectors [..., D] without dropout."""
    x = nn.Dense(
      self.config.hidden_size,
      use_bias=False,
      precision=jax.lax.Precision.HIGHEST,
      kernel_init=_initializer(self.config, 'dense'),
      name='dense',
    )(x)
    return _norm(self.config, 'norm')(jax.nn.gelu(x, approximate=False))


def _norm(config: family.EncoderConfig, name: str) -> nn.Module:
  """Makes a LayerNorm without bias; it returns float32."""
  return nn.LayerNorm(
    config.layer_norm_eps, use_bias=False, use_fast_variance=False, name=name
  )


def _dense(
  config: family.EncoderConfig, dtype: jnp.dtype, name: str, outputs: int
) -> nn.Module:
  return nn.Dense(
    outputs,
    use_bias=False,
    dtype=dtype,
    kernel_init=_initializer(config, name),
    name=name,
  )


def _initializer(config: family.EncoderConfig, name: str) -> nn.initializers:
  """Returns a kernel's initializer.

  The standard deviation is smaller for the pooler and for output projections.
  The outputs of the latter are added to the hidden states.
  """
  if name in ('qkv', 'intermediate'):
    return family.initializer
  scale = family.INITIALIZER_RANGE * (2 * config.num_layers) ** -0.5
  return nn.initializers.truncated_normal(scale)


def _read(values: Mapping[str, object]) -> dict[str, object]:
  """Converts entries of old and new config.json files; see `Family.read`."""
  if (values['hidden_size'] // values['num_attention_heads']) % 2:
    raise ValueError('the size of a head is odd, and cannot be rotated')
  return {
    'own': Settings(
      _read_types(values),
      entries.integer(values, 'local_attention', 128, 0) // 2,
      _read_thetas(values),
    ),
    'pooling': entries.choice(
      values, 'classifier_pooling', 'cls', ('cls', 'mean')
    ),
    'type_vocab_size': 0,
    'layer_norm_eps': float(values.get('norm_eps', 1e-5)),
  }


def _read_types(values: Mapping[str, object]) -> tuple[bool, ...]:
  count, types = values['num_hidden_layers'], values.get('layer_types')
  if types is None:
    every = entries.integer(values, 'global_attn_every_n_layers', 3, 1)
    return _alternate(count, every)
  if not isinstance(types, list) or len(types) != count:
    raise ValueError(f'layer_types is not a list of {count} types')
  for each in types:
    entries.choice({'layer_types': each}, 'layer_types', None, _THETAS)
  return tuple(each == _GLOBAL for each in types)


def _read_thetas(values: Mapping[str, object]) -> tuple[float, float]:
  entries.choice(values, 'rope_scaling', None, [None])
  rows = values.get('rope_parameters') or {}
  if not isinstance(rows, dict) or not all(
    isinstance(row, dict | None) for row in rows.values()
  ):
    raise ValueError('rope_parameters is not an object of objects')
  result = []
  for name, (key, default) in _THETAS.items():
    row = rows.get(name) or {}
    entries.choice(row, 'rope_type', 'default', ['default'])
    theta = row.get('rope_theta', values.get(key, default))
    if theta is None and result:
      theta = result[0]  # Older versions then use the global base.
    if type(theta) not in (int, float) or not theta > 0:
      raise ValueError(f'{key} is {theta!r}, not a positive number')
    result.append(float(theta))
  return tuple(result)


def _write(config: family.EncoderConfig) -> dict[str, object]:
  """Returns the entries that `_read` reads, for old and new transformers."""
  own = config.own
  result = {
    'layer_types': [_GLOBAL if each else _LOCAL for each in own.is_global],
    'local_attention': 2 * own.window,
    'classifier_pooling': config.pooling,
    'rope_parameters': {
      name: {'rope_type': 'default', 'rope_theta': theta}
      for name, theta in zip(_THETAS, own.thetas)
    },
    **{key: x for (key, _), x in zip(_THETAS.values(), own.thetas)},
  }
  for every in range(1, config.num_layers + 1):
    if own.is_global == _alternate(config.num_layers, every):
      return result | {'global_attn_every_n_layers': every}
  return result


def _alternate(count: int, every: int = 3) -> tuple[bool, ...]:
  """Returns whether each layer i is global: it is if i % every == 0."""
  return tuple(i % every == 0 for i in range(count))


def _keep_layers(
  config: family.EncoderConfig, layers: Sequence[int]
) -> family.EncoderConfig:
  """Returns the config of only some layers; global layers stay global."""
  is_global = tuple(config.own.is_global[i] for i in layers)
  own = dataclasses.replace(config.own, is_global=is_global)
  return dataclasses.replace(config, num_layers=len(layers), own=own)


def _preset(*sizes: int) -> dict[str, object]:
  return family.preset(
    *sizes,
    max_positions=8192,
    type_vocab_size=0,
    layer_norm_eps=1e-5,
    own=Settings(_alternate(sizes[1])),
  )


_POOLER = {'pooler.dense': 'head.dense', 'pooler.norm': 'head.norm'}

MODERNBERT = family.Family(
  name='modernbert',
  class_prefix='ModernBert',
  encoder=ModernBertEncoder,
  modules=(
    ('embeddings/word', 'embeddings.tok_embeddings', 'embed', 'VD'),
    ('embeddings/norm', 'embeddings.norm', 'scale', 'D'),
    ('{i}/attention_norm', '{i}.attn_norm', 'scale', 'D'),
    ('{i}/attention/qkv', '{i}.attn.Wqkv', 'kernel', 'DQ'),
    ('{i}/attention/output', '{i}.attn.Wo', 'kernel', 'DD'),
    ('{i}/mlp_norm', '{i}.mlp_norm', 'scale', 'D'),
    ('{i}/intermediate', '{i}.mlp.Wi', 'kernel', 'DG'),
    ('{i}/output', '{i}.mlp.Wo', 'kernel', 'FD'),
    ('final_norm', 'final_norm', 'scale', 'D'),
    ('pooler/dense', 'pooler.dense', 'kernel', 'DD'),
    ('pooler/norm', 'pooler.norm', 'scale', 'D'),
  ),
  layer_name='layers.{i}',
  tensor_prefix='model.',
  dropped=('decoder',),
  sizes=family.SIZES,
  settings={
    'layer_norm_eps': 'norm_eps',
    'activation': 'hidden_activation',
    'dropout_embedding': 'embedding_dropout',
    'dropout_attention': 'attention_dropout',
    'dropout_hidden': 'mlp_dropout',
    'dropout_head': 'classifier_dropout',
  },
  required={
    'model_type': 'modernbert',
    'attention_bias': False,
    'mlp_bias': False,
    'norm_bias': False,
    'classifier_bias': False,
    'classifier_activation': 'gelu',
  },
  written={
    'initializer_cutoff_factor': 2.0,
    'decoder_bias': True,
    'sparse_prediction': False,
    'sparse_pred_ignore_index': -100,
    'deterministic_flash_attn': False,
    'cls_token_id': None,
    'sep_token_id': None,
  },
  presets={
    'modernbert-base': _preset(768, 22, 12, 1152),
    'modernbert-large': _preset(1024, 28, 16, 2624),
  },
  read=_read,
  write=_write,
  keep_layers=_keep_layers,
  axes={
    'Q': lambda config: 3 * config.hidden_size,
    'G': lambda config: 2 * config.intermediate_size,
  },
  unused_at_first=frozenset({'{i}/attention_norm'}),
  pooler=Pooler,
  pooled="F.layer_norm(F.gelu({x} @ weights['pooler.dense.weight'].T),"
  " {x}.shape[-1:], weights['pooler.norm.weight'],"
  ' eps=encoder.config.norm_eps)',
  pools=frozenset({'cls', 'mean', 'tokens'}),
  heads={
    'ForSequenceClassification': _POOLER,
    'ForTokenClassification': _POOLER,
    'ForQuestionAnswering': _POOLER | {'qa_outputs': 'classifier'},
    'ForMultipleChoice': _POOLER,
  },
  dropout=0.0,
)
