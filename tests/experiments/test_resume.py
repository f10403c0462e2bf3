"""A killed plan goes on; the oracle is the same plan left undisturbed."""

import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import time

import pytest

_ROOT = Path(__file__).parents[2]
_TEACHER = 'single-s0-demo_sentiment'
_STUDENT = 'single_to_multi-s0'
_RUNS = (_TEACHER, 'single-s0-demo_similarity', _STUDENT)

# Runs the command line after its own two arguments: a run of the plan, and a
# step of it after which the process kills itself, when the checkpoint of step 8
# has been written in the background.
_KILLED_AFTER_STEP = """
import os, signal, sys, time
from bam_jax import main
from bam_jax.training import loop, programs
name, last = sys.argv.pop(1), int(sys.argv.pop(1))
train, train_step = loop.train, programs.Programs.train_step
running = []
def watched_train(jobs, *arguments):
  running.extend(jobs)
  return train(jobs, *arguments)
def watched_step(self, state, *arguments):
  step = int(state.step)
  result = train_step(self, state, *arguments)
  if running[-1].name == name and step == last:
    while not (running[-1].directory / 'checkpoints' / 'step_8').exists():
      time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
  return result
loop.train, programs.Programs.train_step = watched_train, watched_step
main.run_main()
"""
# The same while a checkpoint is being written: the call has returned, the
# files follow in the background.
_KILLED_WHILE_SAVING = """
import os, signal, sys
from bam_jax import main
from bam_jax.training import checkpoints
name, last = sys.argv.pop(1), int(sys.argv.pop(1))
save = checkpoints.Checkpoints.save
def watched_save(self, state, *arguments, **named):
  save(self, state, *arguments, **named)
  if name in str(self._directory) and int(state.step) == last:
    os.kill(os.getpid(), signal.SIGKILL)
checkpoints.Checkpoints.save = watched_save
main.run_main()
"""


def _start(workdir: Path, *before: str) -> subprocess.Popen:
  environment = os.environ | {
    'JAX_PLATFORMS': 'cpu',
    'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
    'PYTHONPATH': str(_ROOT),
  }
  environment.pop('XLA_FLAGS', None)
  return subprocess.Popen(
    [
      sys.executable,
      *(before or ('-m', 'bam_jax.main')),
      f'--config={_ROOT}/tests/configs/tiny.py',
      f'--workdir={workdir}',
      "--config.variants=('single_to_multi',)",
    ],
    cwd=workdir.parent,
    env=environment,
    stderr=subprocess.PIPE,
    text=True,
  )


def _finish(process: subprocess.Popen) -> None:
  _, stderr = process.communicate(timeout=300)
  assert process.returncode == 0, stderr


def _dies(process: subprocess.Popen) -> None:
  _, stderr = process.communicate(timeout=300)
  assert process.returncode == -signal.SIGKILL, stderr


def _kill_when_there(process: subprocess.Popen, path: Path) -> None:
  while not path.exists():
    assert process.poll() is None, process.communicate()[1]
    time.sleep(0.001)
  process.kill()
  _dies(process)


def _saved_steps(workdir: Path, run: str) -> list[str]:
  return sorted(
    path.name for path in (workdir / 'runs' / run / 'checkpoints').iterdir()
  )


def _metrics(workdir: Path, run: str) -> list[dict]:
  """The lines of a run's log but for what the clock says."""
  lines = (workdir / 'runs' / run / 'metrics.jsonl').read_text().splitlines()
  clock = ('time', 'examples_per_second', 'waiting_for_batch')
  return [
    {key: value for key, value in json.loads(line).items() if key not in clock}
    for line in lines
  ]


def _assert_same_outcome(workdir: Path, undisturbed: Path) -> None:
  for run in _RUNS:
    ours, theirs = (
      json.loads((directory / 'runs' / run / 'DONE').read_text())
      for directory in (workdir, undisturbed)
    )
    for key in ('steps', 'best_step', 'parameters', 'scores'):
      assert ours[key] == theirs[key], f'{run}: {key}'


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory) -> Path:
  workdir = tmp_path_factory.mktemp('undisturbed') / 'work'
  _finish(_start(workdir))
  return workdir


def test_a_plan_that_is_told_to_stop_saves_and_goes_on(undisturbed, tmp_path):
  """Told so while it trains, a run loses no step that it has taken."""
  workdir = tmp_path / 'work'
  shutil.copytree(undisturbed / 'compiled', workdir / 'compiled')
  process = _start(workdir)
  checkpoints = workdir / 'runs' / _TEACHER / 'checkpoints'
  while not (checkpoints / 'step_4').exists():
    assert process.poll() is None, process.communicate()[1]
    time.sleep(0.001)
  process.send_signal(signal.SIGTERM)
  _, stderr = process.communicate(timeout=300)
  assert process.returncode == 75, stderr
  assert stderr.splitlines()[-1] == (
    'bam_jax: stopped by SIGTERM; the same command goes on'
  )
  lines = (workdir / 'runs' / _TEACHER / 'metrics.jsonl').read_text()
  last = json.loads(lines.splitlines()[-1])['step']
  assert _saved_steps(workdir, _TEACHER)[-1] == f'step_{last + 1}'

  _finish(_start(workdir))
  _assert_same_outcome(workdir, undisturbed)


def test_a_plan_killed_thrice_ends_bit_equal(undisturbed, tmp_path):
  workdir = tmp_path / 'work'
  # What is compiled does not depend on the run; this saves the time.
  shutil.copytree(undisturbed / 'compiled', workdir / 'compiled')

  checkpoint = workdir / 'runs' / _TEACHER / 'checkpoints' / 'step_8'
  _kill_when_there(_start(workdir), checkpoint)
  assert not (workdir / 'runs' / _TEACHER / 'DONE').exists()

  _dies(_start(workdir, '-c', _KILLED_AFTER_STEP, _STUDENT, '10'))
  assert (workdir / 'runs' / _TEACHER / 'DONE').exists()
  assert not (workdir / 'runs' / _STUDENT / 'DONE').exists()
  # Steps 8 to 10 are done but not saved.
  assert _saved_steps(workdir, _STUDENT)[-1] == 'step_8'

  _dies(_start(workdir, '-c', _KILLED_WHILE_SAVING, _STUDENT, '16'))
  assert not (workdir / 'runs' / _STUDENT / 'DONE').exists()

  _finish(_start(workdir))
  _assert_same_outcome(workdir, undisturbed)
  for run in _RUNS:
    assert _metrics(workdir, run) == _metrics(undisturbed, run)
  ours, theirs = (
    json.loads((directory / 'report.json').read_text())
    for directory in (workdir, undisturbed)
  )
  assert ours['variants'] == theirs['variants']
  assert ours['per_seed'] == theirs['per_seed']
