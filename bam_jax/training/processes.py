"""Several processes, each with some of the devices, that do as one.

All run the same program in the same order. The first one alone writes; what
files decide is read by it and told to the others, so that all of them decide
alike. Features, logits and checkpoints they read for themselves, in a work
directory that all of them see.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import functools
import json
import os
from pathlib import Path
import secrets
import signal
import socket
import sys
from typing import Any
from typing import NoReturn
from typing import TypeVar

import jax
from jax.experimental import multihost_utils
import numpy as np
import orbax.checkpoint as ocp

from bam_jax import errors
from bam_jax.training import preemption

Value = TypeVar('Value')

# How long a process that ends waits for the others to end too.
_LEAVE_SECONDS = 10

# Whether the first process is doing something that the others only hear of.
_by_itself = False


def join(
  coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
  """Joins a run of several processes, before JAX looks for its devices.

  Args:
    coordinator: host:port of process 0; None: Cloud TPU, Slurm, GKE or Open MPI
      is asked for all three.
    num_processes: in all.
    process_id: of this one, from 0.

  Raises:
    errors.UserError: there is nobody to ask, or the port is taken. Where the
      others don't come within five minutes, JAX aborts.
  """
  if process_id == 0:
    _check_free(coordinator)
  try:
    jax.distributed.initialize(coordinator, num_processes, process_id)
  except ValueError as e:
    raise errors.UserError(
      f'--distributed=auto: finds no Cloud TPU, Slurm, GKE or Open MPI here'
      f' ({e}); give --coordinator, --num_processes and --process_id'
    ) from e
  except RuntimeError as e:
    raise _cannot_meet(coordinator, e) from e


def _check_free(coordinator: str) -> None:
  """Raises where something listens at process 0's port.

  JAX would tell so, or die of a segmentation fault, as it comes.
  """
  dual = socket.has_dualstack_ipv6()
  with socket.socket(socket.AF_INET6 if dual else socket.AF_INET) as probe:
    # What an earlier run has just left is free.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      probe.bind(('::' if dual else '', int(coordinator.rpartition(':')[2])))
    except (OSError, OverflowError) as e:
      raise _cannot_meet(coordinator, e) from e


def _cannot_meet(coordinator: str | None, error: Exception) -> errors.UserError:
  return errors.UserError(
    f'--coordinator={coordinator or "(found)"}: the processes cannot meet'
    f' there ({error}); give a free port of the machine of process 0'
  )


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
    errors.UserError: in all processes, where it is raised in the first, or in
      the others, where the first raises an OSError.
  """
  global _by_itself
  if not several() or _by_itself:
    return function()
  value, error, own = None, '', None
  if is_first():
    _by_itself = True
    try:
      value = function()
    except (errors.UserError, OSError) as e:
      error, own = str(e), e
    finally:
      _by_itself = False
  told, error = json.loads(_from_first(json.dumps([value, error])))
  if isinstance(own, OSError):
    raise own
  if error:
    raise errors.UserError(error)
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
    errors.UserError: in all processes, where it is raised in one.
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
    errors.UserError: in all processes, where it is raised in one, or in those
      that raise nothing, where one raises an OSError.
  """
  if not several() or _by_itself:
    return function()
  value, error, own = None, '', None
  try:
    value = function()
  except (errors.UserError, OSError) as e:
    error, own = str(e), e
  sizes = multihost_utils.process_allgather(np.int32(len(error.encode())))
  if not sizes.any():
    return value
  told = multihost_utils.process_allgather(_padded(error, sizes.max()))
  if isinstance(own, OSError):
    raise own
  if error:
    raise errors.UserError(error)
  number = int(np.argmax(sizes > 0))
  raise errors.UserError(
    f'process {number}: {bytes(told[number][: sizes[number]]).decode()}'
  )


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


def _from_first(text: str) -> str:
  """The text of the first process, in all of them."""
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text.encode()))))
  # Few lengths, as each is a program to compile.
  room = 1 << size.bit_length()
  told = multihost_utils.broadcast_one_to_all(
    _padded(text if is_first() else '', room)
  )
  return bytes(told[:size]).decode()


def _padded(text: str, size: int) -> np.ndarray:
  """[size] uint8: the text, then zeros."""
  data = text.encode()
  return np.frombuffer(data + bytes(size - len(data)), np.uint8)


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
      raise preemption.Preempted(signal.SIGTERM)


@contextlib.contextmanager
def agreed_notice(own: preemption.Notice) -> Iterator[AgreedNotice]:
  """The notice of all processes, in place of this one's own."""

  def forward(*unused: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)

  with own.left_to(forward, signal.SIGUSR1, signal.SIGINT):
    yield AgreedNotice()


def leave(status: int) -> NoReturn:
  """Ends the process, with the others if they end too.

  JAX would wait for those that don't, and then abort with a status of its own.
  """
  sys.stdout.flush()
  sys.stderr.flush()
  client = ocp.multihost.get_jax_distributed_client()
  try:
    client.wait_at_barrier('leave', 1000 * _LEAVE_SECONDS)
  except jax.errors.JaxRuntimeError:
    os._exit(status)
  jax.distributed.shutdown()
  sys.exit(status)
