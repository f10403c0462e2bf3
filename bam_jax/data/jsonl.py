"""Reader of files with one JSON object per line."""

from collections.abc import Iterator
import json
from pathlib import Path

from bam_jax import errors
from bam_jax import files
from bam_jax.data import foreign
from bam_jax.data import lines
from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import task as task_lib


def read(
  path: Path,
  table: task_lib.Table,
  fault: lines.Fault = lines.stop,
  decoding_errors: str = 'strict',
) -> Iterator[lines.Row]:
  """Reads one JSON object per line; see `formats.Reader`."""
  foreign.check_json_lines(lines.check_text(path), str(path))

  def make(index: int, unit: tuple[int, str]) -> lines.Row:
    number, line = unit
    return lines.Row(index, number, *_texts(line, table, f'{path}:{number}'))

  yield from lines.usable(lines.read_filled(path, decoding_errors), make, fault)


def parse(line: str, where: str) -> dict[str, object]:
  """Returns the JSON object of a line.

  Raises:
    errors.UserError: the line holds none.
  """
  try:
    return files.parse_json(line)
  except json.JSONDecodeError as error:
    raise errors.UserError(
      f'{where}: not JSON ({error.msg} at column {error.colno}); fix the row'
    ) from None
  except ValueError as error:
    raise errors.UserError(
      f'{where}: {error}; give one JSON object per line'
    ) from None


def _texts(
  line: str, table: task_lib.Table, where: str
) -> tuple[tuple[str, ...], task_lib.RawLabel | None]:
  """Returns the texts and the label of a line."""
  row = parse(line, where)
  names = lines.text_columns(table, row)
  for name in (*names, *(() if table.label is None else (table.label,))):
    if name not in row:
      raise errors.UserError(
        f'{where}: no field {name!r}; the object has {errors.some(row)}'
      )
  texts = tuple(
    kind_lib.check_text(row[name], f'{where}: field {name!r}') for name in names
  )
  if table.label is None:
    return texts, None
  label = row[table.label]
  if isinstance(label, list):
    return texts, tuple(map(_written, label))
  return texts, _written(label)


def _written(label: object) -> str:
  """Converts a label to a string; numbers and lists are written as JSON."""
  return label if isinstance(label, str) else json.dumps(label)
