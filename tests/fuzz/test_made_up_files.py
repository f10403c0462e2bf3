"""Files by one who knows the formats: checksums and digests are right.

They are read, or refused in one line, in bounded memory.
"""

from collections.abc import Callable
import hashlib
import json
from pathlib import Path
import shutil
import struct
import zipfile

import google_crc32c
import hypothesis
from hypothesis import strategies as st
import pytest

from bam_jax import schema
from bam_jax.data import columns
from bam_jax.data import tfrecord
from tests.fuzz import inputs
from tests.fuzz import readers

pytestmark = pytest.mark.fuzz

_MANIFEST = 'manifest.json'
_PART = 'part-00000-of-00002.tfrecord'
# Changes a folder that its reader reads.
_Change = Callable[[st.DataObject, Path], None]
_TEXT = st.text(st.characters(codec='utf-8'), max_size=12)


def _json(file: str) -> _Change:
  """A JSON file with some of its values replaced."""

  def change(data: st.DataObject, folder: Path) -> None:
    value = json.loads((folder / file).read_text())
    text = inputs.dumps(data.draw(inputs.edited(value)))
    (folder / file).write_text(text)

  return change


def _digested(file: str) -> _Change:
  """A JSON file with some of its values replaced, and a digest that fits."""

  def change(data: st.DataObject, folder: Path) -> None:
    value = json.loads((folder / file).read_text())
    del value['digest']
    _write_digested(folder / file, data.draw(inputs.edited(value)))

  return change


def _write_digested(path: Path, value: dict[str, object]) -> None:
  try:
    value['digest'] = schema.digest(value)
  except RecursionError:
    value['digest'] = 'too deep for one'
  path.write_text(inputs.dumps(value))


def _records(data: st.DataObject, folder: Path) -> None:
  good = list(tfrecord.read(folder / 'a'))
  record = st.sampled_from(good).flatmap(inputs.damaged) | st.binary()
  tfrecord.write(folder / 'a', data.draw(st.lists(record, max_size=3)))
  if data.draw(st.booleans()):
    length = data.draw(st.sampled_from([200, 2**31, 2**32, 2**63, 2**64 - 1]))
    prefix = struct.pack('<Q', length)
    crc = google_crc32c.value(prefix)
    crc = ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
    with (folder / 'a').open('ab') as file:
      file.write(prefix + struct.pack('<I', crc) + b'x' * 100)


def _records_of_a_set(data: st.DataObject, folder: Path) -> None:
  """Damaged records that the manifest tells of as if they were right."""
  path = folder / _PART
  records = list(tfrecord.read(path))
  place = data.draw(st.integers(0, len(records) - 1))
  record = inputs.damaged(records[place]) | st.binary(max_size=40)
  records[place] = data.draw(record)
  tfrecord.write(path, records)
  manifest = json.loads((folder / _MANIFEST).read_text())
  del manifest['digest']
  size, sha256 = columns.measure(path)
  manifest['files'][0] |= {'bytes': size, 'sha256': sha256}
  _write_digested(folder / _MANIFEST, manifest)


def _columns_of_a_set(data: st.DataObject, folder: Path) -> None:
  """Damaged columns that their index tells of as if they were right."""
  path = folder / 'columns' / 'index.json'
  index = json.loads(path.read_text())
  name = data.draw(st.sampled_from(sorted(index['files'])))
  bad = data.draw(inputs.damaged((path.parent / name).read_bytes()))
  (path.parent / name).write_bytes(bad)
  index['files'][name] = [len(bad), hashlib.sha256(bad).hexdigest()]
  path.write_text(json.dumps(index))


def _safetensors(data: st.DataObject, folder: Path) -> None:
  """Another header, of the right length, before the same numbers."""
  path = folder / 'model.safetensors'
  content = path.read_bytes()
  (length,) = struct.unpack('<Q', content[:8])
  header = json.loads(content[8 : 8 + length])
  names = data.draw(
    st.lists(st.sampled_from(sorted(header)), min_size=1, max_size=3)
  )
  part = data.draw(inputs.edited({name: header[name] for name in names}))
  kept = {key: item for key, item in header.items() if key not in names}
  text = inputs.dumps(kept | part).encode()
  path.write_bytes(struct.pack('<Q', len(text)) + text + content[8 + length :])


def _archive(data: st.DataObject, folder: Path) -> None:
  """Members with other headers or names, or compressed; checksums are right."""
  path = folder / 'runs' / 'x' / 'outputs.npz'
  with zipfile.ZipFile(path) as archive:
    members = {name: archive.read(name) for name in archive.namelist()}
  name = data.draw(st.sampled_from(sorted(members)))
  values = members.pop(name)[128:]
  number = st.sampled_from([0, 1, 2, 9, -1, 2**31, 2**63, 10**30])
  kinds = ['<f4', '<i8', '<U9', '<U0', '|V0', '|O', '<c8', [('a', '<i4')], 0]
  header = {
    'descr': data.draw(st.sampled_from(kinds)),
    'fortran_order': data.draw(st.sampled_from([False, True, None, 2, 'x'])),
    'shape': tuple(data.draw(st.lists(number, max_size=3))),
  }
  if data.draw(st.booleans()):
    values = bytes(data.draw(st.sampled_from([0, 36, 72, 1 << 20])))
  text = repr(header).encode()[:9000] + b'\n'
  head = b'\x93NUMPY\x01\x00' + struct.pack('<H', len(text)) + text
  members[data.draw(st.sampled_from([name, f'{name}.npy', '../x']))] = (
    head + values
  )
  method = data.draw(
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
  )
  with zipfile.ZipFile(path, 'w', method) as archive:
    for key, content in members.items():
      archive.writestr(key, content)


