"""Accesses object stores by URL: s3://BUCKET/PATH and gs://BUCKET/PATH.

fsspec takes the endpoint and the credentials from the same settings as the
clouds' tools: AWS_PROFILE, AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, or
the machine's role.
"""

from collections.abc import Iterable, Iterator, Mapping
import contextlib
import hashlib
import os
from pathlib import Path

from bam_jax import errors

# Scheme -> the package for it, and the extra that installs this package.
_PACKAGES = {'s3': ('s3fs', 's3'), 'gs': ('gcsfs', 'gcs')}


class StoreError(errors.UserError):
  """Raised if a store cannot be reached or refuses a request."""


def is_url(place: str) -> bool:
  """Whether a string is a URL of any scheme, not a local path."""
  return '://' in place


def cache_dir(url: str) -> Path:
  """Returns the default local folder for copies of the files at a URL.

  Raises:
    errors.UserError: the user has no home directory.
  """
  try:
    home = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
  except RuntimeError as e:
    raise errors.UserError(
      f'{url}: no folder for its local copy was found ({e}); set'
      ' XDG_CACHE_HOME to one'
    ) from e
  digest = hashlib.sha256(url.encode()).hexdigest()[:16]
  return Path(home) / 'bam_jax' / digest


class Store:
  """Reads and writes the objects below a URL, by their relative names.

  Every method raises `StoreError` if the store cannot be reached or refuses a
  request.

  Attributes:
    url: the URL, without a slash at its end.
  """

  def __init__(self, url: str):
    """Creates a store; connects only at the first request.

    Raises:
      errors.UserError: the scheme is unknown or its package is missing.
    """
    self.url = url.rstrip('/')
    scheme, _, path = self.url.partition('://')
    if scheme not in _PACKAGES or not path:
      raise errors.UserError(
        f'{url}: is neither s3://BUCKET/PATH nor gs://BUCKET/PATH; give one of'
        ' these, or a local directory'
      )
    package, extra = _PACKAGES[scheme]
    errors.require(url, [package], extra)
    import fsspec
    from fsspec.implementations import dirfs

    # No cache, since other machines write to the store too.
    cloud = fsspec.filesystem(scheme, use_listings_cache=False)
    self._files = dirfs.DirFileSystem(path, cloud)

  def read(self, name: str) -> bytes | None:
    """Returns the bytes of an object, or None if it does not exist."""
    with self._report_errors(), contextlib.suppress(FileNotFoundError):
      return self._files.cat_file(name)

  def write(self, name: str, data: bytes) -> None:
    """Replaces an object; a reader sees either the old or the new content."""
    with self._report_errors():
      self._files.pipe_file(name, data)

  def create(self, name: str, data: bytes) -> bool:
    """Creates an object; returns False if it already exists."""
    with self._report_errors(), contextlib.suppress(FileExistsError):
      self._files.pipe_file(name, data, mode='create')
      return True
    return False

  def upload(self, sources: Mapping[str, Path]) -> None:
    """Uploads files in parallel; `sources` is object name -> local file."""
    with self._report_errors():
      self._files.put([str(path) for path in sources.values()], list(sources))

  def download(self, targets: Mapping[str, Path]) -> None:
    """Downloads objects in parallel; `targets` is object name -> local file."""
    with self._report_errors():
      self._files.get(list(targets), [str(path) for path in targets.values()])

  def delete(self, names: Iterable[str]) -> None:
    """Deletes objects in this order; missing ones are ignored."""
    for name in names:
      with self._report_errors(), contextlib.suppress(FileNotFoundError):
        self._files.rm_file(name)

  def names(self, folder: str) -> list[str]:
    """Returns the names of all objects below a folder; [] if it is missing."""
    with self._report_errors(), contextlib.suppress(FileNotFoundError):
      return self._files.find(folder)
    return []

  def version(self, name: str) -> str | None:
    """Returns a string that changes if the object's content changes.

    Returns None if the object does not exist.
    """
    with self._report_errors(), contextlib.suppress(FileNotFoundError):
      info = self._files.info(name)
      # S3 writes ETag, Google Cloud Storage etag.
      tag = {key.lower(): value for key, value in info.items()}.get('etag')
      return f'{info["size"]} {tag}'

  @contextlib.contextmanager
  def _report_errors(self) -> Iterator[None]:
    """Context manager that turns any error into a `StoreError`.

    The errors of the packages' HTTP clients have no common base class.
    """
    try:
      yield
    except Exception as e:
      raise StoreError(
        f'{self.url}: {type(e).__name__}: {e}; check bucket, permission and'
        ' network, and run the same command again'
      ) from e
