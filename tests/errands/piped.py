"""A file format in one file: cells with | between them, named by a header."""

from collections.abc import Iterator
from pathlib import Path

from bam_jax import errors
from bam_jax.data import formats
from bam_jax.data import lines
from bam_jax.tasks import task as task_lib


def read(
  path: Path, table: task_lib.Table, fault: lines.Fault | None = None
) -> Iterator[lines.Row]:
  with path.open(encoding='utf-8', errors=lines.decoding(fault, table)) as file:
    names = next(file).rstrip('\n').split('|')

    def make(index: int, line: str) -> lines.Row:
      cells = line.rstrip('\n').split('|')
      if len(cells) != len(names):
        raise errors.UserError(f'{path}:{index + 2}: wrong number of cells')
      row = dict(zip(names, cells))
      texts = tuple(row[name] for name in table.text)
      label = table.label and row[table.label]
      return lines.Row(index, index + 2, texts, label)

    yield from lines.usable(file, make, fault)


formats.FORMATS['piped'] = formats.Format(read, 'named', 'jsonl')
