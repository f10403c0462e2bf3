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
# Name of the rows that a user wants predicted.
INPUT = 'input'
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


def make_uid(task: str, split: str, row: int) -> str:
  """Makes the uid of an example from its row number; see `row_index`.

  >>> make_uid('mrpc', 'dev', 7)
  'mrpc/dev/7'
  """
  return f'{task}/{split}/{row}'


def row_index(uid: str) -> int:
  """Returns the number of an example's row in the raw file, from 0."""
  return int(uid.rpartition('/')[2])


def is_swapped(uid: str) -> bool:
  """Whether a uid belongs to a copy with its two texts swapped."""
  return uid.endswith(SWAP_SUFFIX)


def window_uid(uid: str, number: int) -> str:
  """Makes the uid of a window; window 0 has the example's own uid."""
  return f'{uid}~{number}' if number else uid


class Example(NamedTuple):
  """One labelled or unlabelled example of a task."""

  # `task/split/index`, where index counts the data lines of the raw file. The
  # only key that joins gold labels, teacher logits and predictions.
  uid: str
  text_a: str
  text_b: str | None  # The second text of a pair.
  label: Label | None  # From `Kind.parse`; None if the split has no labels.


class Division(NamedTuple):
  """How the rows of a file are divided between training and development."""

  share: float  # Of the rows that become development rows.
  seed: int = 0
  # Whether rows of one `Row.group` stay on one side; else those of equal texts.
  by_group: bool = False
  # Indices of the development rows that a work directory has recorded; None:
  # they are drawn.
  recorded: frozenset[int] | None = None


@dataclasses.dataclass(frozen=True)
class Table:
  """The file of one split of a task, and how to read it."""

  # Path below `data.dir`, or a pattern such as `train-*.csv`; empty for
  # generated rows.
  file: str = ''
  more_files: tuple[str, ...] = ()  # Files that are read after it.
  other_file: str = ''  # Path that is read if `file` is missing.
  # One text column, or two for a pair: a number from 0 (from the end if
  # negative), or a name in the header or JSON object.
  text: tuple[int | str, ...] = ()
  other_texts: tuple[tuple[str, ...], ...] = ()  # Their alternative names.
  label: int | str | None = None  # None if the split has no labels.
  header: bool = True  # Whether the first line names the columns (TSV, CSV).
  format: str = 'tsv'  # A key of `formats.FORMATS`, or `generated`.
  # Whether rows with a wrong number of columns are skipped and counted. For
  # official files known to hold such rows.
  skip_malformed: bool = False
  # What fields that are not plain texts hold: a list of words, with a tag for
  # each; or answers, with their places in the second text.
  holds: Literal['texts', 'words', 'answers'] = 'texts'
  takes_list: bool = False  # Whether a label may be a list.
  # Of rows that a user wants predicted: its `parse_input` makes their texts.
  input_kind: 'kind_lib.Kind | None' = None
  group: int | str | None = None  # Column that `lines.Row.group` has.
  kept: tuple[str, ...] = ()  # Columns that `lines.Row.kept` has, if there.
  # Labels, as in the file, of rows without one, which are passed over.
  no_label: tuple[str, ...] = ()
  # Of a file whose rows are divided, with the side that this split has.
  division: Division | None = None
  is_development: bool = False
  tfds: str = ''  # TFDS builder and split, `glue/mnli:validation_matched`.
  submission: str = ''  # File name in a GLUE submission.

  def passes_over(self, label: RawLabel | Label | None) -> bool:
    """Whether this raw label means that the row has no label.

    Of a list, one item that is no label is enough.
    """
    if not self.no_label:
      return False
    labels = label if isinstance(label, tuple) else (label,)
    return not {*labels}.isdisjoint(self.no_label)


