"""Prepared TFDS folders give the examples of the official files, same uids.

The oracle is TFDS itself: its own `_generate_examples` reads the official
files, numbers the rows and encodes them. What would need TensorFlow, writing
the shards, is done here with the rows shuffled, as TFDS shuffles them.
"""

import pathlib
import random
import sys

import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import sources
from bam_jax.data import tfds_source
from bam_jax.data import tfrecord
from bam_jax.tasks import glue

_ROWS = 12
# The names of the official columns, by task or split. TFDS looks texts and
# labels up by them; the others do not matter.
_HEADERS = {
  'cola': '0,1,2,3',
  'cola/test': 'index,sentence',
  'sst2': 'sentence,label',
  'sst2/test': 'index,sentence',
  'mrpc/test': 'index,id1,id2,#1 String,#2 String',
  'stsb': '0,1,2,3,4,5,6,sentence1,sentence2,score',
  'stsb/test': '0,1,2,3,4,5,6,sentence1,sentence2',
  'qqp': 'id,qid1,qid2,question1,question2,is_duplicate',
  'qqp/test': 'id,question1,question2',
  'mnli/train': '0,1,2,3,4,5,6,7,sentence1,sentence2,label1,gold_label',
  'mnli': '0,1,2,3,4,5,6,7,sentence1,sentence2,a,b,c,d,e,gold_label',
  'mnli/test_matched': '0,1,2,3,4,5,6,7,sentence1,sentence2',
  'mnli/test_mismatched': '0,1,2,3,4,5,6,7,sentence1,sentence2',
  'mnli/ax': 'index,sentence1,sentence2',
  'qnli': 'index,question,sentence,label',
  'qnli/test': 'index,question,sentence',
  'rte': 'index,sentence1,sentence2,label',
  'rte/test': 'index,sentence1,sentence2',
  'wnli': 'index,sentence1,sentence2,label',
  'wnli/test': 'index,sentence1,sentence2',
}
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


def _text(i: int) -> str:
  return (f'He said "{i}', f'" caf\u00e9 {i} ', f'don \'t\u2028{i} ""')[i % 3]


def _fields(task, table, width: int, i: int) -> list[str]:
  fields = [f'x{column}' for column in range(width)]
  for place, column in enumerate(table.text):
    fields[column] = _text(i + 5 * place)
  if table.label is not None:
    label = ('3.8', '0.000', '2.11111111111111', '5')[i % 4]
    if not task.is_regression:
      label = task.labels[i % len(task.labels)]
    fields[table.label] = label
  return fields


def _write_official(task, split: str, folder) -> None:
  """A file in GLUE's layout; QQP's with rows that TFDS leaves out."""
  table = task.tables[split]
  header = _HEADERS.get(f'{task.name}/{split}', _HEADERS.get(task.name))
  names = header.split(',')
  lines = ['\t'.join(names)] if table.header else []
  lines += [
    '\t'.join(_fields(task, table, len(names), i)) for i in range(_ROWS)
  ]
  if task.name == 'qqp':
    lines[4:4] = ['7\t1', '', 'cut off']
    if split != 'test':
      lines.insert(9, '\t'.join([*'8123', 'no label', '']))
  path = folder / table.file
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text('\n'.join(lines) + '\n')


def _write_mrpc_originals(folder) -> dict[str, str]:
  """Microsoft's files, and those that GLUE's script makes of them."""
  task = glue.TASKS['mrpc']
  folder = folder / 'MRPC'
  folder.mkdir()
  header = '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String'
  split_lines = {'train': [header], 'dev': [header]}
  all_lines, ids = [header], []
  for i in range(2 * _ROWS):
    fields = _fields(task, task.tables['train'], 5, i)
    fields[1:3] = f'10{i}', f'20{i}'
    split = 'dev' if i % 5 in (0, 3) else 'train'
    if split == 'dev':
      ids.insert(0, '\t'.join(fields[1:3]))
    split_lines[split].append('\t'.join(fields))
    all_lines.append('\t'.join(fields))
  for split, lines in split_lines.items():
    (folder / f'{split}.tsv').write_text('\n'.join(lines) + '\n')
  (folder / 'all.txt').write_text('\n'.join(all_lines) + '\n')
  (folder / 'ids.tsv').write_text('\n'.join(ids) + '\n')
  return {
    'train': str(folder / 'all.txt'),
    'dev_ids': str(folder / 'ids.tsv'),
    'test': str(folder / 'test.tsv'),
  }


def _prepare(tfds, task, split: str, folder) -> pathlib.Path:
  """Writes a split's official file and the folder that TFDS makes of it."""
  table = task.tables[split]
  mrpc_files = None
  if task.name == 'mrpc':
    mrpc_files = _write_mrpc_originals(folder)
  if task.name != 'mrpc' or split == 'test':
    _write_official(task, split, folder)
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
  assert sources.is_present(task, split, from_tfds)


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
    next(tfds_source.read(glue.TASKS['rte'], 'dev', config_lib.DataConfig()))


_COMMAND = (
  'python -c "import tensorflow_datasets as t;'
  " t.builder('glue/rte', data_dir='tfds').download_and_prepare()\""
)
_PREPARE_AGAIN = f'remove the folder and prepare it again: {_COMMAND}'


def _message(split: str = 'dev') -> str:
  data = config_lib.DataConfig(source='tfds', tfds_dir='tfds')
  with pytest.raises(errors.UserError) as caught:
    list(tfds_source.read(glue.TASKS['rte'], split, data))
  return str(caught.value)


def test_not_prepared(tfds, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert _message() == (
    'config.data.tfds_dir: glue/rte is not prepared in tfds; where TensorFlow'
    f' is installed, run: {_COMMAND}'
  )
  data = config_lib.DataConfig(source='tfds', tfds_dir='tfds')
  assert not sources.is_present(glue.TASKS['rte'], 'dev', data)


def test_a_split_is_missing(tfds, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  _prepare(tfds, glue.TASKS['rte'], 'dev', tmp_path)
  assert _message('train') == (
    f"tfds/glue/rte/2.0.0: split 'train' is not there; {_PREPARE_AGAIN}"
  )


def test_another_file_format(tfds, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  directory = _prepare(tfds, glue.TASKS['rte'], 'dev', tmp_path)
  info = directory / 'dataset_info.json'
  info.write_text(info.read_text().replace('"tfrecord"', '"array_record"'))
  assert _message() == (
    "tfds/glue/rte/2.0.0: files of format 'array_record', not tfrecord;"
    f' {_PREPARE_AGAIN}'
  )


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
    f' {_ROWS - (change == "lost")} rows where dataset_info.json tells of 12'
    f' different ones; {_PREPARE_AGAIN}'
  )


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
    "tfds/glue/rte/2.0.0: split 'validation', idx 3: label '-1' is none of"
    " entailment, not_entailment; mend the row or the labels of task 'rte'"
  )
