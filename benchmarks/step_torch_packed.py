"""Times packed BERT in torch, as a process of `train_step`: the fastest rival.

The same examples as JAX's packed step, with BERT's dropout at every site. The
weights that products take are bfloat16; one compiled AdamW updates float32
copies of them. Loss and gradients are one compiled program, and the whole step
is a CUDA graph for each number of tokens. Modes:

  stream  one stream of tokens, without rows: the memory-efficient kernel keeps
          examples apart, by the places where they begin
  rows    the rows of the JAX step: scaled_dot_product_attention with a mask
  check   nothing timed: loss and gradients of both, without dropout, against
          Hugging Face's padded BERT; also on a CPU
"""

from collections.abc import Sequence
import itertools
import time

import numpy as np
import torch
import torch.nn.functional as F
import transformers

from bam_jax.modeling import families
from benchmarks import step_jax
from benchmarks import step_torch
from benchmarks import worker

_CUDA = torch.cuda.is_available()
_DEVICE = 'cuda' if _CUDA else 'cpu'
_TYPE = torch.bfloat16 if _CUDA else torch.float32
_MULTIPLE = 128  # Numbers of tokens are multiples of it: one graph for each.
_ALIGN = 32  # Arrays of a joined batch begin at multiples of it.
_OUTPUTS = 3
_RATE, _DECAY, _BETAS, _EPS, _CLIP = 1e-5, 0.01, (0.9, 0.999), 1e-8, 1.0


class _Attention(torch.autograd.Function):
  """Attention within the sequences of a stream; q, k and v are one array."""

  @staticmethod
  def forward(ctx, qkv, begins, rate):
    """Maps [1, T, 3, H, hd] and [N + 1] begins to contexts [1, T, H, hd]."""
    q, k, v = qkv.unbind(2)
    length = worker.ROW_LENGTH
    contexts, sums, seed, offset, *_ = (
      torch.ops.aten._efficient_attention_forward(
        q, k, v, None, begins, begins, length, length, rate, 0, True
      )
    )
    ctx.save_for_backward(qkv, begins, contexts, sums, seed, offset)
    ctx.rate = rate
    return contexts

  @staticmethod
  def backward(ctx, gradient):
    qkv, begins, contexts, sums, seed, offset = ctx.saved_tensors
    q, k, v = qkv.unbind(2)
    length = worker.ROW_LENGTH
    of_q, *_ = torch.ops.aten._efficient_attention_backward(
      gradient.contiguous(), q, k, v, None, contexts, begins, begins,
      length, length, sums, ctx.rate, seed, offset, 0, False,
      shared_storage_dqdkdv=True,
    )  # fmt: skip
    # The three gradients are parts of one array, of which this is the first.
    return of_q.as_strided(qkv.shape, qkv.stride()), None, None


class _Layers(torch.nn.Module):
  """All layers; a parameter of it holds that of every layer."""

  def __init__(
    self, count: int, size: int, inner: int, heads: int, rate: float
  ):
    super().__init__()
    self.heads, self.rate = heads, rate
    for name, shape in {
      'qkv': (3 * size, size),
      'out': (size, size),
      'out_norm': (size,),
      'up': (inner, size),
      'down': (size, inner),
      'down_norm': (size,),
    }.items():
      for part, of_layer in (('weight', shape), ('bias', shape[:1])):
        value = torch.nn.Parameter(torch.ones(count, *of_layer))
        self.register_parameter(f'{name}_{part}', value)

  def forward(self, x, batch):
    for weights in zip(*(each.unbind() for each in self.parameters())):
      x = self._layer(x, batch, *zip(weights[::2], weights[1::2]))
    return x

  def _layer(self, x, batch, qkv, out, out_norm, up, down, down_norm):
    y = F.linear(self._attend(F.linear(x, *qkv), batch), *out)
    x = self._add(x, y, out_norm)
    y = F.linear(F.gelu(F.linear(x, *up)), *down)
    return self._add(x, y, down_norm)

  def _attend(self, qkv, batch):
    tokens, size = len(qkv), qkv.shape[1] // 3
    qkv = qkv.view(tokens, 3, self.heads, -1)
    if 'mask' not in batch:
      return _Attention.apply(qkv[None], batch['begins'], self.rate).view(
        tokens, size
      )
    rows = qkv.view(-1, worker.ROW_LENGTH, *qkv.shape[1:])
    q, k, v = rows.permute(2, 0, 3, 1, 4)
    mask = batch['mask'].expand(-1, self.heads, -1, -1)
    y = F.scaled_dot_product_attention(q, k, v, mask, self.rate)
    return y.transpose(1, 2).reshape(tokens, size)

  def _add(self, x, y, norm):
    x = x.float() + F.dropout(y.float(), self.rate)
    return F.layer_norm(x, x.shape[1:], *norm, 1e-12).to(y.dtype)


