"""A shard set: what is written is read, and nothing else ever is."""

import errno
import itertools
import json
import os
from pathlib import Path
import shutil

import numpy as np
import pytest

from bam_jax import errors
from bam_jax import schema
from bam_jax.data import shards
from bam_jax.data import tfrecord

_FINGERPRINT = {
  'rows': 'a' * 64,
  'tokenizer': 'uncased',
  'max_length': 128,
  'task': {'name': 'toy', 'labels': ['0', '1']},
}
_METADATA = {'labels': ['no', 'yes']}


def _rows(count: int = 10, seed: int = 0) -> list[dict[str, object]]:
  rng = np.random.default_rng(seed)
  return [
    {
      'uid': f'toy/train/{i}é',
      'input_ids': rng.integers(0, 30000, 3 + i % 5).astype(np.int32),
      'length_a': 2 + i % 3,
      'label': float(i % 2) if i else float('nan'),
    }
    for i in range(count)
  ]


def _write(directory: Path, rows=None, fingerprint=None, **kwargs) -> None:
  shards.write(
    directory,
    shards.feature_fields(),
    _rows() if rows is None else rows,
    _FINGERPRINT if fingerprint is None else fingerprint,
    _METADATA,
    **({'shard_rows': 4} | kwargs),
  )


def _open(directory: Path) -> shards.Columns:
  return shards.open(directory, shards.feature_fields(), _FINGERPRINT)


def _contents(columns: shards.Columns) -> tuple:
  values, offsets = columns.ragged('input_ids')
  return (
    list(columns.uids),
    [values[a:b].tolist() for a, b in itertools.pairwise(offsets)],
    columns.fixed('length_a').tolist(),
    columns.fixed('label').tobytes(),
    columns.metadata,
    columns.fingerprint,
  )


def _expected(rows: list[dict[str, object]]) -> tuple:
  """Oracle: the rows that were handed to the writer."""
  return (
    [row['uid'] for row in rows],
    [row['input_ids'].tolist() for row in rows],
    [row['length_a'] for row in rows],
    np.array([row['label'] for row in rows], np.float32).tobytes(),
    _METADATA,
    _FINGERPRINT,
  )


def _edit_manifest(directory: Path, change) -> None:
  """Edits a manifest as one would who knows of the digest."""
  path = directory / 'manifest.json'
  manifest = json.loads(path.read_text())
  del manifest['digest']
  change(manifest)
  manifest['digest'] = schema.digest(manifest)
  path.write_text(json.dumps(manifest))


def _flip(path: Path, bit: int) -> None:
  data = bytearray(path.read_bytes())
  data[bit // 8] ^= 1 << bit % 8
  path.write_bytes(data)


@pytest.mark.parametrize('shard_rows', [1, 4, 10, 100])
def test_what_is_written_is_read(tmp_path, shard_rows):
  _write(tmp_path / 'set', shard_rows=shard_rows)
  columns = _open(tmp_path / 'set')
  assert len(columns) == 10
  assert _contents(columns) == _expected(_rows())
  parts = -(-10 // shard_rows)
  assert sorted(path.name for path in tmp_path.glob('set/part*')) == [
    f'part-{i:05d}-of-{parts:05d}.tfrecord' for i in range(parts)
  ]


@pytest.mark.parametrize('width', [1, 3])
def test_logits_are_read(tmp_path, width):
  logits = np.random.default_rng(0).normal(size=(5, width)).astype(np.float32)
  fields = shards.logits_fields(width)
  rows = ({'uid': f'u/{i}', 'logits': row} for i, row in enumerate(logits))
  shards.write(tmp_path / 'set', fields, rows, {})
  read = shards.open(tmp_path / 'set', fields, {}).fixed('logits')
  assert read.shape == ((5,) if width == 1 else (5, width))
  np.testing.assert_array_equal(read.reshape(5, width), logits)


def test_the_same_rows_give_the_same_files(tmp_path):
  _write(tmp_path / 'a')
  _write(tmp_path / 'b')
  for path in (tmp_path / 'a').iterdir():
    assert path.read_bytes() == (tmp_path / 'b' / path.name).read_bytes()


def test_fingerprint_may_be_left_out(tmp_path):
  _write(tmp_path / 'set')
  columns = shards.open(tmp_path / 'set', shards.feature_fields(), None)
  assert columns.fingerprint == _FINGERPRINT


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    ({'tokenizer': 'cased'}, "tokenizer was 'uncased', is 'cased'"),
    ({'max_length': 64}, 'max_length was 128, is 64'),
    (
      {'task': {'name': 'toy', 'labels': ['1', '0']}},
      r"task\.labels was \['0', '1'\], is \['1', '0'\]",
    ),
    ({'teacher': 'x'}, "teacher was None, is 'x'"),
    ({'rows': 'b' * 64}, 'rows has changed'),
    ({'rows': 'a' * 63 + 'b'}, 'rows has changed'),
  ],
  ids=['tokenizer', 'max_length', 'labels', 'absent', 'rows', 'end of rows'],
)
def test_a_stale_set_is_never_used(tmp_path, change, words):
  """The released code reused stale TFRecords and logits silently."""
  _write(tmp_path / 'set')
  wanted = _FINGERPRINT | change
  with pytest.raises(errors.UserError, match=words) as caught:
    shards.open(tmp_path / 'set', shards.feature_fields(), wanted)
  # Only what differs is told, with the folder and the remedy, in one line.
  message = str(caught.value)
  assert '; ' not in message
  assert str(tmp_path / 'set') in message
  assert 'remove the folder' in message
  assert '\n' not in message


