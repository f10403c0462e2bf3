"""Checks the texts and labels of one split."""

from collections.abc import Iterator
import itertools
import re
import unicodedata

import numpy as np

from bam_jax import errors
from bam_jax import escape
from bam_jax.doctor import findings
from bam_jax.doctor import official
from bam_jax.doctor import rows as rows_lib
from bam_jax.tasks import joined_labels
from bam_jax.tasks import task as task_lib

_MARK = '\ufeff'
# A byte-order mark, the replacement character for bytes that could not be
# decoded, and NUL.
_STRANGE = re.compile(f'[{_MARK}\ufffd\0]')
# Control characters that occur in a text only if cp1252 was read as Latin-1.
_CONTROLS = re.compile('[\x80-\x9f]')
# A text that a CSV writer has quoted: the quotation marks inside are doubled.
_QUOTED = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')
# A whole number with a decimal point.
_WHOLE = re.compile(r'^(-?[0-9]+)\.0+$')
# Check -> what is wrong with some rows' texts, and how to fix it.
_TEXTS = {
  'empty text': ('rows with an empty text', 'remove or fix them'),
  'bom': (
    'rows with a byte-order mark inside, which is not part of the text',
    'remove it; files were joined, or saved with a mark twice',
  ),
  'characters': (
    'rows with U+FFFD or NUL: characters were lost',
    'fetch the file again, or convert it from its original encoding',
  ),
  'controls': (
    'rows with control characters, U+0080 to U+009F: text of Windows (cp1252)'
    ' was read as Latin-1, and dashes, quotation marks or € were lost',
    'convert the original file by iconv -f cp1252 -t utf-8',
  ),
  'quoted': (
    'rows with a text in quotation marks, those inside doubled: they would be'
    ' read as characters',
    "write the file without quoting, or set the task's format='csv'",
  ),
}
# A note or a warning is reported if the total variation distance between the
# label distributions of two splits is at least this.
_SHIFT_NOTE, _SHIFT_WARNING = 0.1, 0.25


def check_texts(rows: rows_lib.Rows) -> Iterator[findings.Finding]:
  """Finds empty texts, and signs of a wrong encoding or of wrong quoting."""
  found: dict[str, set[int]] = {check: set() for check in _TEXTS}
  for column in rows.texts:
    for row, text in enumerate(column):
      if not text or text.isspace():
        found['empty text'].add(row)
      elif _STRANGE.search(text):
        found['bom' if _MARK in text else 'characters'].add(row)
      elif _CONTROLS.search(text):
        found['controls'].add(row)
      elif text[0] == '"' and _QUOTED.fullmatch(text):
        found['quoted'].add(row)
  if not rows.is_utf_8:  # `raw.check` has reported these lines.
    del found['characters']
  for check, numbers in found.items():
    if numbers:
      # A run stops at an unlabelled row with an empty text.
      is_fatal = check == 'empty text' and rows.split == task_lib.UNLABELLED
      severity = 'error' if is_fatal else 'warning'
      places = rows.place_names(sorted(numbers))
      yield rows.find(severity, check, *_TEXTS[check], len(numbers), places)


def check_size(rows: rows_lib.Rows) -> Iterator[findings.Finding]:
  """Compares the number of rows of a GLUE split with the official number."""
  name, have = rows.task.name, len(rows)
  wanted = official.ROWS.get(name, {}).get(rows.split)
  if not wanted or {have, rows.data_lines} & {*wanted}:
    return
  severity, check = 'warning', 'size'
  if name == 'qnli' and have == official.QNLI_V1_ROWS:
    check, what = 'version', 'rows: this is the old QNLI v1'
    remedy = f'get QNLIv2 ({wanted[0]:,} rows); scores on v1 are not comparable'
  elif have > max(wanted):
    what = f'rows, more than the {wanted[0]:,} of the official file'
    remedy = 'fetch the file again, or check what was added to it'
  else:
    severity, what = 'note', f'rows of the official {wanted[0]:,}: a subset'
    remedy = 'say "on a subset" beside its scores'
  yield rows.find(severity, check, f'{have:,} {what}', remedy, have)


def shares(rows: rows_lib.Rows) -> np.ndarray | None:
  """Returns the share of rows in each class, or in each bin of scores, [C].

  Returns None if any row has no label or several labels.
  """
  task = rows.task
  if np.isnan(rows.label).any():
    return None
  if task.kind.has_scale:
    counts, _ = np.histogram(rows.label, _bins(task))
  else:
    classes = rows.label.astype(np.int64)
    counts = np.bincount(classes, minlength=task.num_outputs)
  return counts / counts.sum()


def share_names(task: task_lib.Task) -> list[str]:
  """Returns the name of each entry of `shares`: a class, or a bin of scores."""
  if not task.kind.has_scale:
    return list(task.labels)
  bins = _bins(task)
  if _is_stars(task):
    return [f'{score:g}' for score in (bins[:-1] + bins[1:]) / 2]
  return [f'{a:g} to {b:g}' for a, b in itertools.pairwise(bins)]


