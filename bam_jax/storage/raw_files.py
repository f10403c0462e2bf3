"""Downloads the raw files of tasks from an object store."""

import dataclasses
import fnmatch
import glob
import logging
import re

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import files
from bam_jax.data import formats
from bam_jax.data import registry
from bam_jax.storage import stores

_VERSIONS = '.versions.json'


def download_tables(config: config_lib.Config) -> config_lib.Config:
  """Downloads raw files from the URL `data.dir` to the user's cache.

  Files that have not changed in the store are not downloaded again. A file that
  is missing in the store is skipped here; reading the rows of its task then
  raises an error if the file is needed.

  Returns:
    The configuration with the local folder as `data.dir`.

  Raises:
    errors.UserError: the store cannot be read, the files cannot be written, or
      `data.tfds_dir` is a URL.
  """
  if stores.is_url(config.data.tfds_dir):
    raise errors.UserError(
      f'config.data.tfds_dir={config.data.tfds_dir}: is not a local directory;'
      ' give one'
    )
  store = stores.Store(config.data.dir)
  folder = stores.cache_dir(store.url)
  record = folder / _VERSIONS
  before = files.read_json(record) if record.exists() else {}
  wanted = {
    (file, table.format)
    for task in registry.resolve(config).tasks
    for table in task.tables.values()
    for file in (table.file, *table.more_files, table.other_file)
    if file
  }
  names = {name for file in wanted for name in _find(store, *file)}
  versions = {}
  for name in sorted(names):
    version = store.version(name)
    if version is None:
      continue
    path = folder / name
    if version != before.get(name) or not path.is_file():
      path.parent.mkdir(parents=True, exist_ok=True)
      partial = folder / f'{name}.partial'
      store.download({name: partial})
      partial.replace(path)
    versions[name] = version
  # Delete files that the store no longer has; otherwise a pattern in the
  # configuration would still match them.
  for name in before.keys() - versions.keys():
    (folder / name).unlink(missing_ok=True)
  files.write_json(record, versions)
  logging.info(
    '%s: %d files of raw rows are in %s', store.url, len(versions), folder
  )
  data = dataclasses.replace(config.data, dir=str(folder))
  return dataclasses.replace(config, data=data)


def _find(store: stores.Store, file: str, format: str) -> list[str]:
  """Returns the names of the objects that belong to a path or a pattern."""
  if format in formats.FORMATS and formats.FORMATS[format].is_folder:
    return store.names(file)
  if not glob.has_magic(file):
    return [file]
  before = file[: re.search(r'[*?[]', file).start()]
  return fnmatch.filter(store.names(before.rpartition('/')[0]), file)
