"""Ends this process when another process of the run dies.

JAX would abort this process minutes after the last heartbeat of the dead
process, with a stack trace. `watch` ends this process earlier, with one line.
If process 0 dies, JAX aborts all other processes at once, because the
coordination service runs in process 0.
"""

from collections.abc import Iterator
import contextlib
import os
import re
import sys
import threading
import time
from typing import NoReturn

import jax
import orbax.checkpoint as ocp

from bam_jax import errors
from bam_jax.runtime import joining
from bam_jax.runtime import preemption
from bam_jax.runtime import processes

_HEARTBEATS = 'bam_jax/heartbeats/'
_FAILED = 'bam_jax/failed/'
_INTERVAL = 2.0  # seconds between two heartbeats
# Maximum seconds without a heartbeat; JAX's own limit is higher.
_SILENCE = 60.0
# Seconds that this process goes on after a peer has failed. If it fails with
# the same error in this time, it reports that error itself.
_GRACE = 5.0
# Seconds that a leaving process waits for the other processes to leave.
_LEAVE_SECONDS = 20

# Whether `leave` was called.
is_leaving = False


def watch() -> None:
  """Starts a thread that ends this process if a peer is silent or has failed.

  Without this thread, a program on a GPU or a TPU would wait for a dead peer
  forever.
  """
  threading.Thread(
    target=_watch, args=(jax.process_index(),), name='watch', daemon=True
  ).start()


def _watch(own: int) -> None:
  client = ocp.multihost.get_jax_distributed_client()
  count = 0
  last_beat: dict[str, tuple[str, float]] = {}
  failed_since: dict[str, float] = {}
  while not is_leaving:
    count += 1
    try:
      client.key_value_set(
        f'{_HEARTBEATS}{own}', str(count), allow_overwrite=True
      )
      beats = client.key_value_dir_get(_HEARTBEATS)
      failed = client.key_value_dir_get(_FAILED)
    except jax.errors.JaxRuntimeError:
      return  # Process 0 is gone, or all processes are leaving.
    now = time.monotonic()
    for name, beat in beats:
      previous, since = last_beat.get(name, (None, now))
      if beat != previous:
        last_beat[name] = (beat, now)
      elif now - since > _SILENCE:
        _end(
          f'process {name.removeprefix(_HEARTBEATS)} has sent no heartbeat for'
          f' {now - since:.0f} s; run the same command again in all processes',
          preemption.EXIT_CODE,
        )
    for name, status in failed:
      if now - failed_since.setdefault(name, now) > _GRACE:
        _end(
          f'process {name.removeprefix(_FAILED)} has ended with status'
          f' {status}; its own log shows the reason',
          int(status),
        )
    time.sleep(_INTERVAL)


def is_peer_error(error: BaseException) -> bool:
  """Returns whether an error means that another process did not answer."""
  if not processes.is_multi_process() or isinstance(
    error, errors.UserError | errors.RetryError
  ):
    return False
  # The message decides, because Orbax and jaxlib raise some of these errors as
  # types other than JAX's own.
  return any(
    name in str(error) for name in ('Gloo', 'CoordinationService', 'Barrier')
  )


@contextlib.contextmanager
def exit_on_peer_error() -> Iterator[None]:
  """Context manager that ends this process if a peer died and a call fails.

  Some other contexts, such as Orbax's checkpoint manager, would wait for the
  dead peer when they exit. Enter this context inside such contexts: it ends the
  process before they exit.
  """
  try:
    yield
  except Exception as e:
    if not is_peer_error(e):
      raise
    cause = str(e).partition('\n')[0]
    late = re.search('timed? ?out|timeout|DEADLINE_EXCEEDED', cause, re.I)
    how = 'did not answer in time' if late else 'is gone'
    _end(
      f'another process of the run {how} ({cause}); run the same command'
      ' again in all processes',
      preemption.EXIT_CODE,
    )


def _end(why: str, status: int) -> NoReturn:
  """Prints one line and ends the process, from any thread."""
  if is_leaving:
    threading.Event().wait()  # Another thread is about to end the process.
  print(f'bam_jax: {why}', file=sys.stderr, flush=True)
  leave(status)
  os._exit(status)


def leave(status: int, by_itself: bool = False) -> None:
  """Disconnects from the other processes; waits until they do the same.

  If another process does not disconnect in time, this process exits with
  `status`, because JAX would abort it with a different status.

  Args:
    status: exit status of this process.
    by_itself: whether this process ends while the others go on. If True, it
      informs the others, and `watch` ends them with the same status.
  """
  global is_leaving
  is_leaving = True
  sys.stdout.flush()
  sys.stderr.flush()
  if not joining.is_complete():
    os._exit(status)
  client = ocp.multihost.get_jax_distributed_client()
  try:
    if by_itself:
      client.key_value_set(
        f'{_FAILED}{jax.process_index()}', str(status), allow_overwrite=True
      )
    client.wait_at_barrier('leave', 1000 * _LEAVE_SECONDS)
  except jax.errors.JaxRuntimeError:
    os._exit(status)
  jax.distributed.shutdown()
