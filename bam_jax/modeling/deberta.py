"""DeBERTa-v2 and v3: disentangled attention (He et al. 2021, arXiv 2006.03654).

They are BERT with attention that depends on the distance between tokens.
Distances are grouped in buckets. DeBERTa-v3 (arXiv 2111.09543) is the same
encoder without absolute positions.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import operator

import flax.linen as nn
import jax
import jax.numpy as jnp

from bam_jax.modeling import attention_head
from bam_jax.modeling import bert
from bam_jax.modeling import disentangled_attention
from bam_jax.modeling import dropout
from bam_jax.modeling import entries
from bam_jax.modeling import family

# Term of the attention -> the projection of the buckets' vectors in this term.
_TERMS = {'c2p': 'key', 'p2c': 'query'}


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings in config.json that only DeBERTa has.

  Attributes:
    span: half the number of buckets; see `disentangled_attention.buckets`.
    farthest: limit of the distances; see `disentangled_attention.buckets`.
    terms: parts of the attention that depend on the distance: `c2p`, content to
      position, and `p2c`, position to content.
    shares_projections: whether the buckets' vectors are projected by the same
      layers as the hidden states.
    normalises: whether LayerNorm is applied to the buckets' vectors.
    has_positions: whether absolute positions have embeddings.
    pooler_dropout: dropout rate on the vectors that the pooler reads.
  """

  span: int
  farthest: int
  terms: tuple[str, ...]
  shares_projections: bool
  normalises: bool
  has_positions: bool
  pooler_dropout: float

  @property
  def num_buckets(self) -> int:
    """Returns the number of distance buckets, left and right together."""
    return 2 * self.span