def test_fingerprints_compare_as_json(tmp_path):
  _write(tmp_path / 'set')
  wanted = _FINGERPRINT | {'task': {'labels': ('0', '1'), 'name': 'toy'}}
  assert len(shards.open(tmp_path / 'set', shards.feature_fields(), wanted))
  assert shards.exists(tmp_path / 'set')
  assert not shards.exists(tmp_path / 'none')


@pytest.mark.parametrize(
  'fields',
  [
    shards.feature_fields()[:-1],
    (*shards.feature_fields()[:-1], shards.Field('label', 'int', 1)),
    shards.logits_fields(2),
  ],
  ids=['fewer', 'another type', 'logits'],
)
def test_other_fields_are_refused(tmp_path, fields):
  _write(tmp_path / 'set')
  with pytest.raises(
    errors.UserError, match=r'set: its records hold uid .* is expected'
  ):
    shards.open(tmp_path / 'set', fields, _FINGERPRINT)


def test_another_class_count_is_refused(tmp_path):
  rows = [{'uid': 'u', 'logits': np.zeros(3, np.float32)}]
  shards.write(tmp_path / 'set', shards.logits_fields(3), rows, {})
  with pytest.raises(
    errors.UserError, match=r'logits \(float x 3\); .* \(float x 2\)'
  ):
    shards.open(tmp_path / 'set', shards.logits_fields(2), {})


def test_a_flipped_bit_in_a_shard_is_found(tmp_path):
  _write(tmp_path / 'set')
  _open(tmp_path / 'set')  # The columns are there and must not hide it.
  path = tmp_path / 'set' / 'part-00001-of-00003.tfrecord'
  good = path.read_bytes()
  for bit in range(0, 8 * len(good), 7):
    _flip(path, bit)
    with pytest.raises(errors.UserError, match=r'part-00001.* is damaged'):
      _open(tmp_path / 'set')
    path.write_bytes(good)
  _open(tmp_path / 'set')


def test_a_flipped_bit_in_the_manifest_is_found_or_harmless(tmp_path):
  _write(tmp_path / 'set')
  path = tmp_path / 'set' / 'manifest.json'
  good = path.read_bytes()
  expected = _contents(_open(tmp_path / 'set'))
  harmless = 0
  for bit in range(0, 8 * len(good), 5):
    _flip(path, bit)
    try:
      # Without a wanted fingerprint there is nothing but the digest to tell.
      columns = shards.open(tmp_path / 'set', shards.feature_fields(), None)
      assert _contents(columns) == expected
      harmless += 1
    except errors.UserError as e:
      assert 'manifest.json' in str(e)
    path.write_bytes(good)
  # White space may become other white space; nothing more.
  assert harmless < 0.02 * 8 * len(good) / 5


