"""Prepared TFDS folders give the examples of the official files, same uids.

The oracle is TFDS itself: its own `_generate_examples` reads the official
files, numbers the rows and encodes them. What would need TensorFlow, writing
the shards, is done here with the rows shuffled, as TFDS shuffles them.
"""

import configparser
import importlib.util
import pathlib
import random
import shlex
import sys

from packaging import requirements
import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import sources
from bam_jax.data import tfds_source
from bam_jax.data import tfrecord
from bam_jax.tasks import glue
from tests.data import official_files

_SPLITS = [
  pytest.param(task, split, id=f'{task.name}-{split}')
  for task in glue.TASKS.values()
  for split in task.tables
]


@pytest.fixture
def tfds():
  """TFDS; neither it nor what is tested may import TensorFlow."""
  pytest.importorskip('tensorflow_datasets')
  before = 'tensorflow' in sys.modules
  import tensorflow_datasets as tfds
  import tensorflow_datasets.text.glue

  yield tfds
  assert ('tensorflow' in sys.modules) == before


def _prepare(tfds, task, split: str, folder) -> pathlib.Path:
  """Writes a split's official file and the folder that TFDS makes of it."""
  table = task.tables[split]
  mrpc_files = None
  if task.name == 'mrpc':
    mrpc_files = official_files.write_mrpc_originals(folder)
  if task.name != 'mrpc' or split == 'test':
    official_files.write(task, split, folder)
  name, tfds_split = table.tfds.split(':')
  builder = tfds.text.glue.Glue(
    config=name.removeprefix('glue/'), data_dir=str(folder / 'tfds')
  )
  rows = [
    row
    for _, row in builder._generate_examples(
      str(folder / table.file),
      'dev' if split.startswith('dev') else split,
      mrpc_files,
    )
  ]
  random.Random(0).shuffle(rows)
  assert [row['idx'] for row in rows] != sorted(row['idx'] for row in rows)
  directory = folder / 'tfds' / name / str(builder.version)
  _write_prepared(tfds, builder, tfds_split, rows, directory)
  return directory


def _write_prepared(
  tfds, builder, split: str, rows: list[dict], directory, shards: int = 2
) -> None:
  """What TFDS writes with TensorFlow, without it."""
  features = builder.info.features
  records = [
    features.serialize_example(features.encode_example(row)) for row in rows
  ]
  directory.mkdir(parents=True)
  template = tfds.core.naming.ShardedFileTemplate(
    dataset_name='glue',
    split=split,
    filetype_suffix='tfrecord',
    data_dir=str(directory),
  )
  for k in range(shards):
    path = template.sharded_filepath(shard_index=k, num_shards=shards)
    tfrecord.write(path, records[k::shards])
  info = tfds.core.splits.SplitInfo(
    name=split,
    shard_lengths=[len(records[k::shards]) for k in range(shards)],
    num_bytes=0,
    filename_template=template,
  )
  features.save_config(str(directory))
  builder.info.set_splits(tfds.core.splits.SplitDict([info]))
  builder.info.write_to_directory(str(directory))


def _configs(folder) -> tuple[config_lib.DataConfig, config_lib.DataConfig]:
  return (
    config_lib.DataConfig(source='tsv', dir=str(folder)),
    config_lib.DataConfig(source='tfds', tfds_dir=str(folder / 'tfds')),
  )


@pytest.mark.parametrize(('task', 'split'), _SPLITS)
def test_examples_are_those_of_the_official_file(tfds, task, split, tmp_path):
  _prepare(tfds, task, split, tmp_path)
  from_tsv, from_tfds = _configs(tmp_path)
  expected = list(sources.read(task, split, from_tsv))
  assert len(expected) >= 9
  assert list(sources.read(task, split, from_tfds)) == expected
  assert sources.Source(task, split, from_tfds).is_present()


# The two rules that differ between the tasks, with the numbers told.
def test_indices_of_qqp_leave_gaps_and_those_of_mrpc_none(tfds, tmp_path):
  indices = {}
  for name in ('qqp', 'mrpc'):
    task = glue.TASKS[name]
    folder = tmp_path / name
    folder.mkdir()
    _prepare(tfds, task, 'dev', folder)
    indices[name] = [
      int(example.uid.rsplit('/', 1)[1])
      for example in sources.read(task, 'dev', _configs(folder)[1])
    ]
  # Two short rows after the third, an empty line that does not count, and a
  # row without a label.
  assert indices['qqp'] == [0, 1, 2, 5, 6, *range(8, 15)]
  assert indices['mrpc'] == list(range(10))


