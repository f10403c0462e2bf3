"""Locks a local work directory, so that one command works in it at a time."""

import datetime
import fcntl
import logging
import os
from pathlib import Path
import socket
from typing import IO
from typing import Self

from bam_jax import errors
from bam_jax import files

FILE = 'LOCK'
# Folders of a work directory in which commands read and write; `.mirror` exists
# if the work directory is kept in an object store.
FOLDERS = (
  'compiled', 'exports', 'features', 'predictions', 'runs', 'teachers',
  '.mirror',
)  # fmt: skip


class Lock:
  """Context manager that locks a work directory for this process.

  The directory may come from a stranger, and libraries follow links when they
  read and write in it. So a link in its folders is refused before anything is
  read or written. The directory itself may be a link.

  The operating system releases the lock whenever the process ends. A file that
  was left behind locks nothing.
  """

  def __init__(self, workdir: Path):
    self._path = workdir / FILE
    self._file: IO[str] | None = None

  def __enter__(self) -> Self:
    """Locks the directory, which is created if it is missing.

    Raises:
      errors.UserError: another process holds the lock, the directory can't be
        written, or it has a link in it.
    """
    while not self._take():
      pass  # The holder has just removed the file.
    try:
      for name in FOLDERS:
        files.check_directory(self._path.parent / name)
    except BaseException:
      self.__exit__()
      raise
    self._file.truncate(0)
    since = datetime.datetime.now().astimezone().isoformat(timespec='seconds')
    self._file.write(
      f'process {os.getpid()} on {socket.gethostname()} since {since}\n'
    )
    self._file.flush()
    return self

  def __exit__(self, *unused_exception: object) -> None:
    self._path.unlink(missing_ok=True)
    self._file.close()

  def _take(self) -> bool:
    """Locks the file; returns False if the file has been removed meanwhile."""
    try:
      self._path.parent.mkdir(parents=True, exist_ok=True)
      self._file = files.open_file(self._path, 'a+', encoding='utf-8')
    except OSError as e:
      raise errors.UserError(
        f'{e.filename}: {e.strerror}; choose a --workdir that can be written'
      ) from e
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
      self._file.seek(0)
      holder = self._file.read().strip() or 'another process'
      self._file.close()
      raise errors.UserError(
        f'{self._path.parent}: in use by {holder}; wait until it ends, or'
        ' choose another --workdir'
      ) from e
    except OSError as e:
      logging.warning(
        '%s: this file system knows no locks (%s); see to it that no other'
        ' command works here',
        self._path.parent,
        e.strerror,
      )
    taken = os.fstat(self._file.fileno())
    if taken.st_nlink > 1:
      self._file.close()
      raise errors.UserError(
        f'{self._path}: is a hard link to another file, which would be'
        ' overwritten; remove it'
      )
    if self._path.exists() and os.path.samestat(taken, self._path.stat()):
      return True
    self._file.close()
    return False
