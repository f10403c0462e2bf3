"""One command at a time in a work directory."""

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
# The folders of a work directory in which commands read and write; `.mirror` is
# there where the work directory is kept in an object store.
FOLDERS = (
  'compiled', 'exports', 'features', 'predictions', 'runs', 'teachers',
  '.mirror',
)  # fmt: skip


class Lock:
  """Holds a work directory for this process, as a context manager.

  The directory may have been copied from a stranger, and libraries that read
  and write in it follow links. So a link in its folders is refused here, before
  anything is read or written. The directory itself may be a link.

  The operating system lets go of it when the process ends, however it ends: no
  lock outlives its holder, and a file that was left behind locks nothing.
  """

  def __init__(self, workdir: Path):
    self._path = workdir / FILE
    self._file: IO[str] | None = None

  def __enter__(self) -> Self:
    """Takes the directory, making it if it isn't there.

    Raises:
      errors.UserError: another process holds it, nothing can be written, or
        it holds a link.
    """
    while not self._take():
      pass  # Its holder has just let go and removed the file.
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
    """Locks the file; False if it is no longer the one at its place."""
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
