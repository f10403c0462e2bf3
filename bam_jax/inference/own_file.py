"""Predicts the rows of a user's file and writes one line per row."""

from collections.abc import Callable, Iterable, Iterator, Mapping
import contextlib
import csv
import itertools
import json
import logging
from pathlib import Path
import sys
from typing import TextIO

from bam_jax import errors
from bam_jax import escape
from bam_jax import files
from bam_jax.data import unlabelled
from bam_jax.inference import model as model_lib
from bam_jax.tasks import task as task_lib

# Columns that are copied to the output by default.
KEPT = ('id',)
_SUFFIXES = ('.tsv', '.csv', '.jsonl')


def predict(
  model: model_lib.Model,
  task: str | None,
  source: str,
  output: str | None,
  kept: tuple[str, ...] | None = None,
) -> None:
  """Predicts the rows of a file, in order and in constant memory.

  A JSON line holds the kept fields and the values of `Result.as_json`. A line
  of TSV or CSV holds the kept columns, the prediction, the probability of each
  label if the task's kind has probabilities, and an error, which is empty if
  the row has a prediction. CSV output always has a header. TSV output has a
  header if the input has one.

  Args:
    model: the model.
    task: name of the task; None: the model's only task.
    source: path of a file, see `unlabelled.open_rows`; `-`: standard input.
    output: path of a `.tsv`, `.csv` or `.jsonl` file, written completely or not
      at all; None: standard output, as TSV if the input is a table, else as
      JSON lines.
    kept: columns or fields of the input to copy to the output; None: those of
      `KEPT` that the input has.

  Raises:
    errors.UserError: the task is unknown, the input can't be read, no row can
      be predicted, the output can't be written, or a column of `kept` is
      missing from the input or has the name of a prediction column.
  """
  declared = model.tasks[task := model.choose_task(task, '--task')]
  suffix = Path(output or '').suffix
  if output is not None and suffix not in _SUFFIXES:
    raise errors.UserError(
      f'--output={output}: ends in none of {", ".join(_SUFFIXES)}; rename it'
    )
  if output is not None and source != '-' and _is_same(output, source):
    raise errors.UserError(
      f'--output={output}: is the file of --input; choose another'
    )
  wanted = KEPT if kept is None else kept
  count = cut = refused = 0
  with (
    unlabelled.open_rows(source, declared, wanted) as rows,
    _destination(output) as file,
  ):
    if kept is not None:
      errors.raise_first(
        f'--keep={name}: the rows of {source} have no such column; leave it out'
        for name in wanted
        if name not in rows.kept
      )
    suffix = suffix or f'.{rows.format}'
    write = _writer(file, suffix, declared, rows)
    read, again = itertools.tee(rows.rows)
    results = model.predict_texts(task, rows._replace(rows=read).texts)
    for result, row in zip(results, again, strict=True):
      write(row.kept, result)
      count += 1
      cut += result.truncated
      refused += bool(result.error)
  name = output or 'stdout'
  logging.info(
    '%s: rows predicted: %d, of which cut: %d', name, count - refused, cut
  )
  if refused:
    logging.warning(
      '%s: %d rows of %d have no prediction; their "error" says why',
      *(name, refused, count),
    )


def _is_same(output: str, source: str) -> bool:
  try:
    return Path(output).samefile(source)
  except OSError:
    return False  # A missing input is reported later.


def _writer(
  file: TextIO, suffix: str, task: task_lib.Task, rows: unlabelled.Rows
) -> Callable[[Mapping[str, object], model_lib.Result], None]:
  """Writes the header; returns a function that writes a row.

  Raises:
    errors.UserError: a kept column has the name of a prediction column. For
      JSON lines, the returned function raises this error.
  """

  def check(names: Iterable[str]) -> None:
    errors.raise_first(
      f'--keep={name}: predictions have such a column too; leave it out'
      for name in rows.kept
      if name in names
    )

  if suffix == '.jsonl':

    def write_json(
      kept: Mapping[str, object], result: model_lib.Result
    ) -> None:
      fields = result.as_json()
      check(fields)
      line = json.dumps({**kept, **fields}, ensure_ascii=False, default=str)
      file.write(line + '\n')

    return write_json

  names = task.kind.prediction_columns(task, (*rows.kept, 'error'))
  check(('prediction', 'error'))
  table = csv.writer(file, lineterminator='\n')

  def write_cells(cells: list[str]) -> None:
    if suffix == '.csv':
      table.writerow(cells)
    else:
      file.write(escape.tsv(cells) + '\n')

  if rows.has_header or suffix == '.csv':
    write_cells([*rows.kept, 'prediction', *names, 'error'])
  empty = [''] * (1 + len(names))

  def write_row(kept: Mapping[str, object], result: model_lib.Result) -> None:
    cells = [cell(kept.get(name)) for name in rows.kept]
    fields = empty if result.error else result.prediction.as_fields()
    write_cells([*cells, *fields, result.error])

  return write_row


def cell(value: object) -> str:
  """Converts a value of a kept column to a table cell; empty if missing."""
  if value is None:
    return ''
  return value if isinstance(value, str) else json.dumps(value, default=str)


@contextlib.contextmanager
def _destination(output: str | None) -> Iterator[TextIO]:
  """Context manager that opens standard output, or a new file.

  The file has a temporary name until it is complete.
  """
  if output is None:
    sys.stdout.reconfigure(encoding='utf-8')
    yield sys.stdout
    sys.stdout.flush()
    return
  try:
    with files.new_file(
      Path(output), 'x', encoding='utf-8', newline=''
    ) as file:
      yield file
  except OSError as e:
    raise errors.UserError(
      f'--output={output}: cannot be written: {e.strerror}; choose another'
    ) from e
