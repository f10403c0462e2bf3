"""RoBERTa, XLM-R and CamemBERT (Liu et al. 2019, arXiv 1907.11692).

They are BERT without token types. In Hugging Face's files the first token of a
text has position 2, since position 1 belongs to padding. The pooler is part of
the head, and dropout is applied before and after the pooler.
"""

import dataclasses
import functools

from bam_jax.modeling import bert
from bam_jax.modeling import family

_PAD_ID = 1  # Hugging Face counts positions from `_PAD_ID` + 1.


def _family(name: str, class_prefix: str) -> family.Family:
  return dataclasses.replace(
    bert.BERT,
    name=name,
    class_prefix=class_prefix,
    encoder=functools.partial(bert.BertEncoder, has_token_types=False),
    tensor_prefix='roberta.',
    dropped=('lm_head',),
    required=bert.BERT.required | {'model_type': name, 'pad_token_id': _PAD_ID},
    presets={},  # Random encoders have BERT's vocabulary, so no presets.
    unused_positions=_PAD_ID + 1,
    max_separators=2,
    pooler=family.HeadPooler,
    heads={'ForSequenceClassification': family.HEAD_NAMES},
  )


FAMILIES = (
  _family('roberta', 'Roberta'),
  _family('xlm-roberta', 'XLMRoberta'),
  _family('camembert', 'Camembert'),
)
