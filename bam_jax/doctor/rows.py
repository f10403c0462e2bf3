"""Reads the rows of a split, and reports those that cannot be used."""

from collections.abc import Sequence
import dataclasses
import math
from pathlib import Path

import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import formats
from bam_jax.data import sources
from bam_jax.doctor import findings
from bam_jax.doctor import raw
from bam_jax.tasks import task as task_lib

# A file known to hold malformed rows has at most this share of them.
_MALFORMED_SHARE = 1e-3


@dataclasses.dataclass
class Rows:
  """The usable rows of a split, and what the checks need of them. N rows.

  Attributes:
    task: the task.
    split: name of the split.
    places: [N] lines of the file, from 1, or indices of the uids if the source
      has no lines.
    has_lines: whether `places` are lines.
    texts: the one or two columns of texts; empty once the split is checked.
    label: [N] float64, class index or score; nan without a label.
    data_lines: number of rows in the file, unusable ones included.
    labels: the different labels of the rows, see `Kind.parse`.
    is_utf_8: whether all lines could be decoded.
    lengths: see `lengths.measure`.
    max_length: tokens that a row may have.
    cut: numbers of the rows that have more tokens.
    unknown: numbers of the rows with words that became [UNK].
    train_shares: [C] shares of the training rows' labels, if they have labels.
    numbers: [N, 1 or 2] int64, equal for texts that differ only in case and
      white space; see `repeats.Texts`.
  """

  task: task_lib.Task
  split: str
  places: np.ndarray
  has_lines: bool
  texts: Sequence[Sequence[str]]
  label: np.ndarray
  data_lines: int
  labels: frozenset[task_lib.Label] = frozenset()
  is_utf_8: bool = True
  lengths: findings.Lengths = findings.Lengths(())
  max_length: int = 0
  cut: Sequence[int] = ()
  unknown: Sequence[int] = ()
  train_shares: np.ndarray | None = None
  numbers: np.ndarray | None = None

  def __len__(self) -> int:
    return len(self.label)

  @property
  def name(self) -> str:
    return f'{self.task.name}/{self.split}'

  @property
  def is_train(self) -> bool:
    return self.split in (self.task.train_split, task_lib.UNLABELLED)

  @property
  def is_labelled(self) -> bool:
    """Whether every row has a label."""
    return not np.isnan(self.label).any()

  @property
  def is_pair(self) -> bool:
    return self.numbers.shape[1] == 2

  def place(self, row: int) -> str:
    """`FILE:LINE` of a row, or its uid."""
    if self.has_lines:
      return f'{self.task.tables[self.split].file}:{self.places[row]}'
    return f'{self.name}/{self.places[row]}'

  def find(
    self,
    severity: findings.Severity,
    check: str,
    what: str,
    remedy: str = '',
    count: int = 1,
    places: Sequence[str] | None = None,
  ) -> findings.Finding:
    """Makes a finding about the whole split."""
    return findings.find(
      self.task, self.split, severity, check, what, remedy, count, places
    )

  def find_in(
    self,
    numbers: Sequence[int],
    severity: findings.Severity,
    check: str,
    what: str,
    remedy: str,
  ) -> findings.Finding:
    """Makes a finding about some rows."""
    places = [self.place(row) for row in numbers[: findings.MAX_PLACES]]
    return self.find(severity, check, what, remedy, len(numbers), places)


def load(
  task: task_lib.Task,
  split: str,
  data: config_lib.DataConfig,
  found: list[findings.Finding],
) -> Rows | None:
  """Reads the usable rows of a split; None if there are none.

  Args:
    task: the task.
    split: one of its tables.
    data: where the files are.
    found: faults of the file and of its rows are added here.
  """
  source = sources.source_of(task, split, data)
  task = _with_actual_file(task, split, data)
  table = task.tables[split]
  try:
    if not sources.is_present(task, split, data):
      found.append(_missing(task, split, data))
      return None
    if source in ('tfds', 'generated'):
      return _from_examples(task, split, data)
    return _from_file(task, split, data, found)
  except errors.UserError as error:
    found += findings.from_errors(
      task, split, 'error', 'unreadable', [error], f'{Path(data.dir)}/'
    )
  except OSError as error:
    what, remedy = str(error.strerror), 'mend its permissions'
    found.append(
      findings.find(
        task, split, 'error', 'unreadable', what, remedy, 1, (table.file,)
      )
    )
  return None


