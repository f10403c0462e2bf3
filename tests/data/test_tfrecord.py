"""The TFRecord framing and tf.train.Example, against TensorFlow's own files.

`golden/tfrecord.tfrecord` was written by TensorFlow from the rows described in
`golden/tfrecord.json`; make_tfrecord_golden.py tells how.
"""

import json
from pathlib import Path
import struct
import tracemalloc

from google.protobuf import descriptor_pool
import google_crc32c
import numpy as np
import pytest

from bam_jax import errors
from bam_jax.data import tfrecord

_GOLDEN = Path(__file__).parent / 'golden'
_RECORDS = [b'first', b'', b'\x00\xff' * 40, b'last']


def _golden_rows() -> list[dict[str, list[bytes] | np.ndarray]]:
  types = {'int': np.int64, 'float': np.float32}
  return [
    {
      name: [bytes.fromhex(value) for value in values]
      if kind == 'bytes'
      else np.array(values, types[kind])
      for name, feature in row.items()
      for kind, values in feature.items()
    }
    for row in json.loads((_GOLDEN / 'tfrecord.json').read_text('utf-8'))
  ]


def _assert_rows_equal(decoded: dict, expected: dict) -> None:
  assert decoded.keys() == expected.keys()
  for name, values in expected.items():
    if isinstance(values, list):
      assert decoded[name] == values
    else:
      assert decoded[name].dtype == values.dtype
      # Bits, so that -0.0 and NaN count.
      assert decoded[name].tobytes() == values.tobytes()


def _masked_crc(data: bytes) -> int:
  crc = google_crc32c.value(data)
  rotated = (crc >> 15) | ((crc << 17) & 0xFFFFFFFF)
  return (rotated + 0xA282EAD8) % 2**32


def test_reads_what_tensorflow_wrote():
  """Oracle: the file that TensorFlow wrote."""
  decoded = [
    tfrecord.decode(record)
    for record in tfrecord.read(_GOLDEN / 'tfrecord.tfrecord')
  ]
  rows = _golden_rows()
  assert len(decoded) == len(rows) == 4
  for got, expected in zip(decoded, rows, strict=True):
    _assert_rows_equal(got, expected)


def test_writes_the_bytes_that_tensorflow_writes(tmp_path):
  """Oracle: the file that TensorFlow wrote."""
  path = tmp_path / 'ours.tfrecord'
  count = tfrecord.write(path, map(tfrecord.encode, _golden_rows()))
  assert count == 4
  expected = (_GOLDEN / 'tfrecord.tfrecord').read_bytes()
  assert path.read_bytes() == expected


def test_bytes_do_not_depend_on_the_order_of_the_features():
  for row in _golden_rows():
    backwards = dict(reversed(row.items()))
    assert tfrecord.encode(backwards) == tfrecord.encode(row)


def test_tensorflow_reads_what_we_write(tmp_path):
  """Oracle: TensorFlow's reader and message, in the same process as ours."""
  tf = pytest.importorskip('tensorflow')
  path = tmp_path / 'ours.tfrecord'
  rows = _golden_rows()
  tfrecord.write(path, map(tfrecord.encode, rows))
  records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
  for record, row in zip(records, rows, strict=True):
    feature = tf.train.Example.FromString(record).features.feature
    assert set(feature) == set(row)
    for name, values in row.items():
      kind = feature[name].WhichOneof('kind')
      np.testing.assert_array_equal(getattr(feature[name], kind).value, values)


def test_records_survive_in_order(tmp_path):
  path = tmp_path / 'a.tfrecord'
  assert tfrecord.write(path, iter(_RECORDS)) == 4
  assert list(tfrecord.read(path)) == _RECORDS


def test_many_blocks_survive(tmp_path):
  """More than the buffer of one write holds."""
  path = tmp_path / 'a.tfrecord'
  records = [bytes([i]) * 300_000 for i in range(12)]
  tfrecord.write(path, records)
  assert list(tfrecord.read(path)) == records


def test_writing_again_replaces(tmp_path):
  path = tmp_path / 'a.tfrecord'
  tfrecord.write(path, [b'old'] * 3)
  tfrecord.write(path, [])
  assert list(tfrecord.read(path)) == []


def test_every_flipped_bit_is_found(tmp_path):
  path = tmp_path / 'a.tfrecord'
  tfrecord.write(path, _RECORDS)
  good = path.read_bytes()
  for bit in range(8 * len(good)):
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bad)
    with pytest.raises(errors.UserError, match=r'a\.tfrecord: record \d at'):
      list(tfrecord.read(path))


