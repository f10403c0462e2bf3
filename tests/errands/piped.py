"""A file format in one file: cells with | between them, named by a header."""

from collections.abc import Iterator
from pathlib import Path

from bam_jax import errors
from bam_jax.data import formats
from bam_jax.data import lines
from bam_jax.tasks import task as task_lib


def read(
  path: Path,
  table: task_lib.Table,
  fault: lines.Fault = lines.stop,
  decoding_errors: str = 'strict',
) -> Iterator[lines.Row]:
  with path.open(encoding='utf-8', errors=decoding_errors) as file:
    names = next(file).rstrip('\n').split('|')
    for index, line in enumerate(file):
      cells = line.rstrip('\n').split('|')
      if len(cells) != len(names):
        fault(errors.UserError(f'{path}:{index + 2}: wrong number of cells'))
        continue
      row = dict(zip(names, cells))
      texts = tuple(row[name] for name in table.text)
      yield lines.Row(index, index + 2, texts, table.label and row[table.label])


formats.FORMATS['piped'] = formats.Format(read, 'named', 'jsonl')
