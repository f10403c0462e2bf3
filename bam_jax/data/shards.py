"""A shard set: TFRecord files, a manifest, and columns to read them by.

    DIR/part-00000-of-00002.tfrecord   tf.train.Example records
    DIR/manifest.json                  written last: what the set holds
    DIR/columns/                       the rows as flat arrays: a cache

The manifest tells the size and sha256 of every file and what the set was made
from; nothing is used before all of that agrees.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import itertools
import os
from pathlib import Path
import re
import secrets
import shutil

import numpy as np

from bam_jax import errors
from bam_jax.data import columns as columns_lib
from bam_jax.data import manifest as manifest_lib
from bam_jax.data import tfrecord

Field = columns_lib.Field
Columns = columns_lib.Columns


def feature_fields(
  label_width: int | None = 1,
  more: Sequence[tuple[str, str, int | None]] = (),
) -> tuple[Field, ...]:
  """The fields of a set of features.

  Args:
    label_width: numbers a label; None: they differ in length.
    more: name, type and width of other fields.
  """
  return (
    Field('uid', 'bytes', 1),
    Field('input_ids', 'int', None),
    Field('length_a', 'int', 1),
    Field('label', 'float', label_width),
    *(Field(*each) for each in more),
  )


_OWN = re.compile(
  rf'manifest\.json|columns(\.tmp-\w+)?|{manifest_lib.PART.pattern}'
)


def logits_fields(width: int | None) -> tuple[Field, ...]:
  """The fields of a set of logits, `width` numbers a row; None: they differ."""
  return (Field('uid', 'bytes', 1), Field('logits', 'float', width))


def write(
  directory: str | os.PathLike,
  fields: Sequence[Field],
  records: Iterable[Mapping[str, object]],
  fingerprint: Mapping[str, object],
  metadata: Mapping[str, object] | None = None,
  shard_rows: int = 65536,
) -> None:
  """Writes a shard set, all or nothing.

  The files are made in a folder beside `directory`, named `DIRECTORY.tmp-…`,
  which takes its place by a rename when it is complete and on the disk. An
  exception leaves what was there before. A killed process may leave that
  folder beside, which nothing reads, but never a half set in place.

  Args:
    directory: of the set; a set that is there is replaced.
    fields: what every record holds, no more and no less.
    records: rows, consumed as a stream: str for a `bytes` field, else a number
      or a 1-D array.
    fingerprint: JSON values by name that decide the content.
    metadata: JSON values that travel with the set.
    shard_rows: records a file, at least 1.

  Raises:
    errors.UserError: the folder can't be written or holds other files, or there
      is no record. What `records` raises passes unchanged.
    ValueError: a record does not have these fields.
  """
  directory = Path(directory)
  temporary = _beside(directory, 'tmp')
  with _told(directory):
    _check_replaceable(directory)
    temporary.mkdir(parents=True)
  try:
    encoded = (_encode(fields, n, row) for n, row in enumerate(records))
    parts = _write_parts(directory, temporary, encoded, shard_rows)
    manifest_lib.write(temporary, fields, parts, fingerprint, metadata or {})
    with _told(directory):
      _replace(directory, temporary)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def exists(directory: str | os.PathLike) -> bool:
  """Whether a complete set is there, made from whatever."""
  return (Path(directory) / manifest_lib.NAME).is_file()


def open(
  directory: str | os.PathLike,
  fields: Sequence[Field],
  fingerprint: Mapping[str, object] | None,
) -> Columns:
  """Verifies a shard set and opens it as memory-mapped columns.

  Every file's size and sha256 is compared with the manifest. The first opening
  decodes the records, their checksums checked, in chunks of bounded memory into
  `directory/columns`; later ones map those files if they are as written.

  Args:
    directory: of the set.
    fields: what the set must hold.
    fingerprint: what it must have been made from; None: anything.

  Raises:
    errors.UserError: no set is there; it was made from something else (tells
      which parts differ); it holds other fields; a file is missing, is damaged
      or has not the records that the manifest says.
  """
  directory = Path(directory)
  manifest = manifest_lib.read(directory)
  if fingerprint is not None:
    manifest_lib.check_fingerprint(directory, manifest, fingerprint)
  if manifest.fields != tuple(fields):
    raise errors.UserError(
      f'{directory}: holds {", ".join(map(str, manifest.fields))} where'
      f' {", ".join(map(str, fields))} is wanted; {manifest_lib.AGAIN}'
    )
  for part in manifest.files:
    _check_part(directory / part.name, part)
  source = columns_lib.Source(
    directory,
    manifest.fields,
    tuple((directory / part.name, part.records) for part in manifest.files),
    manifest.digest,
  )
  return Columns(source, manifest.fingerprint, manifest.metadata)


def _encode(
  fields: Sequence[Field], number: int, row: Mapping[str, object]
) -> bytes:
  if len(row) != len(fields):
    raise ValueError(f'row {number} has the fields {list(row)}')
  features = {}
  for field in fields:
    value = row[field.name]
    if field.dtype == 'bytes':
      features[field.name] = [value.encode()]
      continue
    values = value if isinstance(value, np.ndarray) else np.array([value])
    if field.dtype == 'float' and values.dtype.kind in 'iu':
      values = values.astype(np.float32)
    kind = 'iu' if field.dtype == 'int' else 'f'
    if values.dtype.kind not in kind or field.width not in (None, len(values)):
      raise ValueError(f'row {number}: {value!r} is no {field}')
    features[field.name] = values
  return tfrecord.encode(features)


def _write_parts(
  directory: Path, temporary: Path, records: Iterator[bytes], shard_rows: int
) -> list[manifest_lib.Part]:
  """Writes the TFRecord files; how many there are is known only afterwards."""
  counts = []
  for first in records:
    rows = itertools.chain([first], itertools.islice(records, shard_rows - 1))
    path = temporary / f'part-{len(counts):05d}'
    counts.append(tfrecord.write(path, rows))
  if not counts:
    raise errors.UserError(
      f'{directory}: there is no row to write; look at the source of the rows'
    )
  parts = []
  with _told(directory):
    for index, count in enumerate(counts):
      name = f'part-{index:05d}-of-{len(counts):05d}.tfrecord'
      path = (temporary / f'part-{index:05d}').rename(temporary / name)
      parts.append(manifest_lib.Part(name, count, *columns_lib.measure(path)))
  return parts


def _check_replaceable(directory: Path) -> None:
  """Refuses to replace a folder in which someone keeps other things."""
  if directory.is_symlink():
    raise errors.UserError(
      f'{directory}: is a link, which is not followed; remove it, or choose'
      ' another folder'
    )
  if not directory.exists():
    return
  for entry in sorted(directory.iterdir()):
    if not _OWN.fullmatch(entry.name):
      raise errors.UserError(
        f'{directory}: holds {entry.name}, which belongs to no shard set;'
        ' choose another folder or empty this one'
      )


def _replace(directory: Path, temporary: Path) -> None:
  """Puts the new folder in the place of the old one.

  A folder that is not empty can't be renamed over, so the old one steps aside
  first and comes back should the second rename fail.
  """
  _sync_folder(temporary)
  old = _beside(directory, 'old')
  if directory.exists():
    directory.rename(old)
  try:
    temporary.rename(directory)
  except OSError:
    if old.exists():
      old.rename(directory)
    raise
  _sync_folder(directory.parent)
  shutil.rmtree(old, ignore_errors=True)


def _beside(directory: Path, kind: str) -> Path:
  """A new sibling: on the same file system, so that a rename is atomic."""
  return directory.with_name(f'{directory.name}.{kind}-{secrets.token_hex(4)}')


def _sync_folder(directory: Path) -> None:
  """Forces new names and renames within a folder to the disk."""
  descriptor = os.open(directory, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


@contextlib.contextmanager
def _told(directory: Path) -> Iterator[None]:
  """Turns the file system's errors into one line that names the folder."""
  try:
    yield
  except OSError as e:
    raise errors.UserError(
      f'{directory}: cannot be written: {e.strerror}; give permission, free'
      ' some space or choose another folder'
    ) from e


def _check_part(path: Path, part: manifest_lib.Part) -> None:
  try:
    size, sha256 = columns_lib.measure(path)
  except OSError as e:
    raise errors.UserError(
      f'{path}: cannot be read: {e.strerror}; {manifest_lib.AGAIN}'
    ) from e
  if (size, sha256) != (part.bytes, part.sha256):
    raise errors.UserError(
      f'{path}: is damaged: {size} bytes of sha256 {sha256[:12]}…, where the'
      f' manifest says {part.bytes} of {str(part.sha256)[:12]}…;'
      f' {manifest_lib.AGAIN}'
    )
