"""The readers of what strangers send, each with a folder that it can read."""

from collections.abc import Callable
import dataclasses
import functools
import gzip
import json
from pathlib import Path
import resource
import shutil
import sys
import tracemalloc

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import features
from bam_jax.data import manifest
from bam_jax.data import shards
from bam_jax.data import sources
from bam_jax.data import tfrecord
from bam_jax.experiments import workspace
from bam_jax.modeling import family
from bam_jax.modeling import huggingface
from bam_jax.modeling import pooling
from bam_jax.modeling import weight_files
from bam_jax.reporting import outputs as outputs_lib
from bam_jax.runtime import telemetry
from bam_jax.tasks import demo
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib

# Bytes that Python allocates for a file of none, as its table of strings may
# grow at any moment, and for each byte of a file: JSON's shortest object is two
# bytes there and a hundred here.
_BASE, _PER_BYTE = 1 << 24, 200
_UNTRACED = 1 << 28

_GOLDEN = Path(__file__).parents[1]
_WEIGHTS = _GOLDEN / 'modeling' / 'golden' / 'deep'
FINGERPRINT = {'rows': 'a' * 64, 'task': {'name': 'own', 'labels': ['0', '1']}}


@dataclasses.dataclass(frozen=True)
class Reader:
  """One reader.

  Attributes:
    make: fills a folder.
    read: reads it to the end; errors.UserError is the one documented error.
    files: those that are damaged, one at a time.
  """

  make: Callable[[Path], None]
  read: Callable[[Path], object]
  files: tuple[str, ...]


def _make_records(folder: Path) -> None:
  shutil.copy(_GOLDEN / 'data' / 'golden' / 'tfrecord.tfrecord', folder / 'a')


def _read_records(folder: Path) -> None:
  for record in tfrecord.read(folder / 'a'):
    try:
      tfrecord.decode(record)
    except ValueError as e:  # What `decode` documents.
      assert str(e) == 'is not a tf.train.Example'


def _make_set(folder: Path) -> None:
  rng = np.random.default_rng(0)
  rows = [
    {
      'uid': f'own/train/{i}é',
      'input_ids': rng.integers(0, 99, 3 + i).astype(np.int32),
      'length_a': 2,
      'label': float(i % 2),
    }
    for i in range(5)
  ]
  metadata = {'labels': ['0', '1']}
  shards.write(folder, shards.feature_fields(), rows, FINGERPRINT, metadata, 3)
  _read_set(folder)  # Makes the columns.


def _make_manifest(folder: Path) -> None:
  _make_set(folder)
  kept = (folder / 'manifest.json').read_bytes()
  shutil.rmtree(folder)
  folder.mkdir()
  (folder / 'manifest.json').write_bytes(kept)


def _read_set(folder: Path) -> tuple[object, ...]:
  columns = shards.open(folder, shards.feature_fields(), FINGERPRINT)
  values, offsets = columns.ragged('input_ids')
  return (
    list(columns.uids),
    [columns.uids[row] for row in range(len(columns))],
    [part.tolist() for part in np.split(values, offsets[1:-1])],
    columns.fixed('length_a').tolist(),
    columns.fixed('label').tobytes(),
    columns.metadata,
  )


def _read_manifest(folder: Path) -> None:
  found = manifest.read(folder)
  manifest.check_fingerprint(folder, found, FINGERPRINT)


def _make_weights(folder: Path) -> None:
  for name in ('config.json', 'model.safetensors'):
    shutil.copy(_WEIGHTS / name, folder)


@functools.cache
def _bert_config() -> family.EncoderConfig:
  return family.EncoderConfig(**huggingface.load_config(_WEIGHTS))


def _read_weights(folder: Path) -> None:
  huggingface.weights_digest(folder)
  huggingface.load_params(folder, _bert_config())


def _make_index(folder: Path) -> None:
  shutil.copy(_WEIGHTS / 'model.safetensors', folder / 'model-1.safetensors')
  index = {
    'weight_map': {'a': 'model-1.safetensors', 'b': 'model-1.safetensors'}
  }
  (folder / 'model.safetensors.index.json').write_text(json.dumps(index))


def _make_pooling(folder: Path) -> None:
  for file, value in pooling.describe_mean(8, 2).items():
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text(json.dumps(value))


def _make_vocabulary(folder: Path) -> None:
  tokenizer = features.Tokenizer.from_vocab(demo.vocabulary()[:40], True)
  tokenizer.save(folder)
  (folder / 'tokenizer.json').unlink()
  settings = {'do_lower_case': True, 'strip_accents': None}
  (folder / 'tokenizer_config.json').write_text(json.dumps(settings))
  # The first one imports transformers, which is not to be measured.
  _read_tokenizer(folder)


def _make_tokenizer(folder: Path) -> None:
  features.Tokenizer.from_vocab(demo.vocabulary()[:40], True).save(folder)
  _read_tokenizer(folder)