def _missing(
  task: task_lib.Task, split: str, data: config_lib.DataConfig
) -> findings.Finding:
  table, is_needed = task.tables[split], split not in task.test_splits
  is_tfds = sources.source_of(task, split, data) == 'tfds'
  where = sources.missing(task, split, data)
  return findings.find(
    task,
    split,
    'error' if is_needed else 'note',
    'missing',
    f'no {where}' + ('' if is_needed else ': it cannot be predicted'),
    sources.how_to_get(task, split, data),
    places=(table.tfds if is_tfds else table.file,),
  )


def _with_actual_file(
  task: task_lib.Task, split: str, data: config_lib.DataConfig
) -> task_lib.Task:
  """The task, its split's table naming the one of two files that is there."""
  table = task.tables[split]
  if sources.path_of(task, split, data) != Path(data.dir, table.other_file):
    return task
  table = dataclasses.replace(table, file=table.other_file)
  return dataclasses.replace(task, tables={**task.tables, split: table})


def _from_examples(
  task: task_lib.Task, split: str, data: config_lib.DataConfig
) -> Rows:
  """The rows of a source that has no malformed ones."""
  examples = list(sources.read(task, split, data))
  index = [int(example.uid.rpartition('/')[2]) for example in examples]
  label = [math.nan if e.label is None else e.label for e in examples]
  texts = [[example.text_a for example in examples]]
  if task.is_pair:
    texts.append([example.text_b for example in examples])
  return Rows(
    task,
    split,
    np.array(index),
    False,
    texts,
    np.array(label, np.float64),
    index[-1] + 1,
    frozenset(e.label for e in examples if e.label is not None),
  )


def _from_file(
  task: task_lib.Task,
  split: str,
  data: config_lib.DataConfig,
  found: list[findings.Finding],
) -> Rows | None:
  """The usable rows of a TSV or JSONL file."""
  table, path = task.tables[split], sources.path_of(task, split, data)
  of_file, is_readable = raw.check(task, split, path)
  found += of_file
  if not is_readable:
    return None
  checks = {f.check for f in of_file}
  # A row that was reported as a header is not reported again.
  skips_first = 'header' in checks and not table.header
  malformed: list[errors.UserError] = []
  unknown: list[errors.UserError] = []
  end: list[errors.UserError] = []
  parsed: dict[str, task_lib.Label] = {}
  texts = [[] for _ in range(2 if len(table.text) == 2 else 1)]
  places, label, has_lines = [], [], True
  # Rows that a run would skip are reported here.
  strict = dataclasses.replace(table, skip_malformed=False)
  read = formats.FORMATS[table.format].read
  try:
    for row in read(path, strict, malformed.append, 'replace'):
      if skips_first and row.index == 0:
        continue
      where, value = f'{path}:{row.line}', math.nan
      if row.label is not None:
        try:
          if row.label not in parsed:
            parsed[row.label] = task.kind.parse(task, row.label, where)
        except errors.UserError as error:
          if row.label or not table.skip_malformed:
            unknown.append(error)
          else:  # It counts as malformed where such rows are skipped.
            malformed.append(
              errors.UserError(f'{where}: no label; mend the row')
            )
          continue
        # Several labels are no number, and no share is counted.
        if not isinstance(parsed[row.label], tuple):
          value = float(parsed[row.label])
      has_lines = bool(row.line)
      places.append(row.line or row.index)
      for column, text in zip(texts, row.text):
        column.append(text)
      label.append(value)
  except errors.UserError as error:
    end.append(error)
  total = len(label) + len(malformed) + len(unknown)
  of_malformed = 'error'
  if table.skip_malformed:
    is_few = len(malformed) <= max(_MALFORMED_SHARE * total, 1)
    of_malformed = 'note' if is_few else 'warning'
  for severity, check, raised in (
    (of_malformed, 'malformed', malformed),
    ('error', 'label', unknown),
    ('error', 'unreadable', end),
  ):
    found += findings.from_errors(
      task, split, severity, check, raised, f'{Path(data.dir)}/'
    )
  if not label:
    if not total and not end:
      what, remedy = 'no row at all', 'fetch the file again'
      found.append(
        findings.find(task, split, 'error', 'empty file', what, remedy)
      )
    return None
  return Rows(
    task,
    split,
    np.array(places),
    has_lines,
    texts,
    np.array(label),
    total,
    frozenset(parsed.values()),
    'encoding' not in checks,
  )