def _tsv(data: st.DataObject, folder: Path) -> None:
  good = [line.split('\t') for line in _lines_of(folder / 'own.tsv')]
  cell = _TEXT | st.sampled_from(['text', 'other', 'label', 'yes', '1', 'nan'])
  row = st.sampled_from(good) | st.tuples(_TEXT, _TEXT, st.just(good[0][2]))
  if data.draw(st.booleans()):
    row |= st.lists(cell, max_size=4)
  rows = data.draw(st.lists(row, min_size=1, max_size=6))
  end = data.draw(st.sampled_from(['\n', '\r\n', '\r', '\x85', '\n\n']))
  head = data.draw(st.sampled_from(['text\tother\tlabel', '', '\ufeff\ufeff']))
  text = end.join([head, *('\t'.join(row) for row in rows)])
  (folder / 'own.tsv').write_bytes(text.encode())


def _words(data: st.DataObject, folder: Path) -> None:
  """Lines of words, comments and markers, with white space of any kind."""
  cell = _TEXT | st.sampled_from(['O', 'B-X', '#', '-DOCSTART-', '\xa0', ''])
  mark = st.sampled_from([' ', '\t', '  ', '\x0c', '\u3000'])
  made_up = st.builds(lambda m, c: m.join(c), mark, st.lists(cell, max_size=4))
  good = st.sampled_from(['x O', 'y B-X', '# id 1 a', '#\tO', 'x\tO', '', ' '])
  lines = data.draw(st.lists(good | good | made_up, min_size=1, max_size=8))
  end = data.draw(st.sampled_from(['\n', '\r\n', '\r', '\x85', '\n\n']))
  (folder / 'own.conll').write_bytes(end.join(lines).encode())


def _lines_of(path: Path) -> list[str]:
  return path.read_text(encoding='utf-8-sig').splitlines()[1:]


def _lines(file: str) -> _Change:
  """Lines of JSON with some of their values replaced."""

  def change(data: st.DataObject, folder: Path) -> None:
    lines = (folder / file).read_text().splitlines()
    value = st.sampled_from(lines).map(json.loads).flatmap(inputs.edited)
    drawn = data.draw(st.lists(value | inputs.VALUES, min_size=1, max_size=3))
    text = ''.join(inputs.dumps(value) + '\n' for value in [*drawn])
    (folder / file).write_text(text + lines[0] + '\n')

  return change


def _vocabulary(data: st.DataObject, folder: Path) -> None:
  special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]']
  drawn = data.draw(st.lists(_TEXT | st.sampled_from(special), max_size=8))
  words = data.draw(st.permutations(list(dict.fromkeys([*special, *drawn]))))
  (folder / 'vocab.txt').write_text('\n'.join(words), encoding='utf-8')
  _json('tokenizer_config.json')(data, folder)


_CHANGES = {
  'tfrecord': ('tfrecord', _records),
  'manifest': ('manifest', _digested(_MANIFEST)),
  'manifest of a set': ('shard set', _digested(_MANIFEST)),
  'records of a set': ('shard set', _records_of_a_set),
  'columns of a set': ('shard set', _columns_of_a_set),
  'safetensors': ('safetensors', _safetensors),
  'config.json': ('config.json', _json('config.json')),
  'index': ('index', _json('model.safetensors.index.json')),
  'vocabulary': ('vocabulary', _vocabulary),
  'tokenizer.json': ('tokenizer.json', _json('tokenizer.json')),
  'TSV': ('TSV', _tsv),
  'TSV of scores': ('TSV of scores', _tsv),
  'JSONL': ('JSONL', _lines('own.jsonl')),
  'JSONL of lists': ('JSONL of lists', _lines('own.jsonl')),
  'tagged words': ('tagged words', _words),
  'questions': ('questions', _json('own.squad')),
  'identity of a run': ('run', _digested('runs/x/config.json')),
  'record of a run': ('run', _digested('runs/x/DONE')),
  'outputs': ('outputs', _archive),
  'metrics': ('metrics', _lines('metrics.jsonl')),
}


@pytest.mark.parametrize('name', _CHANGES)
def test_made_up_files(name, tmp_path):
  of, change = _CHANGES[name]
  reader = readers.READERS[of]
  good, folder = tmp_path / 'good', tmp_path / 'bad'
  good.mkdir()
  reader.make(good)
  outcomes = {True: 0, False: 0}

  @hypothesis.given(st.data())
  def check(data):
    shutil.copytree(good, folder, dirs_exist_ok=True)
    change(data, folder)
    outcomes[readers.is_read(reader.read, folder)] += 1

  check()
  print(f'{name}: {outcomes[True]} read, {outcomes[False]} refused')
  # Columns are a cache: those of no use are made anew.
  if name != 'columns of a set':
    assert outcomes[False] > sum(outcomes.values()) / 20
