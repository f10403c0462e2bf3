"""A plan on a disk that fills up, and on one that can't be written."""

import os
import shutil
import subprocess

import pytest

from bam_jax.training import checkpoint_scores
from tests.experiments import commands

pytestmark = [
  pytest.mark.fault,
  pytest.mark.skipif(os.geteuid() != 0, reason='mounts, as a superuser may'),
]

# Step 4 of the first run is saved when step 6 is done; then nothing has room.
_FILLED = """
import pathlib, time
from bam_jax.training import programs
train_step = programs.Programs.train_step
steps = []
def watched_step(self, *arguments):
  steps.append(None)
  if len(steps) == 7:
    while not list(pathlib.Path().glob('disk/work/runs/*/checkpoints/step_4')):
      time.sleep(0.01)
    try:
      with open('disk/filler', 'wb', buffering=0) as filler:
        while True:
          filler.write(bytes(4096))
    except OSError:
      pass
  return train_step(self, *arguments)
programs.Programs.train_step = watched_step
"""


@pytest.fixture
def disk(tmp_path):
  """A disk of 16 MB of its own."""
  disk = tmp_path / 'disk'
  disk.mkdir()
  _mount('-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', disk)
  yield disk
  subprocess.run(['umount', disk], check=True)


def _mount(*arguments: object) -> None:
  subprocess.run(['mount', *arguments], check=True)


def test_a_plan_on_a_full_disk_goes_on_when_there_is_room(undisturbed, disk):
  workdir = disk / 'work'
  process = commands.start(workdir, disk.parent, _FILLED)
  lines = commands.ends_with(process, 2).splitlines()
  assert 'a checkpoint could not be written' in lines[-1]
  assert 'No space left on device' in lines[-1]
  assert not [line for line in lines if 'Traceback' in line]
  saved = workdir / 'runs' / commands.TEACHER / 'checkpoints'
  assert checkpoint_scores.kept(saved) == [4]

  (disk / 'filler').unlink()
  commands.ends_with(commands.start(workdir, disk.parent), 0)
  commands.assert_same_outcome(workdir, undisturbed)


def test_a_disk_that_cannot_be_written_is_told(undisturbed, disk):
  workdir = disk / 'work'
  shutil.copytree(undisturbed, workdir)
  _mount('-o', 'remount,ro', disk)
  stderr = commands.ends_with(commands.start(workdir, disk.parent), 2)
  devices, line = stderr.splitlines()
  assert devices.startswith('devices: ')
  assert 'Read-only file system; choose a --workdir that can be' in line
