"""Rewrites errors about flags and config files as messages for users.

absl and ml_collections raise these errors.
"""

from collections.abc import Iterable, Mapping
import difflib
import re
import traceback

from absl import flags

from bam_jax import config as config_lib
from bam_jax import schema
from bam_jax import trainer_names

# Type of a field -> what to give for it.
_TYPES = {'int': 'a whole number', 'float': 'a number', 'bool': 'True or False'}
# Start of the error message for a wrong value -> type of the field.
_CANNOT_CAST = {
  'invalid literal for int()': 'int',
  'could not convert string to float': 'float',
  "('Non-boolean argument": 'bool',
}


def describe(
  error: Exception, argv: list[str], own: Mapping[str, str], has_config: bool
) -> str:
  """Returns one line that says what is wrong and how to fix it.

  Args:
    error: the exception from the flag parser or from a config file.
    argv: the program and its arguments.
    own: option of Hugging Face's Trainer -> its name in this program; only for
      programs other than `bam_jax.main`.
    has_config: whether --config was given.
  """
  return _find_line(error) + _shorten(error, argv, own, has_config)


def _find_line(error: Exception) -> str:
  """Returns `FILE:LINE: ` for an error in a config file, else ''."""
  text = ''.join(traceback.format_tb(error.__traceback__)) + str(error)
  places = re.findall(r'File "(.+)", line (\d+), in (?:get_config|<mod)', text)
  return ''.join(f'{file}:{line}: ' for file, line in places[-1:])


def _shorten(
  error: Exception, argv: list[str], own: Mapping[str, str], has_config: bool
) -> str:
  """Returns an error's message in one line, with a hint on how to fix it.

  ConfigDict's list of all fields is left out.
  """
  cause = error.args[0] if error.args else error
  # `str` of a KeyError would quote and escape its text.
  text = str(cause.args[0] if isinstance(cause, KeyError) else cause)
  lines = text.splitlines()
  given = re.match('flag --config=(.*?):(.*): Error', lines[0])
  if given and 'get_config() takes 0 positional' in lines[-1]:
    # ml_collections passes the text after the colon to get_config().
    file, argument = given.groups()
    return (
      f'--config={file}: takes no argument, but {argument!r} comes after the'
      f' colon; give --config={file}'
    )
  if 'Error whilst parsing config file' in lines[0]:
    # The other lines are a traceback; `_find_line` returns its file and line.
    return _describe_cast(lines[-1])
  if key := re.match(r"(Key \"|')(\w+)(\" does not exist|'$)", lines[0]):
    hint = trainer_names.describe_option(key[2])
    # The error has only the last part of a name such as optimizer.name.
    for path in re.findall(rf'config\.([\w.]+\.{key[2]})\b', ' '.join(argv)):
      hint = hint or trainer_names.describe_option(path.replace('.', '_'))
    if not hint and lines[-1].startswith('Did you mean'):
      hint = f'. {lines[-1]}'
    return f'--config: no such key: {key[2]!r}{hint or _nearest(key[2])}'
  if isinstance(error, flags.UnrecognizedFlagError):
    name = error.flagname
    if name.startswith('config.') and not has_config:
      return f'--{name}: needs --config, whose field it sets; give both'
    hint = trainer_names.describe_option(name, own)
    hint = hint or _nearest(name, flags.FLAGS)
    return f'Unknown command line flag {name!r}{hint}'
  for told, kind in _CANNOT_CAST.items():
    flag, found, _ = text.partition(f': {told}')
    if found:
      return f'{flag}: give {_TYPES[kind]}{_describe_field(flag)}'
  return ' '.join(line.strip() for line in lines)


def _describe_cast(message: str) -> str:
  """Rewrites ConfigDict's error for a value that is not of the field's type."""
  found = re.search(
    r"override field '(\w+)' .*?\. (.*) is of original type <class '(\w+)'> and"
    r" cannot be casted to type <class '(\w+)'>",
    message,
  )
  if not found:
    return f'{message}; fix the file'
  field, value, given, wanted = found.groups()
  remedy = _TYPES.get(wanted, f'a {wanted}')
  if wanted == 'tuple':
    remedy += f', such as ({value!r},)' if given == 'str' else f' of {given}'
  return f'{field}: {value} is of type {given}; give {remedy}'


def _describe_field(flag: str) -> str:
  """Returns the meaning of a field, in parentheses; '' for other flags."""
  path = re.match(r'flag --config\.([\w.]+)=', flag)
  doc = path and schema.find_doc(config_lib.Config(), path[1])
  return f' ({doc})' if doc else ''


def _nearest(name: str, flag_names: Iterable[str] = ()) -> str:
  """Returns a hint that names the fields or the flag with the nearest name."""
  by_name = {flag: [f'--{flag}'] for flag in flag_names}
  for field in config_lib.default_values():
    by_name.setdefault(field.rpartition('.')[2], []).append(f'config.{field}')
  near = difflib.get_close_matches(name.rpartition('.')[2], by_name, 1)
  if not near:
    return '; bam_jax/fields.py has all fields, --help all flags'
  return f'; the nearest is {" or ".join(by_name[near[0]])}'
