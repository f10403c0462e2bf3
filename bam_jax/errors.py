"""The exceptions whose message is all that a user needs to see.

And the commands that their remedies print.
"""

from collections.abc import Iterable
from collections.abc import Mapping
import importlib.util
import shlex
import sys

_LONGEST = 1000


def some(names: Iterable[object], most: int = 8) -> str:
  """The first of some names, and how many more there are."""
  names = [str(name) for name in names]
  more = len(names) - most
  # "and 1 more" takes no less room than that name.
  shown = names[:most] if more > 1 else names
  return ', '.join(shown) + (f' and {more:,} more' if more > 1 else '')


class _OneLineError(Exception):
  """An error that `bam_jax.main` prints as one line, without a traceback."""

  def __init__(self, message: str):
    """Takes a message that may quote a file; it stays one line of some length.

    What does not print, such as a newline or a terminal's escape, is spelt
    out, and of a long message beginning and end are kept.
    """
    if len(message) > _LONGEST:
      half = _LONGEST // 2
      message = f'{message[:half]} … {message[-half:]}'
    super().__init__(
      ''.join(
        c if c.isprintable() else c.encode('unicode_escape').decode()
        for c in message
      )
    )


class UserError(_OneLineError):
  """A mistake of the user's, told in one line: where, what, how to mend it.

  `bam_jax.main` exits with status 2, which no launcher repeats. Anything that
  escapes and is neither this nor `RetryError` is a bug and keeps its traceback.
  """


class RetryError(_OneLineError):
  """A failure that is no mistake of the user's and may not come again.

  A process was killed, another machine is gone, a store does not answer: the
  same command goes on, without a change. `bam_jax.main` exits with status 75,
  which launchers repeat. What would only come again, such as a full disk, is a
  `UserError`.
  """


def python_command(program: str, needs: Mapping[str, str]) -> str:
  """A shell command, as a remedy, that runs a Python program.

  Args:
    program: the program's text.
    needs: module that it imports -> the package that holds it. Where a module
      is not installed here, the command installs all of the packages first.
  """
  command = shlex.join([sys.executable, '-c', program])
  if not absent(needs):
    return command
  install = shlex.join(
    [sys.executable, '-m', 'pip', 'install', *needs.values()]
  )
  return f'{install} && {command}'


def absent(modules: Iterable[str]) -> list[str]:
  """Those modules of installed packages that are missing; imports none."""
  return [name for name in modules if importlib.util.find_spec(name) is None]