@dataclasses.dataclass(frozen=True)
class Task:
  """A labelled language task, declared as data."""

  name: str  # Unique; used in uids, file names and reports.
  kind: 'kind_lib.Kind'  # Parses labels, and computes losses and scores.
  # The first one chooses the best checkpoint; GLUE's average is of all.
  metrics: tuple[str, ...]
  paper_metric: str  # The metric in the paper's average.
  tables: Mapping[str, Table]  # By split; one may be `UNLABELLED`.
  # Class labels as in the raw files, in the order of the logits; empty for
  # regression.
  labels: tuple[str, ...] = ()
  # What to do about a row with another label, for messages, if the labels are
  # those of the training rows; empty: the task gives them.
  labels_remedy: str = ''
  # Lowest and highest score of a regression task, which is trained on 0-1.
  scale: tuple[float, float] = (0.0, 1.0)
  train_split: str = 'train'
  dev_splits: tuple[str, ...] = ('dev',)  # The first one is in the averages.
  test_splits: tuple[str, ...] = ('test',)  # Without labels.
  tfds_text: tuple[str, ...] = ()  # Feature names of the texts in TFDS.
  tfds_labels: tuple[str, ...] = ()  # TFDS's names, in the order of `labels`.
  separator: str = ','  # Between labels in a cell that has any number of them.
  in_average: bool = True  # Whether the reported averages include the task.
  # How the loss weighs the labels: `balanced`, or LABEL=NUMBER each.
  class_weights: tuple[str, ...] = ()
  # What `Kind.weigh` makes of them: a number per label, or if each label is a
  # decision of its own, a pair of numbers, of no and of yes. Empty: 1 each.
  target_weights: tuple[float, ...] | tuple[tuple[float, float], ...] = ()
  # What divides logits before they become probabilities, and the probability
  # above which the second of two labels, or each label of several, is
  # predicted; None: the likelier one is. `inference.decisions` fits both.
  temperature: float = 1.0
  threshold: float | None = None
  stride: int = 0  # Tokens between windows; 0: half of a window's room.
  # How outputs of the windows of a long text are joined; empty: such a text is
  # cut, if outputs are per example.
  windows: Literal['', 'mean', 'max'] = ''
  unanswerable: bool = False  # Whether a question may have no answer.
  # Whether the texts of a pair are encoded apart, and their vectors compared.
  is_bi_encoder: bool = False

  def with_head(self, head: str, loss: str = 'squared_error') -> 'Task':
    """Returns the task for `model.regression_head` and `regression_loss`."""
    return dataclasses.replace(self, kind=self.kind.with_head(head, loss))

  @property
  def is_pair(self) -> bool:
    return len(self.tables[self.train_split].text) == 2

  @property
  def has_windows(self) -> bool:
    """Whether a long example becomes several rows, one per window."""
    return self.kind.per_token or bool(self.windows)

  @property
  def num_outputs(self) -> int:
    """Number of logits per example or per token."""
    return len(self.kind.output_names or self.labels)

  @property
  def exported_labels(self) -> tuple[str, ...]:
    """The labels as exported models name them, by what they mean.

    GLUE's 0 and 1 have names in TFDS.
    """
    return self.tfds_labels or self.labels

  @property
  def decision(self) -> dict[str, float | None]:
    """Temperature and threshold, for exported files; empty: neither is set."""
    if (self.temperature, self.threshold) == (1.0, None):
      return {}
    return {'temperature': self.temperature, 'threshold': self.threshold}

  def definition(self) -> dict[str, object]:
    """The fields that define the targets, for fingerprints."""
    own = {name: getattr(self, name) for name in self.kind.own_fields}
    if self.is_bi_encoder:
      own['is_bi_encoder'] = True
    if self.windows:
      own |= {'windows': self.windows, 'stride': self.stride}
    return {
      'name': self.name,
      'kind': self.kind.name,
      'labels': list(self.labels),
      'scale': list(self.scale),
    } | own


class TaskTable:
  """The T tasks of a model in the order of their heads."""

  def __init__(self, tasks: tuple[Task, ...]):
    self.tasks = tuple(tasks)
    self.index = {task.name: i for i, task in enumerate(self.tasks)}
    self.names = tuple(self.index)
    self.kinds = tuple(task.kind for task in self.tasks)
    widths = [task.num_outputs for task in self.tasks]
    # C, the outputs of the widest head, and those of each head, [T, C] bool.
    self.num_outputs = max(widths)
    self.class_mask = np.arange(self.num_outputs) < np.array(widths)[:, None]
    # The heads whose outputs are per token, and K, the outputs of the widest.
    self.token_heads = tuple(
      i for i, kind in enumerate(self.kinds) if kind.per_token
    )
    self.token_outputs = max((widths[i] for i in self.token_heads), default=0)
    # Whether decisions of some task have weights; see `Pooled.example_totals`.
    self.has_totals = any(
      task.class_weights and task.kind.decides_each_label for task in self.tasks
    )
    # The heads of pairs whose texts are encoded apart.
    self.bi_encoder_heads = tuple(
      i for i, task in enumerate(self.tasks) if task.is_bi_encoder
    )

  def __len__(self) -> int:
    return len(self.tasks)

  def __getitem__(self, name: str) -> Task:
    return self.tasks[self.index[name]]
