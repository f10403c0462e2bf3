"""Task heads in Hugging Face's terms, for exports and model cards."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple


class Export(NamedTuple):
  """A task head in Hugging Face's format.

  Attributes:
    auto_class: the class of transformers that loads it.
    architecture: the loaded class, without the encoder family's prefix.
    layer: name of the head's linear layer.
    pipeline: tag of the hub.
    settings: entries of config.json.
    is_pooled: whether the layer is applied to the pooled vector, not to each
      token's.
  """

  auto_class: str
  architecture: str
  layer: str
  pipeline: str
  settings: Mapping[str, object]
  is_pooled: bool = True


def label_maps(labels: Sequence[str]) -> dict[str, object]:
  """Names of outputs as config.json has them."""
  return {
    'id2label': {str(i): label for i, label in enumerate(labels)},
    'label2id': {label: i for i, label in enumerate(labels)},
  }
