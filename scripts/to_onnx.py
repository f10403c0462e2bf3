"""Writes the exported model of one task as one ONNX file, and checks it.

  pip install 'bam-jax[onnx]'
  python scripts/to_onnx.py DIR FILE.onnx

DIR is one that --mode=export writes for a task. The file has encoder and head:
`input_ids`, `attention_mask` and, if the encoder has them, `token_type_ids`
[batch, length] int64 go in, `logits` come out: [batch, outputs], or
[batch, length, outputs] of tagged words and answers (start, end). Batch and
length are free, and the weights may have up to 2 GB. DIR has the tokenizer, and
its card says what outputs mean.

The file is kept only if onnxruntime gives the logits of the exported model, in
PyTorch, within 1e-4, on texts of several lengths, single and in pairs, one and
several at once. This script needs nothing of bam_jax.
"""

import argparse
import json
from pathlib import Path
import warnings

import numpy as np
import onnxruntime
import safetensors.torch
import torch
import transformers

TOLERANCE = 1e-4
_DENSE = Path('2_Dense', 'model.safetensors')
_TEXTS = (
  ['A short text.'],
  ['Eine Frage: wie geht es dir?', '🙂', 'no', 'A longer text, of more words.'],
  ['Cut, since it is long, ' * 2000, 'and a text that is padded beside it'],
)


class Logits(torch.nn.Module):
  """An exported model with tensors as inputs and its logits as the output."""

  def __init__(self, directory: Path):
    """Loads the model of one task.

    Raises:
      ValueError: the directory holds no model of one task.
    """
    super().__init__()
    config = json.loads((directory / 'config.json').read_text())
    architecture = config.get('architectures', [''])[0]
    self.dense = None
    if (directory / _DENSE).is_file():
      # transformers has no class with a head on the mean of hidden states.
      tensors = safetensors.torch.load_file(directory / _DENSE)
      name = transformers.AutoModel
      self.dense = torch.nn.Linear(*reversed(tensors['linear.weight'].shape))
      self.dense.load_state_dict(
        {key.removeprefix('linear.'): value for key, value in tensors.items()}
      )
    elif 'For' in architecture:
      name = getattr(transformers, architecture)
    else:
      raise ValueError(
        'has no single head; give the directory of one task, which no'
        ' bi-encoder reads'
      )
    self.model = name.from_pretrained(directory)
    self.eval()

  def forward(
    self,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    token_type_ids: torch.Tensor | None = None,
  ) -> torch.Tensor:
    """Returns [batch, outputs], or [batch, length, outputs]."""
    types = {} if token_type_ids is None else {'token_type_ids': token_type_ids}
    found = self.model(
      input_ids=input_ids, attention_mask=attention_mask, **types
    )
    if self.dense is not None:
      mask = attention_mask.unsqueeze(-1)
      return self.dense((found.last_hidden_state * mask).sum(1) / mask.sum(1))
    if 'start_logits' in found:
      return torch.stack([found.start_logits, found.end_logits], -1)
    return found.logits


def convert(directory: Path, target: Path) -> float:
  """Writes the ONNX file of a task's directory, and compares it.

  Returns:
    The largest difference of a logit from PyTorch's.

  Raises:
    ValueError: the directory holds no model of one task, or the difference is
      larger than `TOLERANCE`; then there is no file.
  """
  model = Logits(directory)
  tokenizer = transformers.AutoTokenizer.from_pretrained(directory)

  def tokenize(*texts: list[str]) -> dict[str, torch.Tensor]:
    return dict(
      tokenizer(*texts, padding=True, truncation=True, return_tensors='pt')
    )

  example = tokenize(['a', 'some words'])
  with warnings.catch_warnings():
    # The exporter warns of its own parts, and of axes that share a name.
    warnings.simplefilter('ignore')
    torch.onnx.export(
      model,
      kwargs=example,
      f=target,
      dynamo=True,
      external_data=False,
      input_names=list(example),
      output_names=['logits'],
      dynamic_shapes={name: {0: 'batch', 1: 'length'} for name in example},
      verbose=False,
    )
  session = onnxruntime.InferenceSession(target)
  worst = 0.0
  for texts in _TEXTS:
    for pair in ((texts,), (texts, texts[::-1])):
      inputs = tokenize(*pair)
      with torch.no_grad():
        expected = model(**inputs).numpy()
      (found,) = session.run(None, {k: v.numpy() for k, v in inputs.items()})
      if expected.ndim == 3:  # What stands at padding means nothing.
        real = inputs['attention_mask'].numpy() > 0
        expected, found = expected[real], found[real]
      worst = max(worst, float(np.abs(found - expected).max()))
  if not worst <= TOLERANCE:
    target.unlink()
    raise ValueError(f'onnxruntime differs by {worst:.1e}, so nothing is kept')
  return worst


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('directory', type=Path, metavar='DIR')
  parser.add_argument('target', type=Path, metavar='FILE')
  arguments = parser.parse_args()
  if not (arguments.directory / 'config.json').is_file():
    parser.error(f'{arguments.directory}: has no config.json; give an export')
  try:
    worst = convert(arguments.directory, arguments.target)
  except (ValueError, OSError) as e:
    parser.error(f'{arguments.directory}: {e}')
  print(
    f'{arguments.target}: onnxruntime gives the logits of PyTorch; the largest'
    f' difference is {worst:.1e}'
  )


if __name__ == '__main__':
  main()
