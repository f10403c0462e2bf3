"""ERNIE 1.0 and 2.0 (Sun et al. 2019, arXiv 1907.12412): BERT's encoder.

Weights with embeddings of task types, as in ERNIE 3.0, are refused.
"""

import dataclasses

from bam_jax.modeling import bert

ERNIE = dataclasses.replace(
  bert.BERT,
  name='ernie',
  class_prefix='Ernie',
  tensor_prefix='ernie.',
  required=bert.BERT.required | {'model_type': 'ernie', 'use_task_id': False},
  written=bert.BERT.written | {'task_type_vocab_size': 3},
  presets={},  # A random ERNIE would be a random BERT.
)
