"""Reads and writes whole files and folders, without following links.

A work directory may come from an untrusted person. A link in it could make a
command read or overwrite any file of the user who runs it, and a pipe would
block the command. Therefore these functions open only regular files, and
`check_directory` checks a folder before a library that follows links uses it.
"""

import collections
from collections.abc import Iterator, Mapping
import contextlib
import errno
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
# Error codes of a broken disk. If a write fails with one of these, the OSError
# has no file name.
_BROKEN = (errno.EIO, errno.EROFS, errno.ESTALE)


@contextlib.contextmanager
def report_errors(*places: Path) -> Iterator[None]:
  """Context manager that turns an OSError in some folders into a `UserError`.

  Args:
    *places: the folders; an error without a file name is reported for the
      first one.

  Raises:
    errors.UserError: an OSError was raised for a file below one of the folders,
      or because a disk is full or broken. Any other OSError passes unchanged.
  """
  try:
    yield
  except OSError as e:
    name = None
    if isinstance(e.filename, (str, bytes, os.PathLike)):
      name = os.fsdecode(e.filename)
    path = Path(os.path.abspath(name or places[0]))
    is_below = any(path.is_relative_to(os.path.abspath(p)) for p in places)
    if e.errno in _FULL:
      remedy = 'free some space, and run the same command again'
    elif is_below and (name is not None or e.errno in _BROKEN):
      remedy = (
        'give permission, or move what is in its place, and run the same'
        ' command again'
      )
    else:
      raise
    where, reason = name or places[0], e.strerror or str(e)
    raise errors.UserError(f'{where}: {reason}; {remedy}') from e


def open_file(path: Path, mode: str = 'rb', **options: str) -> IO:
  """Opens a regular file, not a link; the folders above it may be links.

  Raises:
    OSError: the path is a link, a pipe or a device, or `open` failed.
  """
  return open(path, mode, opener=_open_regular, **options)


def _open_regular(path: str, flags: int) -> int:
  # Without O_NONBLOCK, opening a pipe would wait for its other end.
  flags |= os.O_NOFOLLOW | os.O_NONBLOCK
  try:
    descriptor = os.open(path, flags, 0o666)
  except OSError as e:
    if e.errno in (errno.ELOOP, errno.ENXIO):
      raise OSError(e.errno, _describe_special(path), path) from None
    raise
  if stat.S_ISREG(os.fstat(descriptor).st_mode):
    return descriptor
  os.close(descriptor)
  raise OSError(errno.EINVAL, 'is not a regular file', path)


def _describe_special(path: str) -> str:
  return 'is a link' if os.path.islink(path) else 'is not a regular file'


@contextlib.contextmanager
def new_file(path: Path, mode: str = 'xb', **options: str) -> Iterator[IO]:
  """Opens a temporary file that replaces the file at `path` when closed.

  The folder of `path` must exist. A link at `path` is replaced, not followed.

  Args:
    path: path of the file.
    mode: `xb` or `x`.
    **options: further arguments of `open`.

  Raises:
    OSError: the file cannot be written; the old file is kept.
  """
  temporary = path.with_name(f'.{path.name}.tmp')
  # A killed process may have left its temporary file. Mode x refuses existing
  # files, so a link that someone creates at this moment is not followed.
  temporary.unlink(missing_ok=True)
  try:
    with open(temporary, mode, **options) as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
  """Yields a new folder that replaces the folder at `path` when complete.

  Raises:
    errors.UserError: a file cannot be written; the old folder is kept.
  """
  unfinished = path.with_name(f'.{path.name}.unfinished')
  with report_unwritten(path):
    try:
      shutil.rmtree(unfinished, ignore_errors=True)
      # This fails if the path is a link, so no link is followed.
      unfinished.mkdir(parents=True)
      yield unfinished
      replace_directory(unfinished, path)
    finally:
      shutil.rmtree(unfinished, ignore_errors=True)


@contextlib.contextmanager
def report_unwritten(path: Path) -> Iterator[None]:
  """Context manager that turns an OSError into a `UserError` about writing."""
  try:
    yield
  except OSError as e:
    raise errors.UserError(
      f'{path}: cannot be written: {e.strerror or e} ({e.filename or path});'
      ' free some space, give permission, or choose another folder'
    ) from e