def test_every_truncation_is_found_or_ends_a_record(tmp_path):
  path = tmp_path / 'a.tfrecord'
  tfrecord.write(path, _RECORDS)
  good = path.read_bytes()
  ends = np.cumsum([0] + [len(record) + 16 for record in _RECORDS]).tolist()
  assert ends[-1] == len(good)
  for size in range(len(good)):
    path.write_bytes(good[:size])
    if size in ends:
      assert list(tfrecord.read(path)) == _RECORDS[: ends.index(size)]
    else:
      with pytest.raises(errors.UserError, match='is cut off'):
        list(tfrecord.read(path))


def test_damage_names_record_and_offset(tmp_path):
  path = tmp_path / 'a.tfrecord'
  tfrecord.write(path, _RECORDS)
  data = bytearray(path.read_bytes())
  # The third record starts after 16 + 5 and 16 + 0 bytes.
  data[21 + 16 + 12] ^= 1
  path.write_bytes(data)
  reader = tfrecord.read(path)
  assert [next(reader), next(reader)] == _RECORDS[:2]
  with pytest.raises(errors.UserError, match='record 2 at byte 37 fails'):
    next(reader)


@pytest.mark.parametrize('length', [2**40, 2**63, 2**64 - 1])
def test_a_wild_length_allocates_nothing(tmp_path, length):
  path = tmp_path / 'a.tfrecord'
  prefix = struct.pack('<Q', length)
  crc = struct.pack('<I', _masked_crc(prefix))
  path.write_bytes(prefix + crc + b'x' * 100)
  tracemalloc.start()
  try:
    with pytest.raises(errors.UserError, match=f'{length} bytes long, 96 left'):
      list(tfrecord.read(path))
    assert tracemalloc.get_traced_memory()[1] < 2**20
  finally:
    tracemalloc.stop()


def test_a_record_beyond_any_use_is_not_read(tmp_path):
  """Of the right length, in a file with a hole of that length."""
  path = tmp_path / 'a'
  length = (1 << 40).to_bytes(8, 'little')
  with path.open('wb') as file:
    file.write(length + struct.pack('<I', _masked_crc(length)))
    file.truncate((1 << 40) + 16)
  tracemalloc.start()
  try:
    with pytest.raises(errors.UserError, match='99511627776 bytes long, ov'):
      list(tfrecord.read(path))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
  finally:
    tracemalloc.stop()


def test_a_missing_file_is_told(tmp_path):
  with pytest.raises(errors.UserError, match=r'none\.tfrecord.*No such file'):
    list(tfrecord.read(tmp_path / 'none.tfrecord'))


def test_an_unwritable_file_is_told(tmp_path):
  path = tmp_path / 'none' / 'a.tfrecord'
  with pytest.raises(errors.UserError, match=r'none.*cannot be written'):
    tfrecord.write(path, [b'x'])


def test_errors_of_the_records_pass_unchanged(tmp_path):
  def records():
    yield b'x'
    raise OSError('the source is gone')

  with pytest.raises(OSError, match='the source is gone'):
    tfrecord.write(tmp_path / 'a.tfrecord', records())


@pytest.mark.parametrize(
  ('values', 'error'),
  [
    (np.array(['text']), ValueError),
    (np.array([True]), ValueError),
    (np.zeros((2, 2)), TypeError),
    (np.array([2**63], np.uint64), ValueError),
  ],
  ids=['text', 'bool', 'two dimensions', 'beyond int64'],
)
def test_encode_refuses(values, error):
  with pytest.raises(error):
    tfrecord.encode({'x': values})


@pytest.mark.parametrize(
  'record', [b'\xff\xff', b'\x0a\x7f'], ids=['tag', 'length']
)
def test_decode_refuses_other_bytes(record):
  with pytest.raises(ValueError, match=r'not a tf\.train\.Example'):
    tfrecord.decode(record)


def test_a_feature_without_a_type_is_an_empty_list():
  """Features { feature { key: "k" value {} } }, spelt in wire format."""
  entry = b'\x0a\x01k\x12\x00'
  features = b'\x0a' + bytes([len(entry)]) + entry
  record = b'\x0a' + bytes([len(features)]) + features
  assert tfrecord.decode(record) == {'k': []}


def test_the_descriptors_stay_out_of_the_default_pool():
  with pytest.raises(KeyError):
    descriptor_pool.Default().FindMessageTypeByName('bam_jax.Example')
