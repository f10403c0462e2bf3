"""A plan in an object store outlives its machines; the oracle is one left alone.

The store is moto's S3 server.
"""

import json
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import time

from bam_jax.experiments import mirror
from bam_jax.experiments import stores
from tests.experiments import commands

_ROOT = Path(__file__).parents[2]

# Looks at what is complete more often than a plan of seconds would need.
_OFTEN = """
from bam_jax.experiments import mirror
mirror.EVERY = 0.2
"""
# After a step of the student the process waits for the store to have an earlier
# checkpoint of it, and kills itself.
_KILLED_AFTER_STEP = (
  _OFTEN
  + """
import os, signal, sys, time
from bam_jax.experiments import stores
from bam_jax.training import loop, programs
url, student, last = sys.argv.pop(1), sys.argv.pop(1), int(sys.argv.pop(1))
train, train_step = loop.train, programs.Programs.train_step
running = []
def watched_train(jobs, *arguments):
  running.extend(jobs)
  return train(jobs, *arguments)
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


def test_a_plan_loses_nothing_with_its_machines(s3, undisturbed, tmp_path):
  scratch = tmp_path / 'first'
  shutil.copytree(undisturbed / 'compiled', scratch / 'compiled')
  process = commands.start(s3, tmp_path, _OFTEN, f'--scratch={scratch}')
  saved = f'runs/{commands.TEACHER}/checkpoints/step_4/_CHECKPOINT_METADATA'
  while not (scratch / saved).exists():
    assert process.poll() is None, process.communicate()[1]
    time.sleep(0.01)

  # Someone else gives the same command.
  begin = time.monotonic()
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
  assert time.monotonic() - begin < 5
  assert other.returncode == 2
  assert f'in use by process {process.pid} on ' in other.stderr
  assert len(other.stderr.splitlines()) == 1

  # The machine is wanted back: what is saved then is in the store.
  process.send_signal(signal.SIGTERM)
  commands.ends_with(process, 75)
  steps = sorted((scratch / saved).parent.parent.glob('step_*'))
  names = {str(path.relative_to(scratch) / 'params') for path in steps[-1:]}
  assert names <= {name.rpartition('/params/')[0] + '/params' for name in _named(s3)}
  assert 'LOCK' not in stores.Store(s3).names('')

  # Another machine goes on, and is lost without notice.
  shutil.rmtree(scratch)
  arguments = (s3, commands.STUDENT, '10')
  process = commands.start(
    s3,
    tmp_path,
    _KILLED_AFTER_STEP,
    *arguments,
    f'--scratch={tmp_path}/second',
  )
  commands.dies(process)
  assert (tmp_path / 'second' / 'runs' / commands.TEACHER / 'DONE').exists()
  shutil.rmtree(tmp_path / 'second')

  third = tmp_path / 'third'
  process = commands.start(s3, tmp_path, '', f'--scratch={third}')
  stderr = commands.ends_with(process, 0)
  assert 'that process has ended: taken over' in stderr
  assert '3 runs: 2 finished, 1 to train' in stderr
  commands.assert_same_outcome(third, undisturbed)
  # The store holds the files of that scratch, and old checkpoints no more.
  names = _named(s3).keys()
  assert 'report.html' in names
  left = {name for name in stores.Store(s3).names('runs')}
  assert left == {name for name in names if name.startswith('runs/')}
  assert not [name for name in left if '/step_8/' in name]
