"""Times training steps on one GPU: this package's, and two BERTs in torch.

One packs its examples as the package does, the other is Hugging Face's.

  python -m benchmarks.train_step --size=bert-large --data=$GLUE_DIR \\
    --vocab=vocab.txt --output=benchmarks/train_step_bert-large.json

Needs torch and transformers beside the package. Every system is a process of
its own: those of one framework prepare and compile at the same time, and when
all are ready run one after another on an otherwise idle GPU. Batches are those
of the training mix of the nine GLUE tasks, 128 examples a step, BERT's dropout
rates, random weights, bfloat16 products, float32 parameters.

With --devices=2 the packed step is also spread over two GPUs: 128 examples on
each (weak scaling), with a copy of the parameters each or one that they share,
and 128 on both together (strong).

With --row_length=512 only the packed step is timed, on those batches and on
packed rows of 512 tokens: 32 generated texts a step, of 20 to 500 tokens. Their
real tokens a second show what long rows cost.
"""

import argparse
from collections.abc import Iterator, Mapping
import itertools
import json
from pathlib import Path
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from benchmarks import worker as worker_lib

_JAX, _TORCH = 'benchmarks.step_jax', 'benchmarks.step_torch'
_TORCH_PACKED = 'benchmarks.step_torch_packed'


class System(NamedTuple):
  """A system to time.

  Attributes:
    module: of the process.
    mode: of the module.
    devices: GPUs that it sees.
    row_length: tokens a row.
  """

  module: str
  mode: str
  devices: int = 1
  row_length: int = worker_lib.ROW_LENGTH


# By name in the table, those of a framework together.
SYSTEMS = {
  'rates': System(_JAX, 'rates'),
  'packed': System(_JAX, 'packed'),
  'packed, no attention dropout': System(_JAX, 'packed-no-attention-dropout'),
  'packed, 8 seeds at once': System(_JAX, 'seeds'),
  'padded to 128': System(_JAX, 'padded'),
  'torch, packed, one stream': System(_TORCH_PACKED, 'stream'),
  'torch, packed, rows': System(_TORCH_PACKED, 'rows'),
  'torch, compiled, padded to 128': System(_TORCH, 'padded'),
  'torch, compiled, padded to 128, no attention dropout': System(
    _TORCH, 'padded-no-attention-dropout'
  ),
  'torch, eager, padded to the longest': System(_TORCH, 'eager'),
  'torch, eager, batches of like length': System(_TORCH, 'like'),
  'torch, compiled, batches of like length': System(_TORCH, 'like-compiled'),
  'torch, CUDA graphs, padded to 128': System(_TORCH, 'graphs'),
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


def scaled(devices: int) -> dict[str, System]:
  """Returns systems that spread the packed step over several GPUs."""
  return {
    f'packed, weak, {devices} GPUs': System(_JAX, 'weak', devices),
    f'packed, weak, {devices} GPUs, parameters shared': System(
      _JAX, 'weak-sharded', devices
    ),
    f'packed, strong, {devices} GPUs': System(_JAX, 'strong', devices),
  }


def measure(
  systems: Mapping[str, System], arguments: list[str], patience: float
) -> Iterator[tuple[str, dict[str, float]]]:
  """Starts all systems of a framework, then times one after the other.

  Args:
    systems: by name.
    arguments: of every process but its mode.
    patience: seconds in which the systems of a framework have to be ready.

  Yields:
    Name and figures of each system; none of one that ended early or was not
    ready in time, which is told.
  """
  command = [sys.executable, '-m']
  # Written once, read by all.
  subprocess.run([*command, _JAX, '--mode=prepare', *arguments], check=True)
  for _, group in itertools.groupby(
    systems.items(), lambda item: item[1].module
  ):
    workers = []
    try:
      for name, system in group:
        call = [*command, system.module, f'--mode={system.mode}']
        call += [f'--row_length={system.row_length}', *arguments]
        environ = worker_lib.environ(system.devices)
        workers.append(worker_lib.Process(name, call, environ))
      yield from _take_turns(workers, patience)
    finally:
      for worker in workers:
        worker.end()


def _take_turns(
  workers: list[worker_lib.Process], patience: float
) -> Iterator[tuple[str, dict[str, float]]]:
  """Yields name and figures of each process that is ready in time."""
  deadline = time.monotonic() + patience
  ready = [
    worker for worker in workers if worker.figures(deadline - time.monotonic())
  ]
  for worker in workers:
    if worker not in ready:
      worker.end()  # and compiles no longer beside the others' timings
  for worker in ready:
    worker.go()
    if figures := worker.figures():
      yield worker.name, figures
    worker.end()


def table(results: dict[str, dict[str, float]]) -> str:
  """Returns the figures as a Markdown table."""
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
  parser.add_argument(
    '--devices', default=1, type=int, help='GPUs that a step is spread over'
  )
  parser.add_argument(
    '--row_length',
    type=int,
    default=worker_lib.ROW_LENGTH,
    help='tokens; another value times rows of it beside those of 128',
  )
  args = parser.parse_args()
  known = SYSTEMS if args.devices == 1 else scaled(args.devices) | SYSTEMS
  if args.row_length != worker_lib.ROW_LENGTH:
    known = {
      f'packed, rows of {length}': System(_JAX, 'packed', 1, length)
      for length in (worker_lib.ROW_LENGTH, args.row_length)
    }
  systems = {
    name: system
    for name, system in known.items()
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
      one_step = systems[name].devices == 1 and 'seeds' not in name
      if _FLOOR in results and 'device_ms' in figures and one_step:
        floor = results[_FLOOR]['floor_ms']
        figures['times_floor'] = figures['device_ms'] / floor
      results[name] = figures
      print(f'{name}: {json.dumps(figures)}', flush=True)
      args.output.write_text(json.dumps(results, indent=1) + '\n')
  print(table(results))


if __name__ == '__main__':
  main()
