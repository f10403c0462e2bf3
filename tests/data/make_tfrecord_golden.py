"""Writes golden/tfrecord.tfrecord with TensorFlow, and checks both directions.

Run once, from the root of the repository, where TensorFlow is installed:

    python tests/data/make_tfrecord_golden.py

The records are those of golden/tfrecord.json. TensorFlow's own messages and
writer make the file, which must equal ours byte for byte; then TensorFlow's
reader and its op `tf.io.parse_single_example` read a file of ours.
"""

import json
from pathlib import Path
import tempfile

import numpy as np
import tensorflow as tf

from bam_jax.data import tfrecord

_GOLDEN = Path(__file__).parent / 'golden'
_TF_LISTS = {
  'bytes': ('bytes_list', tf.train.BytesList),
  'int': ('int64_list', tf.train.Int64List),
  'float': ('float_list', tf.train.FloatList),
}
_TF_TYPES = {'bytes': tf.string, 'int': tf.int64, 'float': tf.float32}


def _features(row: dict) -> dict:
  """A row of the JSON file as `tfrecord.encode` takes it."""
  types = {'int': np.int64, 'float': np.float32}
  return {
    name: [bytes.fromhex(value) for value in values]
    if kind == 'bytes'
    else np.array(values, types[kind])
    for name, feature in row.items()
    for kind, values in feature.items()
  }


def _tensorflow_bytes(row: dict) -> bytes:
  """The row serialised by TensorFlow's message, map sorted by key."""
  features = {}
  for name, values in _features(row).items():
    (kind,) = row[name]
    field, cls = _TF_LISTS[kind]
    features[name] = tf.train.Feature(**{field: cls(value=values)})
  example = tf.train.Example(features=tf.train.Features(feature=features))
  return example.SerializeToString(deterministic=True)


def main() -> None:
  rows = json.loads((_GOLDEN / 'tfrecord.json').read_text('utf-8'))
  golden = _GOLDEN / 'tfrecord.tfrecord'
  with tf.io.TFRecordWriter(str(golden)) as writer:
    for row in rows:
      writer.write(_tensorflow_bytes(row))

  with tempfile.TemporaryDirectory() as folder:
    ours = Path(folder) / 'ours.tfrecord'
    tfrecord.write(ours, (tfrecord.encode(_features(row)) for row in rows))
    assert ours.read_bytes() == golden.read_bytes(), 'the bytes differ'
    records = list(tf.data.TFRecordDataset(str(ours)).as_numpy_iterator())
  assert len(records) == len(rows)
  for row, record in zip(rows, records, strict=True):
    message = tf.train.Example.FromString(record)
    assert set(message.features.feature) == set(row)
    kinds = {name: next(iter(feature)) for name, feature in row.items()}
    parsed = tf.io.parse_single_example(
      record,
      {
        name: tf.io.RaggedFeature(_TF_TYPES[kind])
        for name, kind in kinds.items()
      },
    )
    for name, values in _features(row).items():
      np.testing.assert_array_equal(
        parsed[name].numpy(),
        np.array(values, object) if kinds[name] == 'bytes' else values,
      )
  print(f'{golden.name}: {len(rows)} records, equal in both directions')


if __name__ == '__main__':
  main()
