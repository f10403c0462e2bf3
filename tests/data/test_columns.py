"""Columns: memory-mapped, decoded once, decoded again where they differ."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from bam_jax import errors
from bam_jax import schema
from bam_jax.data import columns as columns_lib
from bam_jax.data import manifest as manifest_lib
from bam_jax.data import shards
from bam_jax.data import tfrecord

_FIELDS = (
  shards.Field('uid', 'bytes', 1),
  shards.Field('ids', 'int', None),
  shards.Field('pair', 'float', 2),
)


def _rows(count: int) -> list[dict[str, object]]:
  return [
    {
      'uid': 'ü' * (i % 4) + str(i),
      'ids': np.arange(i % 6) - 2,
      'pair': np.array([i, -i / 2]),
    }
    for i in range(count)
  ]


def _write(directory: Path, count: int = 20) -> None:
  shards.write(directory, _FIELDS, _rows(count), {}, shard_rows=8)


def _open(directory: Path) -> shards.Columns:
  return shards.open(directory, _FIELDS, {})


def _assert_holds(columns: shards.Columns, count: int = 20) -> None:
  """Oracle: the rows that were handed to the writer."""
  rows = _rows(count)
  assert len(columns) == count
  assert list(columns.uids) == [row['uid'] for row in rows]
  values, offsets = columns.ragged('ids')
  assert (
    offsets.tolist() == np.cumsum([0] + [i % 6 for i in range(count)]).tolist()
  )
  np.testing.assert_array_equal(
    values, np.concatenate([row['ids'] for row in rows])
  )
  np.testing.assert_array_equal(
    columns.fixed('pair'), np.stack([row['pair'] for row in rows])
  )


@pytest.fixture
def decoded(monkeypatch) -> list[bytes]:
  """The records decoded so far."""
  calls = []
  decode = tfrecord.decode

  def counting(record):
    calls.append(record)
    return decode(record)

  monkeypatch.setattr(tfrecord, 'decode', counting)
  return calls


def test_arrays_are_memory_mapped_and_read_only(tmp_path):
  _write(tmp_path / 'set')
  columns = _open(tmp_path / 'set')
  values, offsets = columns.ragged('ids')
  for array, dtype in (
    (columns.fixed('pair'), np.float32),
    (values, np.int32),
    (offsets, np.int64),
  ):
    assert isinstance(array, np.memmap)
    assert array.dtype == dtype
    with pytest.raises(ValueError, match='read-only'):
      array[0] = 0
  _assert_holds(columns)


def test_chunks_and_shards_join_without_a_seam(tmp_path, monkeypatch):
  monkeypatch.setattr(columns_lib, '_CHUNK_ROWS', 3)
  _write(tmp_path / 'set')
  _assert_holds(_open(tmp_path / 'set'))


def test_rows_without_any_value(tmp_path):
  fields = (shards.Field('uid', 'bytes', 1), shards.Field('ids', 'int', None))
  rows = [{'uid': '', 'ids': np.zeros(0, np.int32)}] * 3
  shards.write(tmp_path / 'set', fields, rows, {})
  columns = shards.open(tmp_path / 'set', fields, {})
  values, offsets = columns.ragged('ids')
  assert (values.size, offsets.tolist()) == (0, [0, 0, 0, 0])
  assert list(columns.uids) == ['', '', '']


def test_uids_are_a_sequence(tmp_path):
  _write(tmp_path / 'set')
  uids = _open(tmp_path / 'set').uids
  expected = [row['uid'] for row in _rows(20)]
  assert len(uids) == 20
  assert [uids[i] for i in range(-20, 20)] == expected + expected
  assert uids[np.int64(3)] == expected[3]
  assert uids[15:2:-4] == expected[15:2:-4]
  assert uids.index(expected[7]) == 7
  for index in (20, -21):
    with pytest.raises(IndexError):
      uids[index]


def test_the_second_opening_decodes_nothing(tmp_path, decoded):
  _write(tmp_path / 'set')
  _open(tmp_path / 'set')
  assert len(decoded) == 20
  _assert_holds(_open(tmp_path / 'set'))
  assert len(decoded) == 20


@pytest.mark.parametrize(
  'name',
  [
    'uid.values',
    'uid.offsets',
    'ids.values',
    'ids.offsets',
    'pair.values',
    'index.json',
  ],
)
@pytest.mark.parametrize('damage', ['flip', 'cut', 'remove'])
def test_damaged_columns_are_decoded_again(tmp_path, decoded, name, damage):
  _write(tmp_path / 'set')
  _open(tmp_path / 'set')
  path = tmp_path / 'set' / 'columns' / name
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  if damage == 'remove':
    path.unlink()
  else:
    path.write_bytes(data if damage == 'flip' else data[:-1])
  if (damage, name) == ('cut', 'index.json'):
    path.write_bytes(data[:-3])  # The last byte is but a line break.
  decoded.clear()
  _assert_holds(_open(tmp_path / 'set'))
  assert len(decoded) == 20
  assert not list((tmp_path / 'set').glob('columns.tmp*'))


def test_columns_of_another_manifest_are_decoded_again(tmp_path, decoded):
  """Same folder, same fields, other rows."""
  _write(tmp_path / 'set', 5)
  _open(tmp_path / 'set')
  _write(tmp_path / 'new', 20)
  (tmp_path / 'set' / 'columns').rename(tmp_path / 'new' / 'columns')
  decoded.clear()
  _assert_holds(_open(tmp_path / 'new'))
  assert len(decoded) == 20


def test_columns_built_by_another_process_meanwhile_are_used(
  tmp_path, monkeypatch
):
  _write(tmp_path / 'set')
  decode = tfrecord.decode
  others = []

  def slow(record):
    if not others:
      others.append(None)  # The other process does not wait for a third.
      others.append(_open(tmp_path / 'set'))
    return decode(record)

  monkeypatch.setattr(tfrecord, 'decode', slow)
  columns = _open(tmp_path / 'set')
  _assert_holds(columns)
  _assert_holds(others[1])
  assert not list((tmp_path / 'set').glob('columns.tmp*'))


def test_a_full_disk_is_told(tmp_path, monkeypatch):
  _write(tmp_path / 'set')

  def failing(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(Path, 'mkdir', failing)
  with pytest.raises(errors.UserError, match=r'set/columns: .* No space left'):
    _open(tmp_path / 'set')


def test_a_failed_build_leaves_nothing(tmp_path, monkeypatch):
  _write(tmp_path / 'set')
  before = sorted(path.name for path in (tmp_path / 'set').iterdir())

  def failing(record):
    raise ValueError('is no example')

  monkeypatch.setattr(tfrecord, 'decode', failing)
  with pytest.raises(errors.UserError, match='a record from 0 to 7 is no exam'):
    _open(tmp_path / 'set')
  assert sorted(path.name for path in (tmp_path / 'set').iterdir()) == before


def _manifest(
  directory: Path, rows: list[dict], *fields: shards.Field
) -> manifest_lib.Manifest:
  """Writes records; returns a manifest that names them."""
  name = 'part-00000-of-00001.tfrecord'
  tfrecord.write(directory / name, map(tfrecord.encode, rows))
  part = manifest_lib.Part(name, len(rows), 1, '')
  return manifest_lib.Manifest(fields, (part,), {}, {}, schema.digest({}))


@pytest.mark.parametrize(
  ('field', 'values', 'words'),
  [
    (('x', 'float', 2), np.zeros(3, np.float32), '3 values instead of 2'),
    (('x', 'int', None), np.zeros(2, np.float32), 'values of another type'),
    (('x', 'float', None), np.zeros(2, np.int64), 'values of another type'),
    (('x', 'int', None), [b'a', b'b'], 'values of another type'),
    (('x', 'bytes', 1), np.zeros(1, np.int64), 'numbers instead of bytes'),
    (('x', 'bytes', 1), [b'a', b'b'], '2 values instead of 1'),
    (('x', 'int', 1), np.array([2**31]), 'outside int32'),
    (('x', 'int', 1), np.array([-(2**31) - 1]), 'outside int32'),
    (('y', 'int', 1), np.array([1]), 'missing or malformed y'),
  ],
)
def test_a_record_of_another_kind_is_told(tmp_path, field, values, words):
  manifest = _manifest(tmp_path, [{'x': values}], shards.Field(*field))
  with pytest.raises(errors.UserError, match=words):
    columns_lib.Columns(tmp_path, manifest)


def test_the_checksums_of_the_records_are_checked(tmp_path):
  manifest = _manifest(
    tmp_path, [{'x': np.array([1])}] * 3, shards.Field('x', 'int', 1)
  )
  path = tmp_path / manifest.files[0].name
  data = bytearray(path.read_bytes())
  data[-6] ^= 1
  path.write_bytes(data)
  with pytest.raises(errors.UserError, match=r'record 2 .* fails the checksum'):
    columns_lib.Columns(tmp_path, manifest)


def test_records_are_decoded_as_many_at_a_time_as_memory_takes():
  """By their number where they are small, by their bytes where they are not."""
  small, large = [b'x'] * 2500, [bytes(1 << 23)] * 5
  groups = [*columns_lib._grouped(iter([*small, *large]))]
  assert [len(group) for group in groups] == [1024, 1024, 454, 2, 1]
  assert [r for group in groups for r in group] == [*small, *large]
