"""Reads and writes TFRecord files of tf.train.Example without TensorFlow.

The files are compatible with TensorFlow, for reading and for writing. A record
is stored as: its length as a little-endian uint64, the masked CRC-32C of those
eight bytes, the data, and the masked CRC-32C of the data.
"""

from collections.abc import Iterable, Iterator, Mapping
import contextlib
import os
from pathlib import Path
from typing import BinaryIO

from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message
from google.protobuf import message_factory
from google.protobuf import text_format
import google_crc32c
import numpy as np

from bam_jax import errors

# Header: a record's length and the checksum of it. Footer: the checksum of the
# record's data.
_HEADER_BYTES, _FOOTER_BYTES = 12, 4
_FRAME_BYTES = _HEADER_BYTES + _FOOTER_BYTES
_BLOCK_BYTES = 1 << 20
# Longer records are refused, because a decoded record needs many times the
# memory. The longest records that this package writes hold the logits of all
# tokens of a row.
_MOST_RECORD_BYTES = 1 << 24

# tf.train.Example. The names may differ from TensorFlow's, because serialised
# messages contain only the field numbers.
_DESCRIPTION = """
  name: 'bam_jax/example.proto' package: 'bam_jax' syntax: 'proto3'
  message_type { name: 'BytesList'
    field { name: 'value' number: 1 label: LABEL_REPEATED type: TYPE_BYTES } }
  message_type { name: 'FloatList'
    field { name: 'value' number: 1 label: LABEL_REPEATED type: TYPE_FLOAT } }
  message_type { name: 'Int64List'
    field { name: 'value' number: 1 label: LABEL_REPEATED type: TYPE_INT64 } }
  message_type { name: 'Feature' oneof_decl { name: 'kind' }
    field { name: 'bytes_list' number: 1 oneof_index: 0
            type: TYPE_MESSAGE type_name: '.bam_jax.BytesList' }
    field { name: 'float_list' number: 2 oneof_index: 0
            type: TYPE_MESSAGE type_name: '.bam_jax.FloatList' }
    field { name: 'int64_list' number: 3 oneof_index: 0
            type: TYPE_MESSAGE type_name: '.bam_jax.Int64List' } }
  message_type { name: 'Features'
    nested_type { name: 'FeatureEntry' options { map_entry: true }
      field { name: 'key' number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
      field { name: 'value' number: 2 label: LABEL_OPTIONAL
              type: TYPE_MESSAGE type_name: '.bam_jax.Feature' } }
    field { name: 'feature' number: 1 label: LABEL_REPEATED
            type: TYPE_MESSAGE type_name: '.bam_jax.Features.FeatureEntry' } }
  message_type { name: 'Example'
    field { name: 'features' number: 1
            type: TYPE_MESSAGE type_name: '.bam_jax.Features' } }
"""
# A separate pool: protobuf's default pool refuses two descriptions of the same
# message, so using it would break processes that also import TensorFlow.
_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(text_format.Parse(_DESCRIPTION, descriptor_pb2.FileDescriptorProto()))
_Example = message_factory.GetMessageClass(
  _POOL.FindMessageTypeByName('bam_jax.Example')
)


@contextlib.contextmanager
def report_errors(path: Path, what: str, remedy: str) -> Iterator[None]:
  """Context manager that turns an `OSError` into a `UserError`.

  The message is "PATH: cannot be WHAT: the system's reason; REMEDY".
  """
  try:
    yield
  except OSError as e:
    raise errors.UserError(
      f'{path}: cannot be {what}: {e.strerror or e}; {remedy}'
    ) from e


def encode(features: Mapping[str, list[bytes] | np.ndarray]) -> bytes:
  """Serialises features as a tf.train.Example, deterministically.

  The features are sorted by name, as in TensorFlow with
  `SerializeToString(deterministic=True)`.

  Args:
    features: name -> list of bytes, or a 1-D integer or floating-point array
      (stored as int64 and float32).

  Raises:
    ValueError: an array has another type, or an integer is outside int64.
    TypeError: an array has more than one dimension.
  """
  example = _Example()
  feature = example.features.feature
  for name, values in features.items():
    if isinstance(values, list):
      store = feature[name].bytes_list
    elif values.dtype.kind in 'iu':
      store, values = feature[name].int64_list, values.tolist()
    elif values.dtype.kind == 'f':
      store, values = feature[name].float_list, values.tolist()
    else:
      raise ValueError(f'{name}: {values.dtype} is not int or float')
    if values:
      store.value.extend(values)
    else:
      store.SetInParent()  # An empty list still has a type.
  return example.SerializeToString(deterministic=True)


