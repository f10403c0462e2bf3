"""Checks of the texts and labels of one split."""

from collections.abc import Iterator
from collections.abc import Sequence
import re

import numpy as np

from bam_jax import errors
from bam_jax.doctor import findings
from bam_jax.doctor import official
from bam_jax.doctor import rows as rows_lib
from bam_jax.tasks import task as task_lib

_MARK = '\ufeff'
# A byte-order mark inside, what stands for bytes that could not be decoded,
# and a character that no text has.
_STRANGE = re.compile(f'[{_MARK}\ufffd\0]')
# Quoted as a writer with quoting does it, marks inside doubled.
_QUOTED = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')
# Total variation between the labels of two splits.
_SHIFT_NOTE, _SHIFT_WARNING = 0.1, 0.25


def texts(
  rows: rows_lib.Rows, found: Sequence[findings.Finding]
) -> Iterator[findings.Finding]:
  """Empty texts, byte-order marks inside, broken characters, quoting.

  Args:
    rows: of a split.
    found: what is known of its file; lines that are no UTF-8 are not told of
      again.
  """
  empty, marks, broken, quoted = set(), set(), set(), set()
  for column in rows.texts:
    for row, text in enumerate(column):
      if not text or text.isspace():
        empty.add(row)
      elif _STRANGE.search(text):
        (marks if _MARK in text else broken).add(row)
      elif text[0] == '"' and _QUOTED.fullmatch(text):
        quoted.add(row)
  if any(f.check == 'encoding' for f in found):
    broken = set()
  for numbers, check, what, remedy in (
    (empty, 'empty text', 'rows with an empty text', 'remove or mend them'),
    (
      marks,
      'bom',
      'rows with a byte-order mark inside, which is no part of the text',
      'remove it; files were joined, or saved with a mark twice',
    ),
    (
      broken,
      'characters',
      'rows with U+FFFD or NUL: characters were lost',
      'fetch the file again, or convert it from what it was written in',
    ),
    (
      quoted,
      'quoted',
      'rows with a text in quotation marks, those inside doubled: they would be'
      ' read as characters',
      'write the file without quoting',
    ),
  ):
    # Nothing is to be learnt from an empty text without a label: a run stops.
    is_fatal = check == 'empty text' and rows.split == task_lib.UNLABELLED
    severity = 'error' if is_fatal else 'warning'
    if numbers:
      yield rows.finding(sorted(numbers), severity, check, what, remedy)


def size(rows: rows_lib.Rows) -> Iterator[findings.Finding]:
  """Another number of rows than the official file has."""
  name, split, have = rows.task.name, rows.split, len(rows.index)
  wanted = official.ROWS.get(name, {}).get(split)
  if not wanted or {have, rows.data_lines} & {*wanted}:
    return
  file = (rows.task.tables[split].file,)
  if name == 'qnli' and have == official.QNLI_V1_ROWS:
    yield findings.Finding(
      'warning',
      name,
      split,
      'version',
      f'{have:,} rows: QNLI v1, whose split was made anew',
      f'get QNLIv2, of {wanted[0]:,} rows; scores on v1 compare with none',
      have,
      file,
    )
  elif have > max(wanted):
    yield findings.Finding(
      'warning',
      name,
      split,
      'size',
      f'{have:,} rows, more than the {wanted[0]:,} of the official file',
      'fetch the file again, or check what was added to it',
      have,
      file,
    )
  else:
    yield findings.Finding(
      'note',
      name,
      split,
      'size',
      f'{have:,} rows of the official {wanted[0]:,}: a subset',
      'say "on a subset" beside its scores',
      have,
      file,
    )


def shares(rows: rows_lib.Rows) -> np.ndarray:
  """[C] share of each class; of a tenth of the scale each for regression."""
  task = rows.task
  if task.kind.has_scale:
    counts, _ = np.histogram(rows.label, bins=10, range=task.scale)
  else:
    counts = np.bincount(
      rows.label.astype(np.int64), minlength=task.num_outputs
    )
  return counts / counts.sum()


def is_labelled(rows: rows_lib.Rows) -> bool:
  """Whether every row has a label."""
  return not np.isnan(rows.label).any()


def classes(rows: rows_lib.Rows) -> Iterator[findings.Finding]:
  """A class that no row has, and a map of labels the wrong way round."""
  task = rows.task
  if task.kind.has_scale or not is_labelled(rows):
    return
  file = (task.tables[rows.split].file,)
  share = shares(rows)
  absent = [name for name, x in zip(task.labels, share, strict=True) if not x]
  if absent:
    yield findings.Finding(
      'warning',
      task.name,
      rows.split,
      'class',
      f'no row with label {errors.some(absent)}',
      'check the names and the order of the labels',
      len(absent),
      file,
    )
  wanted = official.SHARES.get(task.name)
  if wanted is None or rows.split != task.train_split or absent:
    return
  far, turned = abs(share[1] - wanted), abs(share[0] - wanted)
  # A subset of a hundred rows lies within 0.1 of the whole.
  if len(rows.index) >= 100 and far > 0.1 and turned < far / 2:
    yield findings.Finding(
      'warning',
      task.name,
      rows.split,
      'label map',
      f"label '1' at {share[1]:.0%} of the rows, where the official file has"
      f' {wanted:.0%}: 0 and 1 seem to be exchanged',
      'check the labels against another copy of the file',
      places=file,
    )


def metrics(rows: rows_lib.Rows) -> Iterator[findings.Finding]:
  """Metrics that can't be measured, as all gold labels are alike."""
  task = rows.task
  if rows.split not in task.dev_splits or not rows.labels:
    return
  names = task.kind.unmeasurable(task, tuple(rows.labels))
  if names:
    yield findings.Finding(
      'warning',
      task.name,
      rows.split,
      'metric',
      f'all gold labels are alike, so {" and ".join(names)} cannot be measured,'
      ' nor an average over tasks that counts it',
      'add rows with other labels, or choose other metrics',
      len(names),
      (task.tables[rows.split].file,),
    )


def shift(
  task: task_lib.Task,
  split: str,
  train_shares: np.ndarray,
  split_shares: np.ndarray,
  size: int,
) -> Iterator[findings.Finding]:
  """Labels that are distributed otherwise than in training.

  Args:
    task: the task.
    split: one of its dev splits.
    train_shares: [C] as `shares` gives them, of the training rows.
    split_shares: [C] of the split.
    size: rows of the split.
  """
  distance = np.abs(train_shares - split_shares).sum() / 2
  # About what the draw of so few rows brings by itself.
  distance -= np.sqrt(len(train_shares) / size) / 2
  if distance < _SHIFT_NOTE:
    return
  names = task.labels or [f'tenth {i}' for i in range(1, 11)]
  worst = int(np.argmax(np.abs(train_shares - split_shares)))
  yield findings.Finding(
    'note' if distance < _SHIFT_WARNING else 'warning',
    task.name,
    split,
    'shift',
    f'label {names[worst]} at {split_shares[worst]:.0%} of the rows, at'
    f' {train_shares[worst]:.0%} of the training rows',
    'check that both splits map labels alike',
    places=(task.tables[split].file,),
  )
