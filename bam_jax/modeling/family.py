"""The interface of an encoder family, such as BERT.

A family is one file: a Flax module, the presets of its sizes, and tables of its
names in Hugging Face's format. `families.FAMILIES` lists them.
"""

from collections.abc import Callable, Hashable, Mapping
import dataclasses
import re

import flax.linen as nn
import jax.numpy as jnp
from jax.sharding import Mesh

# Every matrix starts from a normal distribution that is cut off at two standard
# deviations, as in BERT.
INITIALIZER_RANGE = 0.02
initializer = nn.initializers.truncated_normal(INITIALIZER_RANGE)


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
  """Shape of an encoder, its dropout rates (0 to below 1) and its pooling.

  `pooling` is `cls`: the vector of a segment's first token, through a pooler;
  or `mean`: the mean of the vectors of all its tokens, without a pooler.
  `activation` is one of `gelu.ACTIVATIONS`.
  `own` are the settings that its family alone has, a frozen dataclass.
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
      `kernels.of_device` names it; empty: XLA's.
  """

  dtype: jnp.dtype = jnp.float32
  remat: bool = False
  mesh: Mesh | None = None
  platform: str = ''


ONE_DEVICE = Compute()  # in float32, without kernels


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
      these names.
    modules: table of (path in our module, Hugging Face's name, type, shape).
      `{i}` in both names stands for the layer. The type is `embed`, `norm` or
      `dense`. The shape has one letter for each axis: V vocabulary, P
      positions, Y token types, D hidden size, F intermediate size.
    layer_name: Hugging Face's name of layer `{i}`.
    tensor_prefix: prefix of the encoder's tensors in a model with a head.
    dropped: matches the beginning of tensors that are not loaded, such as
      heads of pretraining.
    sizes: field of `EncoderConfig` -> key of config.json.
    required: config.json entries with which alone an encoder can be loaded; a
      missing key counts as equal.
    written: further entries of an exported config.json.
    presets: name for `config.model.arch` -> sizes of an `EncoderConfig`.
    unused_positions: rows of Hugging Face's table of positions that come before
      that of a text's first token. They are no parameters here.
    max_separators: most [SEP] between the texts of a pair. With more than one,
      the encoder must not read token types.
    sequence_head: Hugging Face's names of the pooler and of the task's layer in
      a model for sequence classification, if the pooler is part of its head;
      empty: the pooler is part of the encoder.
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
  presets: Mapping[str, Mapping[str, int]]
  unused_positions: int = 0
  max_separators: int = 1
  sequence_head: tuple[str, ...] = ()