def _read_tokenizer(folder: Path) -> None:
  tokenizer = features.Tokenizer.from_dir(folder)
  for ids in tokenizer.encode(['the film was good', 'Ünïcode\x00 字', '']):
    assert (ids < tokenizer.vocab_size).all()
  assert tokenizer.fingerprint


_LABELS = {
  'classification': ('no', 'yes'),
  'multilabel': ('no', 'yes'),
  'tagging': ('O', 'B-X'),
}
_COLUMNS_OF = {
  'multilabel': {
    'text': ('text', 'other'),
    'label': 'label',
    'takes_list': True,
  },
  'tagging': {'text': (0,), 'label': 1},
  'qa': {'text': ('question', 'context'), 'label': 'answers'},
}


def _task(file: str, kind: str) -> task_lib.Task:
  table = task_lib.Table(
    file=file,
    format=Path(file).suffix[1:],
    **_COLUMNS_OF.get(kind, {'text': ('text', 'other'), 'label': 'label'}),
  )
  return task_lib.Task(
    name='own',
    kind=kinds.KINDS[kind],
    labels=_LABELS.get(kind, ()),
    scale=(0.0, 5.0),
    metrics=('accuracy',),
    paper_metric='accuracy',
    tables={'train': table},
  )


def _rows(file: str, kind: str) -> Callable[[Path], None]:
  def read(folder: Path) -> None:
    data = config_lib.DataConfig(dir=str(folder))
    digest = sources.rows_digest(sources.read(_task(file, kind), 'train', data))
    assert len(digest) == 64

  return read


def _make_tsv(folder: Path) -> None:
  lines = ['\ufefftext\tother\tlabel', '"a\tb\tyes', 'é\t字\tno', 'x\ty\tyes']
  (folder / 'own.tsv').write_bytes('\r\n'.join(lines).encode())


def _make_csv(folder: Path) -> None:
  lines = [
    '\ufefftext;other;label',
    '"a\r\n;""b""";c;yes',
    'é;字;no',
    'x;y;yes',
  ]
  (folder / 'own.csv').write_bytes('\r\n'.join(lines).encode())


def _make_gzip(folder: Path) -> None:
  _make_tsv(folder)
  content = gzip.compress((folder / 'own.tsv').read_bytes())
  (folder / 'own.tsv').write_bytes(content)


def _make_parquet(folder: Path) -> None:
  rows = [{'text': 'a', 'other': 'é', 'label': 'yes'}] * 3
  parquet.write_table(pa.Table.from_pylist(rows), folder / 'own.parquet')


def _make_scores(folder: Path) -> None:
  lines = ['text\tother\tlabel', 'a\tb\t0.5', 'é\t字\t5', 'x\ty\t1e-3']
  (folder / 'own.tsv').write_text('\n'.join(lines))


def _make_jsonl(folder: Path) -> None:
  values = [{'text': 'a', 'other': '"', 'label': 'yes'}] * 3
  lines = ''.join(json.dumps(value) + '\n' for value in values)
  (folder / 'own.jsonl').write_text(lines)


def _make_lists(folder: Path) -> None:
  values = [{'text': 'a', 'other': '"', 'label': ['yes', 'no']}] * 3
  lines = ''.join(json.dumps(value) + '\n' for value in values)
  (folder / 'own.jsonl').write_text(lines)


def _make_words(folder: Path) -> None:
  lines = ['-DOCSTART- O', '', 'é O', '字 B-X', '', 'x\tO', '']
  (folder / 'own.conll').write_text('\n'.join(lines))


def _make_questions(folder: Path) -> None:
  answers = [{'text': '字', 'answer_start': 2}]
  entry = {'id': 'a', 'question': 'b', 'answers': answers}
  paragraph = {'context': 'é 字', 'qas': [entry] * 2}
  content = {'data': [{'title': '', 'paragraphs': [paragraph]}]}
  (folder / 'own.squad').write_text(json.dumps(content))


def _make_run(folder: Path) -> None:
  space = workspace.Workspace(folder)
  space.open_runs({'x': {'run.seed': 0, 'weights': '', 'run.tasks': ['a']}})
  space.write_record('x', {
    'steps': 4,
    'best_step': 2,
    'parameters': 'ab',
    'seconds': 1.5,
    'device': '1 x cpu',
    'scores': {'a': {'dev': {'accuracy': 12.5, 'f1': float('nan')}}},
  })  # fmt: skip


def _read_run(folder: Path) -> None:
  space = workspace.Workspace(folder)
  if space.identity('x'):
    space.check_run('x', {'run.seed': 0})
  space.read_record('x')


def _make_metrics(folder: Path) -> None:
  lines = [{'step': i, 'time': 1.5 + i, 'loss': 0.5} for i in range(4)]
  text = ''.join(json.dumps(line) + '\n' for line in lines)
  (folder / 'metrics.jsonl').write_text(text)