class PackedBert(torch.nn.Module):
  """BERT with a head for each task; returns the mean loss of a batch."""

  def __init__(self, arch: str, vocab_size: int, num_tasks: int, rate: float):
    super().__init__()
    sizes = families.presets()[arch]
    size, heads = sizes['hidden_size'], sizes['num_heads']
    self.word = torch.nn.Embedding(vocab_size, size)
    self.position = torch.nn.Embedding(512, size)
    self.kind = torch.nn.Embedding(2, size)
    self.norm = torch.nn.LayerNorm(size, 1e-12)
    self.layers = _Layers(
      sizes['num_layers'], size, sizes['intermediate_size'], heads, rate
    )
    self.pooler = torch.nn.Linear(size, size)
    self.heads = torch.nn.Linear(size, num_tasks * _OUTPUTS)
    self.rate = rate
    for name, value in self.named_parameters():
      if name.endswith('bias'):
        torch.nn.init.zeros_(value)
      elif 'norm' not in name:
        torch.nn.init.normal_(value, 0, 0.02)

  def forward(self, batch):
    # A lookup's gradient would be a scatter into two rows.
    first, second = self.kind.weight.float()
    x = self.word(batch['ids']).float() + self.position(batch['positions'])
    x = x + first + batch['types'][:, None] * (second - first)
    x = F.dropout(self.norm(x), self.rate).to(self.word.weight.dtype)
    if 'segments' in batch:
      segments = batch['segments'].view(-1, 1, 1, worker.ROW_LENGTH)
      mask = torch.where(segments == segments.mT, 0.0, -torch.inf).to(x.dtype)
      batch = batch | {'mask': mask}
    x = self.layers(x, batch).float()
    x = x[batch['begins'][: len(batch['task'])]]
    pooled = F.dropout(torch.tanh(self.pooler(x)), self.rate)
    logits = self.heads(pooled).view(len(pooled), -1, _OUTPUTS)
    chosen = F.one_hot(batch['task'].long(), logits.shape[1])[..., None]
    return F.cross_entropy((logits * chosen).sum(1), batch['label'].long())


def lower(model: PackedBert) -> None:
  """Makes the weights of products and the large embeddings bfloat16."""
  for name, value in model.named_parameters():
    if 'norm' not in name and name.startswith(('word', 'position', 'layers')):
      value.data = value.data.to(_TYPE)


