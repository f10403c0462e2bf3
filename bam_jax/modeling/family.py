"""The interface of an encoder family, such as BERT.

A family is one file: a Flax module, the presets of its sizes, and tables that
lead to Hugging Face's names and back. `families.FAMILIES` lists them.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import re

import flax.linen as nn

# A truncated normal distribution, cut off at two standard deviations, for every
# matrix, as in BERT.
INITIALIZER_RANGE = 0.02
initializer = nn.initializers.truncated_normal(INITIALIZER_RANGE)


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
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
  family: str = 'bert'

  def without_dropout(self) -> 'EncoderConfig':
    """The same shape, every rate zero."""
    return dataclasses.replace(
      self,
      dropout_embedding=0.0,
      dropout_attention=0.0,
      dropout_hidden=0.0,
      dropout_head=0.0,
    )


@dataclasses.dataclass(frozen=True)
class Family:
  """An encoder family.

  Attributes:
    name: `model_type` in config.json.
    class_prefix: of Hugging Face's classes: `Bert` of `BertModel`.
    encoder: makes the Flax module from (config, dtype, remat, mesh, platform);
      its call has the arguments and the result of `bert.BertEncoder`. Its
      parameters are named `embeddings/...` and `layer_0/...`, `layer_1/...`:
      layer-wise learning rates, stacking and sharding go by these names.
    modules: rows of our module's path, Hugging Face's name, one of `embed`,
      `norm`, `dense`, and the shape's letters: V words, P positions, Y token
      types, D hidden, F intermediate. `{i}` in both names is a layer.
    layer_name: Hugging Face's name of layer `{i}`.
    tensor_prefix: of the encoder's tensors in a model with a head.
    dropped: matches tensors that are no part of encoder and pooler.
    sizes: fields of `EncoderConfig` -> keys of config.json.
    required: entries that a config.json must have, or lack, to be loaded.
    written: further entries of an exported config.json.
    presets: sizes by name, for `config.model.arch`.
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
