"""The rows of a split as the readers give them, and those they cannot give."""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import math
from pathlib import Path

import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import lines
from bam_jax.data import sources
from bam_jax.doctor import findings
from bam_jax.doctor import raw
from bam_jax.tasks import task as task_lib

# More of a file known to hold malformed rows is no longer what is known.
_MALFORMED_SHARE = 1e-3


@dataclasses.dataclass
class Rows:
  """The usable rows of a split. N rows.

  Attributes:
    task: the task.
    split: of the task.
    index: [N] the index of each row's uid.
    line: [N] its line in the file, from 1; 0 where the source has no lines.
    text_a: first texts.
    text_b: second texts; None for tasks with one text.
    label: [N] float64, class index or score; nan where there is none.
    data_lines: rows of the file, those that are not usable included.
    labels: the different labels of the rows, as `Kind.parse` returns them.
  """

  task: task_lib.Task
  split: str
  index: np.ndarray
  line: np.ndarray
  text_a: list[str]
  text_b: list[str] | None
  label: np.ndarray
  data_lines: int
  labels: frozenset[task_lib.Label] = frozenset()

  @property
  def texts(self) -> tuple[list[str], ...]:
    """The columns of texts."""
    return (self.text_a,) if self.text_b is None else (self.text_a, self.text_b)

  def place(self, row: int) -> str:
    """`FILE:LINE` of a row, or its uid."""
    if self.line[row]:
      return f'{self.task.tables[self.split].file}:{self.line[row]}'
    return f'{self.task.name}/{self.split}/{self.index[row]}'

  def finding(
    self,
    numbers: Sequence[int],
    severity: findings.Severity,
    check: str,
    what: str,
    remedy: str,
  ) -> findings.Finding:
    """One finding of some rows."""
    return findings.Finding(
      severity,
      self.task.name,
      self.split,
      check,
      what,
      remedy,
      len(numbers),
      tuple(self.place(row) for row in numbers[: findings.MAX_PLACES]),
    )


def load(
  task: task_lib.Task,
  split: str,
  data: config_lib.DataConfig,
  found: list[findings.Finding],
) -> Rows | None:
  """The rows of a split; None where there are none to speak of.

  Args:
    task: the task.
    split: one of its tables.
    data: where the files are.
    found: what stands in the way of reading them is added here.
  """
  name, source = task.name, sources.source_of(task, split, data)
  task = _located(task, split, data)
  folder = f'{Path(data.dir)}/'
  wanted = split not in task.test_splits
  try:
    if not sources.is_present(task, split, data):
      table = task.tables[split]
      where = table.tfds if source == 'tfds' else sources.missing(task, split)
      found.append(
        findings.Finding(
          'error' if wanted else 'note',
          name,
          split,
          'missing',
          f'no {where}' + ('' if wanted else ': it cannot be predicted'),
          sources.how_to_get(task, split, data),
          places=(table.tfds if source == 'tfds' else table.file,),
        )
      )
      return None
    if source in ('tfds', 'generated'):
      return _from_examples(task, split, data)
    return _from_file(task, split, data, found)
  except errors.UserError as error:
    found += findings.of_errors(
      [error], 'error', name, split, 'unreadable', folder
    )
  except OSError as error:
    found.append(
      findings.Finding(
        'error',
        name,
        split,
        'unreadable',
        str(error.strerror),
        'mend its permissions',
        places=(task.tables[split].file,),
      )
    )
  return None


def _located(
  task: task_lib.Task, split: str, data: config_lib.DataConfig
) -> task_lib.Task:
  """The task with the file of a split by the name under which it is there."""
  table = task.tables[split]
  if sources.path_of(task, split, data) != Path(data.dir, table.other_file):
    return task
  table = dataclasses.replace(table, file=table.other_file)
  return dataclasses.replace(task, tables={**task.tables, split: table})