class DebertaEncoder(bert.BertEncoder):
  """BERT's encoder with disentangled attention.

  The tokens of a segment must be adjacent, because distances are differences of
  positions in the row.
  """

  sites = 4  # BERT's dropout sites, and the buckets' vectors.

  def embed(
    self, config: family.EncoderConfig, *inputs: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Returns embeddings [B, L, D] and bucket vectors [num_buckets, D]."""
    return Embeddings(
      config, self.compute, config.own.has_positions, name='embeddings'
    )(*inputs)

  def make_layer(
    self, config: family.EncoderConfig, *kind: bool
  ) -> Callable[..., nn.Module]:
    """Returns a function that makes a layer, given `name=` or `parent=`."""
    return functools.partial(Layer, config, self.compute)


class Embeddings(bert.Embeddings):
  """BERT's token embeddings, and one embedding per bucket of distances."""

  @nn.compact
  def __call__(self, *inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns embeddings [B, L, D] and bucket vectors [num_buckets, D]."""
    config = self.config
    x = super().__call__(*inputs)
    buckets = nn.Embed(
      config.own.num_buckets,
      config.hidden_size,
      embedding_init=family.initializer,
      name='relative',
    ).embedding
    if config.own.normalises:
      buckets = nn.LayerNorm(
        config.layer_norm_eps, use_fast_variance=False, name='relative_norm'
      )(buckets)
    return x, buckets


class Layer(bert.Layer):
  """BERT's layer with disentangled attention."""

  def attend(
    self,
    x: jax.Array,
    dropout_bits: jax.Array,
    segment_ids: jax.Array,
    buckets: jax.Array,
    read: jax.Array | None,
  ) -> tuple[jax.Array, jax.Array]:
    """Returns attention's output before its bias is added, and the bias."""
    return DisentangledAttention(self.config, self.compute, name='attention')(
      x, segment_ids, buckets, dropout_bits[0], dropout_bits[3], read
    )


class DisentangledAttention(nn.Module):
  """Attention by content and distance, with its output projection."""

  config: family.EncoderConfig
  compute: family.Compute

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    segment_ids: jax.Array,
    buckets: jax.Array,
    dropout_bits: jax.Array,
    bucket_bits: jax.Array,
    read: jax.Array | None = None,
  ) -> tuple[jax.Array, jax.Array]:
    """Applies attention within segments.

    Args:
      x: [B, L, D].
      segment_ids: [B, L] int; 0 marks padding.
      buckets: [num_buckets, D] float32, the buckets' vectors.
      dropout_bits: [2] uint32, for dropout of the probabilities.
      bucket_bits: [2] uint32, for dropout of `buckets`.
      read: [B, S] int, positions of the tokens whose output is returned; None:
        all.

    Returns:
      The output without bias, [B, L, D] (with `read`, [B, S, D]), and the bias
      to add, [D].
    """
    config, own, dtype = self.config, self.config.own, self.compute.dtype
    size = config.hidden_size

    def parameters(name: str) -> tuple[jax.Array, jax.Array]:
      return bert.Linear(size, dtype, name=name).parameters(size)

    def project(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
      bias = bias.reshape((1,) * (x.ndim - 1) + bias.shape)
      y = attention_head.add_bias(x @ kernel, bias)
      # XLA's CPU backend lacks some products of bfloat16 arrays.
      y = y.astype(jnp.float32) if self.compute.platform == 'cpu' else y
      heads = config.num_heads, size // config.num_heads
      return y.reshape(*x.shape[:-1], *heads)

    linear = {name: parameters(name) for name in ('query', 'key', 'value')}
    buckets = dropout.dropout(buckets, config.dropout_hidden, bucket_bits)
    of_buckets = {}
    for term in own.terms:
      name = _TERMS[term]
      if own.shares_projections:
        layer = linear[name]
      else:
        layer = parameters(f'position_{name}')
      of_buckets[term] = project(buckets.astype(dtype), *layer)
    context = disentangled_attention.attend(
      *(project(x, *layer) for layer in linear.values()),
      of_buckets,
      disentangled_attention.bucket_indices(
        own.span, own.farthest, config.max_positions, x.shape[1]
      ),
      segment_ids,
      config.dropout_attention,
      dropout_bits,
    )
    context = family.take_tokens(context.astype(dtype).reshape(x.shape), read)
    return bert.Linear(size, dtype, name='output')(context)


def _read(values: Mapping[str, object]) -> dict[str, object]:
  """Converts the entries of config.json to `family.EncoderConfig` arguments."""
  hidden_size, num_heads = values['hidden_size'], values['num_attention_heads']
  entries.choice(values, 'relative_attention', None, [True])
  for key, value in (
    ('conv_kernel_size', 0),
    ('embedding_size', hidden_size),
    ('pooler_hidden_size', hidden_size),
    ('attention_head_size', hidden_size // num_heads),
  ):
    entries.choice(values, key, value, [value])
  terms = values.get('pos_att_type')
  if isinstance(terms, str):
    terms = [term.strip() for term in terms.lower().split('|')]
  if not isinstance(terms, list) or not terms:
    terms = [values.get('pos_att_type')]
  for term in terms:
    entries.choice({'pos_att_type': term}, 'pos_att_type', None, _TERMS)
  norms = str(values.get('norm_rel_ebd')).lower().split('|')
  positions = entries.integer(values, 'max_position_embeddings', 512, 1)
  farthest = entries.integer(values, 'max_relative_positions', -1, -1)
  farthest = positions if farthest < 1 else farthest
  span = entries.integer(values, 'position_buckets', -1, -1)
  if span == 1 or (span > 0 and farthest <= span // 2 + 1):
    raise ValueError(
      f'position_buckets is {span} and max_relative_positions {farthest}, which'
      ' leaves no ranges of distances'
    )
  flags = False, True
  return {
    'layer_norm_eps': values.get('layer_norm_eps', 1e-7),
    'type_vocab_size': entries.integer(values, 'type_vocab_size', 0, 0),
    'pooler_activation': entries.choice(
      values, 'pooler_hidden_act', 'gelu', family.POOLER_ACTIVATIONS
    ),
    'own': Settings(
      span=span if span > 0 else farthest,
      farthest=farthest if span > 0 else 0,
      terms=tuple(term for term in _TERMS if term in terms),
      shares_projections=entries.choice(values, 'share_att_key', False, flags),
      normalises='layer_norm' in [norm.strip() for norm in norms],
      has_positions=entries.choice(
        values, 'position_biased_input', True, flags
      ),
      pooler_dropout=entries.share(values, 'pooler_dropout', 0.0),
    ),
  }


def _write(config: family.EncoderConfig) -> dict[str, object]:
  """Returns the entries of config.json that `_read` reads."""
  own = config.own
  return {
    'type_vocab_size': config.type_vocab_size,
    'relative_attention': True,
    'max_relative_positions': own.farthest or own.span,
    'position_buckets': own.span if own.farthest else -1,
    'pos_att_type': list(own.terms),
    'share_att_key': own.shares_projections,
    'norm_rel_ebd': 'layer_norm' if own.normalises else 'none',
    'position_biased_input': own.has_positions,
    'pooler_hidden_act': config.pooler_activation,
    'pooler_hidden_size': config.hidden_size,
    'pooler_dropout': own.pooler_dropout,
    'cls_dropout': config.dropout_head,
  }


def _has_projection(term: str, config: family.EncoderConfig) -> bool:
  return term in config.own.terms and not config.own.shares_projections


def _names() -> tuple[tuple[str, str, str, str], ...]:
  """Returns the table of `family.Family.modules`, made from BERT's."""
  renamed = {
    f'{{i}}/attention/{name}': f'{{i}}.attention.self.{name}_proj'
    for name in ('query', 'key', 'value')
  }
  rows = [
    (ours, renamed.get(ours, theirs), *rest)
    for ours, theirs, *rest in bert.BERT.modules
  ]
  for name in _TERMS.values():
    rows.append(
      (
        f'{{i}}/attention/position_{name}',
        f'{{i}}.attention.self.pos_{name}_proj',
        'dense',
        'DD',
      )
    )
  rows.append(('embeddings/relative', 'encoder.rel_embeddings', 'embed', 'RD'))
  rows.append(('embeddings/relative_norm', 'encoder.LayerNorm', 'norm', 'D'))
  return tuple(rows)


DEBERTA_V2 = dataclasses.replace(
  bert.BERT,
  name='deberta-v2',
  class_prefix='DebertaV2',
  encoder=DebertaEncoder,
  modules=_names(),
  tensor_prefix='deberta.',
  dropped=('cls', 'lm_predictions', 'mask_predictions'),
  sizes=family.SIZES,
  required={'model_type': 'deberta-v2'},
  settings={
    ours: theirs
    for ours, theirs in bert.BERT.settings.items()
    if ours != 'dropout_head'
  },
  written={'legacy': True},
  read=_read,
  write=_write,
  # A random encoder of these sizes uses BERT's vocabulary.
  presets={
    f'deberta-v3-{name}': family.preset(
      *(width, layers, width // 64, 4 * width),
      layer_norm_eps=1e-7,
      type_vocab_size=0,
      pooler_activation='gelu',
      own=Settings(256, 512, tuple(_TERMS), True, True, False, 0.0),
    )
    for name, width, layers in (('base', 768, 12), ('large', 1024, 24))
  },
  optional={
    'embeddings/position': lambda config: config.own.has_positions,
    'embeddings/token_type': lambda config: config.type_vocab_size > 0,
    'embeddings/relative_norm': lambda config: config.own.normalises,
    **{
      f'{{i}}/attention/position_{name}': functools.partial(
        _has_projection, term
      )
      for term, name in _TERMS.items()
    },
  },
  pooler=functools.partial(
    family.Pooler, input_rate=operator.attrgetter('own.pooler_dropout')
  ),
  axes={'R': lambda config: config.own.num_buckets},
  # The pooler is part of the head and has no prefix.
  heads={
    f'For{name}': {'pooler.dense': 'pooler.dense'}
    for name in ('SequenceClassification', 'MultipleChoice')
  },
  pooled=family.POOLED,
)
