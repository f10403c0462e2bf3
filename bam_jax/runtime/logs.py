"""Shows the package's log, which goes through Python's root logger."""

from collections.abc import Iterator
import contextlib
import logging
import sys


def set_style(handler: logging.Handler) -> None:
  """Makes a handler print only the message, without level or logger name.

  For other packages, the handler prints only warnings and errors, because at
  level INFO these packages log every request and every folder.
  """
  handler.setFormatter(logging.Formatter('%(message)s'))
  handler.addFilter(_is_shown)


def _is_shown(record: logging.LogRecord) -> bool:
  """Returns whether a record is from this package, or at least a warning."""
  return record.name == 'root' or record.levelno >= logging.WARNING


@contextlib.contextmanager
def shown() -> Iterator[None]:
  """Context manager that prints the log on standard error.

  It does nothing if the program has set the level of the root logger.
  """
  root = logging.getLogger()
  if root.level != logging.WARNING:  # Python's default.
    yield
    return
  handler, before = logging.StreamHandler(), root.handlers[:]
  set_style(handler)
  # The import of Orbax makes Python add a handler for standard error. Without
  # this line, each message would be printed twice.
  others = [h for h in before if getattr(h, 'stream', None) is not sys.stderr]
  root.handlers[:] = [*others, handler]
  root.setLevel(logging.INFO)
  try:
    yield
  finally:
    root.handlers[:] = before
    root.setLevel(logging.WARNING)
