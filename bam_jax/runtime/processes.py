"""Multi-host coordination: one process writes, all make the same decisions.

All processes run the same program in the same order. Only the first process
writes files (Orbax writes checkpoints in all processes). Only the first process
reads the files that decide what happens next, and it sends the results to the
other processes. Features, logits and checkpoints are different: every process
reads them from a shared work directory. Values are sent as JSON through JAX's
coordination service, which needs no program on a device.
"""

from collections.abc import Callable, Iterator
import contextlib
import functools
import itertools
import json
import os
from pathlib import Path
import secrets
import signal
import time
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils
import orbax.checkpoint as ocp

from bam_jax import errors
from bam_jax.runtime import preemption

Value = TypeVar('Value')

_KEYS = 'bam_jax/gathered/'
# How long one call to the coordination service blocks. Python handles signals
# only between calls.
_POLL_MS = 1000
# How long a process waits for the other processes before it runs a program for
# the first time.
_COMPILE_SECONDS = 3600.0

_gathers = itertools.count()
# Whether this is the first process and it is inside `run_on_first`.
_is_alone = False


def is_multi_process() -> bool:
  """Returns whether this run has several processes; starts no devices."""
  return jax.distributed.is_initialized()


def is_first() -> bool:
  """Returns whether this is the process that writes files."""
  return not is_multi_process() or jax.process_index() == 0


def run_on_first(
  function: Callable[..., Value], *args: Any, **kwargs: Any
) -> Value:
  """Calls a function in the first process; returns its result in all of them.

  The result must be a JSON value. Inside the function, functions of this module
  such as `run_on_all` run in the first process only. If the function raises a
  UserError or RetryError, all processes raise it. If it raises an OSError, the
  first process raises it and the other processes raise a UserError.
  """
  global _is_alone
  if not is_multi_process() or _is_alone:
    return function(*args, **kwargs)
  value = error = None
  if is_first():
    _is_alone = True
    try:
      value, error = _attempt(function, *args, **kwargs)
    finally:
      _is_alone = False
  received, failure = _gather([value, _encode_error(error)])[0]
  if error:
    raise error
  if failure:
    raise _decode_error(*failure)
  return value if is_first() else received


def runs_on_first(function: Callable[..., Value]) -> Callable[..., Value]:
  """Decorator that applies `run_on_first`."""

  @functools.wraps(function)
  def wrapped(*args: Any, **kwargs: Any) -> Value:
    return run_on_first(function, *args, **kwargs)

  return wrapped


def run_on_all(function: Callable[[], Value]) -> Value:
  """Calls a function in every process; if one process fails, all raise.

  A process that failed raises its own UserError, RetryError or OSError. The
  other processes raise this error with the number of the failed process in the
  message; they raise an OSError as a UserError.
  """
  if not is_multi_process() or _is_alone:
    return function()
  value, error = _attempt(function)
  received = _gather(_encode_error(error))
  if error:
    raise error
  for process, failure in enumerate(received):
    if failure:
      raise _decode_error(failure[0], f'process {process}: {failure[1]}')
  return value


def _attempt(
  function: Callable[..., Value], *args: Any, **kwargs: Any
) -> tuple[Value | None, Exception | None]:
  """Calls a function; returns (result, None) or (None, error)."""
  try:
    return function(*args, **kwargs), None
  except (errors.UserError, errors.RetryError, OSError) as e:
    return None, e


def _encode_error(error: Exception | None) -> list[Any] | None:
  return error and [isinstance(error, errors.RetryError), str(error)]


def _decode_error(can_retry: bool, message: str) -> Exception:
  return (errors.RetryError if can_retry else errors.UserError)(message)