def test_without_the_package(monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)
  with pytest.raises(
    errors.UserError,
    match=r'^config\.data\.source=tfds needs TensorFlow Datasets \(.*\); run'
    r' pip install tensorflow-datasets importlib_resources$',
  ):
    tfds_source.read(glue.TASKS['rte'], 'dev', '')


def _command(names: str, where: str = ', data_dir="tfds"') -> str:
  """What gets data sets, where TensorFlow is not installed."""
  return (
    f'{sys.executable} -m pip install tensorflow-cpu tensorflow-datasets'
    f" importlib_resources && {sys.executable} -c 'import tensorflow_datasets"
    f' as t; [t.builder(name{where}).download_and_prepare() for name in'
    f" [{names}]]'"
  )


_COMMAND = _command('"glue/rte"')
_PREPARE_AGAIN = f'remove the folder and prepare it again: {_COMMAND}'


@pytest.fixture
def no_tensorflow(monkeypatch):
  """TensorFlow is not found, as where it is not installed."""
  find_spec = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    'find_spec',
    lambda name, *rest: (
      None if name == 'tensorflow' else find_spec(name, *rest)
    ),
  )


def _message(split: str = 'dev') -> str:
  data = config_lib.DataConfig(source='tfds', tfds_dir='tfds')
  with pytest.raises(errors.UserError) as caught:
    list(sources.read(glue.TASKS['rte'], split, data))
  return str(caught.value)


