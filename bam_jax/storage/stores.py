"""Object stores by their URL: s3://BUCKET/PATH and gs://BUCKET/PATH.

fsspec speaks to them. Where and as whom is said by what the clouds' own tools
read: AWS_PROFILE, AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, the
machine's role.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import hashlib
import importlib.util
import os
from pathlib import Path

from bam_jax import errors

# Scheme -> the package that speaks it, and the extra that brings it.
_PACKAGES = {'s3': ('s3fs', 's3'), 'gs': ('gcsfs', 'gcs')}


class StoreError(errors.UserError):
  """A store can't be reached or refuses, told in one line with the URL."""


def is_url(place: str) -> bool:
  """Whether a place is a URL, of whatever scheme, and no local path."""
  return '://' in place


def cache_dir(url: str) -> Path:
  """The local folder that stands for a URL unless another one is given.

  Raises:
    errors.UserError: the user has no home.
  """
  try:
    home = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
  except RuntimeError as e:
    raise errors.UserError(
      f'{url}: there is no folder for its local copy ({e}); set XDG_CACHE_HOME'
      ' to one'
    ) from e
  digest = hashlib.sha256(url.encode()).hexdigest()[:16]
  return Path(home) / 'bam_jax' / digest


class Store:
  """The objects below one URL, by their names relative to it.

  Every method raises `StoreError` where the store can't be reached or refuses.

  Attributes:
    url: without a slash at its end.
  """

  def __init__(self, url: str):
    """Connects to nothing yet.

    Raises:
      errors.UserError: the scheme is unknown or its package is missing.
    """
    self.url = url.rstrip('/')
    scheme, _, self._root = self.url.partition('://')
    if scheme not in _PACKAGES or not self._root:
      raise errors.UserError(
        f'{url}: is no s3://BUCKET/PATH and no gs://BUCKET/PATH; give one of'
        ' them, or a local directory'
      )
    package, extra = _PACKAGES[scheme]
    if importlib.util.find_spec(package) is None:
      raise errors.UserError(
        f"{url}: needs the package {package}; pip install 'bam-jax[{extra}]'"
      )
    import fsspec

    # Another machine may change what a listing said.
    self._files = fsspec.filesystem(scheme, use_listings_cache=False)

  def read(self, name: str) -> bytes | None:
    """The bytes of an object; None if there is none."""
    with self._told():
      try:
        return self._files.cat_file(self._path(name))
      except FileNotFoundError:
        return None

  def write(self, name: str, data: bytes) -> None:
    """Replaces an object; a reader sees the old one or the whole new one."""
    with self._told():
      self._files.pipe_file(self._path(name), data)

  def create(self, name: str, data: bytes) -> bool:
    """Makes an object that is not there; False if it is."""
    with self._told():
      try:
        self._files.pipe_file(self._path(name), data, mode='create')
      except FileExistsError:
        return False
    return True

  def upload(self, sources: Mapping[str, Path]) -> None:
    """Puts local files, several at once: name -> file."""
    with self._told():
      self._files.put(
        [str(path) for path in sources.values()],
        [self._path(name) for name in sources],
      )

  def download(self, targets: Mapping[str, Path]) -> None:
    """Gets objects as local files, several at once: name -> file."""
    with self._told():
      self._files.get(
        [self._path(name) for name in targets],
        [str(path) for path in targets.values()],
      )

  def delete(self, names: Iterable[str]) -> None:
    """Deletes objects one after the other; those that aren't there are not."""
    for name in names:
      with self._told(), contextlib.suppress(FileNotFoundError):
        self._files.rm_file(self._path(name))

  def names(self, folder: str) -> list[str]:
    """The names of all objects below a folder; none if there is none."""
    with self._told():
      try:
        found = self._files.find(self._path(folder))
      except FileNotFoundError:
        return []
    return [name.removeprefix(f'{self._root}/') for name in found]

  def version(self, name: str) -> str | None:
    """What changes with an object's content; None if there is none."""
    with self._told():
      try:
        info = self._files.info(self._path(name))
      except FileNotFoundError:
        return None
    # S3 writes ETag, Google Cloud Storage etag.
    tag = {key.lower(): value for key, value in info.items()}.get('etag')
    return f'{info["size"]} {tag}'

  def _path(self, name: str) -> str:
    return f'{self._root}/{name}'

  @contextlib.contextmanager
  def _told(self) -> Iterator[None]:
    """Turns what the store's package raises into one line.

    Each raises what its client library does: there is no common class.
    """
    try:
      yield
    except Exception as e:
      raise StoreError(
        f'{self.url}: {type(e).__name__}: {e}; see to bucket, permission and'
        ' network, and give the same command again'
      ) from e