def make_on_first(
  make: Callable[[], Value | None], load: Callable[[], Value]
) -> Value | None:
  """Makes a value in the first process; loads it in the other processes.

  Args:
    make: makes and writes the value; called in the first process.
    load: reads the value; called in the other processes.

  Returns:
    The value in every process, or None if `make` returned None. All processes
    raise the errors of `make` and `load`.
  """
  made: list[Value | None] = []

  def try_to_make() -> bool:
    made.append(make())
    return made[0] is not None

  if not run_on_first(try_to_make):
    return None
  return run_on_all(lambda: made[0] if made else load())


def wait_for_all() -> None:
  """Waits until all processes have called this function.

  A device that runs a program waits for the devices of the other processes, but
  on CPUs only for 30 s. One process may find a program in the cache while
  another process compiles it for minutes. So the processes wait here before
  they run the program.

  Raises:
    errors.RetryError: another process did not call this function within an
      hour.
  """
  if is_multi_process() and not _is_alone:
    _gather(None, _COMPILE_SECONDS)


def check_shared(directory: Path) -> None:
  """Raises `UserError` in all processes if they do not share `directory`."""

  def write() -> str:
    file = directory / f'.seen-by-all-{secrets.token_hex(8)}'
    try:
      file.touch()
    except OSError as e:
      raise errors.UserError(
        f'{file}: {e.strerror}; choose a --workdir that can be written'
      ) from e
    return file.name

  def check() -> None:
    if not path.exists():
      raise errors.UserError(
        f'{directory}: is not shared: other processes do not see files of'
        ' process 0; choose a --workdir on a file system that they share'
      )

  path = directory / run_on_first(write)
  try:
    run_on_all(check)
  finally:
    run_on_first(path.unlink)


class AgreedSignal(preemption.Signal):
  """Preemption signal that stops all processes after the same step.

  After `jax.distributed.initialize`, JAX handles SIGTERM. When a process gets
  SIGTERM, JAX chooses a call of `check` that no process has reached yet. All
  processes stop at this call.
  """

  def __init__(self):
    super().__init__()
    self._checks = 0

  def check(self) -> None:
    """Raises `Preempted` at the agreed check; every process must call it.

    Inside `run_on_first` it does nothing, because only one process runs there.
    """
    if _is_alone:
      return
    self._checks += 1
    if multihost_utils.reached_preemption_sync_point(self._checks):
      raise preemption.Preempted(signal.SIGTERM, is_agreed=True)


@contextlib.contextmanager
def agreed_signal(own: preemption.Signal) -> Iterator[AgreedSignal]:
  """Yields a signal that makes all processes stop at the same step.

  It forwards SIGUSR1 and SIGINT as SIGTERM, the only signal that JAX receives.
  """

  def forward(*unused: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)

  with own.handled_by(forward, signal.SIGUSR1, signal.SIGINT):
    yield AgreedSignal()


def _gather(value: Any, seconds: float | None = None) -> list[Any]:
  """Returns the JSON values of all processes, ordered by process number.

  Args:
    value: the value of this process.
    seconds: how long to wait for each of the other processes. None: no limit,
      because `peers.watch` ends this process if another process dies.

  Raises:
    errors.RetryError: another process did not send its value in time.
  """
  number = next(_gathers)
  own = jax.process_index()
  client = ocp.multihost.get_jax_distributed_client()
  if number > 1:
    # All processes have sent their values of call `number - 1`. So all have
    # read the values of call `number - 2`.
    client.key_value_delete(f'{_KEYS}{number - 2}/{own}')
  client.key_value_set(f'{_KEYS}{number}/{own}', json.dumps(value))
  values = []
  for process in range(jax.process_count()):
    began = time.monotonic()
    while True:
      try:
        text = client.blocking_key_value_get(
          f'{_KEYS}{number}/{process}', _POLL_MS
        )
        break
      except jax.errors.JaxRuntimeError as e:
        if 'DEADLINE_EXCEEDED' not in str(e):
          raise
      if seconds is not None and time.monotonic() - began > seconds:
        raise errors.RetryError(
          f'process {process} is alive, but did not join the others, which'
          f' waited {seconds:.0f} s; run the command again in all processes'
        )
    values.append(json.loads(text))
  return values
