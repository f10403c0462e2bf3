"""The interface of a kind of task: labels, targets, loss, scores, predictions.

Each kind is one module of this folder, and `kinds.KINDS` lists them. The rest
of the package calls the kind and never asks which one it is.

N rows of features, c outputs of the task.
"""

import abc
from collections.abc import Mapping
from collections.abc import Sequence
import re
from typing import ClassVar
from typing import Literal
from typing import NamedTuple
from typing import Protocol

import numpy as np

from bam_jax import errors
from bam_jax.tasks import export as export_lib
from bam_jax.tasks import task as task_lib

# The other columns of a file of predictions.
_COLUMNS = frozenset({'uid', 'prediction'})
# Names that the texts of any task of texts may stand under.
_TEXT_NAMES = ('text', 'text_pair')
# What no text holds; so Python escapes a byte that is no UTF-8.
_SURROGATE = re.compile('[\ud800-\udfff]')


class Rows(Protocol):
  """What is read of the features of a split; `data.columns` has them."""

  def __len__(self) -> int: ...

  @property
  def uids(self) -> Sequence[str]: ...

  def fixed(self, name: str) -> np.ndarray: ...

  def ragged(self, name: str) -> tuple[np.ndarray, np.ndarray]: ...


class Features(NamedTuple):
  """An example, or a window of one, as token ids.

  Attributes:
    uid: of the example; a swapped copy's ends in `task.SWAP_SUFFIX`, a later
      window's in a number.
    input_ids: [tokens] int32, `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`.
    length_a: tokens of type 0, those up to and including the first `[SEP]`.
    label: as `Kind.target` returns it, or a number per token; nan if there is
      none.
  """

  uid: str
  input_ids: np.ndarray
  length_a: int
  label: float | np.ndarray


class Tokenizer(Protocol):
  """Turns texts into token ids; `data.features.Tokenizer` is the one."""

  cls_id: int
  sep_id: int
  unk_id: int

  def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
    """[tokens] int32 of each text, without special tokens."""

  def encode_with_spans(
    self, texts: Sequence[str]
  ) -> list[tuple[np.ndarray, np.ndarray]]:
    """The same, and [tokens, 2] where each token's characters begin and end."""


class Judged(NamedTuple):
  """Predictions beside gold labels, for measures of their quality.

  Attributes:
    of: `classes`, or `scores` on 0-1.
    predicted: [n, c] natural logarithms of probabilities; or [n] scores.
    gold: [n] class indices, int64; or scores.
  """

  of: Literal['classes', 'scores']
  predicted: np.ndarray
  gold: np.ndarray


class Prediction(NamedTuple):
  """What a model says of one example.

  Attributes:
    uid: of the example.
    text: the prediction as one cell of a table.
    said: the prediction as JSON values by name.
    probabilities: of the task's labels, where the kind has them.
  """

  uid: str
  text: str
  said: Mapping[str, object]
  probabilities: Sequence[float] = ()


