"""Multi-host coordination: one writer, agreed decisions.

All processes run the same program in the same order. The first one alone
writes; what files decide is read by it and told to the others, so that all of
them decide alike. Features, logits and checkpoints they read for themselves, in
a work directory that all of them see. What they tell each other goes through
JAX's coordination service and needs no program on a device.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import functools
import itertools
import json
import os
from pathlib import Path
import secrets
import signal
import sys
import time
from typing import Any
from typing import TypeVar

import jax
from jax.experimental import multihost_utils
import orbax.checkpoint as ocp

from bam_jax import errors
from bam_jax.runtime import joining
from bam_jax.runtime import preemption

Value = TypeVar('Value')

# Keys of what processes tell each other, and of how those that fail end.
_TOLD = 'bam_jax/told/'
_ENDED = 'bam_jax/ended/'
# How long a call waits: in between Python handles signals.
_LOOK_MS = 1000
# How long a process waits for the others before a program's first execution.
_MEET_SECONDS = 3600.0
# How long a process that ends waits for the others to end too.
_LEAVE_SECONDS = 20
# What is raised in all processes where it is raised in one.
_SHARED = (errors.UserError, errors.RetryError, OSError)

_exchanges = itertools.count()
# The first exchange whose texts are still kept.
_first_kept = 0
# Whether this process has come to its end.
leaving = False

# Whether the first process is doing something that the others only hear of.
_by_itself = False


def several() -> bool:
  """Whether this process has joined others; asks no device."""
  return jax.distributed.is_initialized()


def is_first() -> bool:
  """Whether this process is the one that writes."""
  return not several() or jax.process_index() == 0


def first(function: Callable[[], Value]) -> Value:
  """Has the first process call a function; all return what it returns.

  Args:
    function: returns what JSON can tell; what it calls in its turn is called
      by the first process alone.

  Raises:
    errors.UserError, errors.RetryError: in all processes, where it is raised in
      the first; or a UserError in the others, where the first raises an
      OSError.
  """
  global _by_itself
  if not several() or _by_itself:
    return function()
  value, error, own = None, None, None
  if is_first():
    _by_itself = True
    try:
      value = function()
    except _SHARED as e:
      error, own = _as_json(e), e
    finally:
      _by_itself = False
  told, error = json.loads(_from_first(json.dumps([value, error])))
  if own:
    raise own
  if error:
    raise _from_json(error)
  return value if is_first() else told


def by_first(function: Callable[..., Value]) -> Callable[..., Value]:
  """Decorator: whoever calls it, the first process does, and tells the rest."""

  @functools.wraps(function)
  def called(*args: Any, **named: Any) -> Value:
    return first(lambda: function(*args, **named))

  return called


def found(
  make: Callable[[], Value | None], find: Callable[[], Value]
) -> Value | None:
  """What the first process makes and the others then find; None if it is None.

  Raises:
    errors.UserError, errors.RetryError: in all processes, where it is raised in
      one.
  """
  made: list[Value] = []

  def begin() -> bool:
    made.extend(value for value in [make()] if value is not None)
    return bool(made)

  if not first(begin):
    return None
  return together(lambda: made[0] if made else find())


def together(function: Callable[[], Value]) -> Value:
  """Has every process call a function for itself.

  Raises:
    errors.UserError, errors.RetryError: in all processes, where it is raised in
      one; or a UserError in those that raise nothing, where one raises an
      OSError.
  """
  if not several() or _by_itself:
    return function()
  value, error = None, None
  try:
    value = function()
  except _SHARED as e:
    error = e
  told = _exchange(json.dumps(_as_json(error) if error else None))
  found = [json.loads(each) for each in told]
  if error:
    raise error
  for number, each in enumerate(found):
    if each:
      raise _from_json([each[0], f'process {number}: {each[1]}'])
  return value


def meet() -> None:
  """Waits until all processes have come here.

  A device that runs a program waits for those of the other processes, on CPUs
  for 30 s at most; but one process may find the program compiled, where another
  one compiles it for minutes. So they meet when all have it.

  Raises:
    errors.RetryError: another process did not come for an hour.
  """
  if several() and not _by_itself:
    _exchange('', _MEET_SECONDS)


def check_alike(what: str, value: str) -> None:
  """Raises in all processes where one has another value than the first."""
  expected = first(lambda: value)

  def check() -> None:
    if value != expected:
      raise errors.UserError(
        f'{what}: differs from that of process 0; start all processes with the'
        ' same flags, files and code'
      )

  together(check)


def check_shared(directory: Path) -> None:
  """Raises in all processes where one does not see what the first one writes.

  Args:
    directory: made if it isn't there.
  """
  name = first(lambda: f'.seen-by-all-{secrets.token_hex(8)}')
  path = directory / name

  def check() -> None:
    if not path.exists():
      raise errors.UserError(
        f'{directory}: is not shared: what process 0 writes there is not seen;'
        ' choose a --workdir on a file system that all machines share'
      )

  def write() -> None:
    try:
      path.touch()
    except OSError as e:
      raise errors.UserError(
        f'{path}: {e.strerror}; choose a --workdir that can be written'
      ) from e

  first(write)
  try:
    together(check)
  finally:
    first(lambda: path.unlink())


def _as_json(error: Exception) -> list[str]:
  retries = isinstance(error, errors.RetryError)
  return ['RetryError' if retries else 'UserError', str(error)]


def _from_json(told: Sequence[str]) -> Exception:
  return getattr(errors, told[0])(told[1])


def _exchange(text: str, seconds: float | None = None) -> list[str]:
  """The texts of all processes, in all of them, by number.

  Args:
    text: of this one.
    seconds: how long the others are waited for; None: as long as they live.

  Raises:
    errors.RetryError: one of them did not come.
  """
  global _first_kept
  number = next(_exchanges)
  own = jax.process_index()
  texts = [text]
  if is_first():
    for other in range(1, jax.process_count()):
      texts.append(_hear(f'{_TOLD}{number}/{other}', other, seconds))
    # Whoever came here has read all that was told before.
    for earlier in range(_first_kept, number + 1):
      _client().key_value_delete(f'{_TOLD}{earlier}')
    _first_kept = number + 1
  else:
    _client().key_value_set(f'{_TOLD}{number}/{own}', text)
  return json.loads(_from_first(json.dumps(texts), seconds))


def _from_first(text: str, seconds: float | None = None) -> str:
  """The text of the first process, in all of them."""
  key = f'{_TOLD}{next(_exchanges)}/0'
  if is_first():
    _client().key_value_set(key, text)
    return text
  return _hear(key, 0, seconds)


def _hear(key: str, process: int, seconds: float | None) -> str:
  """Waits for what another process tells.

  Not for ever, should that one die: `lost.watch` ends this process then.
  """
  began = time.monotonic()
  while True:
    try:
      return _client().blocking_key_value_get(key, _LOOK_MS)
    except jax.errors.JaxRuntimeError as e:
      if 'DEADLINE_EXCEEDED' not in str(e):
        raise
    if seconds is not None and time.monotonic() - began > seconds:
      raise errors.RetryError(
        f'process {process} lives, but has not come to where the others wait'
        f' for {seconds:.0f} s; the same command, given to all, goes on'
      )


def _client() -> Any:
  """That of JAX's coordination service, which keeps texts by key."""
  return ocp.multihost.get_jax_distributed_client()


