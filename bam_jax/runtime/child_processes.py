"""What the processes that this package starts have in common."""

import multiprocessing
import os
import signal
import threading


def follow_parent() -> None:
  """Leaves signals to the parent process, and ends with it however it ends.

  Called first in a child process of `multiprocessing`.
  """
  for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
  parent = multiprocessing.parent_process()

  def follow() -> None:
    parent.join()
    os._exit(1)

  threading.Thread(target=follow, daemon=True).start()
