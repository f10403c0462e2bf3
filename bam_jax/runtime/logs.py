"""Shows the package's log, which goes through Python's root logger."""

from collections.abc import Iterator
import contextlib
import logging
import sys


def set_style(handler: logging.Handler) -> None:
  """Makes a handler print plain messages, and only warnings of others.

  At INFO, other packages log every request and every folder that they look at.
  """
  handler.setFormatter(logging.Formatter('%(message)s'))
  handler.addFilter(_is_shown)


def _is_shown(record: logging.LogRecord) -> bool:
  """Whether to log a record: all of this package, only warnings of others."""
  return record.name == 'root' or record.levelno >= logging.WARNING


@contextlib.contextmanager
def shown() -> Iterator[None]:
  """Context manager that prints the log on standard error.

  A program that has set the level of the root logger is left alone.
  """
  root = logging.getLogger()
  if root.level != logging.WARNING:  # Python's default.
    yield
    return
  handler, before = logging.StreamHandler(), root.handlers[:]
  set_style(handler)
  # Orbax, when it is imported, makes Python add one to standard error.
  others = [h for h in before if getattr(h, 'stream', None) is not sys.stderr]
  root.handlers[:] = [*others, handler]
  root.setLevel(logging.INFO)
  try:
    yield
  finally:
    root.handlers[:] = before
    root.setLevel(logging.WARNING)
