"""Programs that threads compile before they are called."""

from collections.abc import Callable
from collections.abc import Hashable
from concurrent import futures
from typing import Generic
from typing import TypeVar

import jax

Key = TypeVar('Key', bound=Hashable)


class Ahead(Generic[Key]):
  """Compiled programs by key; they are waited for where they are asked for.

  They are traced one after the other, since Python does one thing at a time,
  but for those that are waited for, and compiled side by side.
  """

  def __init__(self):
    self._tracer = futures.ThreadPoolExecutor(1)
    self._urgent = futures.ThreadPoolExecutor(1)
    self._compilers = futures.ThreadPoolExecutor()
    self._traces: dict[Key, Callable[[], futures.Future]] = {}
    # The future of the trace, whose result is the future of the compilation.
    self._begun: dict[Key, futures.Future] = {}

  def __contains__(self, key: Key) -> bool:
    return key in self._begun

  def begin(self, key: Key, lower: Callable[[], jax.stages.Lowered]) -> None:
    """Has a program made, unless it is already; returns at once.

    Args:
      key: of the program.
      lower: traces it, in another thread.
    """
    if key in self:
      return

    def trace() -> futures.Future[jax.stages.Compiled]:
      return self._compilers.submit(lower().compile)

    self._traces[key] = trace
    self._begun[key] = self._tracer.submit(trace)

  def get(self, key: Key) -> jax.stages.Compiled:
    """Waits for one program, which is traced before those not yet begun.

    Raises:
      Exception: that of tracing or compiling it.
    """
    if self._begun[key].cancel():
      self._begun[key] = self._urgent.submit(self._traces[key])
    return self._begun[key].result().result()

  def get_all(self) -> dict[Key, jax.stages.Compiled]:
    """Waits for all programs begun."""
    return {key: begun.result().result() for key, begun in self._begun.items()}

  def drop(self) -> None:
    """Forgets those that are not even being traced."""
    for key, begun in list(self._begun.items()):
      if begun.cancel():
        del self._begun[key], self._traces[key]
