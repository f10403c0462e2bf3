"""Locks a local work directory, so that one command works in it at a time."""

from collections.abc import Iterator
import contextlib
import datetime
import fcntl
import logging
import os
from pathlib import Path
import socket
from typing import IO

from bam_jax import errors
from bam_jax import files

FILE = 'LOCK'
# Folders of a work directory in which commands read and write; `.mirror` exists
# if the work directory is kept in an object store.
FOLDERS = (
  'compiled', 'exports', 'features', 'predictions', 'runs', 'teachers',
  '.mirror',
)  # fmt: skip


@contextlib.contextmanager
def lock_directory(workdir: Path) -> Iterator[None]:
  """Locks a work directory for this process; creates it if it is missing.

  The operating system releases the lock when the process ends, so a lock file
  that was left behind locks nothing. The directory may be a symbolic link.
  Links in its folders are refused, because libraries would follow them.

  Raises:
    errors.UserError: another process holds the lock, the directory cannot be
      written, or one of its folders contains a link.
  """
  path = workdir / FILE
  while (file := _try_lock(path)) is None:
    pass  # The holder has just removed the file.
  try:
    for name in FOLDERS:
      files.check_directory(workdir / name)
    file.truncate(0)
    since = datetime.datetime.now().astimezone().isoformat(timespec='seconds')
    file.write(
      f'process {os.getpid()} on {socket.gethostname()} since {since}\n'
    )
    file.flush()
    yield
  finally:
    path.unlink(missing_ok=True)
    file.close()


def _try_lock(path: Path) -> IO[str] | None:
  """Opens and locks a file; returns None if another process removed it."""
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = files.open_file(path, 'a+', encoding='utf-8')
  except OSError as e:
    raise errors.UserError(
      f'{e.filename}: {e.strerror}; choose a --workdir that can be written'
    ) from e
  with contextlib.ExitStack() as stack:
    stack.push(file)
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
      file.seek(0)
      holder = file.read().strip() or 'another process'
      raise errors.UserError(
        f'{path.parent}: in use by {holder}; wait until it ends, or choose'
        ' another --workdir'
      ) from e
    except OSError as e:
      logging.warning(
        '%s: this file system has no locks (%s); make sure that no other'
        ' command works here',
        path.parent,
        e.strerror,
      )
    locked = os.fstat(file.fileno())
    if locked.st_nlink > 1:
      raise errors.UserError(
        f'{path}: is a hard link to another file, which would be overwritten;'
        ' remove it'
      )
    if path.exists() and os.path.samestat(locked, path.stat()):
      stack.pop_all()
      return file
  return None