@pytest.mark.parametrize('keep', [0, 1, 0.5, -1])
def test_a_truncated_shard_is_found(tmp_path, keep):
  _write(tmp_path / 'set')
  path = tmp_path / 'set' / 'part-00002-of-00003.tfrecord'
  data = path.read_bytes()
  path.write_bytes(data[: int(keep * len(data)) if keep == 0.5 else keep])
  with pytest.raises(errors.UserError, match=r'part-00002.* is damaged'):
    _open(tmp_path / 'set')


def test_a_missing_shard_is_found(tmp_path):
  _write(tmp_path / 'set')
  (tmp_path / 'set' / 'part-00000-of-00003.tfrecord').unlink()
  with pytest.raises(errors.UserError, match=r'part-00000.*No such file'):
    _open(tmp_path / 'set')


@pytest.mark.parametrize('kind', ['link', 'pipe'])
def test_a_shard_that_is_no_regular_file_is_refused(tmp_path, kind):
  """Even a link to a file that fits: it leads out of the folder."""
  _write(tmp_path / 'set')
  path = tmp_path / 'set' / 'part-00000-of-00003.tfrecord'
  path.rename(tmp_path / 'elsewhere')
  if kind == 'link':
    path.symlink_to(tmp_path / 'elsewhere')
  else:
    os.mkfifo(path)
  what = 'a link' if kind == 'link' else 'not a regular file'
  with pytest.raises(errors.UserError, match=f'part-00000.*is {what}'):
    _open(tmp_path / 'set')


@pytest.mark.parametrize(
  ('name', 'change'),
  [
    ('input_ids.offsets', lambda a: a * 2),
    ('input_ids.offsets', lambda a: a[::-1]),
    ('input_ids.offsets', lambda a: np.maximum(a, 1)),
    ('input_ids.offsets', lambda a: np.where(a == a[2], a[4], a)),
    ('input_ids.offsets', lambda a: a[:-1]),
    ('uid.offsets', lambda a: a[:0]),
    ('length_a.values', lambda a: a[:4]),
    ('label.values', lambda a: a[:7]),
  ],
)
def test_columns_from_elsewhere_are_made_anew(tmp_path, name, change):
  """Their index agrees with them, but they do not fit the set."""
  _write(tmp_path / 'set')
  expected = _contents(_open(tmp_path / 'set'))
  folder = tmp_path / 'set' / 'columns'
  dtype = np.int64 if name.endswith('offsets') else np.int8
  change(np.fromfile(folder / name, dtype)).tofile(folder / name)
  index = json.loads((folder / 'index.json').read_text())
  index['files'][name] = shards.columns_lib.measure(folder / name)
  (folder / 'index.json').write_text(json.dumps(index))
  assert _contents(_open(tmp_path / 'set')) == expected


def test_uids_that_are_no_text_are_refused(tmp_path):
  _write(tmp_path / 'set', shard_rows=100)
  path = tmp_path / 'set' / 'part-00000-of-00001.tfrecord'
  records = [tfrecord.decode(record) for record in tfrecord.read(path)]
  records[3]['uid'] = [b'\xff']
  tfrecord.write(path, map(tfrecord.encode, records))

  def measured(manifest):
    size, sha256 = shards.columns_lib.measure(path)
    manifest['files'][0] |= {'bytes': size, 'sha256': sha256}

  _edit_manifest(tmp_path / 'set', measured)
  with pytest.raises(
    errors.UserError, match=r'missing or malformed uid .*utf-8'
  ):
    _open(tmp_path / 'set')


def test_a_set_without_a_manifest_is_none(tmp_path):
  _write(tmp_path / 'set')
  (tmp_path / 'set' / 'manifest.json').unlink()
  for directory in (tmp_path / 'set', tmp_path / 'none'):
    with pytest.raises(errors.UserError, match=r'manifest\.json is missing'):
      _open(directory)


@pytest.mark.parametrize(
  'text',
  ['', '{', '[]', 'null', '7', '"a"', '{}', '{"digest": "x"}', '\udcff'],
)
def test_a_manifest_of_another_kind_is_refused(tmp_path, text):
  _write(tmp_path / 'set')
  path = tmp_path / 'set' / 'manifest.json'
  path.write_text(text, errors='surrogateescape')
  with pytest.raises(errors.UserError, match=r'manifest\.json: is '):
    _open(tmp_path / 'set')


