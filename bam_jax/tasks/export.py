"""Heads in Hugging Face's terms, for exports and model cards."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

from bam_jax.tasks import task as task_lib


class Export(NamedTuple):
  """A task head in Hugging Face's format.

  Attributes:
    auto_class: what loads it.
    architecture: the class that is loaded, without the family's prefix.
    layer: name of the head's linear layer.
    pipeline: tag of the hub.
    settings: entries of config.json.
    is_pooled: whether it is applied to the pooled vector, not to each token's.
  """

  auto_class: str
  architecture: str
  layer: str
  pipeline: str
  settings: Mapping[str, object]
  is_pooled: bool = True


def label_maps(labels: Sequence[str]) -> dict[str, object]:
  """A config.json's names of outputs."""
  return {
    'id2label': {str(i): label for i, label in enumerate(labels)},
    'label2id': {label: i for i, label in enumerate(labels)},
  }


def usage_of_pooled(task: task_lib.Task, *lines: str) -> str:
  """Python that applies a head to the pooled vector; `lines` use `logits`."""
  texts = "'a text'" + (", 'another one'" if task.is_pair else '')
  return '\n'.join(
    [
      f"inputs = tokenizer({texts}, truncation=True, return_tensors='pt')",
      'with torch.no_grad():',
      '  logits = model(**inputs).logits[0]',
      *lines,
    ]
  )


def sequence_classifier(settings: Mapping[str, object]) -> Export:
  """A linear layer on the pooled vector."""
  return Export(
    'AutoModelForSequenceClassification',
    'ForSequenceClassification',
    'classifier',
    'text-classification',
    settings,
  )
