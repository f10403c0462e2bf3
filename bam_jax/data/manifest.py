"""Reads and writes manifests, which list the files and fields of a shard set.

`manifest.json` has the fields; the name, size and sha256 of every file; the
fingerprint (everything that decided the content, by name); and metadata (any
other values). The entry `digest` is the sha256 of all other entries, written as
canonical JSON.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from pathlib import Path
import re
from typing import Literal

from bam_jax import errors
from bam_jax import files as files_lib
from bam_jax import schema

NAME = 'manifest.json'
PART = re.compile(r'part-\d{5,}-of-\d{5,}\.tfrecord')
AGAIN = 'remove the folder and run the same command again'

_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Field:
  """Name, type and width of a field that every record has.

  Attributes:
    name: name of the feature in the records, and of its column files.
    dtype: `int` (within int32), `float` (float32) or `bytes` (one UTF-8
      string).
    width: how many numbers a row has; None if this varies by row; 1 for
      `bytes`.
  """

  name: str
  dtype: Literal['int', 'float', 'bytes']
  width: int | None

  def __str__(self) -> str:
    return f'{self.name} ({self.dtype} x {self.width or "any"})'

  @property
  def has_offsets(self) -> bool:
    """Returns whether the field's length varies between rows."""
    return self.dtype == 'bytes' or self.width is None


@dataclasses.dataclass(frozen=True)
class Part:
  """A manifest's entry for one TFRecord file: size and checksum."""

  name: str
  records: int
  bytes: int
  sha256: str

  def __post_init__(self):
    # A path instead of a name could point to any file of the machine.
    if not PART.fullmatch(self.name):
      raise ValueError(f'{self.name!r} is not a file name of a shard set')
    for number in (self.records, self.bytes):
      if type(number) is not int or number < 1:
        raise ValueError(f'{self.name} has {number!r} records or bytes')


@dataclasses.dataclass(frozen=True)
class Manifest:
  """The manifest of a shard set, checked against its own digest."""

  fields: tuple[Field, ...]
  files: tuple[Part, ...]
  fingerprint: dict[str, object]
  metadata: dict[str, object]
  digest: str

  @property
  def rows(self) -> int:
    """Returns the number of records in all files."""
    return sum(part.records for part in self.files)


def write(
  directory: Path,
  fields: Sequence[Field],
  files: Sequence[Part],
  fingerprint: Mapping[str, object],
  metadata: Mapping[str, object],
) -> None:
  """Writes the manifest of a shard set into its folder."""
  manifest = {
    'version': _VERSION,
    'fields': [dataclasses.asdict(field) for field in fields],
    'rows': sum(part.records for part in files),
    'files': [dataclasses.asdict(part) for part in files],
    'fingerprint': dict(fingerprint),
    'metadata': dict(metadata),
  }
  manifest['digest'] = schema.digest(manifest)
  files_lib.write_json(directory / NAME, manifest)


def read(directory: Path) -> Manifest:
  """Reads and checks the manifest of a folder.

  Raises:
    errors.UserError: the manifest is missing, damaged or of another version.
  """
  path = directory / NAME
  if not path.is_file():
    raise errors.UserError(
      f'{directory}: {NAME} is missing, so the shard set is incomplete; run the'
      ' command that writes this folder again'
    )
  raw = files_lib.read_json(path, AGAIN)
  try:
    digest = raw.pop('digest')
    if digest != schema.digest(raw):
      raise ValueError('its digest does not match its content')
    if raw['version'] != _VERSION:
      raise ValueError(f'its version is {raw["version"]!r}, not {_VERSION}')
    for key in ('fingerprint', 'metadata'):
      if not isinstance(raw[key], dict):
        raise ValueError(f'its {key} is a {type(raw[key]).__name__}')
    manifest = Manifest(
      fields=tuple(Field(**field) for field in raw['fields']),
      files=tuple(Part(**part) for part in raw['files']),
      fingerprint=raw['fingerprint'],
      metadata=raw['metadata'],
      digest=digest,
    )
    if len({part.name for part in manifest.files}) < len(manifest.files):
      raise ValueError('it lists a file twice')
    if raw['rows'] != manifest.rows:
      raise ValueError(f'its files do not add up to {raw["rows"]!r} rows')
  except (AttributeError, KeyError, TypeError, ValueError) as e:
    raise errors.UserError(
      f'{path}: is not a manifest, or is damaged ({e}); {AGAIN}'
    ) from e
  return manifest


def check_fingerprint(
  directory: Path,
  manifest: Manifest,
  fingerprint: Mapping[str, object],
  remedy: str = AGAIN,
) -> None:
  """Raises a `UserError` if a manifest has another fingerprint than expected.

  The error names the parts that differ, their values, and the remedy.
  """
  if manifest.fingerprint == schema.to_dict(fingerprint):
    return
  there = schema.flatten(manifest.fingerprint)
  here = schema.flatten(fingerprint)
  parts = [
    f'{name} {schema.describe_change(there.get(name), here.get(name))}'
    for name in sorted(there.keys() | here.keys())
    if name not in there or name not in here or there[name] != here[name]
  ]
  raise errors.UserError(
    f'{directory}: was made from other inputs: {"; ".join(parts)}. Undo'
    f' that change, or {remedy}'
  )