@pytest.mark.parametrize(
  'name',
  [
    '../other/part-00000-of-00001.tfrecord',
    '/etc/passwd',
    'part-00000-of-00001.tfrecord/../../x',
    'sub/part-00000-of-00001.tfrecord',
    'part-00000-of-00001.tfrecord\n',
    '',
    7,
    None,
  ],
)
def test_a_path_out_of_the_folder_is_refused(tmp_path, name):
  """Even where the path leads to a file that fits."""
  _write(tmp_path / 'other', shard_rows=100)
  _write(tmp_path / 'set', shard_rows=100)

  def change(manifest):
    manifest['files'][0]['name'] = name

  _edit_manifest(tmp_path / 'set', change)
  with pytest.raises(errors.UserError, match=r'manifest\.json: is not a man'):
    _open(tmp_path / 'set')


def _set(path: tuple, value) -> object:
  def change(manifest):
    for key in path[:-1]:
      manifest = manifest[key]
    manifest[path[-1]] = value

  return change


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    (_set(('version',), 2), 'its version is 2, not 1'),
    (_set(('rows',), 11), 'do not add up to 11 rows'),
    (_set(('files',), []), 'do not add up'),
    (_set(('files', 0, 'records'), 'x'), 'not a manifest'),
    (_set(('files', 0, 'surplus'), 1), 'not a manifest'),
    (
      _set(('files', 0, 'sha256'), '0' * 64),
      'manifest says .* bytes and 0000',
    ),
    (_set(('files', 0, 'sha256'), None), 'is damaged'),
    (_set(('files', 0, 'bytes'), 3), 'the manifest says 3 bytes and'),
    (_set(('fields',), 'x'), 'not a manifest'),
    (_set(('fields', 0, 'dtype'), 'int'), 'is expected'),
    (_set(('fingerprint',), 3), 'not a manifest'),
    (lambda manifest: manifest.pop('metadata'), 'not a manifest'),
    (lambda manifest: manifest.pop('version'), 'not a manifest'),
    (_set(('files', 0, 'records'), -4), '-4 records or bytes'),
    (_set(('files', 0, 'bytes'), 1e9), 'records or bytes'),
    (_set(('files', 0, 'bytes'), True), 'records or bytes'),
    (_set(('metadata',), [['labels', 1]]), 'its metadata is a list'),
    (_set(('version',), 'a\nb'), r"its version is 'a\\nb'"),
    (
      lambda manifest: manifest['files'].append(manifest['files'][0]),
      'lists a file twice',
    ),
  ],
)
def test_an_edited_manifest_is_refused(tmp_path, change, words):
  _write(tmp_path / 'set')
  _edit_manifest(tmp_path / 'set', change)
  with pytest.raises(errors.UserError, match=words):
    _open(tmp_path / 'set')


@pytest.mark.parametrize('change', [-1, 1], ids=['missing', 'surplus'])
def test_other_records_than_the_manifest_says_are_refused(tmp_path, change):
  """A shard with a row too few or too many whose size and sha256 agree."""
  _write(tmp_path / 'set', shard_rows=100)
  path = tmp_path / 'set' / 'part-00000-of-00001.tfrecord'
  records = list(tfrecord.read(path))
  tfrecord.write(path, records[:-1] if change < 0 else records + records[:1])

  def measured(manifest):
    manifest['files'][0] |= {
      'bytes': path.stat().st_size,
      'sha256': shards.columns_lib.measure(path)[1],
    }

  _edit_manifest(tmp_path / 'set', measured)
  with pytest.raises(
    errors.UserError,
    match=f'has {10 + change} records, but the manifest says 10',
  ):
    _open(tmp_path / 'set')


def test_a_writer_that_dies_leaves_the_old_set(tmp_path):
  _write(tmp_path / 'set')
  expected = _contents(_open(tmp_path / 'set'))

  def rows():
    yield from _rows(6, seed=1)
    raise RuntimeError('midway')

  with pytest.raises(RuntimeError, match='midway'):
    _write(tmp_path / 'set', rows(), fingerprint={'other': 1})
  assert [path.name for path in tmp_path.iterdir()] == ['set']
  assert _contents(_open(tmp_path / 'set')) == expected


def test_a_writer_that_dies_leaves_no_half_set(tmp_path):
  def rows():
    yield from _rows(6)
    raise RuntimeError('midway')

  with pytest.raises(RuntimeError, match='midway'):
    _write(tmp_path / 'set', rows())
  assert list(tmp_path.iterdir()) == []


