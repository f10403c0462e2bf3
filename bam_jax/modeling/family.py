"""The interface of an encoder family, such as BERT.

A family is one file: a Flax module, the presets of its sizes, and tables of its
names in Hugging Face's format. `families.FAMILIES` lists them.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence, Set
import dataclasses
import functools
import operator
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from bam_jax.modeling import dropout

# Every matrix starts from a normal distribution that is cut off at two standard
# deviations, as in BERT.
INITIALIZER_RANGE = 0.02
initializer = nn.initializers.truncated_normal(INITIALIZER_RANGE)

# Sizes of `EncoderConfig` -> their keys of config.json in most families.
SIZES = {
  'vocab_size': 'vocab_size',
  'hidden_size': 'hidden_size',
  'num_layers': 'num_hidden_layers',
  'num_heads': 'num_attention_heads',
  'intermediate_size': 'intermediate_size',
  'max_positions': 'max_position_embeddings',
}
# Fields of `EncoderConfig` that are no sizes -> BERT's keys of config.json.
_SETTINGS = {
  'layer_norm_eps': 'layer_norm_eps',
  'activation': 'hidden_act',
  'dropout_hidden': 'hidden_dropout_prob',
  'dropout_attention': 'attention_probs_dropout_prob',
  'dropout_head': 'classifier_dropout',
}


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
  """Shape of an encoder, its dropout rates (0 to below 1) and its pooling.

  `pooling` is `cls`: the vector of a segment's first token; or `mean`: the mean
  of the vectors of all its tokens. `Family.pools` says which go through a
  pooler.
  `activation` is one of `gelu.ACTIVATIONS`, and `pooler_activation` one of
  `POOLER_ACTIVATIONS`. `embedding_size` is that of the word vectors; 0:
  `hidden_size`. `own` are the settings that its family alone has, a frozen
  dataclass.
  """

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
  family: str = 'bert'
  pooling: str = 'cls'
  activation: str = 'gelu'
  own: Hashable = None
  pooler_activation: str = 'tanh'
  embedding_size: int = 0

  def dropout_rates(self) -> list[str]:
    """Returns the names of the fields that are dropout rates."""
    return [name for name in vars(self) if name.startswith('dropout_')]

  def without_dropout(self) -> 'EncoderConfig':
    """Returns the same encoder with every dropout rate zero."""
    rates = dict.fromkeys(self.dropout_rates(), 0.0)
    return dataclasses.replace(self, **rates)


@dataclasses.dataclass(frozen=True)
class Compute:
  """How an encoder is computed, which does not change its parameters.

  Attributes:
    dtype: type of the hidden states and matrix products. Parameters, softmax,
      LayerNorm statistics and the sum of the embeddings are always float32.
    remat: recompute each layer in the backward pass, to save memory.
    mesh: the rows of a batch lie spread over all its axes; None: one device.
    platform: whose own kernels are used, where it has any, as
      `kernels.find_platform` names it; empty: XLA's.
  """

  dtype: jnp.dtype = jnp.float32
  remat: bool = False
  mesh: Mesh | None = None
  platform: str = ''


ONE_DEVICE = Compute()  # in float32, without kernels

# By the names of transformers.
POOLER_ACTIVATIONS = {
  'tanh': jnp.tanh,
  'gelu': functools.partial(jax.nn.gelu, approximate=False),
  'relu': jax.nn.relu,
}


class Pooler(nn.Module):
  """Dense layer and activation on the vectors of first tokens.

  `input_rate`: returns the rate of dropout before the layer, if there is any.
  """

  config: EncoderConfig
  input_rate: Callable[[EncoderConfig], float] | None = None

  def setup(self) -> None:
    self.dense = nn.Dense(
      self.config.hidden_size,
      precision=jax.lax.Precision.HIGHEST,
      kernel_init=initializer,
    )
    # So that the parameters are pooler/kernel and pooler/bias.
    nn.share_scope(self, self.dense)

  def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
    """Pools float32 vectors [..., D]; with dropout unless deterministic."""
    if self.input_rate:
      rate = 0.0 if deterministic else self.input_rate(self.config)
      (dropout_bits,) = dropout.draw_bits(self, 1, deterministic)
      x = dropout.dropout(x, rate, dropout_bits)
    return POOLER_ACTIVATIONS[self.config.pooler_activation](self.dense(x))


# RoBERTa's and ELECTRA's head for sequence classification, and its names.
HeadPooler = functools.partial(
  Pooler, input_rate=operator.attrgetter('dropout_head')
)
HEAD_NAMES = {
  'pooler.dense': 'classifier.dense',
  'classifier': 'classifier.out_proj',
}


def _keep_layers(config: EncoderConfig, layers: Sequence[int]) -> EncoderConfig:
  return dataclasses.replace(config, num_layers=len(layers))


def preset(
  hidden_size: int,
  num_layers: int,
  num_heads: int,
  intermediate_size: int,
  **more: object,
) -> dict[str, object]:
  """Returns arguments of an `EncoderConfig`, for `Family.presets`."""
  return {
    'hidden_size': hidden_size,
    'num_layers': num_layers,
    'num_heads': num_heads,
    'intermediate_size': intermediate_size,
    **more,
  }


def take_tokens(x: jax.Array, read: jax.Array | None) -> jax.Array:
  """Selects some tokens of each row.

  A gather's gradient would be a scatter, which is slow on a GPU.

  Args:
    x: [B, L, D], finite.
    read: [B, S] int, places 0 to L - 1 in each row; None: all tokens.

  Returns:
    [B, S, D], of the type of `x`; without `read`, `x`.
  """
  if read is None:
    return x
  chosen = jax.nn.one_hot(read, x.shape[1])  # [B, S, L]
  taken = jnp.einsum(
    'bsl,bld->bsd',
    chosen,
    x.astype(jnp.float32),
    precision=jax.lax.Precision.HIGHEST,
  )
  return taken.astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class Family:
  """An encoder family.

  Attributes:
    name: value of `model_type` in config.json.
    class_prefix: prefix of Hugging Face's class names: `Bert` of `BertModel`.
    encoder: makes the Flax module from an `EncoderConfig`, a `Compute` and
      `name=`. The module is called like `bert.BertEncoder` and returns the
      same. Its parameters are named `embeddings/...` and `layer_0/...`,
      `layer_1/...`: layer-wise learning rates, stacking and sharding go by
      these names. Other parameters belong to what comes after the layers.
    modules: table of (path in our module, Hugging Face's name, type, shape).
      `{i}` in both names stands for the layer. The type is `embed`, `norm` or
      `dense`; without a bias, `scale` or `kernel`. The shape has one letter for
      each axis: V vocabulary, P positions, Y token types, D hidden size, F
      intermediate size.
    layer_name: Hugging Face's name of layer `{i}`.
    tensor_prefix: prefix of the encoder's tensors in a model with a head.
    dropped: matches the beginning of tensors that are not loaded, such as
      heads of pretraining.
    sizes: field of `EncoderConfig` -> key of config.json.
    settings: likewise of fields that are no sizes. A field that is not named
      here has its default.
    required: config.json entries with which alone an encoder can be loaded; a
      missing key counts as equal.
    read: returns further arguments of `EncoderConfig` from the entries of
      config.json; raises ValueError if such an encoder cannot be loaded.
    written: further entries of an exported config.json.
    write: returns further entries that depend on the encoder.
    presets: name for `config.model.arch` -> arguments of an `EncoderConfig`.
    unused_positions: rows of Hugging Face's table of positions that come before
      that of a text's first token. They are no parameters here.
    max_separators: most [SEP] between the texts of a pair. With more than one,
      the encoder must not read token types.
    keep_layers: returns the encoder that has some layers of another, by their
      numbers from 0.
    optional: path of a module in `modules` -> whether an encoder has it.
    unused_at_first: paths of norms in `modules` that Hugging Face's first layer
      lacks. The first layer has them here, because the parameters of all layers
      are one array, but does not use them.
    axes: further letters of shapes -> their size.
    pooler: makes the Flax module that `Pooler` is an example of, from an
      `EncoderConfig` and `name=`. Its parameters are named `pooler/...`.
    pools: what the pooler is applied to: the vectors of examples with the
      pooling `cls` or `mean`, and `tokens`, each one, for heads of tokens.
    heads: end of the name of Hugging Face's class for a model with a head, such
      as `ForSequenceClassification` -> its names of the pooler's modules (by
      their names in `modules`) and of the task's layer (by the name that the
      kind gives it). What is not renamed is named as in BERT.
    pooled: the pooled vector as an expression of `hidden`, the hidden states,
      for the code of model cards (`inference/card.md.j2`), if `AutoModel` does
      not compute it; empty: it does. `{x}` in it stands for what is pooled.
    dropout: the rate of each site, unless the configuration sets another.
  """

  name: str
  class_prefix: str
  encoder: Callable[..., nn.Module]
  modules: tuple[tuple[str, str, str, str], ...]
  layer_name: str
  tensor_prefix: str
  dropped: re.Pattern[str]
  sizes: Mapping[str, str]
  required: Mapping[str, object]
  written: Mapping[str, object]
  presets: Mapping[str, Mapping[str, object]]
  unused_positions: int = 0
  max_separators: int = 1
  settings: Mapping[str, str] = dataclasses.field(
    default_factory=lambda: _SETTINGS
  )
  read: Callable[[Mapping[str, object]], dict[str, object]] = lambda values: {}
  write: Callable[[EncoderConfig], dict[str, object]] = lambda config: {}
  optional: Mapping[str, Callable[[EncoderConfig], bool]] = dataclasses.field(
    default_factory=dict
  )
  axes: Mapping[str, Callable[[EncoderConfig], int]] = dataclasses.field(
    default_factory=dict
  )
  keep_layers: Callable[[EncoderConfig, Sequence[int]], EncoderConfig] = (
    _keep_layers
  )
  unused_at_first: Set[str] = frozenset()
  pooler: Callable[..., nn.Module] = Pooler
  pools: Set[str] = frozenset({'cls'})
  heads: Mapping[str, Mapping[str, str]] = dataclasses.field(
    default_factory=dict
  )
  pooled: str = ''
  dropout: float = 0.1
