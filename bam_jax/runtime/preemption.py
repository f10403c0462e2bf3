"""Handles preemption signals: the run saves its state and ends.

Cloud TPUs, GKE and Slurm send SIGTERM some time before they take a machine
away; a Slurm job may ask for SIGUSR1 instead (`--signal=USR1@120`). Ctrl-C
sends SIGINT. The handler only records the signal. If it raised an exception,
the exception could be lost in a destructor, in a callback of the garbage
collector or in a library.
"""

from collections.abc import Callable, Iterator
import contextlib
import os
import select
import signal
import sys
import threading
import time
import types
from typing import NoReturn, Self

from bam_jax import errors

# Exit status of a process that should be started again: EX_TEMPFAIL of
# sysexits.h.
EXIT_CODE = 75

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
# Exit status that shells report after Ctrl-C.
_INTERRUPTED = 130

# A repeated SIGTERM or SIGUSR1 within this many seconds counts as the same
# signal. GNU `timeout`, for example, sends the signal to the process and then
# to the process group.
_ECHO = 1.0
# Seconds that the main thread has to reach a check before a forced exit.
_PATIENCE = 3.0
_POLL = 0.1  # seconds between two checks of the state of the main thread


class Preempted(BaseException):
  """Raised by `Signal.check` after the process got a preemption signal.

  Like KeyboardInterrupt, it is not an `Exception`, so that `except Exception`
  does not catch it.

  Attributes:
    number: number of the signal.
    exit_code: exit status for the process.
    is_agreed: whether all processes of the run have agreed to stop.
  """

  def __init__(self, number: int, is_agreed: bool = False):
    how, self.exit_code = f'stopped by {signal.Signals(number).name}', EXIT_CODE
    if number == signal.SIGINT:
      how, self.exit_code = 'interrupted', _INTERRUPTED
    super().__init__(f'{how}; run the same command again to continue')
    self.number, self.is_agreed = number, is_agreed


