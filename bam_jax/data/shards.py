"""Writes and opens shard sets: TFRecord files and their manifest.

    DIR/part-00000-of-00002.tfrecord   tf.train.Example records
    DIR/manifest.json                  content of the set; written last
    DIR/columns/                       cache of the rows as flat arrays

The manifest holds the size and sha256 of every file, and the fingerprint of the
set. `open` checks all of these before the rows are used.
"""

from collections.abc import Iterable, Mapping, Sequence
import itertools
import os
from pathlib import Path
import re
import secrets
import shutil

import numpy as np

from bam_jax import errors
from bam_jax import files
from bam_jax import schema
from bam_jax.data import columns as columns_lib
from bam_jax.data import manifest as manifest_lib
from bam_jax.data import tfrecord

Field = manifest_lib.Field
Columns = columns_lib.Columns
AGAIN = manifest_lib.AGAIN

_OWN = re.compile(
  rf'manifest\.json|columns(\.tmp-\w+)?|{manifest_lib.PART.pattern}'
)


def feature_fields(
  label_width: int | None = 1,
  more: Sequence[tuple[str, str, int | None]] = (),
) -> tuple[Field, ...]:
  """Returns the fields of stored features: uid, token ids, label and others.

  Args:
    label_width: numbers per label; None if it varies between examples.
    more: name, type and width of each additional field of the task's kind.
  """
  return (
    Field('uid', 'bytes', 1),
    Field('input_ids', 'int', None),
    Field('length_a', 'int', 1),
    Field('label', 'float', label_width),
    *(Field(*each) for each in more),
  )


def logits_fields(width: int | None) -> tuple[Field, ...]:
  """Returns the fields of stored logits.

  Args:
    width: logits per row; None if rows differ in the number of logits.
  """
  return (Field('uid', 'bytes', 1), Field('logits', 'float', width))


def write(
  directory: str | os.PathLike,
  fields: Sequence[Field],
  records: Iterable[Mapping[str, object]],
  fingerprint: Mapping[str, object],
  metadata: Mapping[str, object] | None = None,
  shard_rows: int = 65536,
) -> None:
  """Writes a shard set atomically: completely or not at all.

  The files are written to a temporary folder `DIRECTORY.tmp-…` beside
  `directory`. This folder is then renamed to `directory`. A killed process may
  leave the temporary folder behind; nothing reads it.

  Args:
    directory: folder of the set; an older set in it is replaced.
    fields: the fields; every record has all of them, and no others.
    records: a mapping of field name -> value per row, read as a stream. A value
      is a str for a `bytes` field, otherwise a number or a 1-D array.
    fingerprint: everything that decides the content, as JSON values by name.
    metadata: other JSON values to store in the manifest.
    shard_rows: records per file, at least 1.

  Raises:
    errors.UserError: the folder can't be written, it holds other files, or
      `records` is empty.
    KeyError, ValueError: the fields of a record are not `fields`, or a value
      does not fit its field.
    Exception: whatever `records` raises, unchanged.
  """
  directory = Path(directory)
  # A folder beside `directory` is on the same file system, as renaming needs.
  temporary = directory.with_name(
    f'{directory.name}.tmp-{secrets.token_hex(4)}'
  )
  remedy = 'give permission, free some space or choose another folder'
  with tfrecord.report_errors(directory, 'written', remedy):
    _check_replaceable(directory)
    temporary.mkdir(parents=True)
  try:
    encoded = (_encode(fields, n, row) for n, row in enumerate(records))
    counts = []
    for first in encoded:
      rows = itertools.chain([first], itertools.islice(encoded, shard_rows - 1))
      counts.append(tfrecord.write(temporary / str(len(counts)), rows))
    if not counts:
      raise errors.UserError(
        f'{directory}: there are no rows to write; check the raw data'
      )
    with tfrecord.report_errors(directory, 'written', remedy):
      parts = []
      for index, count in enumerate(counts):
        name = f'part-{index:05d}-of-{len(counts):05d}.tfrecord'
        path = (temporary / str(index)).rename(temporary / name)
        parts.append(manifest_lib.Part(name, count, *columns_lib.measure(path)))
      manifest_lib.write(temporary, fields, parts, fingerprint, metadata or {})
      _sync_folder(temporary)
      files.replace_directory(temporary, directory)
      _sync_folder(directory.parent)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def exists(directory: str | os.PathLike) -> bool:
  """Returns whether a folder contains a complete shard set."""
  return (Path(directory) / manifest_lib.NAME).is_file()


def is_made_from(
  directory: str | os.PathLike, fingerprint: Mapping[str, object]
) -> bool:
  """Returns whether a folder has a complete shard set with this fingerprint.

  Raises:
    errors.UserError: the manifest is damaged.
  """
  if not exists(directory):
    return False
  there = manifest_lib.read(Path(directory)).fingerprint
  return there == schema.to_dict(fingerprint)


def open(
  directory: str | os.PathLike,
  fields: Sequence[Field],
  fingerprint: Mapping[str, object] | None,
) -> Columns:
  """Verifies a shard set and opens it as memory-mapped arrays.

  The size and sha256 of every file are compared with the manifest. The first
  call decodes the records into files in `directory/columns`, in bounded memory.
  Later calls map these files, or decode again if the files have changed.

  Args:
    directory: folder of the set.
    fields: the expected fields.
    fingerprint: the expected fingerprint; None accepts any.

  Raises:
    errors.UserError: the folder has no shard set; the set has another
      fingerprint (the message names the parts that differ) or other fields; a
      file is missing, is damaged, or has another number of records than the
      manifest says; or `directory/columns` can't be written.
  """
  directory = Path(directory)
  manifest = manifest_lib.read(directory)
  if fingerprint is not None:
    manifest_lib.check_fingerprint(directory, manifest, fingerprint)
  if manifest.fields != tuple(fields):
    raise errors.UserError(
      f'{directory}: its records hold {", ".join(map(str, manifest.fields))};'
      f' {", ".join(map(str, fields))} is expected; {AGAIN}'
    )
  for part in manifest.files:
    path = directory / part.name
    with tfrecord.report_errors(path, 'read', AGAIN):
      size, sha256 = columns_lib.measure(path)
    if (size, sha256) != (part.bytes, part.sha256):
      raise errors.UserError(
        f'{path}: is damaged: it has {size} bytes and sha256 {sha256[:12]}…,'
        f' but the manifest says {part.bytes} bytes and'
        f' {str(part.sha256)[:12]}…; {AGAIN}'
      )
  return Columns(directory, manifest)


def _encode(
  fields: Sequence[Field], number: int, row: Mapping[str, object]
) -> bytes:
  """Serialises a row as a tf.train.Example.

  Raises:
    KeyError, ValueError: the fields of the row are not `fields`, or a value
      does not fit its field.
  """
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
      raise ValueError(f'row {number}: {value!r} does not fit {field}')
    features[field.name] = values
  return tfrecord.encode(features)


def _check_replaceable(directory: Path) -> None:
  """Raises if replacing a folder would delete a link or unrelated files."""
  if directory.is_symlink():
    raise errors.UserError(
      f'{directory}: is a symbolic link, not a folder; remove it, or choose'
      ' another folder'
    )
  entries = sorted(directory.iterdir()) if directory.exists() else []
  for entry in entries:
    if not _OWN.fullmatch(entry.name):
      raise errors.UserError(
        f'{directory}: holds {entry.name}, which is not part of a shard set;'
        ' choose another folder or empty this one'
      )


def _sync_folder(directory: Path) -> None:
  """Calls fsync on a folder, so that new file names survive a crash."""
  descriptor = os.open(directory, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
