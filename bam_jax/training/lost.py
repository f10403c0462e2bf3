"""Of several processes one is gone: the others end, soon and with one line.

JAX would abort them itself, 100 s after the last heartbeat, with a stack trace.
It does so at once where process 0 is gone, which all of them speak through.
"""

from collections.abc import Iterator
import contextlib
import os
import sys
import threading
import time
from typing import NoReturn

import jax
import orbax.checkpoint as ocp

_BEATS = 'bam_jax/beats/'
_EVERY = 5.0  # seconds between two beats
_MISSED_AFTER = 60.0  # seconds without one, below JAX's own 100


def watch() -> None:
  """Ends this process once another one has not been heard of for a minute.

  Whatever it waits for then: a program on a GPU or a TPU would wait for ever.
  """
  threading.Thread(target=_watch, name='watch', daemon=True).start()


def _watch() -> None:
  client = ocp.multihost.get_jax_distributed_client()
  own, beat = f'{_BEATS}{jax.process_index()}', 0
  heard: dict[str, tuple[str, float]] = {}
  while True:
    beat += 1
    try:
      client.key_value_set(own, str(beat), allow_overwrite=True)
      beats = dict(client.key_value_dir_get(_BEATS))
    except jax.errors.JaxRuntimeError:
      return  # Process 0 is gone, or all are leaving.
    now = time.monotonic()
    for name, value in beats.items():
      before, since = heard.get(name, (None, now))
      if value != before:
        heard[name] = (value, now)
      elif now - since > _MISSED_AFTER:
        number = name.removeprefix(_BEATS)
        _end(f'process {number} has not been heard of for {now - since:.0f} s')
    time.sleep(_EVERY)


def tells(error: BaseException) -> bool:
  """Whether an error says that another process is gone, as CPUs' do."""
  return isinstance(error, jax.errors.JaxRuntimeError) and 'Gloo' in str(error)


@contextlib.contextmanager
def ends_this() -> Iterator[None]:
  """Ends the process where an error tells that another one is gone.

  To be left before whatever would wait for that one, as Orbax does.
  """
  try:
    yield
  except Exception as e:
    if not tells(e):
      raise
    _end('another process of the run is gone')


def _end(why: str) -> NoReturn:
  print(
    f'bam_jax: {why}; the same command, given to all, goes on',
    file=sys.stderr,
    flush=True,
  )
  os._exit(1)
