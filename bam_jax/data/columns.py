"""Flat, memory-mapped arrays over the records of a shard set.

Decoding a record costs some 20 µs, so it is done once. Each field has a file
with the values of all rows, and another with their offsets if rows differ in
length. `index.json` holds the digest of the manifest and each file's size and
sha256. Columns are a cache: if anything does not match, they are decoded again.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import errno
import hashlib
from pathlib import Path
import secrets
import shutil
import stat
from typing import BinaryIO
from typing import Literal

import numpy as np

from bam_jax import errors
from bam_jax import files as files_lib
from bam_jax.data import tfrecord
from bam_jax.data import uids
from bam_jax.tasks import ragged

_INDEX = 'index.json'
# Decoded at a time, whichever is reached first.
_CHUNK_ROWS = 1024
_CHUNK_BYTES = 1 << 24
_OFFSET_TYPE = np.dtype('<i8')
# Type in the columns, by the type of the field.
_TYPES = {
  'bytes': np.dtype('u1'),
  'int': np.dtype('<i4'),
  'float': np.dtype('<f4'),
}


@dataclasses.dataclass(frozen=True)
class Field:
  """One value of every row.

  Attributes:
    name: of the feature in the records, and of its column files.
    dtype: `int` (within int32), `float` (float32), or `bytes`: one string,
      UTF-8.
    width: numbers per row; None if rows differ; 1 for `bytes`.
  """

  name: str
  dtype: Literal['int', 'float', 'bytes']
  width: int | None

  def __str__(self) -> str:
    return f'{self.name} ({self.dtype} x {self.width or "any"})'

  @property
  def has_offsets(self) -> bool:
    """Returns whether rows differ in length."""
    return self.dtype == 'bytes' or self.width is None


@dataclasses.dataclass(frozen=True)
class Source:
  """The verified shard set that columns are made from.

  Attributes:
    directory: of the set.
    fields: what every record holds.
    parts: the TFRecord files and the number of records in each.
    digest: of the manifest.
  """

  directory: Path
  fields: tuple[Field, ...]
  parts: tuple[tuple[Path, int], ...]
  digest: str

  @property
  def columns(self) -> Path:
    return self.directory / 'columns'

  def column_types(self) -> dict[str, np.dtype]:
    """Returns file name -> type of all column files."""
    result = {}
    for field in self.fields:
      result[f'{field.name}.values'] = _TYPES[field.dtype]
      if field.has_offsets:
        result[f'{field.name}.offsets'] = _OFFSET_TYPE
    return result


class Columns:
  """N verified rows as flat, memory-mapped, read-only arrays.

  Attributes:
    fingerprint: everything that decided the rows, by name.
    metadata: other values of the manifest, such as the label names.
  """

  def __init__(
    self,
    source: Source,
    fingerprint: Mapping[str, object],
    metadata: Mapping[str, object],
  ):
    """Maps the columns of a shard set; decodes its records if necessary.

    Raises:
      errors.UserError: a record is damaged or is not as the manifest says, or
        the columns can't be written.
    """
    self.fingerprint = dict(fingerprint)
    self.metadata = dict(metadata)
    self._fields = {field.name: field for field in source.fields}
    self._rows = sum(count for _, count in source.parts)
    try:
      if not _match(source):
        _build(source)
      self._arrays = {
        name: _map(source.columns / name, dtype)
        for name, dtype in source.column_types().items()
      }
    except OSError as e:
      raise errors.UserError(
        f'{source.columns}: cannot be written or mapped: {e.strerror or e};'
        ' give permission or free some space'
      ) from e

  def __len__(self) -> int:
    return self._rows

  @property
  def uids(self) -> Sequence[str]:
    """The uids of the rows, [N] strings that are decoded lazily."""
    return uids.Uids(*self.ragged('uid'))

  def fixed(self, name: str) -> np.ndarray:
    """Returns a field of fixed width: [N] if that is 1, else [N, width]."""
    values, width = self._arrays[f'{name}.values'], self._fields[name].width
    return values if width == 1 else values.reshape(-1, width)

  def ragged(self, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns a field whose rows differ in length.

    Returns:
      The values of all rows, one after the other, and offsets [N + 1] int64:
      row i is `values[offsets[i]:offsets[i + 1]]`.
    """
    return self._arrays[f'{name}.values'], self._arrays[f'{name}.offsets']

  def take(self, name: str, rows: np.ndarray) -> np.ndarray:
    """Returns a field of rows [n]; concatenated if rows differ in length."""
    if not self._fields[name].has_offsets:
      return np.asarray(self.fixed(name)[rows])
    values, offsets = self.ragged(name)
    return np.asarray(values[ragged.places(offsets, rows)])


def measure(path: Path) -> tuple[int, str]:
  """Returns the size in bytes and the sha256 of a file.

  Raises:
    OSError: it can't be read, or is not a regular file (a link may lead out
      of the set, a pipe may never end).
  """
  if not stat.S_ISREG(path.lstat().st_mode):
    raise OSError(errno.EINVAL, 'is no regular file')
  with path.open('rb') as file:
    sha256 = hashlib.file_digest(file, 'sha256').hexdigest()
    return file.tell(), sha256


def _map(path: Path, dtype: np.dtype) -> np.ndarray:
  if path.stat().st_size == 0:
    return np.zeros(0, dtype)  # No system maps an empty file.
  return np.memmap(path, dtype, 'r')


def _match(source: Source) -> bool:
  """Returns whether the columns are intact and from this manifest."""
  try:
    index = files_lib.read_json(source.columns / _INDEX)
    files = {
      name: list(measure(source.columns / name))
      for name in source.column_types()
    }
  except (OSError, errors.UserError):
    return False
  return index == {'manifest': source.digest, 'files': files} and all(
    _fits(source, field) for field in source.fields
  )