class AgreedNotice(preemption.Notice):
  """A signal to one process that stops all of them, after the same step.

  JAX hears SIGTERM, once the processes have joined, and has them agree on the
  next check that none of them has come to yet.
  """

  def __init__(self):
    super().__init__()
    self._checks = 0

  def check(self) -> None:
    """Raises `Preempted` where all have agreed to; every process calls it.

    What the first process does by itself is not stopped.
    """
    if _by_itself:
      return
    self._checks += 1
    if multihost_utils.reached_preemption_sync_point(self._checks):
      raise preemption.Preempted(signal.SIGTERM, is_agreed=True)


@contextlib.contextmanager
def agreed_notice(own: preemption.Notice) -> Iterator[AgreedNotice]:
  """The notice of all processes, in place of this one's own."""

  def forward(*unused: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)

  with own.left_to(forward, signal.SIGUSR1, signal.SIGINT):
    yield AgreedNotice()


def ended() -> dict[int, int]:
  """The statuses of the processes that end by an error of their own."""
  return {
    int(key.rpartition('/')[2]): int(status)
    for key, status in _client().key_value_dir_get(_ENDED)
  }


def leave(status: int, by_itself: bool = False) -> None:
  """Leaves the run, with the others if they leave too; returns once they did.

  JAX would wait for those that don't, and then abort with a status of its own.
  Where one of them doesn't leave, this ends the process.

  Args:
    status: that this process is to end with.
    by_itself: whether the others don't know that it ends: `lost.watch` ends
      them then.
  """
  global leaving
  leaving = True
  sys.stdout.flush()
  sys.stderr.flush()
  if not joining.is_complete():
    os._exit(status)
  try:
    if by_itself:
      _client().key_value_set(
        f'{_ENDED}{jax.process_index()}', str(status), allow_overwrite=True
      )
    _client().wait_at_barrier('leave', 1000 * _LEAVE_SECONDS)
  except jax.errors.JaxRuntimeError:
    os._exit(status)
  jax.distributed.shutdown()