def decode(record: bytes) -> dict[str, np.ndarray | list[bytes]]:
  """Parses a serialised tf.train.Example into its features.

  Returns:
    Name -> list of bytes, int64 array or float32 array. A feature without a
    type, which TensorFlow allows, is an empty list.

  Raises:
    ValueError: the bytes are not a tf.train.Example.
  """
  try:
    example = _Example.FromString(record)
  except message.DecodeError as e:
    raise ValueError('is not a tf.train.Example') from e
  result = {}
  features = example.features.feature
  for name in features:  # A map's items() is a slow loop in Python.
    feature = features[name]
    kind = feature.WhichOneof('kind')
    # Slicing first makes a list in C: twice as fast as converting the field.
    if kind == 'int64_list':
      result[name] = np.array(feature.int64_list.value[:], np.int64)
    elif kind == 'float_list':
      result[name] = np.array(feature.float_list.value[:], np.float32)
    else:
      result[name] = feature.bytes_list.value[:]
  return result


def write(path: str | os.PathLike, records: Iterable[bytes]) -> int:
  """Writes a TFRecord file, calls fsync and returns the number of records.

  Raises:
    errors.UserError: the file can't be written (no permission, no space).
    Exception: whatever `records` raises, unchanged.
  """
  path = Path(path)
  _append(path, b'', 'wb')
  block = bytearray()
  count = 0
  for record in records:
    count += 1
    length = len(record).to_bytes(8, 'little')
    block += length + _checksum(length) + record + _checksum(record)
    if len(block) >= _BLOCK_BYTES:
      _append(path, block)
      block.clear()
  _append(path, block, sync=True)
  return count


def _append(
  path: Path, data: bytes | bytearray, mode: str = 'ab', sync: bool = False
) -> None:
  """Opens a file and writes bytes to it; a failed write raises a `UserError`.

  `write` opens the file again for each block. If the file were still open when
  `records` raises an exception, closing the file would flush it, and that could
  raise another exception.
  """
  remedy = 'free some space or choose another folder'
  with report_errors(path, 'written', remedy), path.open(mode) as file:
    file.write(data)
    if sync:
      file.flush()
      os.fsync(file.fileno())


def _checksum(data: bytes) -> bytes:
  """Returns the masked CRC-32C of data: the CRC, rotated, plus a constant.

  TFRecord masks CRCs because the CRC of data that contains CRCs is weak.
  """
  crc = google_crc32c.value(data)
  masked = (crc >> 15 | crc << 17) + 0xA282EAD8
  return (masked & 0xFFFFFFFF).to_bytes(_FOOTER_BYTES, 'little')


def read(path: str | os.PathLike) -> Iterator[bytes]:
  """Yields the records of a TFRecord file; verifies their checksums.

  Raises:
    errors.UserError: the file is missing, ends inside a record, or fails a
      checksum. The message names the file. If a record is damaged, the message
      also gives the record's number (from 0) and byte offset.
  """
  path = Path(path)
  with report_errors(path, 'read', 'write it again'), path.open('rb') as file:
    yield from _records(path, file)


def _records(path: Path, file: BinaryIO) -> Iterator[bytes]:
  """Yields the records of an open file."""
  size = os.fstat(file.fileno()).st_size
  offset = number = 0

  def damaged(what: str) -> errors.UserError:
    return errors.UserError(
      f'{path}: record {number} at byte {offset} {what}; remove the file and'
      ' write it again'
    )

  while offset < size:
    header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES:
      raise damaged('is cut off in its header')
    if header[8:] != _checksum(header[:8]):
      raise damaged('fails the checksum of its length')
    length = int.from_bytes(header[:8], 'little')
    left = size - offset - _FRAME_BYTES
    # Checked before reading: a damaged length could allocate too much memory.
    if length > left:
      raise damaged(f'is cut off: {length} bytes long, {max(left, 0)} left')
    if length > _MOST_RECORD_BYTES:
      raise damaged(f'is {length} bytes long, over {_MOST_RECORD_BYTES}')
    record, footer = file.read(length), file.read(_FOOTER_BYTES)
    if len(record) + len(footer) < length + _FOOTER_BYTES:
      raise damaged('is cut off: the file shrank while it was read')
    if footer != _checksum(record):
      raise damaged('fails the checksum of its data')
    yield record
    offset += length + _FRAME_BYTES
    number += 1
