"""Compiled programs: made ahead by threads, run by all processes together."""

from collections.abc import Callable
from collections.abc import Hashable
from concurrent import futures
from typing import Any
from typing import Generic
from typing import TypeVar

import jax

from bam_jax.runtime import processes

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
    self._met: set[Key] = set()

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

    The first time it waits until all processes have it; see
    `processes.wait_for_all`.

    Raises:
      Exception: that of tracing or compiling it.
    """
    if self._begun[key].cancel():
      self._begun[key] = self._urgent.submit(self._traces[key])
    program = self._begun[key].result().result()
    if key not in self._met:
      processes.wait_for_all()
      self._met.add(key)
    return program

  def get_all(self) -> dict[Key, jax.stages.Compiled]:
    """Waits for all programs begun."""
    return {key: begun.result().result() for key, begun in self._begun.items()}

  def drop(self) -> None:
    """Forgets those that are not even being traced."""
    for key, begun in list(self._begun.items()):
      if begun.cancel():
        del self._begun[key], self._traces[key]


class Together:
  """A jitted function that runs once all processes have compiled it.

  Every process calls it, with arrays of the same shapes; see
  `processes.wait_for_all`.
  """

  def __init__(self, function: Any):
    """Compiles nothing yet.

    Args:
      function: what `jax.jit` returned, without static arguments.
    """
    self._function = function
    self._compiled: dict[Hashable, jax.stages.Compiled] = {}

  def __call__(self, *args: Any) -> Any:
    if not processes.is_multi_process():
      return self._function(*args)
    leaves, structure = jax.tree.flatten(args)
    key = (
      structure,
      *((x.shape, x.dtype, getattr(x, 'sharding', None)) for x in leaves),
    )
    if key not in self._compiled:
      self._compiled[key] = self._function.lower(*args).compile()
      processes.wait_for_all()
    return self._compiled[key](*args)

  def lower(self, *args: Any) -> jax.stages.Lowered:
    """The function traced for some arguments and not yet compiled."""
    return self._function.lower(*args)
