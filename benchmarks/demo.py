"""The demo on several sets of seeds, as it is and with broken distillation.

  python -m benchmarks.demo work/demos --first_seeds 0 1000 2000 3000

For each set of eight seeds the README's command is run and timed. Then more
models are trained beside its own: `longer` is Multi with twice the steps, and
two students lack working distillation: `gold` learns from gold labels alone (a
gold weight of 1), `shuffled` from the predictions that its teachers made on
other rows. Printed are median averages over seeds, as in the report, and time
and memory of the README's command.
"""

import argparse
import json
import os
from pathlib import Path
import subprocess
import sys
import time

import numpy as np

_ROOT = Path(__file__).parents[1]
_VARIANTS = 'single', 'multi', 'single_to_multi', 'longer', 'gold', 'shuffled'
_TRAIN = 'from benchmarks import demo; demo.train()'


def train() -> None:
  """Runs the command in `sys.argv`; students named `shuffled` are misled."""
  from bam_jax import main as bam_main
  from bam_jax.experiments import labelling

  read = labelling.TeacherLogits.read_probs

  def read_shuffled(self, run, task):
    probs = read(self, run, task)
    if run.variant == 'shuffled' and probs is not None:
      probs = np.random.default_rng(run.seed).permutation(probs)
    return probs

  labelling.TeacherLogits.read_probs = read_shuffled
  bam_main.run_main()


def measure(first_seed: int, workdir: Path) -> list[str]:
  """Returns the cells of a row of the table."""
  seeds = tuple(range(first_seed, first_seed + 8))
  flags = [f'--config.seeds={seeds}', f'--workdir={workdir}']
  start = time.monotonic()
  command = ['-m', 'bam_jax.main', '--config=configs/demo.py', *flags]
  process = subprocess.Popen([sys.executable, *command], cwd=_ROOT)
  _, status, usage = os.wait4(process.pid, 0)
  seconds = time.monotonic() - start
  if status:
    raise subprocess.CalledProcessError(status, command)
  print((workdir / 'report.md').read_text().splitlines()[2], flush=True)
  command = ['-c', _TRAIN, '--config=benchmarks/configs/demo.py', *flags]
  subprocess.run([sys.executable, *command], cwd=_ROOT, check=True)
  variants = json.loads((workdir / 'report.json').read_text())['variants']
  return [
    f'{seeds[0]} to {seeds[-1]}',
    *(f'{variants[name]["average"]:.1f}' for name in _VARIANTS),
    f'{seconds:.0f}',
    f'{usage.ru_utime + usage.ru_stime:.0f}',
    f'{usage.ru_maxrss / 2**20:.1f}',
  ]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('directory', type=Path, help='for the work directories')
  parser.add_argument('--first_seeds', type=int, nargs='+', default=[0])
  arguments = parser.parse_args()
  rows = [
    measure(seed, arguments.directory.absolute() / f's{seed}')
    for seed in arguments.first_seeds
  ]
  head = ['seeds', *_VARIANTS, 'seconds', 'CPU seconds', 'GiB']
  for cells in (head, ['--:'] * len(head), *rows):
    print(f'| {" | ".join(cells)} |')


if __name__ == '__main__':
  main()
