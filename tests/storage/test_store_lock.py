"""One command at a time on a store; other holders are other processes."""

import json
import logging
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import time

import pytest

from bam_jax import errors
from bam_jax.runtime import preemption
from bam_jax.storage import store_lock
from bam_jax.storage import stores

_ROOT = Path(__file__).parents[2]
_HOLDER = """
import sys, time
from bam_jax.storage import store_lock, stores
from bam_jax.runtime import preemption
store_lock._HEARTBEAT = 0.1
with store_lock.StoreLock(stores.Store(sys.argv[1]), preemption.Signal()):
  print('held', flush=True)
  time.sleep(60)
"""


@pytest.fixture
def holder(s3):
  process = subprocess.Popen(
    [sys.executable, '-c', _HOLDER, s3],
    cwd=_ROOT,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == 'held\n'
  yield process
  process.kill()
  process.wait()
  process.stdout.close()


def _lock(url: str) -> store_lock.StoreLock:
  return store_lock.StoreLock(stores.Store(url), preemption.Signal())


def _read(url: str) -> dict:
  return json.loads(stores.Store(url).read(store_lock.FILE))


def _change(url: str, **values: object) -> None:
  """Changes what the lock says, as if it were another machine's."""
  data = json.dumps(_read(url) | values).encode()
  stores.Store(url).write(store_lock.FILE, data)


def test_a_second_command_is_refused_at_once(holder, s3):
  start = time.monotonic()
  with (
    pytest.raises(
      errors.UserError, match=rf'in use by process {holder.pid} on .* since 20'
    ),
    _lock(s3),
  ):
    pass
  assert time.monotonic() - start < 5
  before = _read(s3)['heartbeat']
  time.sleep(0.5)
  assert _read(s3)['heartbeat'] > before


def test_a_killed_holder_of_this_machine_is_followed(holder, s3, caplog):
  holder.send_signal(signal.SIGKILL)
  holder.wait()
  with _lock(s3):
    assert _read(s3)['pid'] == os.getpid()
  assert 'that process has ended: taken over' in caplog.text
  assert stores.Store(s3).read(store_lock.FILE) is None


def test_another_machine_is_followed_when_its_lock_is_stale(holder, s3, caplog):
  holder.kill()
  holder.wait()
  _change(s3, machine='another')
  with pytest.raises(errors.UserError, match='in use by'), _lock(s3):
    pass
  silent = store_lock.STALE + 1
  _change(s3, machine='another', heartbeat=time.time() - silent)
  with _lock(s3):
    pass
  assert f'in use by process {holder.pid} on ' in caplog.text
  assert re.search(r'heartbeat is \d+ s old, over 180 s', caplog.text)


def test_a_holder_that_was_taken_over_stops(s3, monkeypatch, caplog):
  monkeypatch.setattr(store_lock, '_HEARTBEAT', 0.1)
  preemption_signal = preemption.Signal()
  caplog.set_level(logging.WARNING)
  with (
    preemption_signal,
    pytest.raises(preemption.Preempted),
    store_lock.StoreLock(stores.Store(s3), preemption_signal) as lock,
    preemption_signal.defer_exit(),
  ):
    _change(s3, token='of another', holder='process 1 on elsewhere')
    with pytest.raises(errors.UserError, match='taken over by process 1 on'):
      lock.check()
    time.sleep(1)
  # It is left to its new holder.
  assert _read(s3)['token'] == 'of another'


def test_a_lock_that_is_no_lock_is_told(s3):
  stores.Store(s3).write(store_lock.FILE, b'mine')
  with pytest.raises(errors.UserError, match='LOCK: is damaged'), _lock(s3):
    pass
