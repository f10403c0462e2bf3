"""Pool of processes that write files while this process uses the devices."""

from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import process as process_pool
import contextlib
import multiprocessing
import os
from typing import Self

from bam_jax import errors
from bam_jax.runtime import preemption

_MAX_PROCESSES = 8


class Background:
  """Pool of processes that call functions in the background.

  Use it as a context manager. The exit of the context waits for all calls.
  After an exception, calls that have not begun are dropped. After a preemption
  signal, the exit does not wait.

  The processes start when they are needed, and each imports the main script
  again. So a script that uses this class needs `if __name__ == '__main__'`.
  """

  def __init__(self):
    self._calls: list[futures.Future] = []
    # Made by the first call: if this process is ended at once, such as by
    # Ctrl-C during a compilation, Python warns of the semaphores of a pool.
    self._pool: futures.Executor | None = None

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: type | None, *unused_exception: object) -> None:
    # Not waiting is safe: the processes write files atomically, and they end
    # when this process ends.
    if self._pool is not None:
      self._pool.shutdown(
        wait=kind is not preemption.Preempted, cancel_futures=kind is not None
      )
    if kind is None:
      self.wait()

  def call(self, function: Callable[..., None], *args: object) -> None:
    """Calls a function in another process.

    The other process first imports the module that defines the function.

    Raises:
      errors.RetryError: a process was killed.
    """
    if self._pool is None:
      self._pool = futures.ProcessPoolExecutor(
        min(_MAX_PROCESSES, os.cpu_count() or 1),
        # A forked process would inherit devices and locks of other threads.
        multiprocessing.get_context('spawn'),
        preemption.follow_parent,
      )
    with _convert_broken_pool():
      self._calls.append(self._pool.submit(function, *args))

  def wait(self) -> None:
    """Waits for the calls made so far; raises the error of a failed call.

    Raises:
      errors.RetryError: a process was killed.
    """
    calls, self._calls = self._calls, []
    with _convert_broken_pool():
      for call in calls:
        call.result()


@contextlib.contextmanager
def _convert_broken_pool() -> Iterator[None]:
  """Context manager that raises `RetryError` for `BrokenProcessPool`."""
  try:
    yield
  except process_pool.BrokenProcessPool as e:
    raise errors.RetryError(
      'a process that writes results was ended, perhaps for lack of memory;'
      ' run the same command again to continue'
    ) from e
