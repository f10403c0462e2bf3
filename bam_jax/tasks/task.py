"""Declarations of tasks: kind, labels, metrics and files."""

from collections.abc import Mapping
import dataclasses
import typing
from typing import Literal, NamedTuple

import numpy as np

if typing.TYPE_CHECKING:
  from bam_jax.tasks import kind as kind_lib

# `RawLabel` is a label as in the file, `Label` is a parsed label.
Answers = tuple[tuple[str, int], ...]  # Text and position of each answer.
RawLabel = str | tuple[str, ...] | Answers
Label = int | float | tuple[int, ...] | Answers

# Split of rows without labels, on which students learn from teachers.
UNLABELLED = 'unlabelled'
# Split of rows that a user wants predictions for.
INPUT = 'input'
# Split of training rows that are held out for a search or for patience.
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

  # `task/split/index`; the index counts the rows of the raw file. This is the
  # only key that joins gold labels, teacher logits and predictions.
  uid: str
  text_a: str
  text_b: str | None  # The second text of a pair.
  label: Label | None  # From `Kind.parse`; None if the split has no labels.


class Division(NamedTuple):
  """How the rows of a file are divided between training and development."""

  share: float  # Share of the rows that become development rows.
  seed: int = 0
  # If True, rows with the same `Row.group` stay on one side. If False, rows
  # with the same `Kind.division_unit`, such as equal texts, stay on one side.
  by_group: bool = False
  # Indices of the development rows, as recorded in a work directory; None if
  # the development rows are drawn.
  recorded: frozenset[int] | None = None