class Kind(abc.ABC):
  """A kind of task.

  Attributes:
    name: in a configuration, fingerprints and records.
    metrics: those that a task may have, by name.
    default_metrics: those of a task that names none.
    formats: of files that hold such rows.
    num_texts: columns of text that a declaration may name.
    columns: those of the texts and of the label, where none is named.
    more_fields: of the features: name, type and numbers a row.
    own_fields: fields of `Task` that this kind alone reads.
    has_scale: whether a label is a score on `Task.scale`.
    per_token: whether outputs are per token, not per example.
    can_swap: whether the texts of a pair may be exchanged.
    in_windows: whether what is too long is cut into windows, not off.
    one_class: whether a prediction is one of the task's labels.
    has_probabilities: whether a prediction has a probability of each label.
    head: what makes a score of a logit, `sigmoid` or `linear`; None if the kind
      has no scores.
  """

  name: ClassVar[str]
  metrics: ClassVar[tuple[str, ...]]
  default_metrics: ClassVar[tuple[str, ...]]
  formats: ClassVar[tuple[str, ...]] = ('tsv', 'jsonl')
  num_texts: ClassVar[tuple[int, ...]] = (1, 2)
  columns: ClassVar[tuple[tuple[str, ...], str] | None] = None
  more_fields: ClassVar[tuple[tuple[str, str, int | None], ...]] = ()
  own_fields: ClassVar[tuple[str, ...]] = ()
  has_scale: ClassVar[bool] = False
  per_token: ClassVar[bool] = False
  can_swap: ClassVar[bool] = True
  in_windows: ClassVar[bool] = False
  one_class: ClassVar[bool] = False
  has_probabilities: ClassVar[bool] = False
  head: str | None = None

  def __str__(self) -> str:
    return self.name

  def with_head(self, head: str) -> 'Kind':
    """The kind with the regression head of a model, `sigmoid` or `linear`."""
    del head
    return self

  @abc.abstractmethod
  def fault(
    self, labels: Sequence[str], scale: tuple[float, float]
  ) -> tuple[str, str] | None:
    """The field of a declared task that is wrong, and why; None: none is."""

  @abc.abstractmethod
  def parse(
    self, task: task_lib.Task, value: task_lib.RawLabel, where: str
  ) -> task_lib.Label:
    """A label as it stands in a file, as `task.Example` has it.

    Args:
      task: says which labels, or which scores, there are.
      value: the raw label.
      where: file and line, for the error.

    Raises:
      errors.UserError: a label that the task does not have.
    """

  def num_outputs(self, labels: Sequence[str]) -> int:
    """Logits of an example or token of a task with these labels."""
    return len(labels)

  def label_width(self, task: task_lib.Task) -> int | None:
    """Numbers of a label in the features; None if rows differ."""
    return 1

  @abc.abstractmethod
  def target(
    self, task: task_lib.Task, label: task_lib.Label | None
  ) -> float | np.ndarray:
    """A parsed label as the features keep it; nan where there is none."""

  @abc.abstractmethod
  def is_trainable(self, task: task_lib.Task, rows: Rows) -> np.ndarray:
    """[N] bool: which rows have a label that the task can be trained on."""

  def entries(
    self, task: task_lib.Task, rows: Rows
  ) -> tuple[np.ndarray, np.ndarray]:
    """The one entry of each row's target that is not 0.

    Returns:
      [N] which output it is of, and [N] its value.
    """
    del task
    return np.zeros(len(rows)), np.zeros(len(rows))

  def dense_targets(self, task: task_lib.Task, rows: Rows) -> np.ndarray | None:
    """[N, c] float32 targets, where several entries of each may not be 0."""
    del task, rows
    return None

  @abc.abstractmethod
  def teacher_probs(
    self, logits: np.ndarray, temperature: float, rows: Rows | None = None
  ) -> np.ndarray:
    """What a teacher's logits say, on the scale of the targets.

    Args:
      logits: [N, c] float; or [tokens, c].
      temperature: logits are divided by it (Hinton et al. 2015); above 0.
      rows: that the logits are of; read where these are of tokens.

    Returns:
      float32 of the same shape.
    """

  @abc.abstractmethod
  def score(
    self, task: task_lib.Task, logits: np.ndarray, rows: Rows
  ) -> dict[str, float]:
    """The task's metrics times 100, of the logits of N > 0 rows.

    nan where a metric is undefined.
    """

  @abc.abstractmethod
  def why_undefined(
    self, task: task_lib.Task, metric: str, logits: np.ndarray, rows: Rows
  ) -> str:
    """Why `score` has nan for a metric: a clause that can follow a colon."""

  @abc.abstractmethod
  def unmeasurable(
    self, task: task_lib.Task, labels: Sequence[task_lib.Label]
  ) -> tuple[str, ...]:
    """The task's metrics that can't be measured on rows of such labels.

    A correlation with equal gold labels is undefined, whatever is predicted;
    an F1 without a gold positive is undefined or 0.

    Args:
      task: the task of the rows.
      labels: the different labels that the rows have, as `parse` returns them;
        at least one.
    """

  @abc.abstractmethod
  def outputs(
    self, task: task_lib.Task, logits: np.ndarray, rows: Rows
  ) -> dict[str, np.ndarray]:
    """What a run keeps of its predictions: `uid` and more, [N, ...] each."""

  @abc.abstractmethod
  def kept(
    self, task: task_lib.Task, arrays: Mapping[str, np.ndarray]
  ) -> tuple[np.ndarray, np.ndarray | None]:
    """What tests over examples read of `outputs`.

    Returns:
      Predictions or tallies, [N, ...], and gold, [N]; None: there is none.

    Raises:
      KeyError: an array is missing.
      ValueError: arrays that `outputs` does not make.
    """

  @abc.abstractmethod
  def judged(
    self, task: task_lib.Task, logits: np.ndarray, label: np.ndarray
  ) -> Judged | None:
    """Predictions at temperature 1 beside gold; None: quality is not measured.

    Args:
      task: the task of the rows.
      logits: [N, c].
      label: of the same rows, as in the features.
    """

  def input_names(self, task: task_lib.Task) -> list[tuple[str, ...]]:
    """The names that an input's values may stand under.

    Returns:
      Alternatives; those of the task itself first, last those that an input
      without names is read by.
    """
    common = _TEXT_NAMES[: 2 if task.is_pair else 1]
    own = task.tables[task.train_split].text
    named = all(isinstance(column, str) for column in own)
    return list(dict.fromkeys([own, common] if named else [common]))

  def parse_input(
    self, values: Mapping[str, object], where: str
  ) -> tuple[str, ...]:
    """The texts of an input, as `task.Example` has them.

    Args:
      values: by the names of one alternative of `input_names`.
      where: the input stands, for errors.

    Raises:
      errors.UserError: a value is none that the kind reads.
    """
    return tuple(
      check_text(value, f'{where}: {name!r}') for name, value in values.items()
    )

  @abc.abstractmethod
  def predict(
    self, task: task_lib.Task, logits: np.ndarray, rows: Rows
  ) -> list[Prediction]:
    """What the logits say of each example, in the order of the rows."""

  def texts(
    self, task: task_lib.Task, logits: np.ndarray, rows: Rows
  ) -> dict[str, str]:
    """Predictions as text by uid, in the order of the rows."""
    found = self.predict(task, logits, rows)
    return {prediction.uid: prediction.text for prediction in found}

  def prediction_columns(self, task: task_lib.Task) -> list[str]:
    """The names of the columns beside a prediction: a probability a label.

    Where a label has the name of another column, each is `p(LABEL)`. Empty: the
    kind has no probabilities.
    """
    if not self.has_probabilities:
      return []
    if _COLUMNS.isdisjoint(task.labels):
      return list(task.labels)
    return [f'p({label})' for label in task.labels]

  def probabilities(self, logits: np.ndarray) -> np.ndarray | None:
    """[N, c] of the labels, to stand beside predictions; None: without any."""
    del logits
    return None

  @abc.abstractmethod
  def meaning(self, task: task_lib.Task) -> str:
    """What the outputs mean, for a model card."""

  @abc.abstractmethod
  def usage(self, task: task_lib.Task) -> str:
    """Python that prints a prediction of an exported model, for its card.

    It finds `torch`, and the exported `model` and `tokenizer` of transformers.
    """

  @abc.abstractmethod
  def export(self, task: task_lib.Task) -> export_lib.Export:
    """The head as Hugging Face has it."""


def check_text(value: object, where: str) -> str:
  """A JSON value that is to be a text.

  Raises:
    errors.UserError: it is none.
  """
  if not isinstance(value, str):
    raise errors.UserError(f'{where} is no string; give one')
  if _SURROGATE.search(value):
    # JSON can spell half of a pair, which no tokenizer takes.
    raise errors.UserError(f'{where} holds a lone surrogate; mend it')
  return value
