"""Work for other processes while this one keeps the devices going."""

from collections.abc import Callable
from collections.abc import Iterator
from concurrent import futures
from concurrent.futures import process as process_pool
import contextlib
import multiprocessing
import os
from typing import Self

from bam_jax import errors
from bam_jax.runtime import child_processes
from bam_jax.runtime import preemption

_MOST = 8


class Background:
  """Calls that other processes make, as a context.

  The processes are started when they are needed and know nothing of this one
  but its main module, so a script that comes here is guarded by `if __name__ ==
  '__main__'`. At the context's end every call is made; after an exception those
  that wait are dropped, and after a preemption signal nothing is waited for.
  """

  def __init__(self):
    self._calls: list[futures.Future] = []
    self._pool = futures.ProcessPoolExecutor(
      min(_MOST, os.cpu_count() or 1),
      # A copy of a process that holds devices and threads would not live.
      multiprocessing.get_context('spawn'),
      child_processes.follow_parent,
    )

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: type | None, *unused_exception: object) -> None:
    # What they write is written whole or not at all, and they end with this
    # process.
    self._pool.shutdown(
      wait=kind is not preemption.Preempted, cancel_futures=kind is not None
    )
    if kind is None:
      self.wait()

  def call(self, function: Callable[..., None], *args: object) -> None:
    """Has a function called, some time.

    Args:
      function: of a module that is soon imported.
      *args: copied to the other process.

    Raises:
      errors.RetryError: a process was ended from outside.
    """
    with _told():
      self._calls.append(self._pool.submit(function, *args))

  def wait(self) -> None:
    """Until every call so far has been made.

    Raises:
      errors.RetryError: a process was ended from outside.
      Exception: whatever a call raised.
    """
    calls, self._calls = self._calls, []
    with _told():
      for call in calls:
        call.result()


@contextlib.contextmanager
def _told() -> Iterator[None]:
  """Turns the end of a process into one line."""
  try:
    yield
  except process_pool.BrokenProcessPool as e:
    raise errors.RetryError(
      'a process that writes results was ended, perhaps for want of memory;'
      ' the same command goes on'
    ) from e
