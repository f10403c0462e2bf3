"""All checks on all raw data of a configuration."""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import itertools

import numpy as np

from bam_jax import config as config_lib
from bam_jax.data import features
from bam_jax.doctor import contents
from bam_jax.doctor import duplicates
from bam_jax.doctor import findings
from bam_jax.doctor import keys
from bam_jax.doctor import lengths as lengths_lib
from bam_jax.doctor import near
from bam_jax.doctor import overlaps
from bam_jax.doctor import rows as rows_lib
from bam_jax.tasks import task as task_lib


@dataclasses.dataclass(frozen=True)
class Summary:
  """What a split is like.

  Attributes:
    task: name of the task.
    split: of the task.
    rows: those that are usable.
    shares: label, or tenth of the scale, -> share of the rows; empty where
      there are no labels.
    lengths: in characters and tokens.
  """

  task: str
  split: str
  rows: int
  shares: dict[str, float]
  lengths: lengths_lib.Lengths


@dataclasses.dataclass(frozen=True)
class Report:
  """What was found, the worst first, and what the splits are like."""

  findings: tuple[findings.Finding, ...]
  splits: tuple[Summary, ...]


def examine(
  tasks: task_lib.TaskTable,
  data: config_lib.DataConfig,
  tokenizer: features.Tokenizer | None,
) -> Report:
  """Reads every split of every task once, and compares them.

  Args:
    tasks: the tasks.
    data: where their rows are.
    tokenizer: counts tokens; None leaves them out.

  Returns:
    Whatever is wrong with the data is a finding; nothing raises.
  """
  found: list[findings.Finding] = []
  texts = keys.Texts()
  splits: list[keys.Split] = []
  summaries: list[Summary] = []
  for task in tasks.tasks:
    shares: dict[str, np.ndarray] = {}
    more = [task_lib.UNLABELLED] if task_lib.UNLABELLED in task.tables else []
    for split in (task.train_split, *more, *task.dev_splits, *task.test_splits):
      before: list[findings.Finding] = []
      rows = rows_lib.load(task, split, data, before)
      found += before
      if rows is None:
        continue
      if contents.is_labelled(rows):
        shares[split] = contents.shares(rows)
      lengths, cut, strange = lengths_lib.measure(
        rows, tokenizer, data.max_length
      )
      found += _of_split(rows, before)
      found += lengths_lib.check(rows, lengths, cut, strange, data.max_length)
      if split in shares and split != task.train_split in shares:
        found += contents.shift(
          task, split, shares[task.train_split], shares[split], len(rows.index)
        )
      kept = keys.of_rows(rows, texts)
      found += duplicates.check(kept)
      splits.append(kept)
      summaries.append(_summary(rows, shares.get(split), lengths))
  found += _across(splits, list(texts.number))
  order = {name: i for i, name in enumerate(tasks.names)}
  # Otherwise in the order in which they were found.
  found.sort(
    key=lambda f: (findings.SEVERITIES.index(f.severity), order[f.task])
  )
  return Report(tuple(found), tuple(summaries))


def _of_split(
  rows: rows_lib.Rows, before: Sequence[findings.Finding]
) -> Iterator[findings.Finding]:
  """What the texts and labels of one split show by themselves."""
  yield from contents.size(rows)
  yield from contents.texts(rows, before)
  yield from contents.classes(rows)
  yield from contents.metrics(rows)


def _summary(
  rows: rows_lib.Rows,
  shares: np.ndarray | None,
  lengths: lengths_lib.Lengths,
) -> Summary:
  task = rows.task
  names = task.labels or [
    f'{edge:g}' for edge in np.linspace(*task.scale, 11)[:-1]
  ]
  values = {} if shares is None else dict(zip(names, shares.tolist()))
  return Summary(task.name, rows.split, len(rows.index), values, lengths)


def _across(
  splits: Sequence[keys.Split], texts: Sequence[str]
) -> Iterator[findings.Finding]:
  """What training rows have in common with what is scored or predicted."""
  train = [split for split in splits if split.is_train]
  held = [split for split in splits if not split.is_train]
  yield from overlaps.rows(train, held)
  if train and held:
    yield from _near(train, held, near.Shingles(texts))
  yield from overlaps.texts(train, held, len(texts))


def _near(
  train: Sequence[keys.Split],
  held: Sequence[keys.Split],
  shingles: near.Shingles,
) -> Iterator[findings.Finding]:
  """Training rows that are nearly a held-out one, by pair of splits."""
  for width in (1, 2):
    here = _distinct([s for s in train if s.texts.shape[1] == width])
    there = _distinct([s for s in held if s.texts.shape[1] == width])
    if not here or not there:
      continue
    pairs = near.find(
      shingles,
      np.concatenate([s.texts[rows] for s, rows in here]),
      np.concatenate([s.texts[rows] for s, rows in there]),
    )
    ends = [
      np.cumsum([0, *(len(rows) for _, rows in side)]) for side in (here, there)
    ]
    for (i, (split, mine)), (j, (other, others)) in itertools.product(
      enumerate(here), enumerate(there)
    ):
      one, two = pairs.train - ends[0][i], pairs.held - ends[1][j]
      both = (one >= 0) & (one < len(mine)) & (two >= 0) & (two < len(others))
      if not both.any():
        continue
      one, two = mine[one[both]], others[two[both]]
      what = (
        f'training rows that nearly stand in {other.name}, beside'
        f' {len(np.unique(two)):,} of its {len(other.label):,} rows'
      )
      if pairs.passed_over:
        what += (
          f'; there may be more: {pairs.passed_over:,} pairs of words were too'
          ' frequent to be compared by'
        )
      yield findings.Finding(
        'note',
        split.task.name,
        split.split,
        'near overlap',
        what,
        'look at them; leave out those that are the same',
        len(np.unique(one)),
        overlaps.places(split, one, other, two, '≈'),
      )


def _distinct(
  splits: Sequence[keys.Split],
) -> list[tuple[keys.Split, np.ndarray]]:
  """Each split with the first of its rows of each pair of texts."""
  return [
    (split, np.unique(split.in_any_order(), return_index=True)[1])
    for split in splits
  ]