@dataclasses.dataclass(frozen=True)
class Table:
  """The file of one split of a task, and how to read it."""

  # Path below `data.dir`, or a pattern such as `train-*.csv`; empty for
  # generated rows.
  file: str = ''
  more_files: tuple[str, ...] = ()  # Files that are read after `file`.
  other_file: str = ''  # Path that is read if `file` is missing.
  # One text column, or two for a pair. A column is a number from 0 (from the
  # end if negative), or a name in the header or JSON object.
  text: tuple[int | str, ...] = ()
  other_texts: tuple[tuple[str, ...], ...] = ()  # Alternatives to `text`.
  label: int | str | None = None  # None if the split has no labels.
  header: bool = True  # Whether the first line names the columns (TSV, CSV).
  format: str = 'tsv'  # A key of `formats.FORMATS`, or `generated`.
  # Whether rows with a wrong number of columns are skipped and counted. True
  # for official files that are known to have such rows.
  skip_malformed: bool = False
  # What a row has: only texts; a list of words with a tag for each word; or
  # texts, and answers with their positions in the second text.
  holds: Literal['texts', 'words', 'answers'] = 'texts'
  takes_list: bool = False  # Whether a label may be a list.
  # The kind whose `parse_input` converts the fields of a row to texts. Only set
  # for rows that a user wants predictions for.
  input_kind: 'kind_lib.Kind | None' = None
  group: int | str | None = None  # Column that is read into `lines.Row.group`.
  # Columns that are read into `lines.Row.kept` if the row has them.
  kept: tuple[str, ...] = ()
  # Labels in the file that mean "no label"; rows with such a label are skipped.
  no_label: tuple[str, ...] = ()
  # Only for a file whose rows are divided into training and development rows:
  # how they are divided, and whether this split has the development rows.
  division: Division | None = None
  is_development: bool = False
  tfds: str = ''  # TFDS builder and split, such as `glue/mnli:train`.
  submission: str = ''  # File name in a GLUE submission.

  def skips(self, label: RawLabel | Label | None) -> bool:
    """Whether a row with this raw label is skipped because it has no label.

    A list is skipped if any of its items means "no label".
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
  # The first metric chooses the best checkpoint. GLUE's average uses all
  # metrics that are not in `metrics.OWN_SCALE`.
  metrics: tuple[str, ...]
  paper_metric: str  # The metric in the paper's average.
  tables: Mapping[str, Table]  # By split; may include `UNLABELLED`.
  # Class labels as in the raw files, in the order of the logits; empty for
  # regression.
  labels: tuple[str, ...] = ()
  # Text for an error message: what to do about a row with an unknown label.
  # Only set if the labels were inferred from the training rows; empty if the
  # task declares its labels.
  labels_remedy: str = ''
  # Lowest and highest score of a regression task, which is trained on 0-1.
  scale: tuple[float, float] = (0.0, 1.0)
  train_split: str = 'train'
  # The paper's average uses the first dev split; GLUE's average uses all.
  dev_splits: tuple[str, ...] = ('dev',)
  test_splits: tuple[str, ...] = ('test',)  # Without labels.
  tfds_text: tuple[str, ...] = ()  # Feature names of the texts in TFDS.
  tfds_labels: tuple[str, ...] = ()  # Names in TFDS, in the order of `labels`.
  separator: str = ','  # Between the labels in a cell of a multi-label task.
  in_average: bool = True  # Whether the reported averages include the task.
  # Weights of the labels in the loss: `balanced`, or LABEL=NUMBER entries.
  class_weights: tuple[str, ...] = ()
  # The weights that `Kind.weigh` computes from `class_weights`: a number per
  # label; or a pair of numbers (no, yes) per label, if each label is a separate
  # yes/no decision. Empty if all weights are 1.
  target_weights: tuple[float, ...] | tuple[tuple[float, float], ...] = ()
  # Logits are divided by `temperature` before they become probabilities. The
  # second of two labels, or each label of a multi-label task, is predicted if
  # its probability is above `threshold`. If `threshold` is None, the likelier
  # decision is predicted. `inference.decisions` fits both numbers.
  temperature: float = 1.0
  threshold: float | None = None
  # Tokens between the starts of windows; 0 means half of a window's room for
  # text.
  stride: int = 0
  # How the outputs of a long text's windows are pooled. If `windows` is empty,
  # and outputs are per example, a long text is truncated.
  windows: Literal['', 'mean', 'max'] = ''
  unanswerable: bool = False  # Whether a question may have no answer.
  # Whether the two texts of a pair are encoded separately and then compared as
  # vectors.
  is_bi_encoder: bool = False

  def with_head(self, head: str, loss: str = 'squared_error') -> 'Task':
    """Returns the task with the given regression head and regression loss."""
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
    """Label names in exported models: the names in TFDS, or else `labels`.

    TFDS has words for the labels 0 and 1 of GLUE's files.
    """
    return self.tfds_labels or self.labels

  @property
  def decision(self) -> dict[str, float | None]:
    """Temperature and threshold for exported files; empty if both are unset."""
    if (self.temperature, self.threshold) == (1.0, None):
      return {}
    return {'temperature': self.temperature, 'threshold': self.threshold}

  def definition(self) -> dict[str, object]:
    """Returns the fields that define the targets, for fingerprints."""
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
    # C, the number of outputs of the widest head; and [T, C] bool, whether each
    # head has each output.
    self.num_outputs = max(widths)
    self.class_mask = np.arange(self.num_outputs) < np.array(widths)[:, None]
    # The heads whose outputs are per token; and K, the number of outputs of the
    # widest of these heads.
    self.token_heads = tuple(
      i for i, kind in enumerate(self.kinds) if kind.per_token
    )
    self.token_outputs = max((widths[i] for i in self.token_heads), default=0)
    # Whether any task has weighted yes/no labels; see
    # `PerExample.example_totals`.
    self.has_totals = any(
      task.class_weights and task.kind.decides_each_label for task in self.tasks
    )
    # The heads of tasks whose two texts are encoded separately.
    self.bi_encoder_heads = tuple(
      i for i, task in enumerate(self.tasks) if task.is_bi_encoder
    )

  def __len__(self) -> int:
    return len(self.tasks)

  def __getitem__(self, name: str) -> Task:
    return self.tasks[self.index[name]]
