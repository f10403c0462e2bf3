"""Ends this process when another one of the run dies or fails.

JAX would abort it itself, minutes after the last heartbeat (see `joining`),
with a stack trace. It does so at once where process 0 is gone, which all of
them speak through.
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
from bam_jax.runtime import preemption
from bam_jax.runtime import processes

_BEATS = 'bam_jax/beats/'
_EVERY = 2.0  # seconds between two beats
_MISSED_AFTER = 60.0  # seconds without one, below JAX's own limit
# Seconds that this process has to meet by itself the error that ended another.
_GRACE = 5.0


def watch() -> None:
  """Ends this process once another one is silent for a minute, or has failed.

  Whatever it waits for then: a program on a GPU or a TPU would wait for ever.
  """
  threading.Thread(
    target=_watch, args=(jax.process_index(),), name='watch', daemon=True
  ).start()


def _watch(own_number: int) -> None:
  client = ocp.multihost.get_jax_distributed_client()
  own, beat = f'{_BEATS}{own_number}', 0
  heard: dict[str, tuple[str, float]] = {}
  failed: dict[int, float] = {}
  while not processes.leaving:
    beat += 1
    try:
      client.key_value_set(own, str(beat), allow_overwrite=True)
      beats = dict(client.key_value_dir_get(_BEATS))
      statuses = processes.ended()
    except jax.errors.JaxRuntimeError:
      return  # Process 0 is gone, or all are leaving.
    now = time.monotonic()
    for name, value in beats.items():
      before, since = heard.get(name, (None, now))
      if value != before:
        heard[name] = (value, now)
      elif now - since > _MISSED_AFTER:
        number = name.removeprefix(_BEATS)
        _end(
          f'process {number} has not been heard of for {now - since:.0f} s; the'
          ' same command, given to all, goes on',
          preemption.EXIT_CODE,
        )
    for number, status in statuses.items():
      if now - failed.setdefault(number, now) > _GRACE:
        _end(
          f'process {number} has ended with status {status}, and its own log'
          ' tells why',
          status,
        )
    time.sleep(_EVERY)


def tells(error: BaseException) -> bool:
  """Whether an error is that of a call that needs another process."""
  if not processes.several() or isinstance(
    error, errors.UserError | errors.RetryError
  ):
    return False
  # Orbax and jaxlib raise some of them as errors of other types than JAX's own.
  return any(
    name in str(error) for name in ('Gloo', 'CoordinationService', 'Barrier')
  )


@contextlib.contextmanager
def ends_this() -> Iterator[None]:
  """Ends the process at the error of a call that needs another process.

  To be left before whatever would wait for that one, as Orbax does.
  """
  try:
    yield
  except Exception as e:
    if not tells(e):
      raise
    cause = str(e).partition('\n')[0]
    late = re.search('timed? ?out|timeout|DEADLINE_EXCEEDED', cause, re.I)
    how = 'did not answer in time' if late else 'is gone'
    _end(
      f'another process of the run {how}; the same command, given to all, goes'
      f' on ({cause})',
      preemption.EXIT_CODE,
    )


def _end(why: str, status: int) -> NoReturn:
  """Ends the process, whatever its main thread does."""
  if processes.leaving:
    threading.Event().wait()  # Another thread is about to end the process.
  print(f'bam_jax: {why}', file=sys.stderr, flush=True)
  processes.leave(status)
  os._exit(status)
