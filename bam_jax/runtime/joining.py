"""Connects the processes of a run, and compares their code and flags."""

from collections.abc import Mapping
import hashlib
from importlib import metadata
import itertools
import json
import logging
import os
from pathlib import Path
import platform
import secrets
import socket
import threading
import time

import jax
import orbax.checkpoint as ocp

import bam_jax
from bam_jax import errors
from bam_jax.runtime import preemption

_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
_checks = itertools.count()  # Numbers the calls of `check_same`.
_met = threading.Event()
# Seconds that a process waits for the others before it logs that it waits.
_QUIET = 1.0
# Seconds that a process with a preemption signal waits for the others.
_STOP_SECONDS = 10.0
# JAX has a time limit of its own and aborts when it is reached. It is set to
# this many seconds more than the limit of `join`, so that `join` raises first.
_MARGIN = 600
# JAX aborts a run if a process sends no heartbeat for this many seconds.
# `peers.watch` has a lower limit. So it ends the run before JAX would, and
# prints only one line.
_HEARTBEAT = 300


def join(
  coordinator: str | None,
  num_processes: int | None,
  process_id: int | None,
  seconds: int,
  preemption_signal: preemption.Signal,
) -> None:
  """Connects this process to the others, before JAX initializes devices.

  Args:
    coordinator: host:port of process 0. If None, JAX gets this and the next two
      arguments from Cloud TPU, Slurm, GKE or Open MPI.
    num_processes: number of all processes.
    process_id: number of this process, from 0.
    seconds: how long to wait for the other processes.
    preemption_signal: checked while this process waits. After a signal, it goes
      on waiting for a few seconds, so that the others have time to connect. If
      process 0 left while they wait, JAX would abort them.

  Raises:
    errors.UserError: no cluster was found, or the port is in use.
    errors.RetryError: not all processes connected in time.
    preemption.Preempted: a signal came before the other processes connected.
  """
  if process_id == 0:
    _check_free(coordinator)
  failed: list[Exception] = []

  def connect() -> None:
    try:
      jax.distributed.initialize(
        coordinator,
        num_processes,
        process_id,
        initialization_timeout=seconds + _MARGIN,
        heartbeat_timeout_seconds=_HEARTBEAT,
      )
      _met.set()
    except (RuntimeError, ValueError) as e:
      failed.append(e)

  # In the main thread JAX would block signals, log nothing and then abort.
  thread = threading.Thread(target=connect, name='join', daemon=True)
  thread.start()
  thread.join(_QUIET)
  if thread.is_alive():
    who = f'process {process_id} of {num_processes} waits at {coordinator}'
    if coordinator is None:
      who = 'this process waits'
    logging.info(
      '%s for the others, %d s at most (--join_seconds)', who, seconds
    )
  end = time.monotonic() + seconds - _QUIET
  stop = end
  while thread.is_alive():
    thread.join(0.1)
    if preemption_signal.is_set:
      stop = min(stop, time.monotonic() + _STOP_SECONDS)
    if time.monotonic() > stop:
      preemption_signal.check()
    if time.monotonic() > end:
      missing = 'process 0 does not answer'
      if not coordinator or process_id == 0 or _answers(coordinator):
        missing = 'not all processes have come'
      raise errors.RetryError(
        f'--coordinator={coordinator or "(found)"}: after {seconds} s'
        f' {missing}; start all within that time, or give more by'
        ' --join_seconds, and run the same command again in all processes'
      )
  for error in failed:
    if isinstance(error, ValueError):
      raise errors.UserError(
        '--distributed=auto: found no Cloud TPU, Slurm, GKE or Open MPI here'
        f' ({error}); give --coordinator, --num_processes and --process_id'
      ) from error
    raise _cannot_meet(coordinator, error) from error


def is_complete() -> bool:
  """Returns whether all processes have joined."""
  return _met.is_set()


