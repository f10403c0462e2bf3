"""Times Hugging Face's BERT in torch, as a process of `train_step`.

The same examples, rows of one example each, mixed precision through autocast,
SDPA attention, fused AdamW, clipping. Modes:

  padded         128 tokens, torch.compile
  eager          padded to the longest of the batch
  like           batches of like length, eager
  like-compiled  the same, torch.compile with dynamic shapes
  graphs         128 tokens, torch.compile with CUDA graphs
  padded-no-attention-dropout
"""

import time

import numpy as np
import torch
import transformers

from bam_jax.modeling import families
from benchmarks import step_jax
from benchmarks import worker

_DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'


class MultiTask(torch.nn.Module):
  """Encoder, pooler and heads that return the mean loss of a batch."""

  def __init__(self, config: transformers.BertConfig, num_tasks: int):
    super().__init__()
    self.encoder = transformers.BertModel(config)
    self.dropout = torch.nn.Dropout(config.hidden_dropout_prob)
    self.heads = torch.nn.Linear(config.hidden_size, num_tasks * 3)

  def forward(self, input_ids, attention_mask, token_type_ids, task, label):
    pooled = self.encoder(
      input_ids=input_ids,
      attention_mask=attention_mask,
      token_type_ids=token_type_ids,
    ).pooler_output
    logits = self.heads(self.dropout(pooled)).float()
    logits = logits.view(len(task), -1, 3)
    logits = logits[torch.arange(len(task), device=task.device), task]
    return torch.nn.functional.cross_entropy(logits, label)


def make_batches(
  host: list[dict[str, np.ndarray]], mode: str
) -> list[dict[str, torch.Tensor]]:
  """Divides the examples of all batches again, as the mode asks."""
  keys = {
    'input_ids': 'input_ids',
    'attention_mask': 'segment_ids',
    'token_type_ids': 'token_type_ids',
  }
  arrays = {
    name: np.concatenate([batch[key] for batch in host]).astype(np.int64)
    for name, key in keys.items()
  }
  arrays['task'] = np.concatenate([b['task_id'][:, 0] for b in host])
  target = np.concatenate([b['gold'][:, 0] for b in host])
  arrays['label'] = target.argmax(axis=1)
  lengths = arrays['attention_mask'].sum(axis=1)
  order = np.arange(len(lengths))
  if mode.startswith('like'):
    order = np.argsort(lengths, kind='stable')
  parts = order.reshape(len(host), -1)
  if mode.startswith('like'):
    np.random.default_rng(0).shuffle(parts)
  result = []
  for part in parts:
    width = worker.ROW_LENGTH
    if mode in ('eager', 'like', 'like-compiled'):
      width = -(-int(lengths[part].max()) // 8) * 8
    result.append(
      {
        name: torch.from_numpy(
          np.ascontiguousarray(
            array[part, :width] if array.ndim == 2 else array[part]
          )
        ).to(_DEVICE, torch.int64)
        for name, array in arrays.items()
      }
    )
  return result


def main() -> None:
  args = worker.arguments(__doc__)
  config = step_jax.make_config(args.size, args.data, args.vocab, packed=False)
  plan, host = step_jax.training_batches(config, args.workdir, args.steps)
  sizes = families.presets()[args.size]
  dropout = 0.0 if args.mode.endswith('no-attention-dropout') else 0.1
  model = MultiTask(
    transformers.BertConfig(
      vocab_size=plan.encoder.config.vocab_size,
      hidden_size=sizes['hidden_size'],
      num_hidden_layers=sizes['num_layers'],
      num_attention_heads=sizes['num_heads'],
      intermediate_size=sizes['intermediate_size'],
      attention_probs_dropout_prob=dropout,
      attn_implementation='sdpa',
    ),
    len(config.tasks),
  ).to(_DEVICE)
  optimizer = torch.optim.AdamW(
    model.parameters(), 1e-5, weight_decay=0.01, fused=_DEVICE == 'cuda'
  )
  batches = make_batches(host, args.mode)
  loss_of = model
  if args.mode.startswith('padded'):
    loss_of = torch.compile(model)
  elif args.mode == 'like-compiled':
    loss_of = torch.compile(model, dynamic=True)
  elif args.mode == 'graphs':
    loss_of = torch.compile(model, mode='reduce-overhead')

  def step(batch: dict[str, torch.Tensor]) -> None:
    torch.compiler.cudagraph_mark_step_begin()
    with torch.autocast(_DEVICE, torch.bfloat16):
      loss = loss_of(**batch)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)

  def run() -> None:
    for batch in batches:
      step(batch)

  def wait() -> None:
    if _DEVICE == 'cuda':
      torch.cuda.synchronize()

  start = time.perf_counter()
  for batch in batches[:3]:
    step(batch)
  wait()
  compile_seconds = time.perf_counter() - start
  if _DEVICE == 'cuda':
    torch.cuda.empty_cache()  # Others have their turn first.
  worker.wait_for_turn()
  ms = worker.milliseconds(run, wait, args.steps)
  tokens = np.mean([int(b['attention_mask'].sum()) for b in batches])
  worker.report(
    ms=ms,
    examples_per_second=worker.BATCH_SIZE * 1e3 / ms,
    tokens_per_second=tokens * 1e3 / ms,
    compile_seconds=compile_seconds,
    peak_bytes=torch.cuda.max_memory_allocated() if _DEVICE == 'cuda' else 0,
  )


if __name__ == '__main__':
  main()
