"""Checks of the texts and labels of one split."""

from collections.abc import Iterator
import re

import numpy as np

from bam_jax import errors
from bam_jax.doctor import findings
from bam_jax.doctor import official
from bam_jax.doctor import rows as rows_lib
from bam_jax.tasks import task as task_lib

_MARK = '\ufeff'
# A byte-order mark, what stands for bytes that could not be decoded, and a
# character that no text has.
_STRANGE = re.compile(f'[{_MARK}\ufffd\0]')
# Quoted as a writer with quoting does it, marks inside doubled.
_QUOTED = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')
# Total variation distance between the labels of two splits.
_SHIFT_NOTE, _SHIFT_WARNING = 0.1, 0.25


def check_texts(rows: rows_lib.Rows) -> Iterator[findings.Finding]:
  """Empty texts, byte-order marks inside, broken characters, quoting."""
  empty, marks, broken, quoted = set(), set(), set(), set()
  for column in rows.texts:
    for row, text in enumerate(column):
      if not text or text.isspace():
        empty.add(row)
      elif _STRANGE.search(text):
        (marks if _MARK in text else broken).add(row)
      elif text[0] == '"' and _QUOTED.fullmatch(text):
        quoted.add(row)
  if not rows.is_utf_8:  # These lines have been reported.
    broken = set()
  # Nothing is learnt from an empty text without a label: a run stops there.
  is_fatal = rows.split == task_lib.UNLABELLED
  for numbers, severity, check, what, remedy in (
    (
      empty,
      'error' if is_fatal else 'warning',
      'empty text',
      'rows with an empty text',
      'remove or mend them',
    ),
    (
      marks,
      'warning',
      'bom',
      'rows with a byte-order mark inside, which is no part of the text',
      'remove it; files were joined, or saved with a mark twice',
    ),
    (
      broken,
      'warning',
      'characters',
      'rows with U+FFFD or NUL: characters were lost',
      'fetch the file again, or convert it from what it was written in',
    ),
    (
      quoted,
      'warning',
      'quoted',
      'rows with a text in quotation marks, those inside doubled: they would be'
      ' read as characters',
      'write the file without quoting',
    ),
  ):
    if numbers:
      yield rows.find_in(sorted(numbers), severity, check, what, remedy)


def check_size(rows: rows_lib.Rows) -> Iterator[findings.Finding]:
  """Compares the number of rows with the official file's."""
  name, have = rows.task.name, len(rows)
  wanted = official.ROWS.get(name, {}).get(rows.split)
  if not wanted or {have, rows.data_lines} & {*wanted}:
    return
  if name == 'qnli' and have == official.QNLI_V1_ROWS:
    yield rows.find(
      'warning',
      'version',
      f'{have:,} rows: QNLI v1, whose split was made anew',
      f'get QNLIv2, of {wanted[0]:,} rows; scores on v1 compare with none',
      have,
    )
  elif have > max(wanted):
    yield rows.find(
      'warning',
      'size',
      f'{have:,} rows, more than the {wanted[0]:,} of the official file',
      'fetch the file again, or check what was added to it',
      have,
    )
  else:
    yield rows.find(
      'note',
      'size',
      f'{have:,} rows of the official {wanted[0]:,}: a subset',
      'say "on a subset" beside its scores',
      have,
    )


def shares(rows: rows_lib.Rows) -> np.ndarray | None:
  """[C] share of each class or tenth of the scale; None without labels."""
  task = rows.task
  if not rows.is_labelled:
    return None
  if task.kind.has_scale:
    counts, _ = np.histogram(rows.label, bins=10, range=task.scale)
  else:
    classes = rows.label.astype(np.int64)
    counts = np.bincount(classes, minlength=task.num_outputs)
  return counts / counts.sum()


def check_classes(rows: rows_lib.Rows) -> Iterator[findings.Finding]:
  """Finds a class without rows, and labels 0 and 1 exchanged."""
  task, share = rows.task, shares(rows)
  if task.kind.has_scale or share is None:
    return
  absent = [name for name, x in zip(task.labels, share, strict=True) if not x]
  if absent:
    yield rows.find(
      'warning',
      'class',
      f'no row with label {errors.some(absent)}',
      'check the names and the order of the labels',
      len(absent),
    )
  wanted = official.SHARES.get(task.name)
  if wanted is None or rows.split != task.train_split or absent:
    return
  far, turned = abs(share[1] - wanted), abs(share[0] - wanted)
  # A subset of a hundred rows lies within 0.1 of the whole.
  if len(rows) >= 100 and far > 0.1 and turned < far / 2:
    yield rows.find(
      'warning',
      'label map',
      f"label '1' at {share[1]:.0%} of the rows, where the official file has"
      f' {wanted:.0%}: 0 and 1 seem to be exchanged',
      'check the labels against another copy of the file',
    )


def check_metrics(rows: rows_lib.Rows) -> Iterator[findings.Finding]:
  """Finds metrics that are undefined because all gold labels are alike."""
  task = rows.task
  if rows.split not in task.dev_splits or not rows.labels:
    return
  names = task.kind.unmeasurable_metrics(task, tuple(rows.labels))
  if names:
    yield rows.find(
      'warning',
      'metric',
      f'all gold labels are alike, so {" and ".join(names)} cannot be measured,'
      ' nor an average over tasks that counts it',
      'add rows with other labels, or choose other metrics',
      len(names),
    )


def check_shift(rows: rows_lib.Rows) -> Iterator[findings.Finding]:
  """Finds labels whose distribution differs from that of the training rows."""
  train, here = rows.train_shares, shares(rows)
  if train is None or here is None or rows.split == rows.task.train_split:
    return
  distance = np.abs(train - here).sum() / 2
  # Approximately what the draw of so few rows contributes.
  distance -= np.sqrt(len(train) / len(rows)) / 2
  if distance < _SHIFT_NOTE:
    return
  names = rows.task.labels or [f'tenth {i}' for i in range(1, 11)]
  worst = int(np.argmax(np.abs(train - here)))
  yield rows.find(
    'note' if distance < _SHIFT_WARNING else 'warning',
    'shift',
    f'label {names[worst]} at {here[worst]:.0%} of the rows, at'
    f' {train[worst]:.0%} of the training rows',
    'check that both splits map labels alike',
  )
