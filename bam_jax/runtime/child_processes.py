"""Sets up the child processes that this package starts."""

import multiprocessing
import os
import signal
import threading


def follow_parent() -> None:
  """Ignores signals in a child process, and ends it when its parent ends.

  Call it first in a child process of `multiprocessing`.
  """
  for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
  parent = multiprocessing.parent_process()

  def follow() -> None:
    parent.join()
    os._exit(1)

  threading.Thread(target=follow, daemon=True).start()
