"""Makes the golden files from torch: weights, outputs, and every gradient.

Needs torch, transformers and safetensors, which the tests do not:

  python tests/modeling/make_golden.py [NAME ...]

Encoders of odd shapes and large random weights are saved as `transformers`
saves them: of BERT, also with other activations, and of the other families.
`golden.safetensors` beside each holds inputs, outputs, and the gradients of the
loss that `test_bert.py` repeats, all computed in float64 with attention written
out, and rounded to float32.
"""

from pathlib import Path
import re
import sys

import safetensors.torch
import torch
import transformers

GOLDEN = Path(__file__).parent / 'golden'
_WIDE = {
  'vocab_size': 40,
  'hidden_size': 16,
  'num_hidden_layers': 2,
  'num_attention_heads': 2,
  'intermediate_size': 64,
  'max_position_embeddings': 24,
  'layer_norm_eps': 1e-12,
}
_SMALL = {
  'vocab_size': 20,
  'hidden_size': 12,
  'num_hidden_layers': 1,
  'num_attention_heads': 3,
  'intermediate_size': 20,
  'max_position_embeddings': 12,
  'layer_norm_eps': 1e-12,
}
_MODERN = {
  'model_type': 'modernbert',
  'vocab_size': 40,
  'hidden_size': 16,
  'num_attention_heads': 2,
  'intermediate_size': 20,
  'max_position_embeddings': 24,
  'norm_eps': 1e-5,
  'pad_token_id': 0,
  'bos_token_id': 1,
  'eos_token_id': 2,
  'cls_token_id': 1,
  'sep_token_id': 2,
}
CONFIGS = {
  'wide': _WIDE,
  'deep': {
    'vocab_size': 33,
    'hidden_size': 24,
    'num_hidden_layers': 3,
    'num_attention_heads': 4,
    'intermediate_size': 40,
    'max_position_embeddings': 16,
    'type_vocab_size': 3,
    'layer_norm_eps': 1e-2,
  },
  'roberta': {
    **_WIDE,
    'model_type': 'roberta',
    'max_position_embeddings': 26,
    'type_vocab_size': 1,
    'layer_norm_eps': 1e-5,
  },
  'xlm-roberta': {
    **_SMALL,
    'model_type': 'xlm-roberta',
    'num_hidden_layers': 3,
    'max_position_embeddings': 17,
    'type_vocab_size': 1,
    'layer_norm_eps': 1e-2,
  },
  'electra': {
    **_WIDE,
    'model_type': 'electra',
    'embedding_size': 16,
  },
  'electra-narrow': {
    **_SMALL,
    'model_type': 'electra',
    'embedding_size': 8,
    'num_hidden_layers': 3,
    'type_vocab_size': 3,
    'hidden_act': 'gelu_new',
    'layer_norm_eps': 1e-2,
  },
  'distilbert': {
    'model_type': 'distilbert',
    'vocab_size': 40,
    'dim': 16,
    'n_layers': 2,
    'n_heads': 2,
    'hidden_dim': 64,
    'max_position_embeddings': 24,
  },
  'distilbert-deep': {
    'model_type': 'distilbert',
    'vocab_size': 20,
    'dim': 12,
    'n_layers': 3,
    'n_heads': 3,
    'hidden_dim': 20,
    'max_position_embeddings': 12,
    'activation': 'relu',
    'sinusoidal_pos_embds': True,
  },
  'deberta-v3': {
    **_WIDE,
    'model_type': 'deberta-v2',
    'layer_norm_eps': 1e-7,
    'type_vocab_size': 0,
    'position_biased_input': False,
    'relative_attention': True,
    'position_buckets': 8,
    'pos_att_type': ['p2c', 'c2p'],
    'share_att_key': True,
    'norm_rel_ebd': 'layer_norm',
  },
  'deberta-v2': {
    **_SMALL,
    'model_type': 'deberta-v2',
    'num_hidden_layers': 3,
    'type_vocab_size': 3,
    'layer_norm_eps': 1e-2,
    'relative_attention': True,
    'position_buckets': 6,
    'max_relative_positions': 8,
    'pos_att_type': ['c2p', 'p2c'],
    'pooler_hidden_act': 'tanh',
  },
  'modernbert': {
    **_MODERN,
    'num_hidden_layers': 4,
    'local_attention': 6,
  },
  'modernbert-turned': {
    **_MODERN,
    'hidden_size': 24,
    'num_hidden_layers': 3,
    'num_attention_heads': 3,
    'global_attn_every_n_layers': 2,
    'local_attention': 4,
    'global_rope_theta': 50.0,
    'local_rope_theta': 7.0,
    'hidden_activation': 'gelu_pytorch_tanh',
    'norm_eps': 1e-2,
  },
  'ernie': {**_WIDE, 'model_type': 'ernie'},
  'ernie-deep': {
    **_SMALL,
    'model_type': 'ernie',
    'num_hidden_layers': 3,
    'type_vocab_size': 4,
    'hidden_act': 'relu',
    'layer_norm_eps': 1e-2,
  },
}
# Of a model for sequence classification, where the encoder has no pooler: the
# module that does its work, that module's name here, and the task's layer.
HEADS = {
  'deberta-v2': ('pooler.dense', 'pooler.dense', 'classifier'),
  'electra': ('classifier.dense', 'pooler.dense', 'classifier.out_proj'),
  'distilbert': ('pre_classifier', 'pooler.dense', 'classifier'),
  'modernbert': ('head', 'pooler', 'classifier'),
}
ROWS, LENGTH = 3, 12
LENGTHS = (12, 7, 2)


