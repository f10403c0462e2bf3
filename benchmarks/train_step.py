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
import json
import os
from pathlib import Path
import subprocess
import sys
import tempfile

_JAX, _TORCH = 'benchmarks.step_jax', 'benchmarks.step_torch'

# Name in the table -> module and its mode.
SYSTEMS = {
  'rates': (_JAX, 'rates'),
  'packed': (_JAX, 'packed'),
  'packed, no attention dropout': (_JAX, 'packed-no-attention-dropout'),
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
  systems: dict[str, tuple[str, str]], arguments: list[str]
) -> dict[str, dict[str, float]]:
  """Starts every system, waits until all are ready, and lets each run.

  Args:
    systems: part of `SYSTEMS`.
    arguments: of every process but its mode.

  Returns:
    The figures by system; none of one that ended early, which is told.
  """
  command = [sys.executable, '-m']
  # Written once, read by all.
  subprocess.run([*command, _JAX, '--mode=prepare', *arguments], check=True)
  # Several processes share the memory.
  environ = os.environ | {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
  processes = {
    name: subprocess.Popen(
      [*command, module, f'--mode={mode}', *arguments],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env=environ,
    )
    for name, (module, mode) in systems.items()
  }
  results = {}
  try:
    ready = [name for name in processes if _figures(name, processes[name])]
    for name in ready:
      processes[name].stdin.write('go\n')
      processes[name].stdin.flush()
      figures = _figures(name, processes[name])
      processes[name].wait()
      if figures:
        results[name] = figures
        print(f'{name}: {json.dumps(figures)}', flush=True)
  finally:
    for process in processes.values():
      process.kill()
  return results


def _figures(name: str, process: subprocess.Popen) -> dict[str, float] | None:
  """The next line of figures; other lines are passed on."""
  for line in process.stdout:
    if line.startswith('{'):
      return json.loads(line)
    print(f'{name}: {line}', end='', flush=True)
  print(f'{name}: ended with {process.wait()}', flush=True)
  return None


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
  args = parser.parse_args()
  systems = {
    name: system
    for name, system in SYSTEMS.items()
    if not any(word in name for word in args.without)
  }
  with tempfile.TemporaryDirectory() as workdir:
    results = measure(
      systems,
      [
        f'--size={args.size}',
        f'--data={args.data}',
        f'--vocab={args.vocab}',
        f'--steps={args.steps}',
        f'--workdir={workdir}',
      ],
    )
  if _FLOOR in results:
    for figures in results.values():
      # Of the packed step's work alone: padding has no part in a floor.
      if 'device_ms' in figures:
        floor = results[_FLOOR]['floor_ms']
        figures['times_floor'] = figures['device_ms'] / floor
  args.output.write_text(json.dumps(results, indent=1) + '\n')
  print(table(results))


if __name__ == '__main__':
  main()
