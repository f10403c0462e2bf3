"""A killed plan goes on; the oracle is the same plan left undisturbed."""

import json
from pathlib import Path
import shutil
import subprocess

import pytest

from tests.experiments import commands

# A signal while a checkpoint is being written: the call has returned, the
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


def _last_saved(workdir: Path, run: str) -> int:
  checkpoints = workdir / 'runs' / run / 'checkpoints'
  return max(
    int(path.name.removeprefix('step_')) for path in checkpoints.iterdir()
  )


@pytest.mark.fault
def test_a_plan_stopped_and_killed_thrice_ends_bit_equal(undisturbed, tmp_path):
  workdir = tmp_path / 'work'
  # What is compiled does not depend on the run; this saves the time.
  shutil.copytree(undisturbed / 'compiled', workdir / 'compiled')

  # Told so while it trains, a run loses no step that it has taken.
  stopped = (commands.SIGNAL_AFTER_STEP, commands.TEACHER, '6', 'SIGTERM')
  stderr = commands.ends_with(_start(workdir, *stopped), 75)
  assert stderr.splitlines()[-1] == (
    'bam_jax: stopped by SIGTERM; run the same command again to continue'
  )
  lines = (workdir / 'runs' / commands.TEACHER / 'metrics.jsonl').read_text()
  last = json.loads(lines.splitlines()[-1])['step']
  assert last >= 6
  assert _last_saved(workdir, commands.TEACHER) == last + 1

  killed = (commands.SIGNAL_AFTER_STEP, commands.TEACHER, '14', 'SIGKILL')
  commands.dies(_start(workdir, *killed))
  assert _last_saved(workdir, commands.TEACHER) == 12
  assert not (workdir / 'runs' / commands.TEACHER / 'DONE').exists()

  killed = (commands.SIGNAL_AFTER_STEP, commands.STUDENT, '10', 'SIGKILL')
  commands.dies(_start(workdir, *killed))
  assert (workdir / 'runs' / commands.TEACHER / 'DONE').exists()
  assert not (workdir / 'runs' / commands.STUDENT / 'DONE').exists()
  # Steps 8 to 10 are done but not saved.
  assert _last_saved(workdir, commands.STUDENT) == 8

  commands.dies(_start(workdir, _KILLED_WHILE_SAVING, commands.STUDENT, '16'))
  assert not (workdir / 'runs' / commands.STUDENT / 'DONE').exists()

  commands.ends_with(_start(workdir), 0)
  commands.assert_same_outcome(workdir, undisturbed)
  # The stop wrote the log line of the teacher early.
  commands.assert_same_logs(workdir, undisturbed, commands.RUNS[1:])


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
