"""Error classes with one-line messages, and helpers for these messages."""

from collections.abc import Collection, Iterable, Iterator, Mapping
import difflib
import importlib.util
import shlex
import sys

from bam_jax import trainer_names

# Most characters of a message. A command with a few long paths is not cut.
_MAX_LENGTH = 4000
_MAX_NAMES = 8


class _OneLineError(Exception):
  """An error that `bam_jax.main` prints as one line, without a traceback."""

  def __init__(self, message: str):
    """Escapes unprintable characters and cuts the middle of a long message."""
    if len(message) > _MAX_LENGTH:
      half = _MAX_LENGTH // 2
      message = f'{message[:half]} … {message[-half:]}'
    super().__init__(
      ''.join(
        c if c.isprintable() else c.encode('unicode_escape').decode()
        for c in message
      )
    )


class UserError(_OneLineError):
  """A mistake by the user; the message says where, what and how to fix it.

  `bam_jax.main` exits with status 2, after which launchers do not retry. An
  exception that is neither a `UserError` nor a `RetryError` is a bug and is
  printed with its traceback.
  """


class RetryError(_OneLineError):
  """A failure after which the same command may succeed, unchanged.

  For example, a process was killed or an object store does not answer.
  `bam_jax.main` exits with status 75, after which launchers retry. A failure
  that would occur again, such as a full disk, is a `UserError`.
  """


def raise_first(mistakes: Iterable[str]) -> None:
  """Raises a `UserError` with the first message, if there is one."""
  for message in mistakes:
    raise UserError(message)


def find_unknown(
  where: str, values: Iterable[object], known: Collection[object]
) -> Iterator[str]:
  """Yields a message for each value that is not one of the known values.

  >>> list(find_unknown('f', ['acc'], ['accuracy', 'f1']))
  ["f: 'acc' is none of accuracy, f1; the nearest is accuracy"]
  >>> list(find_unknown('f', ['sum'], ['', 'mean', 'max']))
  ["f: 'sum' is none of '', mean, max"]
  """
  names = [str(name) or "''" for name in known]
  for value in values:
    if value in known:
      continue
    if several := describe_list(value, names):
      yield f'{where}: {value!r} is {several}'
    else:
      other = trainer_names.translate_value(str(value))
      near = [other] if other in names else []
      near = near or difflib.get_close_matches(str(value), names, 1)
      yield f'{where}: {value!r} is none of {", ".join(names)}' + ''.join(
        f'; the nearest is {name}' for name in near
      )


def describe_list(value: object, known: Iterable[str]) -> str:
  """Says how to write several known names, if `value` has them in one string.

  Flags of the command line need quotes around each name.

  >>> print(describe_list('acc, f1', ['acc', 'f1']))
  one name; several, where allowed, are written "('acc', 'f1')"
  >>> describe_list('acc', ['acc', 'f1'])
  ''
  """
  names = tuple(n.strip(' \'"') for n in str(value).strip('()[] ').split(','))
  if len(names) == 1 or not {*names} <= {*known}:
    return ''
  return f'one name; several, where allowed, are written "{names}"'


def some(names: Iterable[object]) -> str:
  """Lists the first few names and counts the rest: 'a, b and 5 more'."""
  names = [str(name) for name in names]
  more = len(names) - _MAX_NAMES
  # "and 1 more" would be as long as the name itself.
  shown = names[:_MAX_NAMES] if more > 1 else names
  return ', '.join(shown) + (f' and {more:,} more' if more > 1 else '')


def some_quoted(names: Iterable[object]) -> str:
  """Like `some`, with quotes around each name to make outer spaces visible."""
  return some(map(repr, names))


def python_command(program: str, needs: Mapping[str, str]) -> str:
  """Returns a shell command that runs a Python program, for error messages.

  `needs` maps each module that the program imports to its package. If a module
  is not installed, the command installs all the packages first.
  """
  command = shlex.join([sys.executable, '-c', program])
  if not absent(needs):
    return command
  install = [sys.executable, '-m', 'pip', 'install', *needs.values()]
  return f'{shlex.join(install)} && {command}'


def require(where: str, modules: Iterable[str], extra: str) -> None:
  """Raises a `UserError` if a module is not installed.

  Args:
    where: the flag or feature that needs the modules.
    modules: names of the modules.
    extra: the extra of this package that installs them.
  """
  for package in absent(modules):
    raise UserError(
      f"{where}: needs the package {package}; pip install 'bam-jax[{extra}]'"
    )


def absent(modules: Iterable[str]) -> list[str]:
  """Returns the modules that are not installed, without importing any.

  A folder without code does not count as a module: for example, W&B writes log
  files to a folder that has the name of its module.
  """
  found = {name: importlib.util.find_spec(name) for name in modules}
  return [
    n for n, spec in found.items() if spec is None or not spec.has_location
  ]
