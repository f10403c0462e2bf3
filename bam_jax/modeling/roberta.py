"""RoBERTa, XLM-R and CamemBERT (Liu et al. 2019, arXiv 1907.11692).

They are BERT without token types. In Hugging Face's files the first token of a
text has position 2, after that of padding, and the pooler belongs to the head.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp

from bam_jax.modeling import bert
from bam_jax.modeling import family

_PAD_ID = 1  # Positions are counted from here on in Hugging Face's files.


class RobertaEncoder(bert.BertEncoder):
  """BERT's encoder, for which every token has type 0."""

  def __call__(
    self,
    input_ids: jax.Array,
    token_type_ids: jax.Array,
    positions: jax.Array,
    segment_ids: jax.Array,
    deterministic: bool,
  ) -> jax.Array:
    """Encodes rows like `bert.BertEncoder`; ignores `token_type_ids`."""
    types = jnp.zeros_like(token_type_ids)
    return super().__call__(
      input_ids, types, positions, segment_ids, deterministic
    )


def _family(name: str, class_prefix: str) -> family.Family:
  return dataclasses.replace(
    bert.BERT,
    name=name,
    class_prefix=class_prefix,
    encoder=RobertaEncoder,
    tensor_prefix='roberta.',
    dropped=re.compile(
      r'embeddings\.position_ids$|(lm_head|classifier|qa_outputs|heads)\.'
    ),
    required=bert.BERT.required | {'model_type': name, 'pad_token_id': _PAD_ID},
    presets={},  # A random encoder has BERT's vocabulary.
    unused_positions=_PAD_ID + 1,
    max_separators=2,
    heads={
      'ForSequenceClassification': {
        'pooler.dense': 'classifier.dense',
        'classifier': 'classifier.out_proj',
      }
    },
  )


FAMILIES = (
  _family('roberta', 'Roberta'),
  _family('xlm-roberta', 'XLMRoberta'),
  _family('camembert', 'Camembert'),
)
