"""Times training steps on one GPU: this package's, and Hugging Face's in torch.

  python -m benchmarks.train_step --size=bert-large --data=$GLUE_DIR \\
    --vocab=vocab.txt --output=benchmarks/train_step_bert-large.json

Needs torch and transformers beside the package. Every system is a process of
its own: they prepare and compile at the same time, and when all are ready run
one after another on an otherwise idle GPU. Batches are those of the training
mix of the nine GLUE tasks, 128 examples a step, BERT's dropout rates, random
weights, bfloat16 products, float32 parameters.
"""

import argparse
from collections.abc import Iterator
from collections.abc import Mapping
import json
import os
from pathlib import Path
import queue
import subprocess
import sys
import tempfile
import threading
import time

_JAX, _TORCH = 'benchmarks.step_jax', 'benchmarks.step_torch'

# Name in the table -> module and its mode.
SYSTEMS = {
  'rates': (_JAX, 'rates'),
  'packed': (_JAX, 'packed'),
  'packed, no attention dropout': (_JAX, 'packed-no-attention-dropout'),
  'packed, 8 seeds at once': (_JAX, 'seeds'),
  'padded to 128': (_JAX, 'padded'),
  'torch, compiled, padded to 128': (_TORCH, 'padded'),
  'torch, compiled, padded to 128, no attention dropout': (
    _TORCH,
    'padded-no-attention-dropout',
  ),
  'torch, eager, padded to the longest': (_TORCH, 'eager'),
  'torch, eager, batches of like length': (_TORCH, 'like'),
  'torch, compiled, batches of like length': (_TORCH, 'like-compiled'),
  'torch, CUDA graphs, padded to 128': (_TORCH, 'graphs'),
}
_FLOOR = 'rates'

# Key of the results, head of the column, format.
_COLUMNS = (
  ('examples_per_second', 'examples/s', '{:,.0f}'),
  ('tokens_per_second', 'real tokens/s', '{:,.0f}'),
  ('ms', 'ms', '{:.2f}'),
  ('device_ms', 'device ms', '{:.2f}'),
  ('times_floor', 'times the floor', '{:.2f}'),
  ('compile_seconds', 'compiling, s', '{:.0f}'),
  ('peak_bytes', 'peak memory, bytes', '{:,.0f}'),
)


def measure(
  systems: dict[str, tuple[str, str]], arguments: list[str], patience: float
) -> Iterator[tuple[str, dict[str, float]]]:
  """Starts every system, waits until they are ready, and lets each run.

  Args:
    systems: part of `SYSTEMS`.
    arguments: of every process but its mode.
    patience: seconds in which a system has to be ready.

  Yields:
    Name and figures of each system; none of one that ended early or was not
    ready in time, which is told.
  """
  command = [sys.executable, '-m']
  # Written once, read by all.
  subprocess.run([*command, _JAX, '--mode=prepare', *arguments], check=True)
  # Several processes share the memory.
  environ = os.environ | {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
  workers = {}
  try:
    for name, (module, mode) in systems.items():
      call = [*command, module, f'--mode={mode}', *arguments]
      workers[name] = _Worker(name, call, environ)
    deadline = time.monotonic() + patience
    ready = [
      worker
      for worker in workers.values()
      if worker.figures(deadline - time.monotonic())
    ]
    for worker in workers.values():
      if worker not in ready:
        worker.end()  # and compiles no longer beside the others' timings
    for worker in ready:
      worker.go()
      if figures := worker.figures():
        yield worker.name, figures
      worker.end()
  finally:
    for worker in workers.values():
      worker.end()


class _Worker:
  """A process of `worker.py`, its lines read as they come."""

  def __init__(self, name: str, call: list[str], environ: Mapping[str, str]):
    self.name = name
    self._process = subprocess.Popen(
      call,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env=environ,
    )
    self._lines = queue.SimpleQueue()
    threading.Thread(target=self._read, daemon=True).start()

  def _read(self) -> None:
    for line in self._process.stdout:
      self._lines.put(line)
    self._lines.put(None)

  def figures(self, timeout: float | None = None) -> dict[str, float] | None:
    """The next line of figures; other lines are passed on, an end is told."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
      left = None if deadline is None else max(deadline - time.monotonic(), 0)
      try:
        line = self._lines.get(timeout=left)
      except queue.Empty:
        print(f'{self.name}: not ready in time', flush=True)
        return None
      if line is None:
        print(f'{self.name}: ended with {self._process.wait()}', flush=True)
        return None
      if line.startswith('{'):
        return json.loads(line)
      print(f'{self.name}: {line}', end='', flush=True)

  def go(self) -> None:
    """Tells the process that it is its turn."""
    self._process.stdin.write('go\n')
    self._process.stdin.flush()

  def end(self) -> None:
    self._process.kill()
    self._process.wait()


def table(results: dict[str, dict[str, float]]) -> str:
  """The figures as a Markdown table."""
  lines = [
    '| | ' + ' | '.join(head for _, head, _ in _COLUMNS) + ' |',
    '|---|' + '--:|' * len(_COLUMNS),
  ]
  for name, figures in results.items():
    if name != _FLOOR:
      cells = [
        form.format(figures[key]) if key in figures else ''
        for key, _, form in _COLUMNS
      ]
      lines.append(f'| {name} | ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--size', required=True, help='bert-large or minilm-l6')
  parser.add_argument('--data', required=True, help='GLUE as TSV files')
  parser.add_argument('--vocab', required=True, help="BERT's vocab.txt")
  parser.add_argument('--output', required=True, type=Path)
  parser.add_argument('--steps', default=40, type=int, help='batches timed')
  parser.add_argument(
    '--without', nargs='*', default=[], help='words in names to leave out'
  )
  parser.add_argument(
    '--patience', default=300, type=float, help='seconds to be ready in'
  )
  args = parser.parse_args()
  systems = {
    name: system
    for name, system in SYSTEMS.items()
    if not any(word in name for word in args.without)
  }
  results = {}
  with tempfile.TemporaryDirectory() as workdir:
    arguments = [
      f'--size={args.size}',
      f'--data={args.data}',
      f'--vocab={args.vocab}',
      f'--steps={args.steps}',
      f'--workdir={workdir}',
    ]
    for name, figures in measure(systems, arguments, args.patience):
      # Of one packed step's work: padding has no part in a floor.
      if _FLOOR in results and 'device_ms' in figures and 'seeds' not in name:
        floor = results[_FLOOR]['floor_ms']
        figures['times_floor'] = figures['device_ms'] / floor
      results[name] = figures
      print(f'{name}: {json.dumps(figures)}', flush=True)
      args.output.write_text(json.dumps(results, indent=1) + '\n')
  print(table(results))


if __name__ == '__main__':
  main()
