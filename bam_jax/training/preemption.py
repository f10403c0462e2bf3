"""A notice that the machine is wanted back: save, leave, be started again.

Cloud TPUs, GKE and Slurm send SIGTERM some time before they take a machine
away; a Slurm job may ask for SIGUSR1 instead (`--signal=USR1@120`).
"""

from collections.abc import Iterator
import contextlib
import os
import signal
import types
from typing import Self

# Of a process that did not finish and is to be started again: EX_TEMPFAIL of
# sysexits.h.
EXIT_CODE = 75

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Preempted(BaseException):
  """Raised where the process may leave. Everything is written atomically, so
  that is anywhere but in a step, which takes the arrays of the state with it.

  No `Exception`, as KeyboardInterrupt is none: JAX, for one, makes any that is
  raised while it starts into an error of its own.
  """


class Notice:
  """Whether a notice came, as a context manager that listens for one.

  The first notice raises `Preempted`, at once or where what holds it back ends;
  a second one ends the process on the spot. Outside of its context it hears
  nothing.
  """

  def __init__(self):
    self._signal: int | None = None
    self._held = False
    self._before: dict[int, object] = {}

  def __enter__(self) -> Self:
    for number in _SIGNALS:
      self._before[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *unused_exception: object) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _handle(self, number: int, frame: types.FrameType | None) -> None:
    del frame
    if self._signal is not None:
      signal.signal(number, signal.SIG_DFL)
      os.kill(os.getpid(), number)
      return
    self._signal = number
    if not self._held:
      self.check()

  def give(self) -> None:
    """From another thread: as if SIGTERM came, unless a notice did."""
    if self._signal is None:
      os.kill(os.getpid(), signal.SIGTERM)

  def check(self) -> None:
    """Raises `Preempted`, naming the signal, if a notice came."""
    if self._signal is not None:
      raise Preempted(signal.Signals(self._signal).name)

  @contextlib.contextmanager
  def held(self) -> Iterator[None]:
    """In here a notice waits; what must not be broken off comes to its end."""
    self._held = True
    try:
      yield
    finally:
      self._held = False
    self.check()
