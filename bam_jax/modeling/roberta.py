"""RoBERTa, XLM-R and CamemBERT (Liu et al. 2019, arXiv 1907.11692).

They are BERT without token types. In Hugging Face's files the first token of a
text has position 2, after that of padding. The pooler belongs to the head, and
has dropout before and after it.
"""

import dataclasses
import functools
import re

from bam_jax.modeling import bert
from bam_jax.modeling import family

_PAD_ID = 1  # Positions are counted from here on in Hugging Face's files.


def _family(name: str, class_prefix: str) -> family.Family:
  return dataclasses.replace(
    bert.BERT,
    name=name,
    class_prefix=class_prefix,
    encoder=functools.partial(bert.BertEncoder, has_token_types=False),
    tensor_prefix='roberta.',
    dropped=re.compile(
      r'embeddings\.position_ids$|(lm_head|classifier|qa_outputs|heads)\.'
    ),
    required=bert.BERT.required | {'model_type': name, 'pad_token_id': _PAD_ID},
    presets={},  # A random encoder has BERT's vocabulary.
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