@pytest.mark.usefixtures('no_tensorflow')
def test_not_prepared(tfds, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert _message() == (
    'config.data.tfds_dir: glue/rte not prepared in tfds, and tensorflow not'
    f' installed; run: {_COMMAND}'
  )
  data = config_lib.DataConfig(source='tfds', tfds_dir='tfds')
  assert not sources.Source(glue.TASKS['rte'], 'dev', data).is_present()


def test_where_tensorflow_is_installed_nothing_else_is(tfds, monkeypatch):
  monkeypatch.setattr(
    importlib.util,
    'find_spec',
    lambda name: importlib.util.spec_from_file_location(name, f'{name}.py'),
  )
  data = config_lib.DataConfig(source='tfds', tfds_dir='it "is" here é')
  remedy = sources.Source(glue.TASKS['mnli'], 'ax', data).remedy
  assert shlex.split(remedy) == [
    'run:',
    sys.executable,
    '-c',
    'import tensorflow_datasets as t; [t.builder(name, data_dir="it \\"is\\"'
    ' here é").download_and_prepare() for name in ["glue/ax"]]',
  ]
  tfds_source.check(glue.TASKS.values(), data)


@pytest.mark.usefixtures('no_tensorflow')
def test_all_that_is_missing_is_named_at_once(tfds, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  tasks = [glue.TASKS[name] for name in ('cola', 'rte', 'mnli', 'sst2')]
  data = config_lib.DataConfig(source='tfds', tfds_dir='tfds')
  _prepare(tfds, glue.TASKS['rte'], 'dev', tmp_path)
  assert tfds_source.missing(tasks, data) == [
    'glue/cola',
    'glue/mnli',
    'glue/sst2',
  ]
  command = _command('"glue/cola", "glue/mnli", "glue/sst2"')
  line = (
    'config.data.tfds_dir: glue/cola, glue/mnli, glue/sst2 not prepared in'
    f' tfds, and tensorflow not installed; run: {command}'
  )
  for call in (
    lambda: tfds_source.check(tasks, data),
    lambda: next(
      tfds_source.download(tfds_source.missing(tasks, data), 'tfds')
    ),
  ):
    with pytest.raises(errors.UserError) as caught:
      call()
    assert str(caught.value) == line
  # Nothing is missing; or the rows come from elsewhere.
  tfds_source.check([glue.TASKS['rte']], data)
  tfds_source.check(tasks, config_lib.DataConfig(source='tsv'))


def test_without_both_packages_what_is_prepared_cannot_be_known(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(errors.UserError) as caught:
    tfds_source.check(glue.TASKS.values(), config_lib.DataConfig(source='tfds'))
  names = [f'glue/{name}' for name in glue.TASKS if name != 'ax']
  message = str(caught.value)
  assert message.startswith(f'config.data.tfds_dir: {", ".join(names)} not')
  assert 'tensorflow and tensorflow_datasets and' in message
  assert message.endswith(
    _command(', '.join(f'"{name}"' for name in names), '')
  )


def test_the_extra_has_all_that_prepares_data():
  parser = configparser.ConfigParser()
  parser.read(pathlib.Path(__file__).parents[2] / 'setup.cfg')
  extra = [
    requirements.Requirement(line)
    for line in parser['options.extras_require']['tfds'].strip().split('\n')
  ]
  for machine, system, tensorflow in (
    ('x86_64', 'linux', 'tensorflow-cpu'),
    ('AMD64', 'win32', 'tensorflow-cpu'),
    ('aarch64', 'linux', 'tensorflow'),
    ('arm64', 'darwin', 'tensorflow'),
    ('x86_64', 'darwin', 'tensorflow'),
  ):
    here = {'platform_machine': machine, 'sys_platform': system}
    assert {
      one.name
      for one in extra
      if one.marker is None or one.marker.evaluate(here)
    } == {tensorflow, 'tensorflow-datasets', 'importlib_resources'}


@pytest.mark.usefixtures('no_tensorflow')
def test_a_split_is_missing(tfds, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  _prepare(tfds, glue.TASKS['rte'], 'dev', tmp_path)
  assert _message('train') == (
    f"tfds/glue/rte/2.0.0: split 'train' is not there; {_PREPARE_AGAIN}"
  )


@pytest.mark.usefixtures('no_tensorflow')
def test_another_file_format(tfds, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  directory = _prepare(tfds, glue.TASKS['rte'], 'dev', tmp_path)
  info = directory / 'dataset_info.json'
  info.write_text(info.read_text().replace('"tfrecord"', '"array_record"'))
  assert _message() == (
    "tfds/glue/rte/2.0.0: files of format 'array_record', not tfrecord;"
    f' {_PREPARE_AGAIN}'
  )


@pytest.mark.usefixtures('no_tensorflow')
@pytest.mark.parametrize('change', ['lost', 'double'])
def test_records_that_do_not_add_up(tfds, tmp_path, monkeypatch, change):
  monkeypatch.chdir(tmp_path)
  directory = _prepare(tfds, glue.TASKS['rte'], 'dev', tmp_path)
  shard = directory / 'glue-validation.tfrecord-00001-of-00002'
  records = list(tfrecord.read(shard))
  records[-1:] = [] if change == 'lost' else records[:1]
  tfrecord.write(shard, records)
  assert _message() == (
    f"tfds/glue/rte/2.0.0: split 'validation' has"
    f' {official_files.ROWS - (change == "lost")} rows where dataset_info.json'
    f' names 12 different ones; {_PREPARE_AGAIN}'
  )


@pytest.mark.usefixtures('no_tensorflow')
@pytest.mark.parametrize(
  'record',
  [b'\xff', b'', tfrecord.encode({'idx': [b'x'], 'label': [b'x']})],
  ids=['no example', 'empty', 'other types'],
)
def test_records_of_another_kind(tfds, tmp_path, monkeypatch, record):
  monkeypatch.chdir(tmp_path)
  directory = _prepare(tfds, glue.TASKS['rte'], 'dev', tmp_path)
  shard = directory / 'glue-validation.tfrecord-00001-of-00002'
  tfrecord.write(shard, [record])
  message = _message()
  assert message.startswith(
    'tfds/glue/rte/2.0.0/glue-validation.tfrecord-00001-of-00002: a record does'
    ' not hold what TFDS writes ('
  )
  assert message.endswith(_PREPARE_AGAIN)


def test_a_row_without_a_label(tfds, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  builder = tfds.text.glue.Glue(config='rte', data_dir='tfds')
  rows = [{'sentence1': 'a', 'sentence2': 'b', 'label': -1, 'idx': 3}]
  _write_prepared(
    tfds, builder, 'validation', rows, pathlib.Path('tfds/glue/rte/2.0.0'), 1
  )
  assert _message() == (
    "tfds/glue/rte/2.0.0: split 'validation', row 3: label '-1' is none of"
    " 'entailment', 'not_entailment'; fix the row or the labels of task 'rte'"
  )
