"""Reads Parquet files and saved Hugging Face datasets, using pyarrow."""

from collections.abc import Iterator, Mapping
import contextlib
import json
from pathlib import Path
import typing

from bam_jax import errors
from bam_jax import files
from bam_jax.data import lines
from bam_jax.data import records
from bam_jax.tasks import task as task_lib

if typing.TYPE_CHECKING:
  import pyarrow as pa

_BATCH_ROWS = 1024
# Files that `Dataset.save_to_disk` and `DatasetDict.save_to_disk` write.
_STATE, _SPLITS = 'state.json', 'dataset_dict.json'
# Key in a schema's metadata under which `datasets` stores a table's features.
_FEATURES = b'huggingface'
_SAVE = "give a folder that the library datasets' Dataset.save_to_disk wrote"


def read_parquet(
  path: Path, table: task_lib.Table, fault: lines.Fault | None = None
) -> Iterator[lines.Row]:
  """Reads the rows of a Parquet file; see `formats.Reader`.

  Such a file has no lines, so `Row.line` is 0.
  """
  with path.open('rb') as file, _reports(path, 'is not a Parquet file'):
    from pyarrow import parquet

    content = parquet.ParquetFile(file)
    names = _class_names(content.schema_arrow)
    batches = content.iter_batches(_BATCH_ROWS)
    yield from _rows(_records(batches, names), path, table, fault)


def read_dataset(
  path: Path, table: task_lib.Table, fault: lines.Fault | None = None
) -> Iterator[lines.Row]:
  """Reads a folder that Hugging Face's `Dataset.save_to_disk` wrote.

  Such a folder has no text lines, so `Row.line` is 0.

  Raises:
    errors.UserError: see `formats.Reader`; also if the folder holds several
      splits instead of one.
  """
  if (path / _SPLITS).is_file():
    splits = files.read_json(path / _SPLITS, _SAVE).get('splits')
    shown = errors.some(splits) if isinstance(splits, list) else 'none'
    raise errors.UserError(
      f'{path}: holds several splits: {shown}; name the folder of one,'
      f' {path.name}/SPLIT'
    )
  if path.is_dir() and not (path / _STATE).is_file():
    raise errors.UserError(f'{path}: has no {_STATE}; {_SAVE}')
  with (path / _STATE).open('rb'), _reports(path, 'is not a saved dataset'):
    yield from _rows(_stored(path), path, table, fault)


def _stored(path: Path) -> Iterator[records.Record]:
  """Yields the rows of the Arrow files that a folder's state.json lists."""
  import pyarrow as pa

  state = files.read_json(path / _STATE, _SAVE)
  try:
    names = [file['filename'] for file in state['_data_files']]
    if not all(Path(name).name == name for name in names):
      raise ValueError('one of its files is elsewhere')
  except (KeyError, TypeError, ValueError) as error:
    raise errors.UserError(
      f'{path / _STATE}: {type(error).__name__}: {error}; {_SAVE}'
    ) from None
  for name in names:
    with (path / name).open('rb') as file, pa.ipc.open_stream(file) as batches:
      yield from _records(batches, _class_names(batches.schema))


@contextlib.contextmanager
def _reports(path: Path, what: str) -> Iterator[None]:
  """Context that raises a `UserError` if pyarrow is missing or fails to read.

  `what` is the message for a failure, such as "is not a Parquet file".
  """
  errors.require(str(path), ['pyarrow'], 'arrow')
  import pyarrow as pa

  try:
    yield
  except (pa.ArrowException, OSError, ValueError) as error:
    reason = str(error).partition('\n')[0]
    raise errors.UserError(
      f'{path}: {what}, or is damaged ({reason}); get it again, or give the'
      ' format that it has'
    ) from None


def _class_names(schema: 'pa.Schema') -> dict[str, list[str]]:
  """Returns the class names of each `ClassLabel` column in a schema.

  In such a column, `datasets` stores each class as a number, also inside lists.
  The class names are in the metadata of the schema.
  """
  found = {}
  with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
    content = json.loads((schema.metadata or {})[_FEATURES])
    for name, feature in content['info']['features'].items():
      if isinstance(feature, list):
        (feature,) = feature
      while isinstance(feature.get('feature'), dict):
        feature = feature['feature']
      # A column that was dropped is still in the metadata.
      if feature.get('_type') == 'ClassLabel' and name in schema.names:
        found[name] = [str(each) for each in feature['names']]
  return found


def _records(
  batches: 'typing.Iterable[pa.RecordBatch]', names: Mapping[str, list[str]]
) -> Iterator[records.Record]:
  """Yields rows as mappings; class numbers are replaced by class names."""
  for batch in batches:
    for record in batch.to_pylist():
      for column, classes in names.items():
        record[column] = _named(record[column], classes)
      yield record


def _named(value: object, classes: list[str]) -> object:
  """Replaces class numbers by class names; keeps -1, which means "no label"."""
  if isinstance(value, list):
    return [_named(each, classes) for each in value]
  if isinstance(value, int) and 0 <= value < len(classes):
    return classes[value]
  return value


def _rows(
  found: Iterator[records.Record],
  path: Path,
  table: task_lib.Table,
  fault: lines.Fault | None,
) -> Iterator[lines.Row]:
  def make(index: int, record: records.Record) -> lines.Row:
    return records.make_row(index, 0, record, table, f'{path}, row {index}')

  yield from lines.usable(found, make, fault)
