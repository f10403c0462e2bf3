"""Mirrors a local work directory, the scratch, to an object store.

The files of the store are downloaded first. Then a thread uploads what is
complete in the scratch. One object, the index, lists every file with its size
and sha256. The index is written after the files that it lists are uploaded, and
before files that it no longer lists are deleted. So the store is in a complete
state at any time, even if a process dies.
"""

from collections.abc import Iterable, Iterator
import contextlib
import json
import logging
import os
from pathlib import Path
from pathlib import PurePosixPath
import secrets
import shutil
import threading
import time

from bam_jax import errors
from bam_jax import files
from bam_jax.data import columns
from bam_jax.runtime import preemption
from bam_jax.storage import complete
from bam_jax.storage import lock
from bam_jax.storage import store_lock
from bam_jax.storage import stores

INDEX = 'MIRROR.json'
EVERY = 10.0  # seconds between two uploads
PATIENCE = 300.0  # seconds of failing uploads, then the run is stopped

_OWN_FOLDER = '.mirror'  # below the scratch
_BATCH = 64  # files that are copied in parallel

# Name of a file -> size in bytes and sha256.
Index = dict[str, list[object]]


class Mirror:
  """Context manager that keeps an object store equal to a local scratch.

  On entry, it downloads the files of the store into the scratch. On exit, it
  uploads everything that is complete in the scratch.
  """

  def __init__(
    self,
    store: stores.Store,
    held: store_lock.StoreLock,
    scratch: Path | None,
    preemption_signal: preemption.Signal,
  ):
    """Creates a mirror; does not access the store or the disk yet.

    If `scratch` is None, a folder in the user's cache is used. If uploads fail
    for `PATIENCE` seconds, `preemption_signal` is triggered.
    """
    self._store, self._lock = store, held
    self._scratch = scratch or stores.cache_dir(store.url)
    self._own = self._scratch / _OWN_FOLDER
    self._preemption_signal = preemption_signal
    self._writer = ''
    self._index: Index = {}
    self._sentinels: complete.Sentinels = {}
    self._sent: set[str] = set()
    self._measured: dict[str, tuple[tuple[int, ...], list[object]]] = {}
    self._local_lock = lock.lock_directory(self._scratch)
    self._before_exit = preemption_signal.before_exit(self._finish)
    self._ending = threading.Event()
    self._thread = threading.Thread(target=self._upload_regularly, daemon=True)

  def __enter__(self) -> Path:
    """Locks the scratch, and downloads the files of the store into it.

    Raises:
      errors.UserError: another process has locked the scratch, the scratch or
        the store cannot be used, or the scratch belongs to another store.
    """
    with contextlib.ExitStack() as stack:
      stack.enter_context(self._local_lock)
      logging.info('%s: local copy in %s', self._store.url, self._scratch)
      with files.report_unwritten(self._scratch):
        self._download_all()
      self._thread.start()
      self._before_exit.__enter__()
      stack.pop_all()
    return self._scratch

  def __exit__(self, kind: type | None, *unused_exception: object) -> None:
    with contextlib.ExitStack() as stack:
      stack.push(self._local_lock)
      # The first preemption signal waits for the last upload; a second signal
      # ends the process.
      with self._preemption_signal.defer_exit():
        self._before_exit.__exit__(None, None, None)
        try:
          self._finish()
        except (errors.UserError, errors.RetryError) as e:
          if kind in (None, SystemExit, preemption.Preempted):
            raise
          logging.error('%s', e)

  def _finish(self) -> None:
    """Stops the upload thread, then uploads the last changes."""
    self._ending.set()
    self._thread.join()
    try:
      with files.report_unwritten(self._scratch):
        self._upload()
    except errors.UserError as e:
      # The store worked when the command began, so a retry may succeed.
      is_gone = isinstance(e, stores.StoreError)
      kind = errors.RetryError if is_gone else errors.UserError
      raise kind(f'{e}; {self._scratch} has everything') from e

  def _download_all(self) -> None:
    """Downloads missing files; deletes local files that differ from the store.

    If this scratch was the last one to write to the store, no local file is
    deleted, because no file in the store can be newer.
    """
    state = self._own / 'state.json'
    known = None
    if state.exists():
      known = files.read_json(state, 'choose another --scratch')
      if known['url'] != self._store.url:
        raise errors.UserError(
          f'{self._scratch}: is in use for {known["url"]}; choose another'
          ' --scratch'
        )
    writer, self._index = self._read_index()
    local = set(complete.names(self._scratch))
    if writer and local and not known:
      raise errors.UserError(
        f'{self._scratch}: holds files that are not from {self._store.url};'
        ' choose another --scratch'
      )
    self._writer = known['writer'] if known else secrets.token_hex(8)
    files.write_json(state, {'url': self._store.url, 'writer': self._writer})
    if not writer:
      return
    there = set(self._store.names(''))
    # If someone has removed a folder from the store, its content is made again.
    self._index = {n: e for n, e in self._index.items() if n in there}
    is_newest = writer == self._writer
    if is_newest:
      steps = complete.find(self._scratch, self._own / 'stage', {}).steps
    else:
      # Another scratch has written the store since, so files may be outdated.
      steps = {}
      for name in sorted(local):
        path = self._scratch / name
        if self._measure(name, path) != self._index.get(name):
          path.unlink()
          # Orbax would take an empty folder for a checkpoint.
          with contextlib.suppress(OSError):
            os.removedirs(path.parent)
    self._download(
      name
      for name in self._index
      if not (self._scratch / name).exists()
      and not complete.is_superseded(self._scratch, name, steps)
    )
    # Delete files of checkpoints that a process uploaded before it died without
    # writing the index.
    self._store.delete(
      filter(complete.is_checkpoint, there - self._index.keys())
    )
    if not is_newest:
      self._write_index(self._index)

  def _download(self, names: Iterable[str]) -> None:
    """Downloads and checks the named files of the index, sentinels last."""
    incoming = self._own / 'incoming'
    count = 0
    for batch in _batches(names):
      shutil.rmtree(incoming, ignore_errors=True)
      targets = {name: incoming / name for name in batch}
      for path in targets.values():
        path.parent.mkdir(parents=True, exist_ok=True)
      self._store.download(targets)
      for name, path in targets.items():
        # Only files in folders with a sentinel are checked: other files may be
        # newer than the index.
        is_equal = list(columns.measure(path)) == self._index[name]
        if complete.is_in_folder(name) and not is_equal:
          raise errors.UserError(
            f'{self._store.url}/{name}: is damaged (it differs from the index);'
            ' remove its folder, or the folder of its run, from the store, and'
            ' run the same command again'
          )
        (self._scratch / name).parent.mkdir(parents=True, exist_ok=True)
        path.replace(self._scratch / name)
      count += len(batch)
    if count:
      logging.info('%s: %d files downloaded', self._store.url, count)

  def _upload_regularly(self) -> None:
    """Uploads in a thread until the command ends or the store keeps failing."""
    good, failing = time.monotonic(), False
    while not self._ending.wait(EVERY):
      try:
        with files.report_unwritten(self._scratch):
          self._upload()
        good, failing = time.monotonic(), False
      except errors.UserError as e:
        if time.monotonic() - good > PATIENCE:
          # The run then saves a checkpoint, and the last upload reports the
          # error.
          self._preemption_signal.trigger()
          return
        if not failing:
          logging.warning('%s; trying again for %.0f s', e, PATIENCE)
        failing = True

  def _upload(self) -> None:
    """Uploads new complete files; deletes outdated ones from the store."""
    self._lock.check()
    found = complete.find(self._scratch, self._own / 'stage', self._sentinels)
    index = {
      name: entry
      for name, entry in self._index.items()
      if not complete.is_superseded(self._scratch, name, found.steps)
    }
    changed = {}
    for name, path in found.files.items():
      index[name] = self._measure(name, path)
      if index[name] != self._index.get(name):
        changed[name] = path
    for batch in _batches(changed):
      if self._ending.is_set() and threading.current_thread() is self._thread:
        return  # `_finish` makes the last upload, with newer files.
      self._sent.update(batch)
      self._store.upload({name: changed[name] for name in batch})
    if index != self._index:
      self._lock.check()
      gone = (self._index.keys() | self._sent) - index.keys()
      self._write_index(index)
      self._store.delete(sorted(gone, key=_is_sentinel, reverse=True))
      self._sent.clear()
    self._sentinels = found.sentinels

  def _measure(self, name: str, path: Path) -> list[object]:
    """Returns size and sha256 of a file; reads it only if it has changed."""
    stat = path.stat()
    stamp = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    before, entry = self._measured.get(name, (None, []))
    if before != stamp:
      entry = list(columns.measure(path))
      self._measured[name] = (stamp, entry)
    return entry

  def _read_index(self) -> tuple[str, Index]:
    """Returns the index's writer and files; both are empty if it is missing."""
    data = self._store.read(INDEX)
    if data is None:
      return '', {}
    try:
      value = files.parse_json(data.decode())
      if not isinstance(value['files'], dict):
        raise ValueError('its files are not an object')
      for name in value['files']:
        path = PurePosixPath(name)
        if path.is_absolute() or '..' in path.parts:
          raise ValueError(f'{name} leads out of it')
        if complete.is_left_out(name):
          raise ValueError(f'{name} is never copied')
      return value['writer'], value['files']
    except (KeyError, ValueError) as e:
      raise errors.UserError(
        f'{self._store.url}/{INDEX}: is damaged ({e}); choose another --workdir'
      ) from e

  def _write_index(self, index: Index) -> None:
    value = {'writer': self._writer, 'files': index}
    self._store.write(INDEX, json.dumps(value).encode())
    self._index = index


def _is_sentinel(name: str) -> bool:
  return name.rpartition('/')[2] in complete.SENTINELS


def _batches(names: Iterable[str]) -> Iterator[list[str]]:
  """Groups file names into batches; sentinel files are in the last batches."""
  names = list(names)
  for is_sentinel in (False, True):
    group = [name for name in names if _is_sentinel(name) == is_sentinel]
    for start in range(0, len(group), _BATCH):
      yield group[start : start + _BATCH]
