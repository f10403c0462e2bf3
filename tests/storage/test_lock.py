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
with lock.lock_directory(pathlib.Path(sys.argv[1])):
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
    lock.lock_directory(tmp_path),
  ):
    pass
  assert time.monotonic() - start < 5


def test_a_killed_holder_leaves_no_lock(holder, tmp_path):
  holder.send_signal(signal.SIGKILL)
  holder.wait()
  assert (tmp_path / lock.FILE).read_text()  # what it wrote is still there
  with lock.lock_directory(tmp_path):
    assert str(os.getpid()) in (tmp_path / lock.FILE).read_text()


def test_free_again_after_use(tmp_path):
  for _ in range(2):
    with lock.lock_directory(tmp_path / 'new'):
      assert (tmp_path / 'new' / lock.FILE).read_text()
  assert not list((tmp_path / 'new').iterdir())


def test_a_directory_that_cannot_be_made_is_told(tmp_path):
  (tmp_path / 'file').touch()
  with (
    pytest.raises(errors.UserError, match='choose a --workdir'),
    lock.lock_directory(tmp_path / 'file'),
  ):
    pass


@pytest.fixture
def secret(tmp_path):
  """A file elsewhere, which must stay as it is."""
  path = tmp_path / 'elsewhere' / 'key'
  path.parent.mkdir()
  path.write_text('secret')
  yield path
  assert path.read_text() == 'secret'
  assert [entry.name for entry in path.parent.iterdir()] == ['key']


@pytest.mark.parametrize(
  'make',
  [os.symlink, os.link, lambda _, path: os.mkfifo(path)],
  ids=['link', 'hard-link', 'pipe'],
)
def test_a_lock_that_is_a_link_is_not_followed(tmp_path, secret, make):
  workdir = tmp_path / 'work'
  workdir.mkdir()
  make(secret, workdir / lock.FILE)
  with (
    pytest.raises(errors.UserError, match=r'LOCK:? is (a|not a) .*; (re|choo)'),
    lock.lock_directory(workdir),
  ):
    pass


@pytest.mark.parametrize('name', lock.FOLDERS)
@pytest.mark.parametrize('inside', ['', '/a', '/deep/a'])
def test_a_link_in_a_work_directory_is_refused(tmp_path, secret, name, inside):
  path = tmp_path / 'work' / f'{name}{inside}'
  path.parent.mkdir(parents=True)
  path.symlink_to(secret.parent if inside != '/a' else secret)
  with (
    pytest.raises(errors.UserError, match=f'{name}{inside}: is a link, and'),
    lock.lock_directory(tmp_path / 'work'),
  ):
    pass
  # And the directory is free again.
  path.unlink()
  with lock.lock_directory(tmp_path / 'work'):
    pass


def test_the_work_directory_itself_may_be_a_link(tmp_path):
  (tmp_path / 'disk' / 'runs').mkdir(parents=True)
  (tmp_path / 'work').symlink_to(tmp_path / 'disk')
  with lock.lock_directory(tmp_path / 'work'):
    assert (tmp_path / 'disk' / lock.FILE).exists()


def test_links_of_the_user_beside_those_folders_are_left_alone(
  tmp_path, secret
):
  (tmp_path / 'work').mkdir()
  (tmp_path / 'work' / 'data').symlink_to(secret.parent)
  with lock.lock_directory(tmp_path / 'work'):
    pass
