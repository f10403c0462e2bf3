"""Lists the supported file formats of raw data and their readers."""

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
    """Yields a file's usable rows; `Row.index` counts the skipped rows too.

    The columns of `table` are read, with a label or without. `fault` receives
    the error of each row that cannot be used, and bytes that are no UTF-8 are
    replaced; None: both are raised. Those bytes are also raised in a file of
    rows to predict (`table.input_kind`).

    Raises:
      errors.UserError: the file is of another format, or cannot be read on.
      OSError: it cannot be opened.
      UnicodeDecodeError: it is not UTF-8, and that is not passed over.
    """
    ...


class Format(NamedTuple):
  """A supported file format, such as TSV, and its reader.

  Attributes:
    read: its reader.
    columns: whether columns have names, numbers, or names if there is a header.
    like: the format of `Kind.formats` with the same rows; kinds that read that
      format read this one too.
    is_text: whether files are UTF-8 text, perhaps compressed.
    is_folder: whether a folder holds the rows of a split, not a file.
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