def _from_examples(
  task: task_lib.Task, split: str, data: config_lib.DataConfig
) -> Rows:
  examples = list(sources.read(task, split, data))
  index = [int(example.uid.rpartition('/')[2]) for example in examples]
  label = [math.nan if e.label is None else e.label for e in examples]
  return Rows(
    task,
    split,
    np.array(index),
    np.zeros(len(examples), np.int64),
    [example.text_a for example in examples],
    [example.text_b for example in examples] if task.is_pair else None,
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
  """The rows of a TSV or JSONL file that can be used."""
  table, path = task.tables[split], sources.path_of(task, split, data)
  content = path.read_bytes()
  before = [*raw.encoding(task, split, content, path)]
  if raw.describe(content, path):
    found += before
    return None
  has_quotes = b'"' in content
  del content
  if table.format == 'tsv':
    with path.open(encoding='utf-8-sig', errors='replace') as file:
      first = next((line for line in file if line != '\n'), '')
    before += raw.header(task, split, first.rstrip('\n').split('\t'))
    if has_quotes:
      before += raw.quotes(task, split, path)
  found += before
  if any(f.check == 'swapped' for f in before):
    return None
  # A row that was told of as a header is not told of again.
  is_header = any(f.check == 'header' for f in before) and not table.header
  return _Reading(task, split, path, is_header).rows(
    found, f'{Path(data.dir)}/'
  )


class _Reading:
  """One pass over a file, in which what cannot be used is put aside."""

  def __init__(
    self, task: task_lib.Task, split: str, path: Path, is_header: bool
  ):
    self._task, self._split, self._path = task, split, path
    self._is_header = is_header
    self._table = task.tables[split]
    self._malformed: list[errors.UserError] = []
    self._unknown: list[errors.UserError] = []
    self._end: list[errors.UserError] = []
    self._parsed: dict[str, float] = {}
    self._labels: set[task_lib.Label] = set()

  def _usable(self) -> Iterator[tuple[lines.Row, float]]:
    """Rows and their labels."""
    # Rows that a run would pass over are to be seen here.
    table = dataclasses.replace(self._table, skip_malformed=False)
    try:
      for row in sources.scan(self._path, table, self._malformed.append):
        if self._is_header and row.index == 0:
          continue
        if row.label is None:
          yield row, math.nan
          continue
        label = self._parsed.get(row.label)
        if label is None:
          label = self._parse(row.label, row.line)
          if label is None:
            continue
          self._parsed[row.label] = label
        yield row, label
    except errors.UserError as error:
      self._end.append(error)

  def _parse(self, value: str, line: int) -> float | None:
    try:
      where = f'{self._path}:{line}'
      label = self._task.kind.parse(self._task, value, where)
    except errors.UserError as error:
      if value or not self._table.skip_malformed:
        self._unknown.append(error)
        return None
    else:
      self._labels.add(label)
      # Of several labels no number is made, and no share counted.
      return math.nan if isinstance(label, tuple) else float(label)
    # Without a label, a row counts as malformed where these are passed over.
    self._malformed.append(
      errors.UserError(f'{self._path}:{line}: no label; mend the row')
    )
    return None

  def rows(self, found: list[findings.Finding], folder: str) -> Rows | None:
    index, line, text_a, text_b, label = [], [], [], [], []
    for row, value in self._usable():
      index.append(row.index)
      line.append(row.line)
      text_a.append(row.text[0])
      text_b.append(row.text[-1])
      label.append(value)
    total = len(index) + len(self._malformed) + len(self._unknown)
    malformed = 'error'
    if self._table.skip_malformed:
      few = len(self._malformed) <= max(_MALFORMED_SHARE * total, 1)
      malformed = 'note' if few else 'warning'
    for errors_of_a_kind, severity, check in (
      (self._malformed, malformed, 'malformed'),
      (self._unknown, 'error', 'label'),
      (self._end, 'error', 'unreadable'),
    ):
      found += findings.of_errors(
        errors_of_a_kind,
        severity,
        self._task.name,
        self._split,
        check,
        folder,
      )
    if not index:
      if not total and not self._end:
        found.append(
          findings.Finding(
            'error',
            self._task.name,
            self._split,
            'empty file',
            'no row at all',
            'fetch the file again',
            places=(self._table.file,),
          )
        )
      return None
    return Rows(
      self._task,
      self._split,
      np.array(index),
      np.array(line),
      text_a,
      text_b if len(self._table.text) == 2 else None,
      np.array(label),
      total,
      frozenset(self._labels),
    )
