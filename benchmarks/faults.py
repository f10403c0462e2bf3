"""Kills a plan at random moments and finishes it; it must end bit-equal.

  python -m benchmarks.faults --config=configs/demo.py --kills=20

The plan is run once undisturbed. Then, for each kill, it is begun anew, gets
SIGKILL at a moment drawn evenly over the time that it takes, and is finished by
the same command. Parameters, scores, outputs, teachers' logits, logs but for
their clock, and the report's numbers must be those of the undisturbed plan.
"""

import argparse
from collections.abc import Iterator, Sequence
import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np

_ROOT = Path(__file__).parents[1]
# Of a run's log and record: what the clock says.
_CLOCK = ('time', 'seconds', 'examples_per_second', 'waiting_for_batch')


class Kill(NamedTuple):
  """What a kill met, and what came of it.

  Attributes:
    seconds: after the start.
    finished: runs that were finished when it came.
    begun: the run that was begun last, if any is unfinished.
    step: the latest checkpoint of that run.
    differences: files that differ in the end; none, if all is well.
  """

  seconds: float
  finished: int
  begun: str
  step: int | None
  differences: tuple[str, ...]


def kill_and_finish(
  command: Sequence[str], kills: int, seed: int, directory: Path
) -> Iterator[Kill]:
  """Runs a plan undisturbed, then once for each kill.

  Args:
    command: of the plan, without its work directory.
    kills: how many.
    seed: of the moments.
    directory: for the work directories.
  """
  undisturbed = directory / 'undisturbed'
  _finish(_start(command, undisturbed))
  # Once more, with everything compiled, for how long a plan takes then.
  again = fresh(undisturbed, directory / 'again')
  start = time.monotonic()
  _finish(_start(command, again))
  takes = time.monotonic() - start
  if found := differences(again, undisturbed):
    raise ValueError(f'two undisturbed plans differ: {found}')
  for moment in np.random.default_rng(seed).uniform(0, takes, kills):
    workdir = fresh(undisturbed, directory / 'killed')
    process = _start(command, workdir)
    try:
      process.wait(timeout=moment)
    except subprocess.TimeoutExpired:
      process.send_signal(signal.SIGKILL)
      process.wait()
    met = state(workdir)
    _finish(_start(command, workdir))
    yield Kill(float(moment), *met, differences(workdir, undisturbed))


def fresh(undisturbed: Path, workdir: Path) -> Path:
  """A work directory with nothing but the compiled programs."""
  shutil.rmtree(workdir, ignore_errors=True)
  if (undisturbed / 'compiled').is_dir():
    shutil.copytree(undisturbed / 'compiled', workdir / 'compiled')
  return workdir


def _start(command: Sequence[str], workdir: Path) -> subprocess.Popen:
  workdir.mkdir(parents=True, exist_ok=True)
  with (workdir / 'log').open('a') as log:
    return subprocess.Popen(
      [*command, f'--workdir={workdir}'],
      cwd=_ROOT,
      env=os.environ | {'PYTHONPATH': str(_ROOT)},
      stdout=log,
      stderr=log,
    )


def _finish(process: subprocess.Popen) -> None:
  if process.wait() != 0:
    raise RuntimeError(f'{process.args}: ended with {process.returncode}')


def state(workdir: Path) -> tuple[int, str, int | None]:
  """How far a plan has come: of `Kill`, what it met."""
  runs = workdir.glob('runs/*/config.json')
  left = [path.parent for path in runs if not (path.parent / 'DONE').exists()]
  begun = [path for path in left if (path / 'checkpoints').is_dir()]
  name, step = '', None
  if begun:
    run = max(begun, key=lambda path: (path / 'checkpoints').stat().st_mtime)
    name = run.name
    saved = [path.name for path in (run / 'checkpoints').glob('step_*')]
    numbers = [s.removeprefix('step_') for s in saved]
    step = max((int(n) for n in numbers if n.isdecimal()), default=None)
  return len(list(workdir.glob('runs/*/DONE'))), name, step


def differences(workdir: Path, expected: Path) -> tuple[str, ...]:
  """The files in which two finished work directories differ."""
  found = []
  patterns = (
    'features/**/*',
    'teachers/**/*',
    'runs/*/DONE',
    'runs/*/config.json',
    'runs/*/metrics.jsonl',
    'runs/*/outputs.npz',
    'report.json',
    'scores.csv',
  )
  for pattern in patterns:
    names = {
      str(path.relative_to(root))
      for root in (workdir, expected)
      for path in root.glob(pattern)
      if path.is_file()
    }
    found += [
      name
      for name in sorted(names)
      if _content(workdir / name) != _content(expected / name)
    ]
  return tuple(found)


def _content(path: Path) -> object:
  """What is compared of a file; None if it isn't there."""
  if not path.exists():
    return None
  if path.suffix == '.npz':
    with np.load(path) as arrays:
      return {name: arrays[name].tobytes() for name in arrays}
  if path.name == 'DONE':
    return _without_clock(path.read_text())
  if path.name == 'metrics.jsonl':
    return [_without_clock(line) for line in path.read_text().splitlines()]
  if path.name == 'report.json':
    report = json.loads(path.read_text())
    return {key: report[key] for key in report if key != 'notes'}
  return path.read_bytes()


def _without_clock(text: str) -> dict[str, object]:
  # How many programs were traced depends on which others the process has, and
  # on its threads; the digest of a record is over all of it.
  left_out = (*_CLOCK, 'compilations', 'digest')
  return {k: v for k, v in json.loads(text).items() if k not in left_out}


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--config', required=True)
  parser.add_argument('--kills', type=int, default=20)
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  command = [sys.executable, '-m', 'bam_jax.main', f'--config={args.config}']
  print('| killed after, s | runs finished | in run | last checkpoint | ends |')
  print('|--:|--:|---|--:|---|')
  failed = 0
  with tempfile.TemporaryDirectory() as directory:
    for kill in kill_and_finish(
      command, args.kills, args.seed, Path(directory)
    ):
      failed += bool(kill.differences)
      end = ', '.join(kill.differences) or 'bit-equal'
      print(
        f'| {kill.seconds:.1f} | {kill.finished} | {kill.begun or "-"} |'
        f' {"-" if kill.step is None else kill.step} | {end} |',
        flush=True,
      )
  sys.exit(failed > 0)


if __name__ == '__main__':
  main()