def _fits(source: Source, field: Field) -> bool:
  """Returns whether a column has the set's rows and its offsets are valid.

  An index that agrees with its files may still come from elsewhere.
  """
  rows = sum(count for _, count in source.parts)
  types = source.column_types()

  def load(kind: str) -> np.ndarray:
    name = f'{field.name}.{kind}'
    return _map(source.columns / name, types[name])

  try:
    size = load('values').size
    if not field.has_offsets:
      return size == rows * field.width
    offsets = load('offsets')
  except ValueError:  # No whole number of values.
    return False
  return (
    len(offsets) == rows + 1
    and offsets[0] == 0
    and offsets[-1] == size
    and bool((offsets[:-1] <= offsets[1:]).all())
  )


def _build(source: Source) -> None:
  """Decodes all records into a new folder, then renames it to `columns`."""
  columns = source.columns
  temporary = columns.with_name(f'{columns.name}.tmp-{secrets.token_hex(4)}')
  temporary.mkdir()
  try:
    index = {'manifest': source.digest, 'files': _fill(source, temporary)}
    files_lib.write_json(temporary / _INDEX, index)
    # Another process may have built the same meanwhile.
    if columns.exists() and not _match(source):
      shutil.rmtree(columns)
    try:
      temporary.rename(columns)
    except OSError:
      if not _match(source):
        raise
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _fill(source: Source, folder: Path) -> dict[str, list[object]]:
  """Writes the column files; returns [size, sha256] by name."""
  with contextlib.ExitStack() as stack:
    sinks = {
      name: _Sink(stack.enter_context((folder / name).open('wb')))
      for name in source.column_types()
    }
    ends = {field.name: 0 for field in source.fields if field.has_offsets}
    for name in ends:
      sinks[f'{name}.offsets'].append(np.zeros(1, _OFFSET_TYPE))
    for path, count in source.parts:
      for first, rows in _chunks(path, count):
        for field in source.fields:
          try:
            values, lengths = _flatten(field, [row[field.name] for row in rows])
          except (KeyError, ValueError) as e:
            raise errors.UserError(
              f'{path}: a record from {first} to {first + len(rows) - 1} does'
              f' not hold {field} alone ({e}); remove the folder and run the'
              ' same command again'
            ) from e
          sinks[f'{field.name}.values'].append(values)
          if field.has_offsets:
            offsets = ends[field.name] + np.cumsum(lengths, dtype=_OFFSET_TYPE)
            sinks[f'{field.name}.offsets'].append(offsets)
            ends[field.name] = int(offsets[-1])
  return {
    name: [sink.bytes, sink.sha256.hexdigest()] for name, sink in sinks.items()
  }


class _Sink:
  """A file to append arrays to, with its size and sha256 so far."""

  def __init__(self, file: BinaryIO):
    self._file = file
    self.bytes = 0
    self.sha256 = hashlib.sha256()

  def append(self, array: np.ndarray) -> None:
    data = array.data
    self._file.write(data)
    self.sha256.update(data)
    self.bytes += data.nbytes


def _chunks(
  path: Path, count: int
) -> Iterator[tuple[int, list[Mapping[str, np.ndarray | list[bytes]]]]]:
  """Yields the number of a first record, and it and the next ones, decoded.

  Raises:
    errors.UserError: a record is damaged, or there are not `count` of them.
  """
  first = 0
  for chunk in _grouped(tfrecord.read(path)):
    try:
      yield first, [tfrecord.decode(record) for record in chunk]
    except ValueError as e:
      raise errors.UserError(
        f'{path}: a record from {first} to {first + len(chunk) - 1} {e};'
        ' remove the folder and run the same command again'
      ) from e
    first += len(chunk)
  if first != count:
    raise errors.UserError(
      f'{path}: holds {first} records, the manifest says {count}; remove the'
      ' folder and run the same command again'
    )


def _grouped(records: Iterator[bytes]) -> Iterator[list[bytes]]:
  """Yields lists of records, of limited number and size."""
  group, size = [], 0
  for record in records:
    group.append(record)
    size += len(record)
    if len(group) == _CHUNK_ROWS or size >= _CHUNK_BYTES:
      yield group
      group, size = [], 0
  if group:
    yield group


def _flatten(
  field: Field, cells: Sequence[np.ndarray | list[bytes]]
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the concatenated values of rows, and the length of each row.

  Raises:
    ValueError: a cell is not of the field's type or width.
  """
  lengths = np.fromiter(map(len, cells), np.int64, len(cells))
  if field.width is not None and (lengths != field.width).any():
    wrong = lengths[lengths != field.width][0]
    raise ValueError(f'{wrong} values in place of {field.width}')
  if field.dtype == 'bytes':
    if not all(isinstance(cell, list) for cell in cells):
      raise ValueError('numbers in place of bytes')
    strings = [cell[0] for cell in cells]
    for string in strings:
      string.decode()
    lengths = np.fromiter(map(len, strings), np.int64, len(cells))
    return np.frombuffer(b''.join(strings), np.uint8), lengths
  values = np.concatenate(cells)
  # int64 and float32 exactly; anything mixed in promotes to another type.
  if values.dtype != (np.int64 if field.dtype == 'int' else np.float32):
    raise ValueError('values of another type')
  result = values.astype(_TYPES[field.dtype])
  if field.dtype == 'int' and (result != values).any():
    raise ValueError('an integer outside int32')
  return result, lengths
