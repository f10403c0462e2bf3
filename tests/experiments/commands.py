"""A tiny plan as a process of its own, and what must come of it."""

from collections.abc import Sequence
import json
import os
from pathlib import Path
import signal
import subprocess
import sys

_ROOT = Path(__file__).parents[2]

TEACHER = 'single-s0-demo_sentiment'
STUDENT = 'single_to_multi-s0'
RUNS = (TEACHER, 'single-s0-demo_similarity', STUDENT)

# Python that runs the command line with every compiled program kept, which
# otherwise pays for long ones alone.
MAIN = """
import jax
from bam_jax import main
from bam_jax.training import setup
configure_jax = setup.configure_jax
def keep_all(*arguments):
  configure_jax(*arguments)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
setup.configure_jax = keep_all
main.run_process()
"""

# After its own three arguments, a run of the plan, a step of it and a signal,
# the process gets that signal after that step, when the checkpoint of a
# multiple of four before it has been written in the background.
SIGNAL_AFTER_STEP = """
import os, signal, sys, time
from bam_jax.training import loop, programs
name, last, number = (sys.argv.pop(1) for _ in range(3))
train, train_step = loop.train, programs.Programs.train_step
running = []
def watched_train(specs, *arguments):
  running.extend(specs)
  return train(specs, *arguments)
def watched_step(self, state, *arguments):
  step = int(state.step)
  result = train_step(self, state, *arguments)
  if running[-1].name == name and step == int(last):
    saved = running[-1].directory / 'checkpoints' / f'step_{step // 4 * 4}'
    while not saved.exists():
      time.sleep(0.01)
    os.kill(os.getpid(), getattr(signal, number))
  return result
loop.train, programs.Programs.train_step = watched_train, watched_step
"""


def start(
  workdir: Path | str,
  cwd: Path,
  before: str = '',
  *arguments: str,
  flags: Sequence[str] = (),
) -> subprocess.Popen:
  """Starts the plan; `before` is Python run first, with the arguments.

  `flags` change the plan.
  """
  return subprocess.Popen(
    [
      sys.executable,
      '-c',
      before + MAIN,
      *arguments,
      f'--config={_ROOT}/tests/configs/tiny.py',
      f'--workdir={workdir}',
      "--config.variants=('single_to_multi',)",
      *flags,
    ],
    cwd=cwd,
    env=os.environ | {'PYTHONPATH': str(_ROOT)},
    stderr=subprocess.PIPE,
    text=True,
  )


def ends_with(process: subprocess.Popen, code: int) -> str:
  """Waits for the end; returns what went to standard error."""
  _, stderr = process.communicate(timeout=300)
  assert process.returncode == code, stderr
  return stderr


def dies(process: subprocess.Popen) -> None:
  ends_with(process, -signal.SIGKILL)


def _metrics(workdir: Path, run: str) -> list[dict]:
  """The lines of a run's log but for what the clock says."""
  lines = (workdir / 'runs' / run / 'metrics.jsonl').read_text().splitlines()
  clock = ('time', 'examples_per_second', 'waiting_for_batch')
  return [
    {key: value for key, value in json.loads(line).items() if key not in clock}
    for line in lines
  ]


def assert_same_outcome(workdir: Path, undisturbed: Path) -> None:
  """Parameters, scores and report are those of another work directory."""
  for run in RUNS:
    ours, theirs = (
      json.loads((directory / 'runs' / run / 'DONE').read_text())
      for directory in (workdir, undisturbed)
    )
    for key in ('steps', 'best_step', 'parameters', 'scores'):
      assert ours[key] == theirs[key], f'{run}: {key}'
  ours, theirs = (
    json.loads((directory / 'report.json').read_text())
    for directory in (workdir, undisturbed)
  )
  for key in ('variants', 'per_seed'):
    assert ours[key] == theirs[key]


def assert_same_logs(
  workdir: Path, undisturbed: Path, runs: Sequence[str] = RUNS
) -> None:
  """As when no notice came, which writes what has not filled a line yet."""
  for run in runs:
    assert _metrics(workdir, run) == _metrics(undisturbed, run)
