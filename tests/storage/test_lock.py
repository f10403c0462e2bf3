"""One command at a time in a work directory; the kernel is the judge."""

import os
import signal
import subprocess
import sys
import time

import pytest

from bam_jax import errors
from bam_jax.storage import lock

_HOLDER = """
import pathlib, sys, time
from bam_jax.storage import lock
with lock.Lock(pathlib.Path(sys.argv[1])):
  print('held', flush=True)
  time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
  """Another process that holds the directory."""
  process = subprocess.Popen(
    [sys.executable, '-c', _HOLDER, str(tmp_path)],
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == 'held\n'
  yield process
  process.kill()
  process.wait()
  process.stdout.close()


def test_a_second_command_is_refused_at_once(holder, tmp_path):
  start = time.monotonic()
  with (
    pytest.raises(
      errors.UserError, match=rf'in use by process {holder.pid} on .* since 20'
    ),
    lock.Lock(tmp_path),
  ):
    pass
  assert time.monotonic() - start < 5


def test_a_killed_holder_leaves_no_lock(holder, tmp_path):
  holder.send_signal(signal.SIGKILL)
  holder.wait()
  assert (tmp_path / lock.FILE).read_text()  # what it wrote is still there
  with lock.Lock(tmp_path):
    assert str(os.getpid()) in (tmp_path / lock.FILE).read_text()


def test_free_again_after_use(tmp_path):
  for _ in range(2):
    with lock.Lock(tmp_path / 'new'):
      assert (tmp_path / 'new' / lock.FILE).read_text()
  assert not list((tmp_path / 'new').iterdir())


def test_a_directory_that_cannot_be_made_is_told(tmp_path):
  (tmp_path / 'file').touch()
  with (
    pytest.raises(errors.UserError, match='choose a --workdir'),
    lock.Lock(tmp_path / 'file'),
  ):
    pass
