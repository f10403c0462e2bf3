"""Runs all checks on all raw data of a configuration."""

import numpy as np

from bam_jax import config as config_lib
from bam_jax.data import features
from bam_jax.doctor import contents
from bam_jax.doctor import findings
from bam_jax.doctor import lengths
from bam_jax.doctor import load
from bam_jax.doctor import repeats
from bam_jax.doctor import rows as rows_lib
from bam_jax.tasks import task as task_lib

# Checks of one split: `rows.Rows` -> findings.
SPLIT_CHECKS = (
  contents.check_size,
  contents.check_texts,
  contents.check_classes,
  contents.check_twins,
  contents.check_joined,
  contents.check_metrics,
  lengths.check,
  contents.check_shift,
  repeats.check_split,
)


def examine(
  tasks: task_lib.TaskTable,
  data: config_lib.DataConfig,
  tokenizer: features.Tokenizer | None,
  vocabulary: str = rows_lib.CASED,
) -> findings.Report:
  """Reads every split of every task once and runs all checks.

  Faults in the data are returned as findings; they do not raise errors. Without
  a tokenizer, tokens are not counted. `vocabulary` is the advice to give if the
  tokenizer's vocabulary lacks many words.
  """
  found: list[findings.Finding] = []
  number: dict[str, int] = {}
  splits: list[rows_lib.Rows] = []
  summaries: list[findings.Summary] = []
  for task in tasks.tasks:
    train_shares = None
    more = [task_lib.UNLABELLED] if task_lib.UNLABELLED in task.tables else []
    for split in (task.train_split, *more, *task.dev_splits, *task.test_splits):
      rows = rows_lib.Rows(task, split, tokenizer, data.max_length, vocabulary)
      found += load.load(rows, data)
      if not len(rows):
        continue
      shares = contents.shares(rows)
      if split == task.train_split:
        train_shares = shares
      rows.train_shares = train_shares
      rows.numbers = np.stack(
        [repeats.number_texts(column, number) for column in rows.texts], axis=1
      )
      for check in SPLIT_CHECKS:
        found += check(rows)
      rows.texts = ()  # Frees the memory.
      splits.append(rows)
      names = contents.share_names(task)
      values = {} if shares is None else dict(zip(names, shares.tolist()))
      summaries.append(
        findings.Summary(task.name, split, len(rows), values, rows.lengths)
      )
  train = [rows for rows in splits if rows.is_train]
  held = [rows for rows in splits if not rows.is_train]
  for check in (repeats.check_equal, repeats.check_near, repeats.check_texts):
    found += check(train, held, list(number))
  # The result is sorted by severity, then by task, because sorting is stable.
  found.sort(key=lambda f: tasks.names.index(f.task))
  found.sort(key=lambda f: [*findings.EXIT_CODES].index(f.severity))
  return findings.Report(tuple(found), tuple(summaries))