def _bins(task: task_lib.Task) -> np.ndarray:
  """Returns the edges of score bins.

  There is one bin per whole number if `_is_stars`, otherwise ten equal bins.
  """
  low, high = task.scale
  if _is_stars(task):
    return np.arange(low, high + 2) - 0.5
  return np.linspace(low, high, 11)


def _is_stars(task: task_lib.Task) -> bool:
  """Whether the scale looks like star ratings: it has 4 to 11 whole numbers."""
  low, high = task.scale
  return low == int(low) and high == int(high) and 3 <= high - low <= 10


def check_classes(rows: rows_lib.Rows) -> Iterator[findings.Finding]:
  """Finds classes without rows, and labels 0 and 1 that are swapped."""
  task, share = rows.task, shares(rows)
  if task.kind.has_scale or share is None:
    return
  absent = [name for name, x in zip(task.labels, share, strict=True) if not x]
  if absent:
    what = f'no row with label {errors.some_quoted(absent)}'
    remedy = 'check the names and the order of the labels'
    yield rows.find('warning', 'class', what, remedy, len(absent))
  wanted = official.SHARES.get(task.name)
  if wanted is None or rows.split != task.train_split or absent:
    return
  far, turned = abs(share[1] - wanted), abs(share[0] - wanted)
  # In a subset of 100 rows, the share usually changes by less than 0.1.
  if len(rows) >= 100 and far > 0.1 and turned < far / 2:
    what = (
      f"label '1' at {share[1]:.0%} of the rows, where the official file has"
      f' {wanted:.0%}: 0 and 1 seem to be swapped'
    )
    remedy = 'check the labels against another copy of the file'
    yield rows.find('warning', 'label map', what, remedy)


def check_twins(rows: rows_lib.Rows) -> Iterator[findings.Finding]:
  """Finds labels that differ only in case, white space or Unicode form.

  Whole numbers that are also written with a decimal point, 1 and 1.0, are twins
  too: a table with an empty cell stores them so.
  """
  task = rows.task
  if rows.split != task.train_split:
    return
  alike: dict[str, list[str]] = {}
  for label in task.labels:
    plain = unicodedata.normalize('NFKC', label).casefold()
    plain = _WHOLE.sub(r'\1', plain)
    alike.setdefault(escape.one_line(plain), []).append(label)
  for names in alike.values():
    if len(names) > 1:
      what = (
        'labels that differ only in case, blanks or a decimal point:'
        f' {errors.some_quoted(names)}'
      )
      remedy = 'spell them alike in the files, if they are one label'
      yield rows.find('warning', 'twin labels', what, remedy, len(names))


def check_joined(rows: rows_lib.Rows) -> Iterator[findings.Finding]:
  """Finds labels that seem to be several labels joined by a separator."""
  task = rows.task
  is_inferred = bool(task.labels_remedy) and not task.kind.per_token
  if rows.split != task.train_split or not is_inferred:
    return
  mark, joined = joined_labels.find_joined(task.labels)
  if joined:
    what = f'labels that may be several, joined by {mark!r}:'
    remedy = f"set kind='multilabel' and separator={mark!r}, if they are"
    yield rows.find(
      'warning',
      'joined labels',
      f'{what} {errors.some_quoted(joined)}',
      f'{remedy}, or give labels if each is one',
      len(joined),
    )


def check_metrics(rows: rows_lib.Rows) -> Iterator[findings.Finding]:
  """Finds metrics that can't be measured because all gold labels are alike."""
  task = rows.task
  if rows.split not in task.dev_splits or not rows.labels:
    return
  if names := task.kind.unmeasurable_metrics(task, tuple(rows.labels)):
    what = (
      f'all gold labels are alike, so {" and ".join(names)} cannot be measured,'
      ' nor an average over tasks that counts it'
    )
    remedy = 'add rows with other labels, or choose other metrics'
    yield rows.find('warning', 'metric', what, remedy, len(names))


def check_shift(rows: rows_lib.Rows) -> Iterator[findings.Finding]:
  """Finds a label distribution that differs from that of the training split."""
  train, here = rows.train_shares, shares(rows)
  if train is None or here is None or rows.split == rows.task.train_split:
    return
  distance = np.abs(train - here).sum() / 2
  # Subtracts approximately the distance that a random choice of so few rows
  # causes.
  distance -= np.sqrt(len(train) / len(rows)) / 2
  if distance < _SHIFT_NOTE:
    return
  worst = int(np.argmax(np.abs(train - here)))
  name = share_names(rows.task)[worst]
  what = 'score' if rows.task.kind.has_scale else 'label'
  what = (
    f'{what} {name!r} at {here[worst]:.0%} of the rows, at'
    f' {train[worst]:.0%} of the training rows'
  )
  severity = 'note' if distance < _SHIFT_WARNING else 'warning'
  remedy = 'check that both splits map labels alike'
  yield rows.find(severity, 'shift', what, remedy)