def make_batch(
  host: dict[str, np.ndarray], is_stream: bool
) -> dict[str, torch.Tensor]:
  """Lays out the examples of a packed batch; padding is sequences of its own.

  Examples are in the order of their tokens. `begins` has their first tokens,
  and then, of a stream, the ends of the padding's sequences.
  """
  segments = host['segment_ids']
  used = segments > 0 if is_stream else np.ones_like(segments, bool)
  ids, positions, types = (
    host[name][used] for name in ('input_ids', 'positions', 'token_type_ids')
  )
  real = segments[used] > 0
  begins = np.flatnonzero(real & (positions == 0))
  of_slot = np.arange(host['task_id'].shape[1]) < segments.max(1)[:, None]
  result = {
    'task': host['task_id'][of_slot],
    'label': host['gold'][of_slot].argmax(axis=1),
  }
  if is_stream:
    size = -(-(len(ids) + 1) // _MULTIPLE) * _MULTIPLE
    missing = size - len(ids)
    ids, positions, types = (
      np.pad(values, (0, missing)) for values in (ids, positions, types)
    )
    # One sequence: shorter than a row.
    begins = np.concatenate([begins, [size - missing, size]])
  else:
    result['segments'] = segments
  result |= {'ids': ids, 'positions': positions, 'types': types}
  return {
    name: torch.from_numpy(values.astype(np.int32))
    for name, values in (result | {'begins': begins}).items()
  }


def as_one(batch: dict[str, torch.Tensor]) -> torch.Tensor:
  """Joins the arrays of a batch, each padded, so that one copy moves them."""
  parts = [value.flatten() for value in batch.values()]
  return torch.cat([F.pad(x, (0, -len(x) % _ALIGN)) for x in parts])


def views(
  whole: torch.Tensor, batch: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
  """Returns the parts of a joined batch that has the shapes of another."""
  sizes = [value.numel() + -value.numel() % _ALIGN for value in batch.values()]
  return {
    name: part[: value.numel()].view_as(value)
    for (name, value), part in zip(batch.items(), whole.split(sizes))
  }


class AdamW:
  """AdamW on float32 copies of the parameters, compiled as one program."""

  def __init__(self, parameters: Sequence[torch.Tensor]):
    self._parameters = [p.detach() for p in parameters]
    self._wholes = [p.float().clone() for p in self._parameters]
    self._first, self._second = (
      [torch.zeros_like(p) for p in self._wholes] for _ in range(2)
    )
    self._count = torch.zeros((), device=_DEVICE)
    self._update = torch.compile(self._update_all, dynamic=False)

  @torch.no_grad()
  def step(self, gradients: Sequence[torch.Tensor]) -> None:
    norms = torch._foreach_norm(gradients, 2, dtype=torch.float32)
    norm = torch.linalg.vector_norm(torch.stack(norms))
    self._count.add_(1)
    self._update(list(gradients), _CLIP / norm.clamp(min=_CLIP), self._count)

  def _update_all(self, gradients, factor, count) -> None:
    b1, b2 = _BETAS
    for parameter, whole, first, second, gradient in zip(
      self._parameters, self._wholes, self._first, self._second, gradients
    ):
      gradient = gradient.float() * factor
      first.lerp_(gradient, 1 - b1)
      second.lerp_(gradient.square(), 1 - b2)
      root = (second / (1 - b2**count)).sqrt() + _EPS
      change = first / (1 - b1**count) / root + _DECAY * whole
      whole.sub_(_RATE * change)
      parameter.copy_(whole)


def time_steps(args, plan, host: list[dict[str, np.ndarray]]) -> None:
  """Compiles, captures a graph for each number of tokens, and times them."""
  model = PackedBert(
    args.size, plan.encoder.config.vocab_size, len(plan.tasks), 0.1
  ).to(_DEVICE)
  lower(model)
  parameters = list(model.parameters())
  optimizer = AdamW(parameters)
  forward = torch.compile(model)
  batches = [make_batch(each, args.mode == 'stream') for each in host]
  sizes = [len(batch['ids']) for batch in batches]
  wholes = [as_one(batch) for batch in batches]
  if _CUDA:
    wholes = [whole.pin_memory() for whole in wholes]
  # For each number of tokens; the first batch of it fills the buffer.
  buffers, inputs = {}, {}
  for size, whole, batch in zip(sizes, wholes, batches):
    if size not in buffers:
      buffers[size] = whole.to(_DEVICE, copy=True)
      inputs[size] = views(buffers[size], batch)

  def step(size: int) -> None:
    loss = forward(inputs[size])
    optimizer.step(torch.autograd.grad(loss, parameters))

  start = time.perf_counter()
  launch = {size: lambda size=size: step(size) for size in buffers}
  if _CUDA:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
      for size in 3 * list(buffers):
        step(size)
    pool = torch.cuda.graph_pool_handle()
    for size in buffers:
      graph = torch.cuda.CUDAGraph()
      with torch.cuda.graph(graph, pool=pool, stream=stream):
        step(size)
      launch[size] = graph.replay
  else:
    step(next(iter(buffers)))
  _wait()
  compile_seconds = time.perf_counter() - start
  worker.wait_for_turn()

  def run() -> None:
    for size, whole in zip(sizes, wholes):
      buffers[size].copy_(whole, non_blocking=True)
      launch[size]()

  ms = worker.milliseconds(run, _wait, args.steps)
  tokens = np.mean([np.sum(each['segment_ids'] > 0) for each in host])
  worker.report(
    ms=ms,
    examples_per_second=worker.BATCH_SIZE * 1e3 / ms,
    tokens_per_second=tokens * 1e3 / ms,
    compile_seconds=compile_seconds,
    peak_bytes=torch.cuda.max_memory_allocated() if _CUDA else 0,
  )


def _wait() -> None:
  if _CUDA:
    torch.cuda.synchronize()


def check(args, plan, host: dict[str, np.ndarray]) -> None:
  """Prints how far loss and gradients are from Hugging Face's."""
  sizes = families.presets()[args.size]
  vocab_size, num_tasks = plan.encoder.config.vocab_size, len(plan.tasks)
  theirs = step_torch.MultiTask(
    transformers.BertConfig(
      vocab_size=vocab_size,
      hidden_size=sizes['hidden_size'],
      num_hidden_layers=sizes['num_layers'],
      num_attention_heads=sizes['num_heads'],
      intermediate_size=sizes['intermediate_size'],
      attn_implementation='eager',
    ),
    num_tasks,
  ).to(_DEVICE)
  theirs.eval()
  model = PackedBert(args.size, vocab_size, num_tasks, 0.0).to(_DEVICE)
  pairs = _pairs(model, theirs)
  with torch.no_grad():
    for ours, parts in pairs:
      ours.copy_(torch.cat(parts).view_as(ours))
  stream = make_batch(host, is_stream=True)
  bounds = stream['begins'][: len(stream['task']) + 1].tolist()
  padded = {
    name: torch.nn.utils.rnn.pad_sequence(
      [stream[key][a:b].long() for a, b in itertools.pairwise(bounds)], True
    ).to(_DEVICE)
    for name, key in (('input_ids', 'ids'), ('token_type_ids', 'types'))
  }
  padded['attention_mask'] = (padded['input_ids'] > 0).long()
  labels = {k: stream[k].long().to(_DEVICE) for k in ('task', 'label')}
  wanted = theirs(**padded, **labels)
  wanted.backward()
  lower(model)
  for name in ('stream', 'rows') if _CUDA else ('rows',):
    batch = make_batch(host, name == 'stream')
    batch = {key: value.to(_DEVICE) for key, value in batch.items()}
    loss = model(batch)
    gradients = torch.autograd.grad(loss, [ours for ours, _ in pairs])
    errors = []
    for gradient, (_, parts) in zip(gradients, pairs):
      want = torch.cat([part.grad for part in parts]).view_as(gradient)
      norm = want.norm()
      # A key's bias has no gradient but rounding errors.
      if norm > 1e-4:
        errors.append(((gradient.float() - want).norm() / norm).item())
    print(
      f'{name}: loss {abs(loss.item() - wanted.item()):.1e} away; gradients'
      f' {max(errors):.1e} at most, {np.median(errors):.1e} in the median'
    )


def _pairs(model: PackedBert, theirs: step_torch.MultiTask):
  """Returns each parameter, and those of Hugging Face's that make it up."""
  known = dict(theirs.named_parameters())
  names = {
    'word': 'encoder.embeddings.word_embeddings',
    'position': 'encoder.embeddings.position_embeddings',
    'kind': 'encoder.embeddings.token_type_embeddings',
    'norm': 'encoder.embeddings.LayerNorm',
    'pooler': 'encoder.pooler.dense',
    'heads': 'heads',
    'qkv': 'attention.self.query attention.self.key attention.self.value',
    'out': 'attention.output.dense',
    'out_norm': 'attention.output.LayerNorm',
    'up': 'intermediate.dense',
    'down': 'output.dense',
    'down_norm': 'output.LayerNorm',
  }
  result = []
  for name, ours in model.named_parameters():
    is_layered = name.startswith('layers.')
    module, _, part = name.removeprefix('layers.').rpartition(
      '_' if is_layered else '.'
    )
    wheres = (
      ['']
      if not is_layered
      else [f'encoder.encoder.layer.{i}.' for i in range(len(ours))]
    )
    result.append(
      (
        ours,
        [
          known[f'{where}{each}.{part}']
          for where in wheres
          for each in names[module].split()
        ],
      )
    )
  return result


def main() -> None:
  args = worker.arguments(__doc__)
  config = step_jax.make_config(args.size, args.data, args.vocab)
  plan, host = step_jax.training_batches(config, args.workdir, args.steps)
  if args.mode == 'check':
    check(args, plan, host[0])
  else:
    time_steps(args, plan, host)


if __name__ == '__main__':
  main()
