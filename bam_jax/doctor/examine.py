"""Runs all checks on all raw data of a configuration."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np

from bam_jax import config as config_lib
from bam_jax.data import features
from bam_jax.doctor import contents
from bam_jax.doctor import findings
from bam_jax.doctor import lengths
from bam_jax.doctor import repeats
from bam_jax.doctor import rows as rows_lib
from bam_jax.tasks import task as task_lib

# Checks of the rows of one split.
SPLIT_CHECKS: tuple[
  Callable[[rows_lib.Rows], Iterator[findings.Finding]], ...
] = (
  contents.check_size,
  contents.check_texts,
  contents.check_classes,
  contents.check_metrics,
  lengths.check,
  contents.check_shift,
  repeats.check_split,
)
# Checks of training splits against held-out splits, given all texts by number.
CROSS_CHECKS: tuple[
  Callable[
    [Sequence[rows_lib.Rows], Sequence[rows_lib.Rows], Sequence[str]],
    Iterator[findings.Finding],
  ],
  ...,
] = (repeats.check_equal, repeats.check_near, repeats.check_texts)


def examine(
  tasks: task_lib.TaskTable,
  data: config_lib.DataConfig,
  tokenizer: features.Tokenizer | None,
) -> findings.Report:
  """Reads every split of every task once, and compares them.

  Args:
    tasks: the tasks.
    data: where their rows are.
    tokenizer: counts tokens; None leaves them out.

  Returns:
    Whatever is wrong with the data is a finding; nothing raises.
  """
  found: list[findings.Finding] = []
  texts = repeats.Texts()
  splits: list[rows_lib.Rows] = []
  summaries: list[findings.Summary] = []
  for task in tasks.tasks:
    train_shares = None
    more = [task_lib.UNLABELLED] if task_lib.UNLABELLED in task.tables else []
    for split in (task.train_split, *more, *task.dev_splits, *task.test_splits):
      rows = rows_lib.load(task, split, data, found)
      if rows is None:
        continue
      shares = contents.shares(rows)
      if split == task.train_split:
        train_shares = shares
      rows.train_shares = train_shares
      lengths.measure(rows, tokenizer, data.max_length)
      rows.numbers = np.stack([texts.add(c) for c in rows.texts], axis=1)
      for check in SPLIT_CHECKS:
        found += check(rows)
      rows.texts = ()  # They would fill the memory.
      splits.append(rows)
      summaries.append(_summary(rows, shares))
  train = [rows for rows in splits if rows.is_train]
  held = [rows for rows in splits if not rows.is_train]
  for check in CROSS_CHECKS:
    found += check(train, held, list(texts.number))
  order = {name: i for i, name in enumerate(tasks.names)}
  # Otherwise in the order in which they were found.
  found.sort(
    key=lambda f: (findings.SEVERITIES.index(f.severity), order[f.task])
  )
  return findings.Report(tuple(found), tuple(summaries))


def _summary(
  rows: rows_lib.Rows, shares: np.ndarray | None
) -> findings.Summary:
  task = rows.task
  names = task.labels or [
    f'{edge:g}' for edge in np.linspace(*task.scale, 11)[:-1]
  ]
  values = {} if shares is None else dict(zip(names, shares.tolist()))
  return findings.Summary(
    task.name, rows.split, len(rows), values, rows.lengths
  )