def make(name: str, seed: int) -> None:
  generator = torch.Generator().manual_seed(seed)

  def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)

  sizes = {'model_type': 'bert'} | CONFIGS[name]
  config = transformers.AutoConfig.for_model(
    **sizes, attn_implementation='eager'
  )
  pooler, ours, output = HEADS.get(config.model_type, ('pooler', 'pooler', ''))
  if output:
    # The task's layer is the identity, so that the pooled vector comes out.
    config.num_labels = config.hidden_size
    auto = transformers.AutoModelForSequenceClassification
    model = auto.from_config(config).double().eval()
    layer = model.get_submodule(output)
  else:
    model = transformers.AutoModel.from_config(config).double().eval()
  with torch.no_grad():
    for key, value in model.named_parameters():
      # LayerNorm scales near one; all else large enough to matter, and round
      # numbers in float32, so that the file holds what was computed with.
      noise = normal(*value.shape) * 0.25
      is_scale = bool(re.search(r'(LayerNorm|norm)\.weight$', key))
      value.copy_((noise + is_scale).float().double())
    if output:
      layer.weight.copy_(torch.eye(config.hidden_size))
      layer.bias.zero_()

  def integers(high: int) -> torch.Tensor:
    return torch.randint(0, high, (ROWS, LENGTH), generator=generator)

  # Torch leaves the gradient of its padding word at zero, and RoBERTa counts no
  # positions there.
  ids = integers(config.vocab_size).clamp(min=config.pad_token_id + 1)
  has_types = getattr(config, 'type_vocab_size', 0) > 0
  types = integers(config.type_vocab_size if has_types else 2)
  mask = (torch.arange(LENGTH) < torch.tensor(LENGTHS)[:, None]).long()
  # Divided so that the loss is of the size of one, as a mean would be.
  hidden_weight = normal(ROWS, LENGTH, config.hidden_size) / ROWS / LENGTH
  hidden_weight = hidden_weight * mask[..., None]
  pooled_weight = normal(ROWS, config.hidden_size) / ROWS
  hidden_weight = hidden_weight.float().double()
  pooled_weight = pooled_weight.float().double()

  def compute(rows: slice, columns: slice) -> tuple[torch.Tensor, torch.Tensor]:
    out = model(
      input_ids=ids[rows, columns],
      attention_mask=mask[rows, columns],
      output_hidden_states=True,
      **({'token_type_ids': types[rows, columns]} if has_types else {}),
    )
    return out.hidden_states[-1], out.logits if output else out.pooler_output

  hidden, pooled = compute(slice(None), slice(None))
  if config.model_type == 'modernbert':
    # In float64, padding that sees nothing is nan, and all of its row with it.
    alone = [compute(slice(i, i + 1), slice(n)) for i, n in enumerate(LENGTHS)]
    hidden = torch.zeros_like(hidden)
    for i, (n, (own, _)) in enumerate(zip(LENGTHS, alone)):
      hidden[i, :n] = own[0]
    pooled = torch.cat([vector for _, vector in alone])
  loss = (hidden * hidden_weight).sum() + (pooled * pooled_weight).sum()
  loss.backward()

  model.float().save_pretrained(GOLDEN / name)
  tensors = {
    'input_ids': ids.int(),
    'token_type_ids': types.int(),
    'segment_ids': mask.int(),
    'hidden_weight': hidden_weight.float(),
    'pooled_weight': pooled_weight.float(),
    'hidden': hidden.detach().float(),
    'pooled': pooled.detach().float(),
  }
  for key, value in model.named_parameters():
    if not output or not key.startswith(f'{output}.'):
      key = key.removeprefix(f'{model.base_model_prefix}.')
      key = re.sub(rf'^{pooler}\.', f'{ours}.', key)
      tensors[f'gradient/{key}'] = value.grad.float()
  safetensors.torch.save_file(
    {key: value.contiguous() for key, value in tensors.items()},
    GOLDEN / name / 'golden.safetensors',
  )


if __name__ == '__main__':
  for seed, name in enumerate(CONFIGS):
    if name in sys.argv[1:] or not sys.argv[1:]:
      make(name, seed)
