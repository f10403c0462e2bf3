"""Small files, written whole or not at all."""

import json
import os
from pathlib import Path

from bam_jax import errors


def write_bytes(path: Path, data: bytes) -> None:
  """Replaces a file so that a reader sees the old one or the whole new one.

  Raises:
    errors.UserError: the file can't be written (no permission, no space).
  """
  temporary = path.with_name(f'.{path.name}.tmp')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary.open('wb') as f:
      f.write(data)
      f.flush()
      os.fsync(f.fileno())
    os.replace(temporary, path)
  except OSError as e:
    raise errors.UserError(
      f'{path}: cannot be written: {e.strerror}; free some space or choose'
      ' another --workdir'
    ) from e


def write_text(path: Path, text: str) -> None:
  """`write_bytes` of UTF-8 text."""
  write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
  """`write_text` of indented JSON."""
  write_text(path, json.dumps(value, indent=1) + '\n')


def read_json(path: Path) -> object:
  """The value of a JSON file that this package wrote.

  Raises:
    errors.UserError: the file is missing or is no JSON.
  """
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except OSError as e:
    raise errors.UserError(f'{path}: cannot be read: {e.strerror}') from e
  except ValueError as e:
    raise errors.UserError(
      f'{path}: is damaged ({e}); remove it and run the same command again'
    ) from e
