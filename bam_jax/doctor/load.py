"""Reads the rows of a split and reports those that cannot be read."""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import folds
from bam_jax.data import formats
from bam_jax.data import lines
from bam_jax.data import sources
from bam_jax.doctor import findings
from bam_jax.doctor import raw
from bam_jax.doctor import rows as rows_lib
from bam_jax.tasks import task as task_lib

# With `skip_malformed`, malformed rows are only a note, unless their share is
# above this.
_MALFORMED_SHARE = 1e-3

# Name of a check -> errors about rows or about a whole file.
_Faults = dict[str, list[errors.UserError]]


def load(
  rows: rows_lib.Rows, data: config_lib.DataConfig
) -> Iterator[findings.Finding]:
  """Reads a split into `rows`; yields a finding per problem."""
  source = sources.Source(rows.task, rows.split, data)
  rows.folder = f'{Path(data.dir)}/'
  rows.file = str(source.paths[0])
  try:
    if not source.is_present():
      yield _missing(rows, source)
    elif source.format in ('tfds', 'generated'):
      rows.has_lines = False
      examples = sources.read(rows.task, rows.split, data)
      _fill(rows, ((rows.file, _as_row(example)) for example in examples))
      rows.data_lines = int(rows.places[-1]) + 1
    else:
      yield from _read_files(rows, source)
  except errors.UserError as error:
    yield _from_errors(rows, 'error', 'unreadable', [error])
  except OSError as error:
    what, remedy = str(error.strerror), 'fix its permissions'
    yield rows.find('error', 'unreadable', what, remedy)


def _missing(rows: rows_lib.Rows, source: sources.Source) -> findings.Finding:
  severity, what = 'error', f'no {source.name}'
  if rows.split in rows.task.test_splits:
    severity, what = 'note', f'{what}: it cannot be predicted'
  is_tfds = source.format == 'tfds'
  place = source.name if is_tfds else str(source.missing()[0])
  return rows.find(severity, 'missing', what, source.remedy, places=[place])


def _as_row(example: task_lib.Example) -> lines.Row:
  index = task_lib.row_index(example.uid)
  return lines.Row(index, 0, (example.text_a, example.text_b), example.label)


def _fill(rows: rows_lib.Rows, read: Iterable[tuple[str, lines.Row]]) -> None:
  """Stores the texts, labels and places of rows in `rows`.

  `read` yields pairs of a file name and a row of this file.
  """
  places, labels = [], []
  rows.texts = [[] for _ in range(1 + rows.task.is_pair)]
  for file, row in read:
    if not rows.files or rows.files[-1][1] != file:
      rows.files.append((len(labels), file))
    rows.has_lines = bool(row.line)
    places.append(row.line or row.index)
    for column, text in zip(rows.texts, row.text):
      column.append(text)
    labels.append(row.label)
  rows.places = np.array(places, np.int64)
  rows.labels = frozenset(labels) - {None}
  rows.label = np.array(
    [math.nan if isinstance(x, tuple | None) else x for x in labels], np.float64
  )