def _read_metrics(folder: Path) -> None:
  for line in telemetry.read(folder / 'metrics.jsonl'):
    assert all(isinstance(value, (int, float)) for value in line.values())


def _make_outputs(folder: Path) -> None:
  run = folder / 'runs' / 'x'
  run.mkdir(parents=True)
  rng = np.random.default_rng(0)
  np.savez(
    run / 'outputs.npz',
    **{
      'own/dev/uid': np.array([f'own/dev/{i}é' for i in range(9)]),
      'own/dev/logits': rng.normal(size=(9, 2)).astype(np.float32),
      'own/dev/label': np.arange(9) % 2,
    },
  )


def _read_outputs(folder: Path) -> tuple[object, ...]:
  path = folder / 'runs' / 'x' / 'outputs.npz'
  task = _task('own.tsv', 'classification')
  try:
    found = outputs_lib.read(task, {0: path})
    uids, decided = outputs_lib.read_decided(task, path)
  except outputs_lib.Missing as e:  # A report says so in the place of a number.
    assert str(e) == 'runs/x/outputs.npz is damaged'
    raise errors.UserError(f'{folder}: {e}') from e
  gold = None if found.gold is None else found.gold.tolist()
  predictions = found.predictions.tolist()
  assert (uids, [each.label for each in decided]) == (
    found.uids.tolist(),
    *predictions,
  )
  return uids, predictions, gold


_SET = ('part-00000-of-00002.tfrecord', 'part-00001-of-00002.tfrecord')
_COLUMNS = ('index.json', 'uid.values', 'uid.offsets', 'label.values')

READERS = {
  'tfrecord': Reader(_make_records, _read_records, ('a',)),
  'manifest': Reader(_make_manifest, _read_manifest, ('manifest.json',)),
  'shard set': Reader(
    _make_set,
    _read_set,
    ('manifest.json', *_SET, *(f'columns/{name}' for name in _COLUMNS)),
  ),
  'safetensors': Reader(_make_weights, _read_weights, ('model.safetensors',)),
  'config.json': Reader(
    _make_weights, huggingface.load_config, ('config.json',)
  ),
  'index': Reader(
    _make_index, weight_files.find_files, ('model.safetensors.index.json',)
  ),
  'pooling': Reader(
    _make_pooling, pooling.load, (pooling.MODULES, '1_Pooling/config.json')
  ),
  'vocabulary': Reader(
    _make_vocabulary, _read_tokenizer, ('vocab.txt', 'tokenizer_config.json')
  ),
  'tokenizer.json': Reader(
    _make_tokenizer, _read_tokenizer, ('tokenizer.json',)
  ),
  'TSV': Reader(_make_tsv, _rows('own.tsv', 'classification'), ('own.tsv',)),
  'CSV': Reader(_make_csv, _rows('own.csv', 'classification'), ('own.csv',)),
  'gzip': Reader(_make_gzip, _rows('own.tsv', 'classification'), ('own.tsv',)),
  'Parquet': Reader(
    _make_parquet, _rows('own.parquet', 'classification'), ('own.parquet',)
  ),
  'TSV of scores': Reader(
    _make_scores, _rows('own.tsv', 'regression'), ('own.tsv',)
  ),
  'JSONL': Reader(
    _make_jsonl, _rows('own.jsonl', 'classification'), ('own.jsonl',)
  ),
  'JSONL of lists': Reader(
    _make_lists, _rows('own.jsonl', 'multilabel'), ('own.jsonl',)
  ),
  'tagged words': Reader(
    _make_words, _rows('own.conll', 'tagging'), ('own.conll',)
  ),
  'questions': Reader(
    _make_questions, _rows('own.squad', 'qa'), ('own.squad',)
  ),
  'run': Reader(_make_run, _read_run, ('runs/x/config.json', 'runs/x/DONE')),
  'outputs': Reader(_make_outputs, _read_outputs, ('runs/x/outputs.npz',)),
  'metrics': Reader(_make_metrics, _read_metrics, ('metrics.jsonl',)),
}


def is_read(reader: Callable[[Path], object], folder: Path) -> bool:
  """Whether a folder is read; else it is refused as documented.

  Either way Python allocates no more than so many times the files' bytes, and
  libraries in other languages, which are not traced, no more than `_UNTRACED`.
  """
  before = _peak_bytes()
  size = sum(p.stat().st_size for p in folder.rglob('*') if p.is_file())
  tracemalloc.start()
  try:
    reader(folder)
    result = True
  except errors.UserError as e:
    message = str(e)
    assert str(folder) in message and message.isprintable(), message
    result = False
  finally:
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
  assert peak < _BASE + _PER_BYTE * size
  assert _peak_bytes() - before < _UNTRACED
  return result


def _peak_bytes() -> int:
  unit = 1 if sys.platform == 'darwin' else 1024
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
