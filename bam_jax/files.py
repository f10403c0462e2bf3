"""Reads and writes files and folders: whole or not at all, without links.

A work directory may come from a stranger. A link in it could lead a command to
read or overwrite any file of its user, and a pipe would block the command. So
files there are opened by `open_file` or `new_file`, folders are copied by
`copy_directory`, and whole folders are checked by `check_directory` before
libraries that follow links read or write in them.
"""

import collections
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import errno
import io
import json
import math
import os
from pathlib import Path
import shutil
import stat
from typing import IO

from bam_jax import errors

_MAX_BYTES = 1 << 26
_MAX_JSON_DEPTH = 100


# Error codes of a full disk or quota.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Error codes of a broken disk; an error of a write names no file.
_BROKEN = (errno.EIO, errno.EROFS, errno.ESTALE)


@contextlib.contextmanager
def told_below(*places: Path) -> Iterator[None]:
  """Turns file system errors below some places into one-line errors.

  Libraries raise them from anywhere: a folder that may not be read, a file in
  the place of a folder, a full disk.

  Args:
    *places: folders; errors that name no file are reported of the first.

  Raises:
    errors.UserError: in place of an OSError of a file below one of the places,
      or of a disk. Any other OSError passes unchanged.
  """
  try:
    yield
  except OSError as e:
    name = None
    if isinstance(e.filename, (str, bytes, os.PathLike)):
      name = os.fsdecode(e.filename)
    where, reason = name or places[0], e.strerror or str(e)
    if e.errno in _FULL:
      remedy = 'free some space, and the same command goes on'
    elif _is_below(name, places) or (name is None and e.errno in _BROKEN):
      remedy = (
        'give permission, or move what is in its place, and give the same'
        ' command again'
      )
    else:
      raise
    raise errors.UserError(f'{where}: {reason}; {remedy}') from e


def _is_below(name: str | None, places: Collection[Path]) -> bool:
  if name is None:
    return False
  path = Path(os.path.abspath(name))
  return any(path.is_relative_to(os.path.abspath(place)) for place in places)


def open_file(path: Path, mode: str = 'rb', **options: str) -> IO:
  """Opens a regular file that must not be a link.

  Links in the folders above the file are followed.

  Raises:
    OSError: the path is a link, a pipe or a device, or as `open`.
  """
  return open(path, mode, opener=_open_regular, **options)


def _open_regular(path: str, flags: int) -> int:
  # O_NONBLOCK: opening a pipe would wait for its other end.
  flags |= os.O_NOFOLLOW | os.O_NONBLOCK
  try:
    descriptor = os.open(path, flags, 0o666)
  except OSError as e:
    if e.errno in (errno.ELOOP, errno.ENXIO):
      raise OSError(e.errno, _what(path), path) from None
    raise
  if stat.S_ISREG(os.fstat(descriptor).st_mode):
    return descriptor
  os.close(descriptor)
  raise OSError(errno.EINVAL, 'is no regular file', path)


def _what(path: str) -> str:
  """Returns what a path is, which is neither a regular file nor a folder."""
  return 'is a link' if os.path.islink(path) else 'is no regular file'


@contextlib.contextmanager
def new_file(path: Path, mode: str = 'xb', **options: str) -> Iterator[IO]:
  """Opens a temporary file that replaces the one at `path` when closed.

  A link at `path` is replaced, not followed.

  Args:
    path: of the file; its folder exists.
    mode: `xb` or `x`.
    **options: as for `open`.

  Raises:
    OSError: the file can't be written; what was there stays.
  """
  temporary = path.with_name(f'.{path.name}.tmp')
  # A killed process may have left one. Mode x creates a file and never opens
  # an existing one, so a link that someone puts there is not followed.
  temporary.unlink(missing_ok=True)
  try:
    with open(temporary, mode, **options) as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
  """Replaces a file; a reader sees the old or the whole new content.

  Raises:
    errors.UserError: the file can't be written (no permission, no space).
  """
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
      file.write(data)
  except OSError as e:
    raise errors.UserError(
      f'{path}: cannot be written: {e.strerror}; free some space or choose'
      ' another --workdir'
    ) from e


def write_text(path: Path, text: str) -> None:
  """Replaces a file by UTF-8 text; lone surrogates are spelt out."""
  write_bytes(path, text.encode(errors='backslashreplace'))


def write_json(path: Path, value: object) -> None:
  """Replaces a file by a value as JSON; see `json_text`."""
  write_text(path, json_text(value))


def json_text(value: object) -> str:
  """Returns a value as indented JSON, with null for nan and infinity."""
  return json.dumps(finite(value), indent=1, allow_nan=False) + '\n'