def _read_files(
  rows: rows_lib.Rows, source: sources.Source
) -> Iterator[findings.Finding]:
  """Reads the files of a split; yields a finding per problem."""
  table = source.table
  readable: list[tuple[Path, bool]] = []
  for path in source.paths:
    rows.file = str(path)
    of_file, is_readable = raw.check(rows, path)
    # A development split that is taken from the training file would repeat the
    # findings of the training split.
    if not table.is_development:
      yield from of_file
    checks = {found.check for found in of_file}
    rows.is_utf_8 &= 'encoding' not in checks
    if is_readable:
      # A first line that was reported as a header is not reported again.
      readable.append((path, 'header' in checks and not table.header))
  if not readable:
    return
  faults: _Faults = {
    'malformed': [], 'label': [], 'no label': [], 'unreadable': []
  }  # fmt: skip

  def read() -> Iterator[tuple[str, lines.Row]]:
    before = index = 0
    for path, skips_first in readable:
      row, others = None, _count_others(faults)
      for row in _usable(rows, path, skips_first, faults):
        index = before + row.index
        yield str(path), row._replace(index=index)
      if row is None and faults['no label'] and others == _count_others(faults):
        faults['unreadable'].append(sources.no_usable_row(source, path))
      before = index + 1

  usable: Iterable[tuple[str, lines.Row]] = read()
  if table.division is not None:
    usable = list(usable)
    if usable:  # If no row is usable, `faults` has the reasons.
      usable = _one_side(rows, table, usable, faults)
  _fill(rows, usable)
  malformed = len(faults['malformed'])
  rows.data_lines = (
    len(rows) + malformed + len(faults['label']) + len(faults['no label'])
  )
  severities = {**dict.fromkeys(faults, 'error'), 'no label': 'note'}
  if table.skip_malformed:
    is_few = malformed <= max(_MALFORMED_SHARE * rows.data_lines, 1)
    severities['malformed'] = 'note' if is_few else 'warning'
  for check, raised in faults.items():
    if raised and not table.is_development:
      found = _from_errors(rows, severities[check], check, raised)
      if check == 'no label':  # The message is the same for each row.
        what = found.what.removeprefix('first: ')
        found = dataclasses.replace(found, what=what)
      yield found
  if not rows.data_lines and not faults['unreadable']:
    yield rows.find(
      'error', 'empty file', 'no row at all', 'add rows, or fetch it again'
    )


def _one_side(
  rows: rows_lib.Rows,
  table: task_lib.Table,
  usable: Sequence[tuple[str, lines.Row]],
  faults: _Faults,
) -> Iterable[tuple[str, lines.Row]]:
  """Returns the usable rows that are in the table's split.

  If too few rows are usable because others have faults, it returns none.
  """
  try:
    is_dev = folds.find_development_rows(
      rows.task, table.division, [row for _, row in usable], table.file
    )
  except errors.UserError:
    if not _count_others(faults):
      raise
    return ()
  return itertools.compress(usable, is_dev == table.is_development)


def _count_others(faults: _Faults) -> int:
  """Counts the faults other than missing labels."""
  return sum(map(len, faults.values())) - len(faults['no label'])


def _usable(
  rows: rows_lib.Rows, path: Path, skips_first: bool, faults: _Faults
) -> Iterator[lines.Row]:
  """Yields the usable rows of a file, with parsed labels.

  The errors about all other rows are appended to `faults`.
  """
  task, table = rows.task, rows.task.tables[rows.split]
  parsed: dict[task_lib.RawLabel | None, task_lib.Label | None] = {None: None}
  # This makes the reader report malformed rows that a run would skip.
  strict = dataclasses.replace(table, skip_malformed=False)
  read = formats.FORMATS[table.format].read
  try:
    for row in read(path, strict, faults['malformed'].append):
      if skips_first and row.index == 0:
        continue
      where = sources.place(path, row)
      if table.skips(row.label):
        what = 'rows without a label, which are skipped'
        faults['no label'].append(errors.UserError(f'{where}: {what}'))
        continue
      try:
        if row.label not in parsed:
          parsed[row.label] = task.kind.parse(task, row.label, where)
      except errors.UserError as error:
        if row.label or not table.skip_malformed:
          faults['label'].append(error)
        else:  # With `skip_malformed`, a row without a label is malformed.
          error = errors.UserError(f'{where}: no label; fix the row')
          faults['malformed'].append(error)
      else:
        yield row._replace(label=parsed[row.label])
  except errors.UserError as error:
    faults['unreadable'].append(error)


def _from_errors(
  rows: rows_lib.Rows,
  severity: findings.Severity,
  check: str,
  raised: Sequence[errors.UserError],
) -> findings.Finding:
  """Merges error messages `PLACE: WHAT; REMEDY` into one finding."""
  parts = [str(error).partition(': ') for error in raised]
  what, _, remedy = parts[0][2].partition('; ')
  if len(raised) > 1:
    what = f'first: {what}'
  places = [place for place, *_ in parts]
  return rows.find(severity, check, what, remedy, len(raised), places)
