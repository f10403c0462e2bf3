"""DistilBERT (Sanh et al. 2019, arXiv 1910.01108).

It is BERT's encoder without token types and without a pooler. No dropout is
applied to the attention output before the residual connection.
"""

import functools

from bam_jax.modeling import bert
from bam_jax.modeling import family

# Settings that config.json does not state.
_FIXED = {'type_vocab_size': 0, 'pooler_activation': 'relu'}
_HEAD = {'pooler.dense': 'pre_classifier'}


DISTILBERT = family.Family(
  name='distilbert',
  class_prefix='DistilBert',
  encoder=functools.partial(bert.BertEncoder, drops_attention_output=False),
  modules=(
    ('embeddings/word', 'embeddings.word_embeddings', 'embed', 'VD'),
    ('embeddings/position', 'embeddings.position_embeddings', 'embed', 'PD'),
    ('embeddings/norm', 'embeddings.LayerNorm', 'norm', 'D'),
    ('{i}/attention/query', '{i}.attention.q_lin', 'dense', 'DD'),
    ('{i}/attention/key', '{i}.attention.k_lin', 'dense', 'DD'),
    ('{i}/attention/value', '{i}.attention.v_lin', 'dense', 'DD'),
    ('{i}/attention/output', '{i}.attention.out_lin', 'dense', 'DD'),
    ('{i}/attention_norm', '{i}.sa_layer_norm', 'norm', 'D'),
    ('{i}/intermediate', '{i}.ffn.lin1', 'dense', 'DF'),
    ('{i}/output', '{i}.ffn.lin2', 'dense', 'FD'),
    ('{i}/output_norm', '{i}.output_layer_norm', 'norm', 'D'),
    ('pooler', 'pooler.dense', 'dense', 'DD'),
  ),
  layer_name='transformer.layer.{i}',
  tensor_prefix='distilbert.',
  dropped=('vocab_transform', 'vocab_layer_norm', 'vocab_projector'),
  sizes={
    'vocab_size': 'vocab_size',
    'hidden_size': 'dim',
    'num_layers': 'n_layers',
    'num_heads': 'n_heads',
    'intermediate_size': 'hidden_dim',
    'max_positions': 'max_position_embeddings',
  },
  settings={
    'activation': 'activation',
    'dropout_hidden': 'dropout',
    'dropout_attention': 'attention_dropout',
    'dropout_head': 'seq_classif_dropout',
  },
  required={'model_type': 'distilbert'},
  # `sinusoidal_pos_embds` is not read, because the files of weights contain
  # sinusoidal position embeddings too.
  read=lambda values: _FIXED,
  written={'sinusoidal_pos_embds': False},
  write=lambda config: {'qa_dropout': config.dropout_head},
  presets={
    'distilbert-base': bert.BERT.presets['bert-base']
    | {'num_layers': 6}
    | _FIXED
  },
  heads={'ForSequenceClassification': _HEAD, 'ForMultipleChoice': _HEAD},
  pooled=family.POOLED,
)
