"""Downloads the raw files of tasks from an object store."""

import dataclasses
import logging

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import files
from bam_jax.data import registry
from bam_jax.storage import stores

_VERSIONS = '.versions.json'


def download_tables(config: config_lib.Config) -> config_lib.Config:
  """Downloads the files below the URL `data.dir`; returns a local config.

  Only files that have changed in the store are downloaded again. A file that
  the store lacks is left out, and the reader of its task reports it.

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
  tables = {
    file
    for task in registry.resolve(config).tasks
    for table in task.tables.values()
    for file in (table.file, table.other_file)
    if file
  }
  versions = {}
  for name in sorted(tables):
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
  files.write_json(record, versions)
  logging.info(
    '%s: %d files of raw rows are in %s', store.url, len(versions), folder
  )
  data = dataclasses.replace(config.data, dir=str(folder))
  return dataclasses.replace(config, data=data)