def replace_directory(new: Path, path: Path) -> None:
  """Renames a folder to `path`; an existing folder there is replaced.

  Raises:
    OSError: a folder cannot be renamed, or `path` is a link; the old folder is
      kept.
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


def copy_directory(source: Path, target: Path) -> None:
  """Copies a folder; the copy replaces `target` when it is complete.

  Raises:
    errors.UserError: the source holds a link or special file, or a file cannot
      be copied; the old target is kept.
  """
  with new_directory(target) as unfinished:
    for entry in walk_files(source):
      path = unfinished / Path(entry.path).relative_to(source)
      path.parent.mkdir(parents=True, exist_ok=True)
      with open_file(Path(entry.path)) as old, path.open('xb') as new:
        shutil.copyfileobj(old, new, 1 << 20)
      shutil.copystat(entry, path, follow_symlinks=False)


def walk_files(directory: Path) -> Iterator[os.DirEntry[str]]:
  """Yields all files below a folder.

  Raises:
    errors.UserError: the folder is or holds a link or special file, or it
      cannot be read.
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
            raise _refuse(entry.path)
    except OSError as e:
      raise errors.UserError(
        f'{folder}: cannot be read: {e.strerror}; give permission, or choose'
        ' another folder'
      ) from e


def check_link(path: Path) -> None:
  """Raises a `UserError` if a path is a link."""
  if path.is_symlink():
    raise _refuse(str(path))


def _refuse(path: str) -> errors.UserError:
  return errors.UserError(
    f'{path}: {_describe_special(path)}, and links and special files are'
    ' refused here; replace it by the file or folder itself, or remove it'
  )


def check_directory(directory: Path) -> None:
  """Raises a `UserError` if an existing folder holds a link or special file."""
  if directory.is_symlink() or directory.exists():
    collections.deque(walk_files(directory), maxlen=0)


def write_bytes(path: Path, data: bytes) -> None:
  """Writes a file atomically: a reader sees the old or the new content.

  Raises:
    errors.UserError: the file cannot be written.
  """
  with report_unwritten(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
      file.write(data)


def write_text(path: Path, text: str) -> None:
  """Writes a UTF-8 file like `write_bytes`; escapes unpaired surrogates."""
  write_bytes(path, text.encode(errors='backslashreplace'))


def write_json(path: Path, value: object) -> None:
  """Writes a value as JSON to a file; nan and infinity become null."""
  write_text(path, to_json(value))


def to_json(value: object) -> str:
  """Returns a value as indented JSON; nan and infinity become null."""
  return json.dumps(finite(value), indent=1, allow_nan=False) + '\n'


def finite(value: object) -> object:
  """Replaces nan and infinity in nested values by None, which JSON can hold.

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


def read_json(
  path: Path, remedy: str = 'remove it and run the same command again'
) -> dict[str, object]:
  """Reads a JSON object that this package wrote; refuses a link.

  Raises:
    errors.UserError: the file is missing or damaged. For a damaged file, the
      message ends with `remedy`.
  """
  try:
    return parse_json(read_bytes(path).decode())
  except OSError as e:
    raise errors.UserError(
      f'{path}: cannot be read: {e.strerror}; fix this and run the same'
      ' command again'
    ) from e
  except ValueError as e:
    raise errors.UserError(f'{path}: is damaged ({e}); {remedy}') from e


def read_bytes(path: Path, most: int = _MAX_BYTES) -> bytes:
  """Reads a file that this package wrote; refuses links and large files.

  Raises:
    OSError: the file is missing or cannot be read.
    ValueError: the file has more than `most` bytes.
  """
  with open_file(path) as file:
    return _read(file, most)


def _read(file: IO, most: int) -> bytes:
  # Checked before reading: a sparse file may be larger than the disk.
  size = os.fstat(file.fileno()).st_size
  if size > most:
    raise ValueError(f'{size} bytes, over {most}')
  return file.read(size)


def load_text(path: Path) -> str:
  """Reads a small UTF-8 file that the user wrote; follows links.

  Raises:
    OSError: the file is missing or cannot be read.
    ValueError: the file is too large, or is not UTF-8.
  """
  # Reading a pipe or a device may never end.
  if path.exists() and not path.is_file():
    raise OSError(errno.EINVAL, 'is not a regular file')
  with path.open('rb') as file:
    return _read(file, _MAX_BYTES).decode()


def parse_json(text: str) -> dict[str, object]:
  """Parses a JSON object from an untrusted source.

  Raises:
    ValueError: the text is not a JSON object, an object in it has a key twice,
      or it is nested too deep.
  """
  try:
    value = json.loads(text, object_pairs_hook=_refuse_repeated_keys)
  except RecursionError:
    raise ValueError('nested too deep') from None
  if not isinstance(value, dict):
    raise ValueError(f'a {type(value).__name__} in place of an object')
  level = [value]
  for _ in range(_MAX_JSON_DEPTH):
    level = [
      item
      for group in level
      if isinstance(group, dict | list)
      for item in (group.values() if isinstance(group, dict) else group)
    ]
    if not level:
      return value
  raise ValueError('nested too deep')


def _refuse_repeated_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
  result = dict(pairs)
  if len(result) < len(pairs):
    ((key, _),) = collections.Counter(k for k, _ in pairs).most_common(1)
    raise ValueError(f'key {key!r} twice')
  return result
