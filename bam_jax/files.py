"""Small files, written whole or not at all."""

import collections
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import errno
import json
import math
import os
from pathlib import Path
import shutil

from bam_jax import errors

_MAX_JSON_BYTES = 1 << 26
_MAX_JSON_DEPTH = 100


def write_bytes(path: Path, data: bytes) -> None:
  """Replaces a file so that a reader sees the old one or the whole new one.

  Raises:
    errors.UserError: the file can't be written (no permission, no space).
  """
  temporary = path.with_name(f'.{path.name}.tmp')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary.open('wb') as f:
      f.write(data)
      f.flush()
      os.fsync(f.fileno())
    os.replace(temporary, path)
  except OSError as e:
    raise errors.UserError(
      f'{path}: cannot be written: {e.strerror}; free some space or choose'
      ' another --workdir'
    ) from e


def write_text(path: Path, text: str) -> None:
  """`write_bytes` of UTF-8 text."""
  write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
  """`write_text` of `json_text`."""
  write_text(path, json_text(value))


def json_text(value: object) -> str:
  """Indented JSON of what `finite` leaves of a value."""
  return json.dumps(finite(value), indent=1, allow_nan=False) + '\n'


def finite(value: object) -> object:
  """A value with None for each number that is not finite: JSON has none.

  >>> finite({'f1': float('nan'), 'seeds': [0, 1]})
  {'f1': None, 'seeds': [0, 1]}
  """
  if isinstance(value, Mapping):
    return {key: finite(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [finite(item) for item in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
  """A directory to be filled, which then takes the place of one at `path`.

  Raises:
    errors.UserError: something can't be written; what was there is left.
  """
  unfinished = path.with_name(f'.{path.name}.unfinished')
  try:
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    yield unfinished
    shutil.rmtree(path, ignore_errors=True)
    unfinished.rename(path)
  except OSError as e:
    raise errors.UserError(
      f'{path}: could not be written ({e.strerror or e}); make room there, or'
      ' choose another --workdir'
    ) from e


def read_json(path: Path) -> dict[str, object]:
  """The object in a JSON file that this package wrote.

  Raises:
    errors.UserError: the file is missing, or is none that it would write.
  """
  try:
    return load_json(path)
  except OSError as e:
    raise errors.UserError(f'{path}: cannot be read: {e.strerror}') from e
  except ValueError as e:
    raise errors.UserError(
      f'{path}: is damaged ({e}); remove it and run the same command again'
    ) from e


def load_json(path: Path) -> dict[str, object]:
  """The object in a JSON file that anyone may have written.

  Raises:
    OSError: there is no such file, or it can't be read.
    ValueError: it is too large, no UTF-8, or as `parse_json`.
  """
  # A pipe or a device could be read for ever.
  if path.exists() and not path.is_file():
    raise OSError(errno.EINVAL, 'no regular file')
  with path.open('rb') as file:
    size = os.fstat(file.fileno()).st_size
    if size > _MAX_JSON_BYTES:
      raise ValueError(f'{size} bytes, over {_MAX_JSON_BYTES}')
    return parse_json(file.read(size).decode())


def parse_json(text: str) -> dict[str, object]:
  """The JSON object in a text that anyone may have written.

  Raises:
    ValueError: no JSON, no object, a key twice in one object (readers differ
      in which they take), or nested deeper than a walk over it could follow.
  """
  try:
    value = json.loads(text, object_pairs_hook=_unique)
  except RecursionError:
    raise ValueError('nested too deep') from None
  if not isinstance(value, dict):
    raise ValueError(f'a {type(value).__name__} in place of an object')
  level = [value]
  for _ in range(_MAX_JSON_DEPTH):
    level = [item for group in level for item in _items(group)]
    if not level:
      return value
  raise ValueError('nested too deep')


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
  result = dict(pairs)
  if len(result) < len(pairs):
    ((key, _),) = collections.Counter(k for k, _ in pairs).most_common(1)
    raise ValueError(f'key {key!r} twice')
  return result


def _items(value: object) -> Collection[object]:
  if isinstance(value, dict):
    return value.values()
  return value if isinstance(value, list) else ()
