"""Declarations of tasks: kind, labels, metrics and files."""

from collections.abc import Mapping
import dataclasses
import typing
from typing import Literal, NamedTuple

import numpy as np

if typing.TYPE_CHECKING:
  from bam_jax.tasks import kind as kind_lib

# A label in a file, and a parsed one.
Answers = tuple[tuple[str, int], ...]  # Texts, and their first characters.
RawLabel = str | tuple[str, ...] | Answers
Label = int | float | tuple[int, ...] | Answers

# Name of the split without labels that students learn from teachers.
UNLABELLED = 'unlabelled'
# Name of the training rows that a search scores its runs on.
HELD_OUT = 'held_out'

# The part of a uid after `~` distinguishes copies and windows of an example.
SWAP_SUFFIX = '~swap'


def example_uid(uid: str) -> str:
  """Returns the uid of an example from the uid of a copy or window.

  >>> example_uid('mrpc/train/7~swap'), example_uid('squad/dev/3~1')
  ('mrpc/train/7', 'squad/dev/3')
  """
  return uid.partition('~')[0]


def is_swapped(uid: str) -> bool:
  """Whether a uid belongs to a copy with its two texts swapped."""
  return uid.endswith(SWAP_SUFFIX)


def window_uid(uid: str, number: int) -> str:
  """Makes the uid of a window; window 0 has the example's own uid."""
  return f'{uid}~{number}' if number else uid


class Example(NamedTuple):
  """One labelled or unlabelled example of a task.

  Attributes:
    uid: `task/split/index`, where index counts the data lines of the raw file.
      The only key that joins gold labels, teacher logits and predictions.
    text_a: the first text.
    text_b: the second text of a pair, else None.
    label: class index, score on the task's own scale, indices of all labels or
      of each word's tag, or answers; None if the split has no labels.
  """

  uid: str
  text_a: str
  text_b: str | None
  label: Label | None


@dataclasses.dataclass(frozen=True)
class Table:
  """The file of one split of a task, and how to read it.

  Attributes:
    file: path below `data.dir`; empty for generated rows.
    other_file: path that is read if `file` is missing.
    text: one column, or two for a pair: a number from 0 (from the end if
      negative), or a name in the header or JSON object.
    other_text: alternative names of the text columns.
    label: the label's column; None if the split has no labels.
    header: whether the first line names the columns (TSV only).
    format: `tsv`, `jsonl`, `conll`, `squad` or `generated`.
    skip_malformed: whether rows with a wrong number of columns are skipped and
      counted. For official files known to hold such rows.
    tfds: TFDS builder and split, `glue/mnli:validation_matched`.
    submission: file name in a GLUE submission.
  """

  file: str = ''
  other_file: str = ''
  text: tuple[int | str, ...] = ()
  other_text: tuple[str, ...] = ()
  label: int | str | None = None
  header: bool = True
  format: Literal['tsv', 'jsonl', 'conll', 'squad', 'generated'] = 'tsv'
  skip_malformed: bool = False
  tfds: str = ''
  submission: str = ''


@dataclasses.dataclass(frozen=True)
class Task:
  """A labelled language task, declared as data.

  Attributes:
    name: unique name, used in uids, file names and reports.
    kind: parses labels, and computes losses and scores.
    labels: class labels as in the raw files, in the order of the logits; empty
      for regression.
    scale: lowest and highest score of a regression task; trained on 0-1.
    metrics: the first one decides which checkpoint is best.
    paper_metric: the metric in the paper's average.
    glue_metrics: the metrics whose mean is in GLUE's own average.
    tables: split name -> Table; one may be `UNLABELLED`.
    train_split: the split trained on.
    dev_splits: the splits scored; the first one is in the averages.
    test_splits: unlabelled splits that can be predicted.
    tfds_text: feature names of the texts in TFDS.
    tfds_labels: TFDS's label names in the order of `labels`.
    in_average: whether the reported averages include the task.
    stride: tokens from one window to the next; 0: half of a window's room.
    unanswerable: whether a question may have no answer.
  """

  name: str
  kind: 'kind_lib.Kind'
  metrics: tuple[str, ...]
  paper_metric: str
  glue_metrics: tuple[str, ...]
  tables: Mapping[str, Table]
  labels: tuple[str, ...] = ()
  scale: tuple[float, float] = (0.0, 1.0)
  train_split: str = 'train'
  dev_splits: tuple[str, ...] = ('dev',)
  test_splits: tuple[str, ...] = ('test',)
  tfds_text: tuple[str, ...] = ()
  tfds_labels: tuple[str, ...] = ()
  in_average: bool = True
  stride: int = 0
  unanswerable: bool = False

  def with_head(self, head: str, loss: str = 'squared_error') -> 'Task':
    """Returns the task for `model.regression_head` and `regression_loss`."""
    return dataclasses.replace(self, kind=self.kind.with_head(head, loss))

  @property
  def is_pair(self) -> bool:
    return len(self.tables[self.train_split].text) == 2

  @property
  def num_outputs(self) -> int:
    """Number of logits per example or per token."""
    return len(self.kind.output_names or self.labels)

  def definition(self) -> dict[str, object]:
    """The fields that decide the targets, for fingerprints."""
    own = {name: getattr(self, name) for name in self.kind.own_fields}
    return {
      'name': self.name,
      'kind': self.kind.name,
      'labels': list(self.labels),
      'scale': list(self.scale),
    } | own


class TaskTable:
  """The T tasks of a model in the order of their heads.

  C outputs of the widest head, K of the widest head per token.
  """

  def __init__(self, tasks: tuple[Task, ...]):
    self.tasks = tuple(tasks)
    self.index = {task.name: i for i, task in enumerate(self.tasks)}
    self.num_outputs = max(task.num_outputs for task in self.tasks)

  def __len__(self) -> int:
    return len(self.tasks)

  def __getitem__(self, name: str) -> Task:
    return self.tasks[self.index[name]]

  @property
  def names(self) -> tuple[str, ...]:
    return tuple(self.index)

  @property
  def class_mask(self) -> np.ndarray:
    """The outputs that each head has, [T, C] bool."""
    widths = np.array([task.num_outputs for task in self.tasks])
    return np.arange(self.num_outputs) < widths[:, None]

  @property
  def token_heads(self) -> tuple[int, ...]:
    """Numbers of the heads whose outputs are per token."""
    return tuple(i for i, task in enumerate(self.tasks) if task.kind.per_token)

  @property
  def token_outputs(self) -> int:
    """K, the outputs of the widest per-token head; 0 if there is none."""
    widths = [task.num_outputs for task in self.tasks if task.kind.per_token]
    return max(widths, default=0)

  @property
  def kinds(self) -> 'tuple[kind_lib.Kind, ...]':
    """The kinds of the tasks, in their order."""
    return tuple(task.kind for task in self.tasks)
