"""Opens the rows of a shard set as flat, memory-mapped arrays.

Decoding a record takes about 20 µs, so each record is decoded only once. Each
field has a file with the values of all rows and, if rows differ in length, a
file with their offsets. `index.json` holds the digest of the manifest, and the
size and sha256 of each file. These files are a cache: if anything does not
match, the records are decoded again.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import copy
import errno
import hashlib
import itertools
from pathlib import Path
import secrets
import shutil

import numpy as np

from bam_jax import errors
from bam_jax import files as files_lib
from bam_jax.data import manifest as manifest_lib
from bam_jax.data import tfrecord
from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import ragged

_FOLDER = 'columns'
_INDEX = 'index.json'
# Limits on the records that are decoded at once, in rows and in bytes.
_CHUNK_ROWS = 1024
_CHUNK_BYTES = 1 << 24
_OFFSET_TYPE = np.dtype('<i8')
# Dtype of a field -> dtype of the file with the field's values.
_TYPES = {
  'bytes': np.dtype('u1'),
  'int': np.dtype('<i4'),
  'float': np.dtype('<f4'),
}


class Columns:
  """A dataset of N rows as flat, memory-mapped, read-only arrays.

  Attributes:
    fingerprint: everything that determines the rows, as name -> value.
    metadata: other values of the manifest, such as the label names.
  """

  def __init__(self, directory: Path, manifest: manifest_lib.Manifest):
    """Memory-maps the arrays of a shard set; decodes the TFRecords if needed.

    Raises:
      errors.UserError: a record is damaged or does not match the manifest, or
        the array files can't be written.
    """
    self.fingerprint = manifest.fingerprint
    self.metadata = manifest.metadata
    self._fields = {field.name: field for field in manifest.fields}
    self._rows = manifest.rows
    folder = directory / _FOLDER
    remedy = 'give permission or free some space'
    with tfrecord.report_errors(folder, 'written or mapped', remedy):
      arrays = _load(folder, manifest)
      if arrays is None:
        _build(directory, manifest)
        arrays = _load(folder, manifest)
      if arrays is None:
        raise OSError(errno.EIO, 'another process changed the files')
    self._arrays = arrays

  def __len__(self) -> int:
    return self._rows

  @property
  def uids(self) -> Sequence[str]:
    """The uids of the rows, [N] strings, decoded when they are accessed."""
    return _Uids(*self.ragged('uid'))

  def fixed(self, name: str) -> np.ndarray:
    """Returns a fixed-width field: [N] if the width is 1, else [N, width]."""
    values, width = self._arrays[f'{name}.values'], self._fields[name].width
    return values if width == 1 else values.reshape(-1, width)

  def ragged(self, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns a field of variable length as values and row offsets.

    Returns:
      The concatenated values of all rows, and offsets [N + 1] int64: row i is
      `values[offsets[i]:offsets[i + 1]]`.
    """
    return self._arrays[f'{name}.values'], self._arrays[f'{name}.offsets']

  def take(self, name: str, rows: np.ndarray) -> np.ndarray:
    """Returns the values of a field in the given rows.

    The values of a field of variable length are concatenated.
    """
    if not self._fields[name].has_offsets:
      return np.asarray(self.fixed(name)[rows])
    values, offsets = self.ragged(name)
    return np.asarray(values[ragged.places(offsets, rows)])

  def select(self, rows: np.ndarray) -> 'Columns':
    """Copies the given rows into a new dataset in memory."""
    result = copy.copy(self)
    result._rows = len(rows)
    result._arrays = {}
    for name, field in self._fields.items():
      result._arrays[f'{name}.values'] = self.take(name, rows).ravel()
      if field.has_offsets:
        lengths = np.diff(self.ragged(name)[1])[rows]
        ends = np.cumsum(lengths, dtype=_OFFSET_TYPE)
        result._arrays[f'{name}.offsets'] = np.concatenate([[0], ends])
    return result


