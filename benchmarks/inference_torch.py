"""Times Hugging Face's inference in torch, as a process of `inference`.

Modes: ids (the model alone, on token ids made before, in batches of like
length), pipeline (`text-classification`, over texts sorted by length), compiled
(the same with `torch.compile`).
"""

from collections.abc import Iterable, Mapping
import json

import torch
import transformers

from benchmarks import inference
from benchmarks import worker

_DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
_DTYPE = torch.bfloat16 if _DEVICE == 'cuda' else torch.float32
_MAX_LENGTH = 128


class Task:
  """The exported model of a task, and its texts, longest first."""

  def __init__(self, directory: str, path: str, batch_size: int):
    self.pipe = transformers.pipeline(
      'text-classification', model=directory, device=_DEVICE, dtype=_DTYPE
    )
    self._batch_size = batch_size
    with open(path, encoding='utf-8') as lines:
      self.rows = [json.loads(line) for line in lines]
    self._tokenizer = self.pipe.tokenizer
    encoded = [
      self._tokenizer(**row, truncation=True, max_length=_MAX_LENGTH)
      for row in self.rows
    ]
    lengths = [len(each['input_ids']) for each in encoded]
    self.order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    self._encoded = [encoded[i] for i in self.order]

  def in_order(self, found: Iterable[Mapping[str, float]]) -> list:
    """Sorts the predictions of the sorted rows back."""
    result = [None] * len(self.order)
    for i, each in zip(self.order, found, strict=True):
      result[i] = each
    return result

  def pipeline(self) -> list:
    found = self.pipe(
      [self.rows[i] for i in self.order],
      batch_size=self._batch_size,
      truncation=True,
      max_length=_MAX_LENGTH,
      top_k=None,
    )
    return self.in_order(
      {each['label']: each['score'] for each in row} for row in found
    )

  compiled = pipeline

  @torch.inference_mode()
  def ids(self) -> list:
    labels, found = self.pipe.model.config.id2label, []
    for first in range(0, len(self._encoded), self._batch_size):
      batch = self._tokenizer.pad(
        self._encoded[first : first + self._batch_size], return_tensors='pt'
      ).to(_DEVICE)
      found.append(self.pipe.model(**batch).logits)
    probs = torch.cat(found).float().softmax(dim=-1).tolist()
    return self.in_order(
      {labels[i]: p for i, p in enumerate(row)} for row in probs
    )


def main() -> None:
  args = worker.inference_arguments(__doc__)
  transformers.logging.set_verbosity_error()
  tasks = {
    name: Task(
      str(args.workdir / 'exports' / 'multi-s0' / name),
      str(args.workdir / f'{name}.jsonl'),
      args.batch_size,
    )
    for name in inference.TASKS
  }
  if args.mode == 'compiled':
    for task in tasks.values():
      task.pipe.model.forward = torch.compile(
        task.pipe.model.forward, dynamic=True
      )
  worker.run_inference(
    lambda: {name: getattr(tasks[name], args.mode)() for name in tasks},
    args.workdir / f'{inference.TORCH}-{args.mode}.json',
    torch.cuda.max_memory_allocated if _DEVICE == 'cuda' else lambda: 0,
  )


if __name__ == '__main__':
  main()