class Signal:
  """Context manager that listens for preemption signals.

  After the first signal, `check` raises `Preempted`. A second signal ends the
  process at once. If `restores` is True, the second signal goes to the handler
  that was installed before this context. In a notebook, for example, that
  handler interrupts the cell, and the process goes on. SIGTERM or SIGUSR1 twice
  within a second counts as one signal.

  Some long calls cannot call `check`. After `enable_forced_exit`, the process
  ends a few seconds after the signal, unless the main thread is inside
  `defer_exit` or has reached a check. This is safe because files are written
  atomically.
  """

  def __init__(self, restores: bool = False):
    self._restores = restores
    self._signal: int | None = None
    self._since = 0.0  # Time of the first signal.
    self._previous_handlers: dict[int, object] = {}
    self._is_handled_elsewhere = False
    # Guards the fields below: no forced exit happens while a field changes.
    self._lock = threading.Lock()
    self._holds = 0
    self._leaving = False
    self._before_exit: list[Callable[[], None]] = []

  def __enter__(self) -> Self:
    for number in _SIGNALS:
      self._previous_handlers[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *unused_exception: object) -> None:
    for number, handler in self._previous_handlers.items():
      signal.signal(number, handler)

  def _handle(self, number: int, frame: types.FrameType | None) -> None:
    """Records a signal.

    It takes no lock: the handler interrupts the main thread, which may already
    hold the lock.
    """
    del frame
    is_second = self._since > 0
    if is_second and _is_echo(number, self._since):
      return
    for each, before in self._previous_handlers.items():
      # After SIGTERM or SIGUSR1, the handler of that signal stays installed,
      # because it has to ignore an echo of the signal.
      if is_second or each != number or number == signal.SIGINT:
        signal.signal(each, before if self._restores else signal.SIG_DFL)
    if is_second:
      os.kill(os.getpid(), number)
    else:
      self._signal, self._since = number, time.monotonic()

  def trigger(self) -> None:
    """Acts as if SIGTERM had come; any thread may call it."""
    self._signal = self._signal or signal.SIGTERM

  @property
  def is_set(self) -> bool:
    """Whether a signal has come."""
    return self._signal is not None

  def check(self) -> None:
    """Raises `Preempted` if a signal has come."""
    if self.is_set:
      with self._lock:
        self._leaving = True
      raise Preempted(self._signal)

  @contextlib.contextmanager
  def defer_exit(self, checks_at_end: bool = True) -> Iterator[None]:
    """Context manager that delays a forced exit until the context ends.

    It then calls `check`, unless `checks_at_end` is False or the code in the
    context raised an exception.
    """
    with self._lock:
      self._holds += 1
    try:
      yield
    finally:
      with self._lock:
        self._holds -= 1
    if checks_at_end:
      self.check()

  @contextlib.contextmanager
  def before_exit(self, function: Callable[[], None]) -> Iterator[None]:
    """Context manager that registers a function to call before a forced exit.

    The function runs in another thread while the main thread continues. It may
    raise `errors.UserError` or `RetryError`. In nested contexts, the innermost
    function is called first.
    """
    with self._lock:
      self._before_exit.append(function)
    try:
      yield
    finally:
      with self._lock:
        self._before_exit.remove(function)

  @contextlib.contextmanager
  def handled_by(
    self,
    handler: Callable[[int, types.FrameType | None], None],
    *numbers: int,
  ) -> Iterator[None]:
    """Context manager in which another handler receives the given signals.

    Without `numbers`, the other handler receives all preemption signals.
    """
    self._is_handled_elsewhere = True
    before = {
      number: signal.signal(number, handler) for number in numbers or _SIGNALS
    }
    try:
      self.check()  # A signal may have come just before.
      yield
    finally:
      for number, previous in before.items():
        signal.signal(number, previous)
      self._is_handled_elsewhere = False

  def enable_forced_exit(self) -> None:
    """Makes a signal end the process even if the main thread never checks."""
    ready, sent = os.pipe()
    os.set_blocking(sent, False)
    # Python writes each signal to this pipe at once. The handler has to wait
    # while the main thread is in a long call that runs no Python code.
    signal.set_wakeup_fd(sent, warn_on_full_buffer=False)
    threading.Thread(
      target=self._watch, args=(ready,), name='preemption', daemon=True
    ).start()

  def _watch(self, ready: int) -> None:
    first, came = None, 0.0
    since = time.monotonic()
    while True:
      if select.select([ready], [], [], _POLL)[0]:
        (number,) = os.read(ready, 1)
        if number in _SIGNALS and not self._is_handled_elsewhere:
          if first is None:
            first, came = number, time.monotonic()
            self._signal = self._signal or number
          elif number != first or not _is_echo(number, came):
            # The main thread may never run the handler.
            os._exit(128 + number)
      with self._lock:
        if self._signal is None or self._holds or self._leaving:
          since = time.monotonic()
        elif time.monotonic() - since > _PATIENCE:
          self._end()

  def _end(self) -> NoReturn:
    """Prints one line and ends the process; the caller holds the lock."""
    preempted = Preempted(self._signal)
    message, status = str(preempted), preempted.exit_code
    for function in reversed(self._before_exit):
      try:
        function()
      except errors.UserError as e:
        message, status = str(e), 2
      except errors.RetryError as e:
        message, status = str(e), EXIT_CODE
    # A progress bar hides the cursor of the terminal. This shows it again.
    shown = '\x1b[?25h' if sys.stderr.isatty() else ''
    print(f'{shown}bam_jax: {message}', file=sys.stderr, flush=True)
    os._exit(status)


def _is_echo(number: int, came: float) -> bool:
  """Returns whether a signal only repeats the signal that came at `came`."""
  return number != signal.SIGINT and time.monotonic() - came < _ECHO


def follow_parent() -> None:
  """Ignores signals in a child process, and ends it when its parent ends.

  Call it first in a child process of `multiprocessing`.
  """
  import multiprocessing  # Imported here, so the main process starts faster.

  for number in _SIGNALS:
    signal.signal(number, signal.SIG_IGN)
  parent = multiprocessing.parent_process()

  def follow() -> None:
    parent.join()
    os._exit(1)

  threading.Thread(target=follow, daemon=True).start()
