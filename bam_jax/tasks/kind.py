"""The interface of a kind of task: labels, targets, loss, scores, predictions.

Each kind is one module of this folder, listed in `kinds.KINDS`. Code in other
folders calls the methods of a kind and never checks which kind it is. In
shapes, N is the number of rows of features and c the number of outputs.
"""

import abc
from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import ClassVar, Literal, NamedTuple, Protocol

import numpy as np

from bam_jax import errors
from bam_jax.tasks import class_weights as class_weights_lib
from bam_jax.tasks import metrics as metrics_lib
from bam_jax.tasks import raw_values
from bam_jax.tasks import task as task_lib

# Columns that every file of predictions has.
_COLUMNS = frozenset({'uid', 'prediction'})
# Field names that an input of any task may use for its texts.
_TEXT_NAMES = ('text', 'text_pair')


class Rows(Protocol):
  """The features of one split, read by field; see `data.columns`."""

  def __len__(self) -> int: ...

  @property
  def uids(self) -> Sequence[str]: ...

  def fixed(self, name: str) -> np.ndarray: ...

  def ragged(self, name: str) -> tuple[np.ndarray, np.ndarray]: ...


class NoConstant(Exception):
  """Raised if a task has no constant prediction; the message says why."""


class Features(NamedTuple):
  """An example, or one window of a long example, as token ids."""

  uid: str  # A swapped copy, or a window after the first, has a suffix.
  # [tokens]. One text: [CLS] a [SEP]. A pair: [CLS] a [SEP] b [SEP]; some
  # tokenizers put two [SEP] between the texts. The pair of a bi-encoder:
  # [CLS] a [SEP] [CLS] b [SEP].
  input_ids: np.ndarray
  length_a: int  # Tokens up to and including the [SEP] (one or two) after a.
  label: float | np.ndarray  # From `Kind.encode_label`, or a number per token.


class Tokenizer(Protocol):
  """Turns texts into token ids; see `data.features.Tokenizer`."""

  cls_id: int
  sep_id: int
  unk_id: int
  num_separators: int

  def encode(self, texts: Sequence[str]) -> list[np.ndarray]: ...

  def encode_words(self, words: Sequence[str]) -> list[np.ndarray]: ...

  def encode_with_spans(
    self, texts: Sequence[str]
  ) -> list[tuple[np.ndarray, np.ndarray]]: ...


class Prediction(NamedTuple):
  """The prediction for one example, as a table cell and as JSON values."""

  uid: str
  text: str  # The table cell.
  said: Mapping[str, object]  # The JSON values.
  probabilities: Sequence[float] = ()  # One per label, if the kind has them.

  def as_fields(self) -> list[str]:
    """Returns the prediction and its probabilities as cells of a table."""
    return [self.text, *(f'{p:.4f}' for p in self.probabilities)]


class Decided(NamedTuple):
  """A saved prediction in the form of a parsed label.

  The parts of a prediction are the class, all labels, or the tags of all words.
  """

  label: task_lib.Label
  # Probability of the predicted value of each part; empty if unknown.
  confidence: Sequence[float] = ()


