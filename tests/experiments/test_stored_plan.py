"""A plan in a store outlives its machines; the oracle is one left alone.

The store is moto's S3 server.
"""

import json
from pathlib import Path
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import s3fs

from bam_jax.storage import mirror
from bam_jax.storage import stores
from tests.experiments import commands
from tests.storage import object_server

_ROOT = Path(__file__).parents[2]

# Looks at what is complete more often than a plan of seconds would need.
_OFTEN = """
from bam_jax.storage import mirror
mirror.EVERY = 0.2
"""
# After a step of the student the process waits for the store to have an earlier
# checkpoint of it, and kills itself.
_KILLED_AFTER_STEP = (
  _OFTEN
  + """
import os, signal, sys, time
from bam_jax.storage import stores
from bam_jax.training import loop, programs
url, student, last = sys.argv.pop(1), sys.argv.pop(1), int(sys.argv.pop(1))
train, train_step = loop.train, programs.Programs.train_step
running = []
def watched_train(specs, *arguments):
  running.extend(specs)
  return train(specs, *arguments)
def watched_step(self, state, *arguments):
  step = int(state.step)
  result = train_step(self, state, *arguments)
  if running[-1].name == student and step == last:
    mark = f'{student}/checkpoints/step_8/_CHECKPOINT_METADATA'
    while mark not in stores.Store(url).read(mirror.INDEX).decode():
      time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGKILL)
  return result
loop.train, programs.Programs.train_step = watched_train, watched_step
"""
)


def _named(url: str) -> dict[str, list]:
  """What the store's index names, each of it there."""
  store = stores.Store(url)
  index = json.loads(store.read(mirror.INDEX) or '{"files": {}}')['files']
  assert index.keys() <= set(store.names(''))
  return index


def _start(
  url: str, scratch: Path, before: str = '', *arguments: str
) -> subprocess.Popen:
  return commands.start(
    url, scratch.parent, before, *arguments, f'--scratch={scratch}'
  )


def _wait_for(path: Path, process: subprocess.Popen) -> None:
  while not path.exists():
    assert process.poll() is None, process.communicate()[1]
    time.sleep(0.01)


@pytest.mark.fault
def test_a_plan_is_finished_by_another_machine(s3, undisturbed, tmp_path):
  first, second = tmp_path / 'first', tmp_path / 'second'
  process = _start(s3, first, _KILLED_AFTER_STEP, s3, commands.STUDENT, '10')
  _wait_for(first / 'runs' / commands.TEACHER / 'config.json', process)

  # Someone else gives the same command.
  other = subprocess.run(
    [
      sys.executable,
      '-m',
      'bam_jax.main',
      '--config=tests/configs/tiny.py',
      f'--workdir={s3}',
      f'--scratch={tmp_path}/other',
    ],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert other.returncode == 2
  (line,) = other.stderr.splitlines()
  assert f'in use by process {process.pid} on ' in line

  # The machine is lost without notice.
  commands.dies(process)
  assert (first / 'runs' / commands.TEACHER / 'DONE').exists()
  shutil.rmtree(first)

  stderr = commands.ends_with(_start(s3, second), 0)
  assert 'that process has ended: taken over' in stderr
  assert '3 runs: 2 finished, 1 to train' in stderr
  commands.assert_same_outcome(second, undisturbed)
  commands.assert_same_logs(second, undisturbed)
  # Nothing is left in the store but what that scratch has.
  assert 'report.html' in _named(s3)
  in_store = set(stores.Store(s3).names('runs'))
  assert in_store == {
    path.relative_to(second).as_posix()
    for path in second.glob('runs/**/*')
    if path.is_file()
  }


@pytest.mark.fault
def test_what_is_saved_at_a_notice_is_in_the_store(s3, undisturbed, tmp_path):
  first, second = tmp_path / 'first', tmp_path / 'second'
  process = _start(s3, first)
  checkpoints = first / 'runs' / commands.TEACHER / 'checkpoints'
  _wait_for(checkpoints / 'step_4', process)
  process.send_signal(signal.SIGTERM)
  commands.ends_with(process, 75)
  steps = [
    int(path.name.removeprefix('step_')) for path in checkpoints.iterdir()
  ]
  mark = f'step_{max(steps)}/_CHECKPOINT_METADATA'
  assert f'runs/{commands.TEACHER}/checkpoints/{mark}' in _named(s3)
  assert 'LOCK' not in stores.Store(s3).names('')
  shutil.rmtree(first)

  commands.ends_with(_start(s3, second), 0)
  commands.assert_same_outcome(second, undisturbed)


@pytest.mark.fault
def test_a_store_that_is_gone_costs_nothing_local(
  undisturbed, tmp_path, monkeypatch
):
  scratch = tmp_path / 'scratch'
  with object_server.ObjectServer() as server:
    for name, value in server.environment.items():
      monkeypatch.setenv(name, value)
    # What an earlier test opened leads to another server.
    s3fs.S3FileSystem.clear_instance_cache()
    process = _start('s3://bucket/gone', scratch, _OFTEN)
    _wait_for(scratch / 'runs' / commands.TEACHER / 'DONE', process)
    server.stop()
    lines = commands.ends_with(process, 75).splitlines()
    assert re.search('Could not connect .* has everything$', lines[-1]), lines
    assert not [line for line in lines if 'Traceback' in line]
    commands.assert_same_outcome(scratch, undisturbed)

    # A new store, and the same command: nothing is computed again.
    server.start()
    stderr = commands.ends_with(_start('s3://bucket/gone', scratch), 0)
    assert '3 runs: 3 finished, 0 to train' in stderr
    assert len(_named('s3://bucket/gone')) > 50
    s3fs.S3FileSystem.clear_instance_cache()
