"""A work directory that is kept in an object store, and worked on locally.

The commands work in a local directory, the scratch; what is complete there is
copied up in the background, and what the store has is brought down first. One
object, the index, names every file with its size and sha256. It is written when
all of them are there, and what it no longer names is deleted afterwards, so the
store goes from one whole state to the next, whenever a process dies.
"""

from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import json
import logging
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
EVERY = 10.0  # seconds between two looks at what is complete
PATIENCE = 300.0  # seconds for which a store may fail

_OWN_FOLDER = '.mirror'  # below the scratch
_BATCH = 64  # files that are under way at once

# Name of a file -> size in bytes and sha256.
Index = dict[str, list[object]]


class Mirror:
  """Keeps a store and its scratch alike, as a context manager.

  with store_lock.StoreLock(store, preemption_signal) as held:
    with Mirror(store, held, None, preemption_signal) as scratch:
      ...  # The scratch has what the store has, and is worked in.
    # The store has all that is complete in the scratch.
  """

  def __init__(
    self,
    store: stores.Store,
    held: store_lock.StoreLock,
    scratch: Path | None,
    preemption_signal: preemption.Signal,
  ):
    """Reads and writes nothing yet.

    Args:
      store: the work directory.
      held: its lock.
      scratch: the local one; None: a folder of the user's cache.
      preemption_signal: triggered if the store fails for long.
    """
    self._scratch = scratch or stores.cache_dir(store.url)
    self._store = store
    self._preemption_signal = preemption_signal
    self._lock = held
    self._local_lock = lock.Lock(self._scratch)
    self._own = self._scratch / _OWN_FOLDER
    self._writer = ''
    self._index: Index = {}
    self._marks: complete.Marks = {}
    self._sent: set[str] = set()
    self._measured: dict[str, tuple[tuple[int, ...], list[object]]] = {}
    self._last = contextlib.ExitStack()
    self._leaving = threading.Event()
    self._thread = threading.Thread(target=self._keep, daemon=True)

  def __enter__(self) -> Path:
    """Takes the scratch, and brings down what the store has.

    Raises:
      errors.UserError: another process holds the scratch, it or the store can't
        be used, or the scratch holds something else's work.
    """
    with contextlib.ExitStack() as stack:
      stack.enter_context(self._local_lock)
      logging.info('%s: worked on in %s', self._store.url, self._scratch)
      with _told(self._scratch):
        self._bring_down()
      self._thread.start()
      self._last.enter_context(
        self._preemption_signal.before_exit(self._finish)
      )
      stack.pop_all()
    return self._scratch

  def __exit__(self, kind: type | None, *unused_exception: object) -> None:
    with contextlib.ExitStack() as stack:
      stack.push(self._local_lock)
      # A first signal waits for this; a second one doesn't.
      with self._preemption_signal.defer_exit():
        self._last.close()
        try:
          self._finish()
        except (errors.UserError, errors.RetryError) as e:
          if kind in (None, SystemExit, preemption.Preempted):
            raise
          logging.error('%s', e)

  def _finish(self) -> None:
    """Copies up what is complete, for the last time."""
    self._leaving.set()
    self._thread.join()
    try:
      with _told(self._scratch):
        self._push()
    except errors.UserError as e:
      # The store was there when the command began.
      is_gone = isinstance(e, stores.StoreError)
      kind = errors.RetryError if is_gone else errors.UserError
      raise kind(f'{e}; {self._scratch} has everything') from e

  def _bring_down(self) -> None:
    """Makes the scratch what the store is, unless it has gone on from there."""
    state = self._own / 'state.json'
    known = None
    if state.exists():
      known = files.read_json(state, 'choose another --scratch')
    if known and known['url'] != self._store.url:
      raise errors.UserError(
        f'{self._scratch}: is the scratch of {known["url"]}; choose another'
        ' --scratch'
      )
    writer, self._index = self._read_index()
    local = set(complete.names(self._scratch))
    if writer and local and not known:
      raise errors.UserError(
        f'{self._scratch}: holds other work than {self._store.url}; choose'
        ' another --scratch'
      )
    self._writer = known['writer'] if known else secrets.token_hex(8)
    files.write_json(state, {'url': self._store.url, 'writer': self._writer})
    if not writer:
      return
    there = set(self._store.names(''))
    # A folder that someone has removed is to be made anew.
    self._index = {n: e for n, e in self._index.items() if n in there}
    if writer != self._writer:
      # Another machine has gone on with what may be older here.
      for name in sorted(local):
        if self._measure(name, self._scratch / name) != self._index.get(name):
          _remove(self._scratch, name)
          local.discard(name)
      missing = [name for name in self._index if name not in local]
    else:
      steps = complete.find(self._scratch, self._own / 'stage', {}).steps
      missing = [
        name
        for name in self._index
        if not (self._scratch / name).exists()
        and not complete.is_outgrown(self._scratch, name, steps)
      ]
    self._download(missing)
    # What a process that died had sent and not named.
    self._store.delete(
      filter(complete.is_checkpoint, there - self._index.keys())
    )
    if writer != self._writer:
      self._write_index(self._index)

  def _download(self, names: Iterable[str]) -> None:
    """Gets files of the index, marks last, each compared before it is used."""
    incoming = self._own / 'incoming'
    count = 0
    for batch in _batches(names):
      shutil.rmtree(incoming, ignore_errors=True)
      targets = {name: incoming / name for name in batch}
      for path in targets.values():
        path.parent.mkdir(parents=True, exist_ok=True)
      self._store.download(targets)
      for name, path in targets.items():
        # What is no part of a folder may be newer than the index: it is
        # replaced as a whole.
        whole = list(columns.measure(path)) == self._index[name]
        if complete.is_of_folder(name) and not whole:
          raise errors.UserError(
            f'{self._store.url}/{name}: is not what was put there; remove that'
            ' folder there, or that of the run, and give the same command'
            ' again: it is made anew'
          )
        (self._scratch / name).parent.mkdir(parents=True, exist_ok=True)
        path.replace(self._scratch / name)
      count += len(batch)
    if count:
      logging.info('%s: %d files brought down', self._store.url, count)

  def _keep(self) -> None:
    """Copies up until it is left, or the store has failed for long."""
    good, failing = time.monotonic(), False
    while not self._leaving.wait(EVERY):
      try:
        with _told(self._scratch):
          self._push()
        good, failing = time.monotonic(), False
      except errors.UserError as e:
        if time.monotonic() - good > PATIENCE:
          # The steps so far are saved, and the last attempt tells the rest.
          self._preemption_signal.trigger()
          return
        if not failing:
          logging.warning('%s; tried again for %.0f s', e, PATIENCE)
        failing = True

  def _push(self) -> None:
    """Brings the store to what is complete in the scratch now."""
    self._lock.check()
    found = complete.find(self._scratch, self._own / 'stage', self._marks)
    index = {
      name: entry
      for name, entry in self._index.items()
      if not complete.is_outgrown(self._scratch, name, found.steps)
    }
    changed = {}
    for name, path in found.files.items():
      index[name] = self._measure(name, path)
      if index[name] != self._index.get(name):
        changed[name] = path
    for batch in _batches(changed):
      if self._leaving.is_set() and threading.current_thread() is self._thread:
        return  # The last time begins with what is newer.
      self._sent.update(batch)
      self._store.upload({name: changed[name] for name in batch})
    if index != self._index:
      self._lock.check()
      gone = (self._index.keys() | self._sent) - index.keys()
      self._write_index(index)
      self._store.delete(sorted(gone, key=_is_mark, reverse=True))
      self._sent.clear()
    self._marks = found.marks

  def _measure(self, name: str, path: Path) -> list[object]:
    """Size and sha256 of a file; read again only where it has changed."""
    stat = path.stat()
    stamp = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    before, entry = self._measured.get(name, (None, []))
    if before != stamp:
      entry = list(columns.measure(path))
      self._measured[name] = (stamp, entry)
    return entry

  def _read_index(self) -> tuple[str, Index]:
    """Who wrote the index, and what it names; empty where there is none."""
    data = self._store.read(INDEX)
    if data is None:
      return '', {}
    try:
      value = files.parse_json(data.decode())
      if not isinstance(value['files'], dict):
        raise ValueError('its files are no object')
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


def _is_mark(name: str) -> bool:
  return name.rpartition('/')[2] in complete.MARKS


def _batches(names: Iterable[str]) -> Iterator[list[str]]:
  """Names, some at a time, none that is a mark with one that is not."""
  marks: dict[bool, list[str]] = {False: [], True: []}
  for name in names:
    marks[_is_mark(name)].append(name)
  for group in marks.values():
    for start in range(0, len(group), _BATCH):
      yield group[start : start + _BATCH]


def _remove(root: Path, name: str) -> None:
  """Deletes a file and the folders that it leaves empty.

  Orbax takes an empty folder for a checkpoint.
  """
  path = root / name
  path.unlink()
  while path.parent != root and not any(path.parent.iterdir()):
    path = path.parent
    path.rmdir()


@contextlib.contextmanager
def _told(scratch: Path) -> Iterator[None]:
  """Turns the local file system's errors into one line."""
  try:
    yield
  except OSError as e:
    raise errors.UserError(
      f'{e.filename or scratch}: {e.strerror or e}; free some space, or choose'
      ' another --scratch'
    ) from e