def test_a_rename_that_fails_leaves_the_old_set(tmp_path, monkeypatch):
  _write(tmp_path / 'set')
  expected = _contents(_open(tmp_path / 'set'))
  rename = Path.rename

  def failing(self, target):
    if self.is_dir() and '.tmp-' in self.name:
      raise OSError(errno.EIO, 'Input/output error')
    return rename(self, target)

  monkeypatch.setattr(Path, 'rename', failing)
  with pytest.raises(errors.UserError, match='set: cannot be written: Input'):
    _write(tmp_path / 'set', _rows(3))
  assert [path.name for path in tmp_path.iterdir()] == ['set']
  assert _contents(_open(tmp_path / 'set')) == expected


def test_a_new_set_replaces_the_old_one_whole(tmp_path):
  _write(tmp_path / 'set', shard_rows=1)
  _open(tmp_path / 'set')
  _write(tmp_path / 'set', _rows(3, seed=1))
  assert [path.name for path in tmp_path.iterdir()] == ['set']
  assert len(list(tmp_path.glob('set/part*'))) == 1
  assert _contents(_open(tmp_path / 'set')) == _expected(_rows(3, seed=1))


def test_open_columns_outlive_a_replaced_set(tmp_path):
  _write(tmp_path / 'set')
  columns = _open(tmp_path / 'set')
  _write(tmp_path / 'set', _rows(3, seed=1))
  assert _contents(columns) == _expected(_rows())


def test_leftovers_of_a_killed_writer_are_ignored(tmp_path):
  (tmp_path / 'set.tmp-0123').mkdir()
  (tmp_path / 'set.tmp-0123' / 'part-00000').write_bytes(b'half')
  _write(tmp_path / 'set')
  assert _contents(_open(tmp_path / 'set')) == _expected(_rows())


def test_a_folder_with_other_things_is_not_replaced(tmp_path):
  (tmp_path / 'set').mkdir()
  (tmp_path / 'set' / 'thesis.tex').write_text('years of work')
  with pytest.raises(errors.UserError, match=r'set: holds thesis\.tex'):
    _write(tmp_path / 'set')
  assert (tmp_path / 'set' / 'thesis.tex').read_text() == 'years of work'


def test_a_file_in_the_place_is_told(tmp_path):
  (tmp_path / 'set').write_text('')
  with pytest.raises(errors.UserError, match='set: cannot be written: Not a d'):
    _write(tmp_path / 'set')


def test_no_row_is_an_error(tmp_path):
  with pytest.raises(errors.UserError, match='set: there are no rows'):
    _write(tmp_path / 'set', [])
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize('call', ['mkdir', 'fsync'])
def test_errors_of_the_disk_name_the_folder(tmp_path, monkeypatch, code, call):
  def failing(*args, **kwargs):
    raise OSError(code, os.strerror(code))

  owner = Path if call == 'mkdir' else os
  monkeypatch.setattr(owner, call, failing)
  with pytest.raises(
    errors.UserError, match=rf'set.*cannot be written: {os.strerror(code)}'
  ):
    _write(tmp_path / 'set')
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    ({'length_a': np.array([1, 2])}, 'row 1: .* does not fit length_a'),
    ({'length_a': 1.5}, r'row 1: 1\.5 does not fit length_a \(int x 1\)'),
    ({'input_ids': np.zeros(3)}, 'does not fit input_ids'),
    ({'label': 'no'}, "row 1: 'no' does not fit label"),
    ({'surplus': 1}, 'row 1 has the fields'),
  ],
  ids=['width', 'float for int', 'floats for ints', 'text', 'surplus'],
)
def test_a_record_of_other_fields_is_a_bug(tmp_path, change, words):
  rows = _rows(3)
  rows[1] |= change
  with pytest.raises(ValueError, match=words):
    _write(tmp_path / 'set', rows)


def test_a_moved_set_is_still_good(tmp_path):
  _write(tmp_path / 'set')
  _open(tmp_path / 'set')
  shutil.move(tmp_path / 'set', tmp_path / 'moved')
  assert _contents(_open(tmp_path / 'moved')) == _expected(_rows())
