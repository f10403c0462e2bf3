"""A killed plan goes on; the oracle is the same plan left undisturbed."""

import json
from pathlib import Path
import shutil
import signal
import subprocess
import time

import pytest

from tests.experiments import commands

# After its own two arguments, a run of the plan and a step of it, the process
# kills itself after that step, when the checkpoint of step 8 has been written
# in the background.
_KILLED_AFTER_STEP = """
import os, signal, sys, time
from bam_jax.training import loop, programs
name, last = sys.argv.pop(1), int(sys.argv.pop(1))
train, train_step = loop.train, programs.Programs.train_step
running = []
def watched_train(specs, *arguments):
  running.extend(specs)
  return train(specs, *arguments)
def watched_step(self, state, *arguments):
  step = int(state.step)
  result = train_step(self, state, *arguments)
  if running[-1].name == name and step == last:
    while not (running[-1].directory / 'checkpoints' / 'step_8').exists():
      time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
  return result
loop.train, programs.Programs.train_step = watched_train, watched_step
"""
# The same while a checkpoint is being written: the call has returned, the
# files follow in the background.
_KILLED_WHILE_SAVING = """
import os, signal, sys
from bam_jax.training import checkpoints
name, last = sys.argv.pop(1), int(sys.argv.pop(1))
save = checkpoints.Checkpoints.save
def watched_save(self, state, *arguments, **named):
  save(self, state, *arguments, **named)
  if name in str(self._directory) and int(state.step) == last:
    os.kill(os.getpid(), signal.SIGKILL)
checkpoints.Checkpoints.save = watched_save
"""
# Logits are written by other processes, and the first that starts is killed.
_WRITER_KILLED = """
import os, signal
from bam_jax.experiments import background, labelling
labelling._MIN_BACKGROUND_ROWS = 0
call = background.Background.call
def watched_call(self, *arguments):
  call(self, *arguments)
  (process,) = self._pool._processes.values()
  os.kill(process.pid, signal.SIGKILL)
background.Background.call = watched_call
"""


def _start(workdir: Path, *before: str) -> subprocess.Popen:
  return commands.start(workdir, workdir.parent, *before)


def _kill_when_there(process: subprocess.Popen, path: Path) -> None:
  while not path.exists():
    assert process.poll() is None, process.communicate()[1]
    time.sleep(0.001)
  process.kill()
  commands.dies(process)


def _saved_steps(workdir: Path, run: str) -> list[str]:
  return sorted(
    path.name for path in (workdir / 'runs' / run / 'checkpoints').iterdir()
  )


def test_a_plan_that_is_told_to_stop_saves_and_goes_on(undisturbed, tmp_path):
  """Told so while it trains, a run loses no step that it has taken."""
  workdir = tmp_path / 'work'
  shutil.copytree(undisturbed / 'compiled', workdir / 'compiled')
  process = _start(workdir)
  checkpoints = workdir / 'runs' / commands.TEACHER / 'checkpoints'
  while not (checkpoints / 'step_4').exists():
    assert process.poll() is None, process.communicate()[1]
    time.sleep(0.001)
  process.send_signal(signal.SIGTERM)
  stderr = commands.ends_with(process, 75)
  assert stderr.splitlines()[-1] == (
    'bam_jax: stopped by SIGTERM; run the same command again to continue'
  )
  lines = (workdir / 'runs' / commands.TEACHER / 'metrics.jsonl').read_text()
  last = json.loads(lines.splitlines()[-1])['step']
  assert _saved_steps(workdir, commands.TEACHER)[-1] == f'step_{last + 1}'

  commands.ends_with(_start(workdir), 0)
  commands.assert_same_outcome(workdir, undisturbed)


def test_a_plan_killed_thrice_ends_bit_equal(undisturbed, tmp_path):
  workdir = tmp_path / 'work'
  # What is compiled does not depend on the run; this saves the time.
  shutil.copytree(undisturbed / 'compiled', workdir / 'compiled')

  checkpoint = workdir / 'runs' / commands.TEACHER / 'checkpoints' / 'step_8'
  _kill_when_there(_start(workdir), checkpoint)
  assert not (workdir / 'runs' / commands.TEACHER / 'DONE').exists()

  commands.dies(_start(workdir, _KILLED_AFTER_STEP, commands.STUDENT, '10'))
  assert (workdir / 'runs' / commands.TEACHER / 'DONE').exists()
  assert not (workdir / 'runs' / commands.STUDENT / 'DONE').exists()
  # Steps 8 to 10 are done but not saved.
  assert _saved_steps(workdir, commands.STUDENT)[-1] == 'step_8'

  commands.dies(_start(workdir, _KILLED_WHILE_SAVING, commands.STUDENT, '16'))
  assert not (workdir / 'runs' / commands.STUDENT / 'DONE').exists()

  commands.ends_with(_start(workdir), 0)
  commands.assert_same_outcome(workdir, undisturbed)
  commands.assert_same_logs(workdir, undisturbed)


@pytest.mark.fault
def test_a_killed_writer_is_no_mistake(undisturbed, tmp_path):
  """Launchers repeat 75 and never 2; the repeated command ends the plan."""
  workdir = tmp_path / 'work'
  shutil.copytree(undisturbed / 'compiled', workdir / 'compiled')
  stderr = commands.ends_with(_start(workdir, _WRITER_KILLED), 75)
  assert stderr.splitlines()[-1] == (
    'bam_jax: a process that writes results was ended, perhaps for lack of'
    ' memory; run the same command again to continue'
  )
  commands.ends_with(_start(workdir), 0)
  commands.assert_same_outcome(workdir, undisturbed)
