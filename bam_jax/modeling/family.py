"""The interface of an encoder family, such as BERT.

A family is one file: a Flax module, presets of sizes, and tables of the names
in Hugging Face's format. `families.FAMILIES` lists all families.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence, Set
import dataclasses
import functools
import operator

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from bam_jax.modeling import dropout

# Every matrix is drawn from a normal distribution that is truncated at two
# standard deviations, as in BERT.
INITIALIZER_RANGE = 0.02
initializer = nn.initializers.truncated_normal(INITIALIZER_RANGE)

# Size fields of `EncoderConfig` -> keys of config.json in most families.
SIZES = {
  'vocab_size': 'vocab_size',
  'hidden_size': 'hidden_size',
  'num_layers': 'num_hidden_layers',
  'num_heads': 'num_attention_heads',
  'intermediate_size': 'intermediate_size',
  'max_positions': 'max_position_embeddings',
}
# Other fields of `EncoderConfig` -> BERT's keys of config.json.
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

  `pooling` is `cls`, the vector of a segment's first token, or `mean`, the mean
  of the vectors of all its tokens. `Family.pools` lists which of these vectors
  go through a pooler.
  `activation` is one of `gelu.ACTIVATIONS`, and `pooler_activation` one of
  `POOLER_ACTIVATIONS`. `embedding_size` is the size of the word vectors; 0
  means `hidden_size`. `own` is a frozen dataclass of the settings that only the
  encoder's family has, or None.
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
  """Settings of an encoder's computation; they do not change its parameters.

  Attributes:
    dtype: type of the hidden states and matrix products. Parameters, softmax,
      LayerNorm statistics and the sum of the embeddings are always float32.
    remat: recompute each layer in the backward pass, to save memory.
    mesh: a batch's rows are sharded over all axes of the mesh; None: one
      device.
    platform: result of `kernels.find_platform`. Pallas kernels for this
      platform are used where they exist; if it is empty, only XLA is used.
  """

  dtype: jnp.dtype = jnp.float32
  remat: bool = False
  mesh: Mesh | None = None
  platform: str = ''


ONE_DEVICE = Compute()  # in float32, without kernels

# The keys are transformers' names.
POOLER_ACTIVATIONS = {
  'tanh': jnp.tanh,
  'gelu': functools.partial(jax.nn.gelu, approximate=False),
  'relu': jax.nn.relu,
}


class Pooler(nn.Module):
  """Dense layer and activation, applied to the vectors of first tokens.

  `input_rate` returns the rate of dropout before the dense layer; None: there
  is no such dropout.
  """

  config: EncoderConfig
  input_rate: Callable[[EncoderConfig], float] | None = None

  def setup(self) -> None:
    self.dense = nn.Dense(
      self.config.hidden_size,
      precision=jax.lax.Precision.HIGHEST,
      kernel_init=initializer,
    )
    # This names the parameters pooler/kernel and pooler/bias.
    nn.share_scope(self, self.dense)

  def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
    """Pools float32 vectors [..., D]; no dropout if `deterministic`."""
    if self.input_rate:
      rate = 0.0 if deterministic else self.input_rate(self.config)
      (dropout_bits,) = dropout.draw_bits(self, 1, deterministic)
      x = dropout.dropout(x, rate, dropout_bits)
    return POOLER_ACTIVATIONS[self.config.pooler_activation](self.dense(x))


# RoBERTa's and ELECTRA's head for sequence classification: its pooler, and its
# names in Hugging Face's format.
HeadPooler = functools.partial(
  Pooler, input_rate=operator.attrgetter('dropout_head')
)
HEAD_NAMES = {
  'pooler.dense': 'classifier.dense',
  'classifier': 'classifier.out_proj',
}

# `Family.pooled` of encoders whose pooler is in no `AutoModel`.
POOLED = "F.{activation}(linear({x}, 'pooler.dense'))"


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

  The selection is a product, because the gradient of a gather would be a
  scatter, which is slow on a GPU.

  Args:
    x: [B, L, D], finite.
    read: [B, S] int, positions 0 to L - 1 in each row; None: all tokens.

  Returns:
    [B, S, D] in the dtype of `x`; `x` itself if `read` is None.
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
  """An encoder family: its Flax module and its names in Hugging Face's format.

  Attributes:
    name: value of `model_type` in config.json.
    class_prefix: prefix of Hugging Face's class names, such as `Bert` in
      `BertModel`.
    encoder: makes the Flax module from an `EncoderConfig`, a `Compute` and
      `name=`. The module has the arguments and the result of
      `bert.BertEncoder`. Its parameters are named `embeddings/...`,
      `layer_0/...`, `layer_1/...`: layer-wise learning rates, stacking and
      sharding depend on these names. Parameters with other names belong to
      modules after the layers.
    modules: table of (path in our module, Hugging Face's name, type, shape).
      `{i}` stands for `layer_0`, `layer_1`, ... in our path, and for
      `layer_name` in Hugging Face's name. The type is `embed`, `norm` or
      `dense`; a norm without bias is `scale`, a dense layer without bias
      `kernel`. The shape has one letter for each axis: V vocabulary, P
      positions, Y token types, D hidden size, F intermediate size.
    layer_name: Hugging Face's name of layer `{i}`.
    tensor_prefix: prefix of the encoder's tensors in a model with a head.
    dropped: names of the heads of pretraining: the first parts of the names of
      tensors that are not loaded.
    sizes: size field of `EncoderConfig` -> key of config.json.
    settings: other field of `EncoderConfig` -> key of config.json. A field that
      is missing here has its default, unless `read` returns it. Fields
      that are dropout rates are written to config.json, but not read from it.
    required: entries of config.json that must have these values, or be missing,
      for an encoder to be loaded.
    read: returns further arguments of `EncoderConfig` from the entries of
      config.json; raises ValueError if such an encoder cannot be loaded.
    written: further entries of an exported config.json, the same for all
      encoders of the family. `huggingface.py` adds those of all families.
    write: returns further entries, which depend on the encoder.
    presets: name for `config.model.arch` -> arguments of an `EncoderConfig`.
    unused_positions: number of rows of Hugging Face's position table before the
      row of a text's first token. These rows are not parameters here.
    max_separators: largest number of [SEP] tokens that an encoder can read
      between the two texts of a pair. If it is above 1, the family's encoders
      must not read token types.
    keep_layers: returns the configuration of an encoder that keeps only the
      layers with these numbers, which count from 0.
    optional: path of a module in `modules` -> function that returns whether an
      encoder has the module. Every encoder has the other modules.
    unused_at_first: paths of norms in `modules` that Hugging Face's first layer
      lacks. Here the first layer has these norms too, because the parameters of
      all layers are stacked in one array, but it does not use them.
    axes: further letter of shapes -> function that returns the axis's size.
    pooler: makes a Flax module with the interface of `Pooler`, from an
      `EncoderConfig` and `name=`. Its parameters are named `pooler/...`.
    pools: which vectors go through the pooler: `cls` and `mean` are the vectors
      of examples with this pooling; `tokens` are the vectors of single tokens,
      for token heads.
    heads: end of Hugging Face's class name for a model with a head, such as
      `ForSequenceClassification` -> a table of the modules that have another
      name in that class: our usual name -> name in the class. The usual name is
      Hugging Face's name in `modules` for modules of the pooler, and
      `Kind.head_layer` for the task's layer.
    pooled: Python expression for the pooled vector, for the code of model cards
      (`inference/card.md.j2`). In this expression `{x}` stands for the vectors
      to pool, and `{activation}` for `EncoderConfig.pooler_activation`. Empty
      if `AutoModel` computes the pooled vector.
    dropout: default of all dropout rates, for rates that the run's
      configuration does not set.
  """

  name: str
  class_prefix: str
  encoder: Callable[..., nn.Module]
  modules: tuple[tuple[str, str, str, str], ...]
  layer_name: str
  tensor_prefix: str
  dropped: tuple[str, ...]
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