def _check_free(coordinator: str) -> None:
  """Raises `UserError` if the port of process 0 is in use.

  Without this check, JAX either reports the error or crashes, depending on
  timing.
  """
  dual = socket.has_dualstack_ipv6()
  with socket.socket(socket.AF_INET6 if dual else socket.AF_INET) as probe:
    # A port that an earlier run has just closed counts as free.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      probe.bind(('::' if dual else '', int(coordinator.rpartition(':')[2])))
    except (OSError, OverflowError) as e:
      raise _cannot_meet(coordinator, e) from e


def _cannot_meet(coordinator: str | None, error: Exception) -> errors.UserError:
  return errors.UserError(
    f'--coordinator={coordinator or "(found)"}: the processes cannot connect'
    f' to it ({error}); give a free port on the machine of process 0'
  )


def _answers(coordinator: str) -> bool:
  host, _, port = coordinator.rpartition(':')
  try:
    with socket.create_connection((host.strip('[]'), int(port)), 2):
      return True
  except OSError:
    return False


def check_same(
  facts: Mapping[str, object], process_id: int | None, seconds: int
) -> None:
  """Raises in all processes if a value differs between them.

  The check runs on no device: if the processes have different versions of the
  code, a program on their devices may fail.

  Args:
    facts: JSON values by name that must be equal in all processes.
    process_id: number of this process; None if it is not known yet.
    seconds: how long to wait for the other processes.

  Raises:
    errors.UserError: a value differs. The message gives its name, and each
      value with its processes.
    errors.RetryError: a process did not call this function in time.
  """
  client = ocp.multihost.get_jax_distributed_client()
  folder = f'bam_jax/facts/{next(_checks)}/'
  who = f'process {process_id}'
  if process_id is None:
    who = f'{socket.gethostname()}, pid {os.getpid()}'
  client.key_value_set(
    f'{folder}{secrets.token_hex(8)}', json.dumps([who, dict(facts)])
  )
  try:
    client.wait_at_barrier(f'{folder}complete', 1000 * seconds)
  except jax.errors.JaxRuntimeError as e:
    raise errors.RetryError(
      f'the processes have joined, but one stopped ({str(e).splitlines()[0]});'
      ' run the same command again in all processes to continue'
    ) from e
  received = sorted(
    json.loads(value) for _, value in client.key_value_dir_get(folder)
  )
  differ = _differences(received)
  if differ:
    raise errors.UserError(
      f'{differ}; start all processes with the same flags, files and code'
    )


def code_versions() -> dict[str, str]:
  """Returns versions of the code and packages that affect results."""
  return {
    'bam_jax': bam_jax.__version__,
    'source files of bam_jax': source_digest(Path(bam_jax.__file__).parent),
    **package_versions(),
  }


def package_versions() -> dict[str, str]:
  """Returns the versions of Python and of the packages that affect results."""
  own = {'python': platform.python_version()}
  return own | {name: metadata.version(name) for name in _PACKAGES}


def source_digest(root: Path) -> str:
  """Returns the first 12 hex digits of the sha256 of a package's sources."""
  digest = hashlib.sha256()
  for path in sorted([*root.rglob('*.py'), *root.rglob('*.toml')]):
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    digest.update(f'{path.relative_to(root).as_posix()} {content}\n'.encode())
  return digest.hexdigest()[:12]


def _differences(received: list[tuple[str, dict[str, object]]]) -> str:
  """Describes each fact that differs: its values and their processes."""
  names = dict.fromkeys(name for _, facts in received for name in facts)
  result = []
  for name in names:
    holders: dict[str, list[str]] = {}
    for who, facts in received:
      value = json.dumps(facts[name]) if name in facts else 'missing'
      holders.setdefault(value, []).append(who)
    if len(holders) > 1:
      values = (
        f'{value} in {", ".join(who[:3])}{" and others" * (len(who) > 3)}'
        for value, who in holders.items()
      )
      result.append(f'{name} differs: {"; ".join(values)}')
  return '. '.join(result)
