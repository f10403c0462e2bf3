"""Makes the golden files from torch: weights, outputs, and every gradient.

Needs torch, transformers and safetensors, which the tests do not:

  python tests/modeling/make_golden.py

Encoders of odd shapes and large random weights are saved as `transformers`
saves them: of BERT, also with other activations, and of RoBERTa and XLM-R.
`golden.safetensors` beside each holds inputs, outputs, and the gradients of the
loss that `test_bert.py` repeats, all computed in float64 with attention written
out, and rounded to float32.
"""

from pathlib import Path

import safetensors.torch
import torch
import transformers

GOLDEN = Path(__file__).parent / 'golden'
_ACTIVATIONS = ('gelu_new', 'gelu_pytorch_tanh', 'relu')
_SMALL = {
  'vocab_size': 20,
  'hidden_size': 12,
  'num_hidden_layers': 1,
  'num_attention_heads': 3,
  'intermediate_size': 20,
  'max_position_embeddings': 12,
  'layer_norm_eps': 1e-12,
}
CONFIGS = {
  'wide': {
    'vocab_size': 40,
    'hidden_size': 16,
    'num_hidden_layers': 2,
    'num_attention_heads': 2,
    'intermediate_size': 64,
    'max_position_embeddings': 24,
    'layer_norm_eps': 1e-12,
  },
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
  **{name: {**_SMALL, 'hidden_act': name} for name in _ACTIVATIONS},
  'roberta': {
    'model_type': 'roberta',
    'vocab_size': 40,
    'hidden_size': 16,
    'num_hidden_layers': 2,
    'num_attention_heads': 2,
    'intermediate_size': 64,
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
  model = transformers.AutoModel.from_config(config).double().eval()
  with torch.no_grad():
    for key, value in model.named_parameters():
      # LayerNorm scales near one; all else large enough to matter, and round
      # numbers in float32, so that the file holds what was computed with.
      noise = normal(*value.shape) * 0.25
      value.copy_((noise + key.endswith('LayerNorm.weight')).float().double())

  def integers(high: int) -> torch.Tensor:
    return torch.randint(0, high, (ROWS, LENGTH), generator=generator)

  # Torch leaves the gradient of its padding word at zero, and RoBERTa counts no
  # positions there.
  ids = integers(config.vocab_size).clamp(min=config.pad_token_id + 1)
  types = integers(config.type_vocab_size)
  mask = (torch.arange(LENGTH) < torch.tensor(LENGTHS)[:, None]).long()
  # Divided so that the loss is of the size of one, as a mean would be.
  hidden_weight = normal(ROWS, LENGTH, config.hidden_size) / ROWS / LENGTH
  hidden_weight = hidden_weight * mask[..., None]
  pooled_weight = normal(ROWS, config.hidden_size) / ROWS
  hidden_weight = hidden_weight.float().double()
  pooled_weight = pooled_weight.float().double()
  out = model(input_ids=ids, token_type_ids=types, attention_mask=mask)
  loss = (out.last_hidden_state * hidden_weight).sum()
  loss = loss + (out.pooler_output * pooled_weight).sum()
  loss.backward()

  model.float().save_pretrained(GOLDEN / name)
  tensors = {
    'input_ids': ids.int(),
    'token_type_ids': types.int(),
    'segment_ids': mask.int(),
    'hidden_weight': hidden_weight.float(),
    'pooled_weight': pooled_weight.float(),
    'hidden': out.last_hidden_state.detach().float(),
    'pooled': out.pooler_output.detach().float(),
  }
  for key, value in model.named_parameters():
    tensors[f'gradient/{key}'] = value.grad.float()
  safetensors.torch.save_file(
    {key: value.contiguous() for key, value in tensors.items()},
    GOLDEN / name / 'golden.safetensors',
  )


if __name__ == '__main__':
  for seed, name in enumerate(CONFIGS):
    make(name, seed)