class _Uids(Sequence[str]):
  """Sequence of strings, decoded on access from memory-mapped UTF-8."""

  def __init__(self, values: np.ndarray, offsets: np.ndarray):
    self._values = values
    self._offsets = offsets

  def __len__(self) -> int:
    return len(self._offsets) - 1

  def __getitem__(self, index: int | slice) -> str | list[str]:
    rows = range(len(self))[index]
    if isinstance(index, slice):
      return [self[row] for row in rows]
    start, end = self._offsets[rows : rows + 2]
    return _text(bytes(self._values[start:end]))

  def __iter__(self) -> Iterator[str]:
    for first in range(0, len(self), _CHUNK_ROWS):
      ends = self._offsets[first : first + _CHUNK_ROWS + 1].tolist()
      block = bytes(self._values[ends[0] : ends[-1]])
      for start, end in itertools.pairwise(ends):
        yield _text(block[start - ends[0] : end - ends[0]])


def _text(data: bytes) -> str:
  """Decodes a uid from UTF-8; invalid bytes become U+FFFD."""
  return data.decode(errors='replace')


class InMemory:
  """Features of texts in memory, with the interface of `Columns`."""

  def __init__(self, rows: Sequence[kind_lib.Features]):
    self.uids = [row.uid for row in rows]
    self._rows = rows

  def __len__(self) -> int:
    return len(self.uids)

  def fixed(self, name: str) -> np.ndarray:
    return np.array([getattr(row, name) for row in self._rows])

  def ragged(self, name: str) -> tuple[np.ndarray, np.ndarray]:
    values = [getattr(row, name) for row in self._rows]
    if isinstance(values[0], str):
      values = [np.frombuffer(value.encode(), np.uint8) for value in values]
    return np.concatenate(values), np.cumsum([0, *map(len, values)])


def measure(path: Path) -> tuple[int, str]:
  """Returns the size in bytes and the sha256 of a file.

  Raises:
    OSError: the file can't be read, or is not a regular file (a link may lead
      out of the shard set, and a pipe may never end).
  """
  with files_lib.open_file(path) as file:
    sha256 = hashlib.file_digest(file, 'sha256').hexdigest()
    return file.tell(), sha256


def _column_types(fields: Sequence[manifest_lib.Field]) -> dict[str, np.dtype]:
  """Returns a dict from the name of each array file to its dtype."""
  types = {}
  for field in fields:
    types[f'{field.name}.values'] = _TYPES[field.dtype]
    if field.has_offsets:
      types[f'{field.name}.offsets'] = _OFFSET_TYPE
  return types


def _load(
  folder: Path, manifest: manifest_lib.Manifest
) -> dict[str, np.ndarray] | None:
  """Memory-maps the array files; None if they do not match the manifest."""
  types = _column_types(manifest.fields)
  try:
    index = files_lib.read_json(folder / _INDEX)
    if index != _index(folder, manifest):
      return None
    arrays = {name: _map(folder / name, dtype) for name, dtype in types.items()}
  except (OSError, ValueError, errors.UserError):
    return None
  # Another program may have written both the index and the files, so the shapes
  # and offsets are checked too.
  return arrays if _has_rows(arrays, manifest) else None


def _index(folder: Path, manifest: manifest_lib.Manifest) -> dict[str, object]:
  """Returns the content of `index.json`, computed from the array files."""
  names = _column_types(manifest.fields)
  sizes = {name: list(measure(folder / name)) for name in names}
  return {'manifest': manifest.digest, 'files': sizes}


def _map(path: Path, dtype: np.dtype) -> np.ndarray:
  """Memory-maps a file as a one-dimensional array."""
  if path.stat().st_size == 0:
    return np.zeros(0, dtype)  # An empty file cannot be memory-mapped.
  return np.memmap(path, dtype, 'r')


def _has_rows(
  arrays: Mapping[str, np.ndarray], manifest: manifest_lib.Manifest
) -> bool:
  """Returns whether every array has all rows and valid offsets."""

  def has_rows(field: manifest_lib.Field) -> bool:
    size = arrays[f'{field.name}.values'].size
    if not field.has_offsets:
      return size == manifest.rows * field.width
    offsets = arrays[f'{field.name}.offsets']
    return (
      len(offsets) == manifest.rows + 1
      and offsets[0] == 0
      and offsets[-1] == size
      and bool((offsets[:-1] <= offsets[1:]).all())
    )

  return all(map(has_rows, manifest.fields))


