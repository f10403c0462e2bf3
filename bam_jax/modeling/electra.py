"""The discriminator of ELECTRA (Clark et al. 2020, arXiv 2003.10555).

It is BERT's encoder without a pooler. In small models the word vectors are
narrower than the hidden states.
"""

from collections.abc import Mapping
import dataclasses

from bam_jax.modeling import bert
from bam_jax.modeling import family

_GENERATORS = ('ElectraForMaskedLM', 'ElectraForCausalLM')
_POOLER = {'pooler_activation': 'gelu'}


def _read(values: Mapping[str, object]) -> dict[str, object]:
  """Returns the pooler's activation, which config.json does not state.

  Raises:
    ValueError: the encoder is a generator.
  """
  architectures = values.get('architectures')
  for name in architectures if isinstance(architectures, list) else ():
    if name in _GENERATORS:
      raise ValueError(
        f"architectures names {name}, ELECTRA's generator; the encoder to"
        ' fine-tune is its discriminator'
      )
  return _POOLER


def _write(config: family.EncoderConfig) -> dict[str, object]:
  """Returns entries with which `ElectraForMultipleChoice` has our pooler."""
  return {
    'summary_type': 'first',
    'summary_use_proj': True,
    'summary_activation': 'gelu',
    'summary_first_dropout': config.dropout_head,
    'summary_last_dropout': config.dropout_head,
  }


def _shape_of(path: str, shape: str) -> str:
  """Returns a module's shape; the modules of embeddings have E instead of D."""
  return shape.replace('D', 'E') if path.startswith('embeddings/') else shape


_PROJECT = 'embeddings/project'

ELECTRA = dataclasses.replace(
  bert.BERT,
  name='electra',
  class_prefix='Electra',
  modules=(
    *(
      (path, name, kind, _shape_of(path, shape))
      for path, name, kind, shape in bert.BERT.modules
    ),
    (_PROJECT, 'embeddings_project', 'dense', 'ED'),
  ),
  tensor_prefix='electra.',
  # Heads of a generator are not among these, so that loading one fails.
  dropped=('discriminator_predictions',),
  sizes=bert.BERT.sizes | {'embedding_size': 'embedding_size'},
  required=bert.BERT.required | {'model_type': 'electra'},
  read=_read,
  write=_write,
  presets={
    'electra-small': family.preset(
      256, 12, 4, 1024, embedding_size=128, **_POOLER
    ),
    'electra-base': family.preset(
      768, 12, 12, 3072, embedding_size=768, **_POOLER
    ),
    'electra-large': family.preset(
      1024, 24, 16, 4096, embedding_size=1024, **_POOLER
    ),
  },
  optional={
    _PROJECT: lambda config: config.embedding_size != config.hidden_size
  },
  axes={'E': lambda config: config.embedding_size},
  pooler=family.HeadPooler,
  heads={
    'ForSequenceClassification': family.HEAD_NAMES,
    'ForMultipleChoice': {'pooler.dense': 'sequence_summary.summary'},
  },
  pooled=family.POOLED,
)
