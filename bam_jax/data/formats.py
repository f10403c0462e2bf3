"""Lists the supported file formats of raw data, with their readers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from bam_jax.data import arrow_files
from bam_jax.data import conll
from bam_jax.data import csv_files
from bam_jax.data import jsonl
from bam_jax.data import lines
from bam_jax.data import squad
from bam_jax.data import tsv
from bam_jax.tasks import task as task_lib


class Reader(Protocol):
  """The function that reads the rows of a file format."""

  def __call__(
    self, path: Path, table: task_lib.Table, fault: lines.Fault | None = None
  ) -> Iterator[lines.Row]:
    """Yields the usable rows of a file; `Row.index` also counts skipped rows.

    Args:
      path: the file.
      table: the columns to read, with or without a label.
      fault: called with the error of each unusable row; the row is skipped, and
        bytes that are not UTF-8 are replaced. None: unusable rows and invalid
        bytes raise an error. In rows to predict (`table.input_kind`), invalid
        bytes always raise an error.

    Raises:
      errors.UserError: the file has another format, or the rest of it cannot be
        read; without `fault`, also if a row is unusable.
      OSError: the file cannot be opened.
      UnicodeDecodeError: the file is not UTF-8, and the bytes are not replaced.
    """
    ...


class Format(NamedTuple):
  """A supported file format, such as TSV, and its reader.

  Attributes:
    read: the reader of the format.
    columns: how a column is given: by name, by number, or (`header`) by name if
      the file has a header and by number otherwise.
    like: the format in `Kind.formats` whose rows look the same. A kind that
      reads that format also reads this one.
    is_text: whether files are UTF-8 text, which may be compressed.
    is_folder: whether the path of a split is a folder, not a file.
  """

  read: Reader
  columns: Literal['named', 'numbered', 'header']
  like: str
  is_text: bool = True
  is_folder: bool = False


FORMATS = {
  'tsv': Format(tsv.read, 'header', 'tsv'),
  'csv': Format(csv_files.read, 'header', 'tsv'),
  'jsonl': Format(jsonl.read, 'named', 'jsonl'),
  'parquet': Format(arrow_files.read_parquet, 'named', 'jsonl', is_text=False),
  'datasets': Format(
    arrow_files.read_dataset, 'named', 'jsonl', is_text=False, is_folder=True
  ),
  'conll': Format(conll.read, 'numbered', 'conll'),
  'squad': Format(squad.read, 'named', 'squad'),
}
