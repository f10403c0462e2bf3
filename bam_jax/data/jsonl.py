"""Reads files with one JSON object per line."""

from collections.abc import Iterator
import json
from pathlib import Path

from bam_jax import errors
from bam_jax import files
from bam_jax.data import foreign
from bam_jax.data import lines
from bam_jax.data import records
from bam_jax.tasks import task as task_lib


def read(
  path: Path, table: task_lib.Table, fault: lines.Fault | None = None
) -> Iterator[lines.Row]:
  """Reads the rows of a file of JSON lines; see `formats.Reader`."""
  foreign.check_json_lines(lines.check_text(path), str(path))

  def make(index: int, unit: tuple[int, str]) -> lines.Row:
    number, line = unit
    where = f'{path}:{number}'
    return records.make_row(index, number, parse(line, where), table, where)

  is_input = table.input_kind is not None
  with lines.read(path, lines.decoding(fault, table)) as numbered:
    filled = lines.filled(numbered, path, keeps_gaps=is_input)
    yield from lines.usable(filled, make, fault)


def parse(line: str, where: str) -> dict[str, object]:
  """Parses a line that holds one JSON object.

  Raises:
    errors.UserError: the line does not hold a JSON object.
  """
  if not line:
    raise errors.UserError(f'{where}: the line is empty; remove it')
  try:
    return files.parse_json(line)
  except json.JSONDecodeError as error:
    remedy = 'fix the row'
    if not line.lstrip().startswith('{'):
      remedy = 'give one JSON object per line, or name the format of the file'
    raise errors.UserError(
      f'{where}: not JSON ({error.msg} at column {error.colno}); {remedy}'
    ) from None
  except ValueError as error:
    raise errors.UserError(
      f'{where}: {error}; give one JSON object per line'
    ) from None
