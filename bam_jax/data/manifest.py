"""The manifest of a shard set: its content and its fingerprint.

`manifest.json` lists the fields, the name, size and sha256 of every file, the
fingerprint (everything that decided the content, by name) and free metadata.
Its `digest` is the sha256 of the rest as canonical JSON.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
from pathlib import Path
import re

from bam_jax import errors
from bam_jax import files as files_lib
from bam_jax import schema
from bam_jax.data import columns as columns_lib

NAME = 'manifest.json'
PART = re.compile(r'part-\d{5,}-of-\d{5,}\.tfrecord')
AGAIN = 'remove the folder and run the same command again'

_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Part:
  """The manifest's entry for one TFRecord file."""

  name: str
  records: int
  bytes: int
  sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
  """A manifest whose digest and file names have been checked."""

  fields: tuple[columns_lib.Field, ...]
  files: tuple[Part, ...]
  fingerprint: dict[str, object]
  metadata: dict[str, object]
  digest: str


def write(
  directory: Path,
  fields: Sequence[columns_lib.Field],
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
    errors.UserError: it is missing, damaged or of another version.
  """
  path = directory / NAME
  if not path.is_file():
    raise errors.UserError(
      f'{directory}: holds no {NAME}, so no complete shard set; run the'
      ' command that writes it'
    )
  raw = files_lib.read_json(path, AGAIN)
  try:
    digest = raw.pop('digest')
    if digest != schema.digest(raw):
      raise ValueError('its digest is not that of its content')
    if raw['version'] != _VERSION:
      raise ValueError(f'its version is {raw["version"]!r}, not {_VERSION}')
    for key in ('fingerprint', 'metadata'):
      if not isinstance(raw[key], dict):
        raise ValueError(f'its {key} is a {type(raw[key]).__name__}')
    manifest = Manifest(
      fields=tuple(columns_lib.Field(**field) for field in raw['fields']),
      files=tuple(_part(**part) for part in raw['files']),
      fingerprint=raw['fingerprint'],
      metadata=raw['metadata'],
      digest=digest,
    )
    if len({part.name for part in manifest.files}) < len(manifest.files):
      raise ValueError('it names a file twice')
    if raw['rows'] != sum(part.records for part in manifest.files):
      raise ValueError(f'its files do not add up to {raw["rows"]!r} rows')
  except (AttributeError, KeyError, TypeError, ValueError) as e:
    raise errors.UserError(
      f'{path}: is no manifest of this version, or damaged ({e}); {AGAIN}'
    ) from e
  return manifest


def _part(name: object, records: object, bytes: object, sha256: object) -> Part:
  """Checks and returns the entry of a file.

  Raises:
    ValueError: a value is impossible.
    TypeError: the name is not a text.
  """
  # A path instead of a name could lead anywhere on the machine.
  if not PART.fullmatch(name):
    raise ValueError(f'{name!r} is no file name of a shard set')
  for number in (records, bytes):
    if type(number) is not int or number < 1:
      raise ValueError(f'{number!r} records or bytes in {name}')
  return Part(name, records, bytes, sha256)


def check_fingerprint(
  directory: Path,
  manifest: Manifest,
  fingerprint: Mapping[str, object],
  remedy: str = AGAIN,
) -> None:
  """Raises if the fingerprint of a shard set is not the expected one.

  Args:
    directory: of the set.
    manifest: of the set.
    fingerprint: the expected one.
    remedy: how to get a set with the expected fingerprint.

  Raises:
    errors.UserError: they differ; names the parts and their values.
  """
  # JSON turns tuples into lists.
  wanted = json.loads(json.dumps(dict(fingerprint)))
  if manifest.fingerprint == wanted:
    return
  there, here = _parts(manifest.fingerprint), _parts(wanted)
  parts = [
    f'{name} was {_short(there.get(name))} and is now {_short(here.get(name))}'
    for name in sorted(there.keys() | here.keys())
    if there.get(name) != here.get(name)
  ]
  raise errors.UserError(
    f'{directory}: was made from something else: {"; ".join(parts)}. Go back'
    f' to what it was made from, or {remedy}'
  )


def _parts(fingerprint: Mapping[str, object]) -> dict[str, str]:
  """Returns dotted name -> JSON text of every value."""
  values = schema.flatten(fingerprint)
  return {name: json.dumps(value) for name, value in values.items()}


def _short(text: str | None) -> str:
  """Shortens a value for a one-line message."""
  if text is None:
    return 'absent'
  return text if len(text) <= 40 else f'{text[:16]}…'