def finite(value: object) -> object:
  """Replaces each number that is not finite by None, as JSON has none.

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
  """Yields a new directory that replaces the one at `path` when complete.

  Raises:
    errors.UserError: something can't be written; the old directory is kept.
  """
  unfinished = path.with_name(f'.{path.name}.unfinished')
  try:
    shutil.rmtree(unfinished, ignore_errors=True)
    # It fails if anything is left there, so no link is followed.
    unfinished.mkdir(parents=True)
    yield unfinished
    replace_directory(unfinished, path)
  except OSError as e:
    raise errors.UserError(
      f'{path}: could not be written ({e.strerror or e}); make room there, or'
      ' choose another --workdir'
    ) from e


def replace_directory(new: Path, path: Path) -> None:
  """Renames a folder to `path`; if that fails, the old one is kept.

  Raises:
    OSError: it fails, or `path` is a link.
  """
  if path.is_symlink():
    raise OSError(errno.ELOOP, 'is a link', str(path))
  if not path.exists():
    new.rename(path)
    return
  old = path.with_name(f'.{path.name}.old')
  shutil.rmtree(old, ignore_errors=True)
  path.rename(old)
  try:
    new.rename(path)
  except OSError:
    old.rename(path)
    raise
  shutil.rmtree(old, ignore_errors=True)


def walk_files(directory: Path) -> Iterator[os.DirEntry[str]]:
  """Yields all files below a folder that holds only files and folders.

  Raises:
    errors.UserError: the folder is or holds a link, a pipe, a socket or a
      device, or it can't be read.
  """
  check_link(directory)
  folders = [str(directory)]
  while folders:
    folder = folders.pop()
    try:
      with os.scandir(folder) as entries:
        for entry in entries:
          if entry.is_dir(follow_symlinks=False):
            folders.append(entry.path)
          elif entry.is_file(follow_symlinks=False):
            yield entry
          else:
            raise _no_file(entry.path)
    except OSError as e:
      raise errors.UserError(
        f'{folder}: cannot be read: {e.strerror}; give permission, or choose'
        ' another folder'
      ) from e


def check_link(path: Path) -> None:
  """Raises if a path is a link.

  Raises:
    errors.UserError: it is one.
  """
  if path.is_symlink():
    raise _no_file(str(path))


def _no_file(path: str) -> errors.UserError:
  return errors.UserError(
    f'{path}: {_what(path)}, and no link or special file is followed here; put'
    ' the file or folder itself in its place, or remove it'
  )


def check_directory(directory: Path) -> None:
  """Raises if a folder holds a link or special file; it may be missing.

  Raises:
    errors.UserError: as `walk_files`.
  """
  if directory.is_symlink() or directory.exists():
    collections.deque(walk_files(directory), maxlen=0)


def copy_directory(source: Path, target: Path) -> None:
  """Copies a folder; replaces the target when the copy is complete.

  Raises:
    errors.UserError: as `walk_files`, or something can't be copied; the old
      target is kept.
  """
  check_directory(source)
  temporary = target.with_name(f'.{target.name}.tmp')
  try:
    shutil.rmtree(temporary, ignore_errors=True)
    # A link that appears after the check is copied as a link and found below.
    shutil.copytree(source, temporary, symlinks=True, copy_function=_copy_file)
    check_directory(temporary)
    replace_directory(temporary, target)
  except (OSError, shutil.Error) as e:
    reason = e.args[0][0][2] if isinstance(e, shutil.Error) else e
    raise errors.UserError(
      f'{target}: cannot be copied from {source} ({reason}); mend what it names'
      ' and run the same command again'
    ) from e
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _copy_file(source: str, target: str) -> None:
  with open_file(Path(source)) as old, open(target, 'xb') as new:
    shutil.copyfileobj(old, new, 1 << 20)
  shutil.copystat(source, target, follow_symlinks=False)


def read_json(
  path: Path, remedy: str = 'remove it and run the same command again'
) -> dict[str, object]:
  """Reads the object in a JSON file of this package; follows no link.

  Args:
    path: of the file.
    remedy: for a damaged file, for the error.

  Raises:
    errors.UserError: the file is missing or damaged.
  """
  try:
    with open_file(path) as file:
      return parse_json(_read(file).decode())
  except OSError as e:
    raise errors.UserError(f'{path}: cannot be read: {e.strerror}') from e
  except ValueError as e:
    raise errors.UserError(f'{path}: is damaged ({e}); {remedy}') from e


def load_json(path: Path) -> dict[str, object]:
  """Reads the object in a JSON file from anywhere.

  Raises:
    OSError: there is no such file, or it can't be read.
    ValueError: it is too large, not UTF-8, or as `parse_json`.
  """
  return parse_json(load_text(path))


def load_text(path: Path, newline: str | None = None) -> str:
  """Reads the text of a small file from anywhere.

  Args:
    path: the file.
    newline: as for `open`; by default lines end as in any text file.

  Raises:
    OSError: there is no such file, or it can't be read.
    ValueError: it is too large or not UTF-8.
  """
  # A pipe or a device could be read for ever.
  if path.exists() and not path.is_file():
    raise OSError(errno.EINVAL, 'is no regular file')
  with path.open('rb') as file:
    data = io.BytesIO(_read(file))
    return io.TextIOWrapper(data, 'utf-8', newline=newline).read()


def read_bytes(path: Path, most: int) -> bytes:
  """Reads the bytes of a file of this package; follows no link.

  Raises:
    OSError: there is no such file, or it can't be read.
    ValueError: it is too large.
  """
  with open_file(path) as file:
    return _read(file, most)


def _read(file: IO, most: int = _MAX_BYTES) -> bytes:
  """Reads a file after a check of its size: a sparse file may be huge."""
  size = os.fstat(file.fileno()).st_size
  if size > most:
    raise ValueError(f'{size} bytes, over {most}')
  return file.read(size)


def parse_json(text: str) -> dict[str, object]:
  """Parses a text from anywhere that must be a JSON object.

  Raises:
    ValueError: it is not JSON or not an object, has a key twice in one object
      (readers differ in which they take), or is nested too deep to walk over.
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