def _build(directory: Path, manifest: manifest_lib.Manifest) -> None:
  """Decodes all TFRecords into array files in the folder `columns`."""
  folder = directory / _FOLDER
  temporary = directory / f'{_FOLDER}.tmp-{secrets.token_hex(4)}'
  temporary.mkdir()
  try:
    _fill(temporary, directory, manifest)
    files_lib.write_json(temporary / _INDEX, _index(temporary, manifest))
    # Another process may have built the same folder in the meantime.
    if folder.exists() and _load(folder, manifest) is None:
      shutil.rmtree(folder)
    try:
      temporary.rename(folder)
    except OSError:
      if _load(folder, manifest) is None:
        raise
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _fill(
  folder: Path, directory: Path, manifest: manifest_lib.Manifest
) -> None:
  """Decodes all TFRecords and writes their fields as array files.

  Raises:
    errors.UserError: a record is damaged, or the number of records in a file
      differs from the manifest.
  """
  types = _column_types(manifest.fields)
  with contextlib.ExitStack() as stack:
    sinks = {n: stack.enter_context((folder / n).open('wb')) for n in types}
    ends = {f.name: 0 for f in manifest.fields if f.has_offsets}
    for name in ends:
      sinks[f'{name}.offsets'].write(np.zeros(1, _OFFSET_TYPE).data)
    for part in manifest.files:
      path, first = directory / part.name, 0
      for chunk in _grouped(tfrecord.read(path)):
        try:
          columns = _decode(chunk, manifest.fields)
        except ValueError as e:
          raise errors.UserError(
            f'{path}: a record from {first} to {first + len(chunk) - 1} {e};'
            f' {manifest_lib.AGAIN}'
          ) from e
        for name, (values, lengths) in columns.items():
          sinks[f'{name}.values'].write(values.data)
          if name in ends:
            offsets = ends[name] + np.cumsum(lengths, dtype=_OFFSET_TYPE)
            sinks[f'{name}.offsets'].write(offsets.data)
            ends[name] = int(offsets[-1])
        first += len(chunk)
      if first != part.records:
        raise errors.UserError(
          f'{path}: has {first} records, but the manifest says {part.records};'
          f' {manifest_lib.AGAIN}'
        )


def _grouped(records: Iterator[bytes]) -> Iterator[list[bytes]]:
  """Groups records into lists of limited length and total bytes."""
  group, size = [], 0
  for record in records:
    group.append(record)
    size += len(record)
    if len(group) == _CHUNK_ROWS or size >= _CHUNK_BYTES:
      yield group
      group, size = [], 0
  if group:
    yield group


def _decode(
  records: Sequence[bytes], fields: Sequence[manifest_lib.Field]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Decodes records; returns each field's values and lengths per record.

  Raises:
    ValueError: the bytes are not a record, or a field of a record is missing
      or has a wrong type or width.
  """
  rows = [tfrecord.decode(record) for record in records]
  columns = {}
  for field in fields:
    try:
      cells = [row[field.name] for row in rows]
      columns[field.name] = _flatten(field, cells)
    except (KeyError, ValueError) as e:
      raise ValueError(f'has a missing or malformed {field} ({e})') from e
  return columns


def _flatten(
  field: manifest_lib.Field, cells: Sequence[np.ndarray | list[bytes]]
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the concatenated values of rows, and the length of each row.

  Raises:
    ValueError: a cell has a wrong type or width for the field.
  """
  lengths = np.fromiter(map(len, cells), np.int64, len(cells))
  if field.width is not None and (lengths != field.width).any():
    wrong = lengths[lengths != field.width][0]
    raise ValueError(f'{wrong} values instead of {field.width}')
  if field.dtype == 'bytes':
    if not all(isinstance(cell, list) for cell in cells):
      raise ValueError('numbers instead of bytes')
    strings = [cell[0] for cell in cells]
    for string in strings:
      string.decode()
    lengths = np.fromiter(map(len, strings), np.int64, len(cells))
    return np.frombuffer(b''.join(strings), np.uint8), lengths
  values = np.concatenate(cells)
  # One cell of another type changes the dtype of the result, by promotion.
  if values.dtype != (np.int64 if field.dtype == 'int' else np.float32):
    raise ValueError('values of another type')
  result = values.astype(_TYPES[field.dtype])
  if field.dtype == 'int' and (result != values).any():
    raise ValueError('an integer outside int32')
  return result, lengths