class Kind(abc.ABC):
  """The interface of a kind of task."""

  # Name in configurations, fingerprints and records.
  name: ClassVar[str]
  # What is scored; an allowed metric has this word in `Metric.measures`.
  measures: ClassVar[str]
  # Metrics of a task that does not name any metrics.
  default_metrics: ClassVar[tuple[str, ...]]
  # File formats that can hold rows of this kind.
  formats: ClassVar[tuple[str, ...]] = ('tsv', 'jsonl')
  # Allowed numbers of text columns in the declaration of a task.
  num_texts: ClassVar[tuple[int, ...]] = (1, 2)
  # Names of text columns and label column; None if each task names its own.
  columns: ClassVar[tuple[tuple[str, ...], str] | None] = None
  # Additional fields of the features: name, type, and number of values per row
  # (None if it varies).
  more_fields: ClassVar[tuple[tuple[str, str, int | None], ...]] = ()
  # Fields of `Task` that only this kind reads.
  own_fields: ClassVar[tuple[str, ...]] = ()
  # Names of the outputs; empty if the outputs are the task's labels.
  output_names: ClassVar[tuple[str, ...]] = ()
  # Whether a label is a score on `Task.scale`.
  has_scale: ClassVar[bool] = False
  # Whether outputs are per token, not per example. If so, a long example is
  # split into windows, not truncated.
  per_token: ClassVar[bool] = False
  # Whether a long example may be split into windows whose outputs are pooled;
  # see `Task.windows`.
  joins_windows: ClassVar[bool] = False
  # Content of rows with named fields; see `Table.holds`.
  holds: ClassVar[Literal['texts', 'words', 'answers']] = 'texts'
  # For kinds whose official scorer reads a JSON file id -> value: the row field
  # with the id, and the key of `Prediction.said` with the value.
  by_id: ClassVar[tuple[str, str] | None] = None
  # Whether the words of a text are tokenised one by one.
  of_words: ClassVar[bool] = False
  # Whether a prediction is one of the task's labels.
  one_class: ClassVar[bool] = False
  # Whether a task's labels may be inferred from its training rows.
  infers_labels: ClassVar[bool] = False
  # Whether the label of a row may be a list of labels.
  takes_list: ClassVar[bool] = False
  # Whether a prediction has a probability for each label.
  has_probabilities: ClassVar[bool] = False
  # Whether the loss may weight the labels; if so, `label_counts` is defined.
  has_class_weights: ClassVar[bool] = False
  # Whether each label is a separate decision between yes and no.
  decides_each_label: ClassVar[bool] = False
  # Class name of an exported model, without the prefix of the model family, and
  # the name of the head's linear layer.
  architecture: ClassVar[str] = 'ForSequenceClassification'
  head_layer: ClassVar[str] = 'classifier'
  # Pipeline tag of exported models on the Hugging Face Hub.
  pipeline: ClassVar[str] = 'text-classification'
  # Value of `problem_type` in the config.json of an exported model, or ''.
  problem_type: ClassVar[str] = ''
  # `sigmoid` or `linear` if outputs are scores, else None.
  head: str | None = None

  def __str__(self) -> str:
    return self.name

  @property
  def metrics(self) -> tuple[str, ...]:
    """Names of the metrics that a task of this kind may have."""
    metrics = metrics_lib.METRICS.items()
    return tuple(name for name, m in metrics if self.measures in m.measures)

  def with_head(self, head: str, loss: str = 'squared_error') -> 'Kind':
    """Returns this kind, with the given head and loss if it is regression."""
    return self

  @abc.abstractmethod
  def fault(self, labels: Sequence[str], scale: tuple[float, float]) -> str:
    """Checks a task's labels and scale; returns `FIELD: mistake`, or ''."""

  @abc.abstractmethod
  def parse(
    self, task: task_lib.Task, value: task_lib.RawLabel, where: str
  ) -> task_lib.Label:
    """Parses a label from a file; `where` names the file and the line.

    Raises:
      errors.UserError: the task has no such label.
    """

  def label_names(
    self, task: task_lib.Task, value: task_lib.RawLabel
  ) -> Sequence[str]:
    """Returns the labels in one label cell, for kinds with `infers_labels`."""
    raise NotImplementedError

  def division_unit(self, texts: tuple[str, ...]) -> tuple[str, ...]:
    """Returns a key; rows with equal keys all go to training, or all to dev."""
    return tuple(sorted(texts))

  def label_width(self, task: task_lib.Task) -> int | None:
    """Number of values per label in the features; None if it varies."""
    return 1

  @abc.abstractmethod
  def encode_label(
    self, task: task_lib.Task, label: task_lib.Label | None
  ) -> float | np.ndarray:
    """Converts a parsed label to numbers for the features; None becomes nan."""

  @abc.abstractmethod
  def is_trainable(self, task: task_lib.Task, rows: Rows) -> np.ndarray:
    """Finds the rows whose labels can be trained on, [N] bool."""

  def label_counts(self, task: task_lib.Task, rows: Rows) -> np.ndarray:
    """Counts gold labels per class, [c], or no and yes per label, [c, 2]."""
    raise NotImplementedError

  def weigh(self, task: task_lib.Task, rows: Rows) -> task_lib.Task:
    """Returns the task with `target_weights` computed from its class weights.

    `rows` are the training rows, whose labels are counted for `balanced`. The
    returned task has weighted targets and constant losses. If each label is a
    separate yes/no decision, the declared weights apply to yes only.
    """
    if not task.class_weights:
      return task
    counts = self.label_counts(task, rows)
    if task.class_weights == (class_weights_lib.BALANCED,):
      weights = class_weights_lib.balance(counts)
    else:
      given = class_weights_lib.parse(task.class_weights, task.labels)
      weights = np.ones(counts.shape)
      yes = weights if counts.ndim == 1 else weights[:, 1]
      yes[:] = [given.get(label, 1.0) for label in task.labels]
    weights = weights.tolist()
    if counts.ndim == 2:
      weights = map(tuple, weights)
    return dataclasses.replace(task, target_weights=tuple(weights))

  @abc.abstractmethod
  def teacher_probs(
    self, logits: np.ndarray, temperature: float, rows: Rows | None = None
  ) -> np.ndarray:
    """Turns a teacher's logits into probabilities, or scores on 0-1.

    The logits are divided by the temperature (Hinton et al. 2015). Logits per
    token, [tokens, c], may need their `rows`; logits per example, [N, c], never
    do. The result is float32 and has the shape of the logits.
    """

  @abc.abstractmethod
  def constant_loss(self, task: task_lib.Task, rows: Rows) -> float:
    """Mean loss of a constant prediction minus mean loss of a perfect one.

    The constant is the mean gold target. If all labels are equal, this is 0.
    """

  @abc.abstractmethod
  def constant_logits(
    self, task: task_lib.Task, train: Rows, rows: Rows
  ) -> np.ndarray:
    """Returns constant logits for rows, [N, c], or for tokens, [tokens, c].

    The float32 logits predict the most frequent label, or the mean score, of
    the training rows `train`.

    Raises:
      NoConstant: the task has no constant prediction.
    """

  def join_windows(
    self, task: task_lib.Task, logits: np.ndarray, rows: Rows
  ) -> tuple[Sequence[str], np.ndarray, np.ndarray]:
    """Pools the logits of each example's windows by `Task.windows`.

    If `Task.windows` is empty, each row is one example; nothing is pooled.

    Returns:
      The uids of the M examples; their logits, [M, c] (log-probabilities if
      classes are pooled); and the index of each example's first row, [M] int64.
    """
    return rows.uids, logits, np.arange(len(rows.uids))

  @abc.abstractmethod
  def measure(
    self, task: task_lib.Task, logits: np.ndarray, rows: Rows
  ) -> metrics_lib.Measured:
    """Returns the inputs of the metrics for the given rows."""

  def score(
    self, task: task_lib.Task, logits: np.ndarray, rows: Rows
  ) -> dict[str, float]:
    """Computes the task's metrics times 100, by name; nan where undefined."""
    return metrics_lib.compute(task.metrics, self.measure(task, logits, rows))

  def is_positive(self, task: task_lib.Task, label: task_lib.Label) -> bool:
    """Whether a parsed gold label counts as a positive in F1."""
    return label == 1

  def unmeasurable_metrics(
    self, task: task_lib.Task, labels: Sequence[task_lib.Label]
  ) -> tuple[str, ...]:
    """Returns metrics that are undefined or always 0 with these gold labels.

    A correlation needs two different labels; an F1 needs a positive.
    """
    has = {
      '': True,
      'variety': len(labels) > 1,
      'label': any(label != () for label in labels),
      'positive': any(self.is_positive(task, label) for label in labels),
    }
    needs = {name: metrics_lib.METRICS[name].needs for name in task.metrics}
    return tuple(name for name in task.metrics if not has[needs[name]])

  @abc.abstractmethod
  def outputs(
    self, task: task_lib.Task, logits: np.ndarray, rows: Rows
  ) -> dict[str, np.ndarray]:
    """Returns the arrays that a run saves: `uid` and more, most per example."""

  @abc.abstractmethod
  def read_outputs(
    self, task: task_lib.Task, arrays: Mapping[str, np.ndarray]
  ) -> metrics_lib.Measured:
    """Reads the inputs of the metrics from saved `outputs`.

    Gold labels or class scores that are missing become None.

    Raises:
      KeyError: an array is missing.
      ValueError: an array has a wrong shape or type.
    """

  @abc.abstractmethod
  def decided(
    self, task: task_lib.Task, arrays: Mapping[str, np.ndarray]
  ) -> list[Decided]:
    """Reads each example's prediction from saved `outputs`.

    Raises:
      KeyError, ValueError: see `read_outputs`.
    """

  def contradiction(
    self, task: task_lib.Task, decided: Decided, label: task_lib.Label
  ) -> float | None:
    """Returns how strongly prediction and label disagree; None if they agree.

    The strength is the highest confidence among the parts that differ, 0-1, or
    nan if the confidence is unknown. For scores, the strength is the distance
    between prediction and label on 0-1.
    """
    parts = self.differing_parts(task, decided.label, label)
    if not parts:
      return None
    if not decided.confidence:
      return math.nan
    return max(decided.confidence[part] for part in parts)

  def differing_parts(
    self, task: task_lib.Task, label: task_lib.Label, other: task_lib.Label
  ) -> Sequence[int]:
    """Returns the parts in which two labels differ; see `Decided`."""
    return [] if label == other else [0]

  def label_value(
    self, task: task_lib.Task, label: task_lib.Label
  ) -> str | float | list[str]:
    """Converts a parsed label to a JSON value, spelled as in data files."""
    return task.labels[label]

  def quality_inputs(
    self, task: task_lib.Task, logits: np.ndarray, label: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns predictions and gold labels for measuring a teacher's quality.

    Returns:
      [n, c] log-probabilities and [n] int64 class indices; or [n] scores on 0-1
      and [n] gold scores; or None if the kind has no measure of quality.
    """
    return None

  def input_names(self, task: task_lib.Task) -> list[tuple[str, ...]]:
    """Returns the alternative lists of field names that an input may use.

    If an input has values without names, the last list names these values.
    """
    common = _TEXT_NAMES[: 2 if task.is_pair else 1]
    own = task.tables[task.train_split].text
    named = all(isinstance(column, str) for column in own)
    return list(dict.fromkeys([own, common] if named else [common]))

  def parse_input(
    self, values: Mapping[str, object], where: str
  ) -> tuple[str, ...]:
    """Converts the fields of an input to the texts of an example.

    Raises:
      errors.UserError: all values are empty, or the kind cannot read a value;
        the message starts with `where`.
    """
    texts = tuple(
      raw_values.check_text(value, f'{where}: {name!r}')
      for name, value in values.items()
    )
    if not any(text.strip() for text in texts):
      names = ' and '.join(map(repr, values))
      raise errors.UserError(
        f'{where}: {names} {"is" if len(texts) == 1 else "are"} empty; give a'
        ' text'
      )
    return texts

  @abc.abstractmethod
  def predict(
    self, task: task_lib.Task, logits: np.ndarray, rows: Rows
  ) -> list[Prediction]:
    """Turns logits into one prediction per example, in the order of rows."""

  def prediction_columns(
    self, task: task_lib.Task, others: Sequence[str] = ()
  ) -> list[str]:
    """Names of the probability columns in a file of predictions.

    The names are the labels. If any label equals the name of another column
    (`uid`, `prediction` or one of `others`), all columns are named p(LABEL).
    """
    if not self.has_probabilities:
      return []
    if {*_COLUMNS, *others}.isdisjoint(task.labels):
      return list(task.labels)
    return [f'p({label})' for label in task.labels]

  @abc.abstractmethod
  def meaning(self, task: task_lib.Task) -> str:
    """Explains the outputs for a model card."""

  @abc.abstractmethod
  def usage(self, task: task_lib.Task) -> str:
    """Returns Python code for a model card that prints a prediction.

    The code uses `torch`, and `model` and `tokenizer` of transformers.
    """

  def export_settings(self, task: task_lib.Task) -> dict[str, object]:
    """Returns entries for the config.json of an exported model."""
    names = self.output_names or task.exported_labels
    problem = {'problem_type': self.problem_type} if self.problem_type else {}
    if task.decision:
      problem['decision'] = task.decision
    return problem | {
      'id2label': {str(i): name for i, name in enumerate(names)},
      'label2id': {name: i for i, name in enumerate(names)},
    }
