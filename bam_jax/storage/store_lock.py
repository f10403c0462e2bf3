"""Locks a work directory in an object store, by a regular heartbeat.

A store cannot release a lock when the process that holds it dies. So the holder
rewrites the lock object every 30 seconds (the heartbeat), and another process
may take the lock over after 180 seconds without a heartbeat.
"""

import contextlib
import datetime
import json
import logging
import os
from pathlib import Path
import secrets
import socket
import threading
import time
from typing import Self

from bam_jax import errors
from bam_jax import files
from bam_jax.runtime import preemption
from bam_jax.storage import stores

FILE = 'LOCK'
STALE = 180.0  # seconds without a heartbeat

_HEARTBEAT = 30.0  # seconds between two heartbeats
# Seconds to wait after a takeover, so that this process sees if another one has
# taken over at the same time.
_SETTLE = 2.0


class StoreLock:
  """Context manager that locks an object store for this process.

  Another process may take over if this one was suspended for minutes. Then
  `check` raises an error, and the next heartbeat triggers the preemption
  signal.
  """

  def __init__(self, store: stores.Store, preemption_signal: preemption.Signal):
    self._store = store
    self._preemption_signal = preemption_signal
    self._lost = False
    self._mine = {
      'token': secrets.token_hex(8),
      'holder': f'process {os.getpid()} on {socket.gethostname()}',
      'pid': os.getpid(),
      'machine': _identify_machine(),
      'since': time.time(),
    }
    self._before_exit = preemption_signal.before_exit(self._release)
    self._released = threading.Event()
    self._thread = threading.Thread(target=self._send_heartbeats, daemon=True)

  def __enter__(self) -> Self:
    """Takes the lock.

    Raises:
      errors.UserError: another process holds the lock, or the store cannot be
        used.
    """
    # If a preemption signal comes now, the lock is removed all the same.
    with contextlib.ExitStack() as stack:
      with self._preemption_signal.defer_exit():
        # Read first: some S3-compatible stores let `create` replace an object.
        there = self._read()
        if there or not self._store.create(FILE, self._content()):
          self._take_over(there or self._read() or {})
        self._thread.start()
        self._before_exit.__enter__()
        stack.push(self)
      stack.pop_all()
    return self

  def __exit__(self, *unused_exception: object) -> None:
    with self._preemption_signal.defer_exit(checks_at_end=False):
      self._before_exit.__exit__(None, None, None)
      self._release()

  def _release(self) -> None:
    self._released.set()
    self._thread.join()
    try:
      self.check()
      self._store.delete([FILE])
    except errors.UserError as e:
      logging.warning('the lock is not removed: %s', e)

  def check(self) -> None:
    """Checks that this process still holds the lock.

    Raises:
      errors.UserError: another process has taken over, or the store can't be
        reached.
    """
    there = self._read() or {}
    if there.get('token') != self._mine['token']:
      self._lost = True
      raise errors.UserError(
        f'{self._store.url}: taken over by {_describe(there)}, because this'
        ' process sent no heartbeat for minutes; wait until that process ends'
      )

  def _take_over(self, there: dict[str, object]) -> None:
    """Takes over the lock if its holder is dead; raises if it may be alive."""
    silent = time.time() - there.get('heartbeat', 0)
    if silent > STALE:
      why = f'its last heartbeat is {silent:.0f} s old, over {STALE:.0f} s'
    elif there.get('machine') == _identify_machine() and not _runs(
      there['pid']
    ):
      why = 'that process has ended'
    else:
      raise errors.UserError(
        f'{self._store.url}: in use by {_describe(there)}; wait until it ends,'
        ' or choose another --workdir; if it is dead, the lock is free'
        f' {STALE:.0f} s after its last heartbeat'
      )
    logging.warning(
      '%s: was in use by %s; %s: taken over',
      self._store.url,
      _describe(there),
      why,
    )
    self._store.write(FILE, self._content())
    time.sleep(_SETTLE)
    self.check()

  def _send_heartbeats(self) -> None:
    """Rewrites the lock until it is released or taken over."""
    while not self._released.wait(_HEARTBEAT):
      try:
        self.check()
        self._store.write(FILE, self._content())
      except errors.UserError as e:
        if self._lost:
          logging.warning('%s', e)
          self._preemption_signal.trigger()
          return
        # Otherwise the store failed. It may work again at the next heartbeat,
        # and failed uploads are reported.

  def _content(self) -> bytes:
    return json.dumps(self._mine | {'heartbeat': time.time()}).encode()

  def _read(self) -> dict[str, object] | None:
    data = self._store.read(FILE)
    if data is None:
      return None
    try:
      return files.parse_json(data.decode())
    except ValueError as e:
      raise errors.UserError(
        f'{self._store.url}/{FILE}: is damaged ({e}); remove it if no other'
        ' command is running there'
      ) from e


def _describe(there: dict[str, object]) -> str:
  since = datetime.datetime.fromtimestamp(there.get('since', 0)).astimezone()
  return (
    f'{there.get("holder", "an unknown process")} since'
    f' {since.isoformat(timespec="seconds")}'
  )


def _identify_machine() -> str:
  """Identifies the machine or container in which a process number is valid.

  Two machines may have the same host name, and each container has its own
  process numbers.
  """
  try:
    boot = Path('/proc/sys/kernel/random/boot_id').read_text().strip()
    return f'{boot} {os.readlink("/proc/self/ns/pid")}'
  except OSError:  # Not Linux: a random, unique name.
    return secrets.token_hex(8)


def _runs(pid: int) -> bool:
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  except PermissionError:  # It belongs to another user.
    pass
  return True
