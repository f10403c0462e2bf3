"""Raw rows in an object store, by moto's S3 server."""

import dataclasses
from pathlib import Path

import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import registry
from bam_jax.data import sources
from bam_jax.storage import raw_files
from bam_jax.storage import stores


def _config(
  directory: str, train: str = 'm/train.tsv', format: str = 'tsv'
) -> config_lib.Config:
  config = config_lib.default_config()
  config.tasks = ('mood',)
  config.custom_tasks.mood = config_lib.custom_task(
    labels=('down', 'up'),
    text=('text',),
    train=train,
    dev='dev.tsv',
    format=format,
  )
  config.data.dir = directory
  return config_lib.from_config_dict(config)


def _texts(config: config_lib.Config) -> list[str]:
  task = registry.resolve(config).tasks[0]
  return [row.text_a for row in sources.read(task, 'train', config.data)]


@pytest.fixture
def store(s3, tmp_path, monkeypatch) -> stores.Store:
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  store = stores.Store(s3)
  for name in ('m/train.tsv', 'dev.tsv'):
    store.write(name, b'text\tlabel\nfine\tup\n')
  return store


def test_tables_are_brought_down_once_and_when_they_change(store, monkeypatch):
  fetched = []
  download = stores.Store.download

  def watched(self, targets):
    fetched.extend(targets)
    download(self, targets)

  monkeypatch.setattr(stores.Store, 'download', watched)
  local = raw_files.download_tables(_config(store.url))
  assert _texts(local) == ['fine']
  assert sorted(fetched) == ['dev.tsv', 'm/train.tsv']
  raw_files.download_tables(_config(store.url))
  assert len(fetched) == 2
  store.write('m/train.tsv', b'text\tlabel\ndull\tup\n')
  assert _texts(raw_files.download_tables(_config(store.url))) == ['dull']
  assert fetched[2:] == ['m/train.tsv']


def test_a_pattern_brings_down_what_is_there(store):
  store.write('m/more.tsv', b'text\tlabel\ndull\tdown\n')
  store.write('m/other.txt', b'')
  config = _config(store.url, 'm/*.tsv')
  local = raw_files.download_tables(config)
  assert _texts(local) == ['dull', 'fine']
  # What the store no longer has is not read from the copy.
  store.delete(['m/more.tsv'])
  assert _texts(raw_files.download_tables(config)) == ['fine']


def test_a_saved_dataset_is_brought_down_whole(store):
  saved = Path(__file__).parents[1] / 'data/golden/saved_dataset/test'
  for path in saved.iterdir():
    store.write(f'd/{path.name}', path.read_bytes())
  local = raw_files.download_tables(_config(store.url, 'd', 'datasets'))
  assert _texts(local) == ['no caf\u00e9 open']


def test_a_missing_table_is_told_by_its_reader(store):
  store.delete(['m/train.tsv'])
  local = raw_files.download_tables(_config(store.url))
  with pytest.raises(errors.UserError, match=r'm/train\.tsv: No such file'):
    _texts(local)


def test_prepared_files_take_no_url():
  config = _config('s3://b/c')
  data = dataclasses.replace(config.data, tfds_dir='gs://b/tfds')
  with pytest.raises(errors.UserError, match=r'config\.data\.tfds_dir=gs://'):
    raw_files.download_tables(dataclasses.replace(config, data=data))
