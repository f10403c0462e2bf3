"""Multi-label tasks: any number of labels per example, each with a sigmoid."""

from collections.abc import Mapping, Sequence
import contextlib
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.special

from bam_jax import errors
from bam_jax import escape
from bam_jax.tasks import classification
from bam_jax.tasks import joined_labels
from bam_jax.tasks import kind
from bam_jax.tasks import kind_bases
from bam_jax.tasks import task as task_lib


class Multilabel(kind_bases.PerExample):
  """Tasks with any number of labels per example; targets are 0 or 1."""

  name = 'multilabel'
  measures = 'labels'
  default_metrics = ('micro_f1', 'macro_f1')
  has_probabilities = True
  has_class_weights = True
  decides_each_label = True
  infers_labels = True
  takes_list = True
  problem_type = 'multi_label_classification'

  def fault(self, labels: Sequence[str], scale: tuple[float, float]) -> str:
    if len(set(labels)) == len(labels) >= 1:
      return ''
    return f'labels: {labels} must be different labels, as in the files'

  def label_names(
    self, task: task_lib.Task, value: task_lib.RawLabel
  ) -> Sequence[str]:
    return _names(task, value) if isinstance(value, str) else value

  def label_width(self, task: task_lib.Task) -> int:
    return task.num_outputs

  def parse(
    self, task: task_lib.Task, value: task_lib.RawLabel, where: str
  ) -> tuple[int, ...]:
    """Parses a list of labels, or a text of labels joined by the separator.

    If `joined_labels.needs_list`, the text may also be a JSON list.

    Returns:
      The label indices, ascending.
    """
    names = value
    if isinstance(value, str):
      names = _names(task, value)
      _check_separator(task, names, where)
    found = sorted(
      classification.label_index(task, name, where) for name in names
    )
    for one, other in itertools.pairwise(found):
      if one == other:
        raise errors.UserError(
          f'{where}: label {task.labels[one]!r} is given twice; remove one'
        )
    return tuple(found)

  def encode_label(
    self, task: task_lib.Task, label: tuple[int, ...] | None
  ) -> np.ndarray:
    """Returns 0 or 1 for each of the task's labels, [c] float32."""
    if label is None:
      return np.full(task.num_outputs, np.nan, np.float32)
    return np.isin(np.arange(task.num_outputs), label).astype(np.float32)

  def is_trainable(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    return np.isin(_labels(task, rows), (0, 1)).all(-1)

  def example_targets(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    labels = _labels(task, rows)
    if task.target_weights:
      _, yes = np.transpose(task.target_weights).astype(np.float32)
      return labels * yes
    return labels

  def example_totals(
    self, task: task_lib.Task, rows: kind.Rows
  ) -> np.ndarray | None:
    if not task.target_weights:
      return None
    no, yes = np.transpose(task.target_weights).astype(np.float32)
    return np.where(_labels(task, rows) == 1, yes, no)

  def label_counts(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    yes = _labels(task, rows).sum(0, dtype=np.float64)
    return np.stack([len(rows) - yes, yes], axis=-1)

  def teacher_probs(
    self, logits: np.ndarray, temperature: float, rows: kind.Rows | None = None
  ) -> np.ndarray:
    logits = np.asarray(logits, np.float64)
    return scipy.special.expit(logits / temperature).astype(np.float32)

  def loss(
    self,
    logits: jax.Array,
    target: jax.Array,
    class_mask: jax.Array,
    total: jax.Array | None = None,
  ) -> jax.Array:
    """Binary cross-entropy of a sigmoid, averaged over the labels."""
    if total is None:
      each = optax.sigmoid_binary_cross_entropy(logits, target)
    else:
      each = -target * jax.nn.log_sigmoid(logits)
      each -= (total - target) * jax.nn.log_sigmoid(-logits)
    return jnp.mean(each, axis=-1, where=class_mask)

  def constant_loss(self, task: task_lib.Task, rows: kind.Rows) -> float:
    totals = self.example_totals(task, rows)
    if totals is not None:
      yes = self.example_targets(task, rows)
      both = np.stack([yes, totals - yes], axis=-1).mean(0, np.float64)
      return float(kind_bases.constant_cross_entropy(both).mean())
    share = _labels(task, rows).mean(0, dtype=np.float64)
    return float(kind_bases.entropy(np.stack([share, 1 - share], -1)).mean())

  def constant_logits(
    self, task: task_lib.Task, train: kind.Rows, rows: kind.Rows
  ) -> np.ndarray:
    """Predicts the labels that more than half of the training rows have."""
    no, yes = self.label_counts(task, train).T
    logits = np.log1p(yes) - np.log1p(no)
    return np.tile(logits.astype(np.float32), (len(rows), 1))

  def predictions(self, task: task_lib.Task, logits: np.ndarray) -> np.ndarray:
    logits = logits[:, : task.num_outputs]
    if task.threshold is None:
      return (logits > 0).astype(np.int64)
    probs = scipy.special.expit(logits / task.temperature)
    return (probs > task.threshold).astype(np.int64)

  def gold(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    return _labels(task, rows)

  def class_scores(self, task: task_lib.Task, logits: np.ndarray) -> np.ndarray:
    return np.asarray(logits, np.float64)[:, : task.num_outputs]

  def is_positive(self, task: task_lib.Task, label: tuple[int, ...]) -> bool:
    return bool(label)

  def decided(
    self, task: task_lib.Task, arrays: Mapping[str, np.ndarray]
  ) -> list[kind.Decided]:
    logits = arrays['logits']
    chosen = self.predictions(task, logits)
    found = map(_indices, chosen)
    if kind_bases.are_decisions(logits):
      return list(map(kind.Decided, found))
    yes = self.teacher_probs(logits, 1.0)
    probs = np.where(chosen, yes, 1 - yes).tolist()
    return [kind.Decided(*each) for each in zip(found, probs)]

  def differing_parts(
    self, task: task_lib.Task, label: tuple[int, ...], other: tuple[int, ...]
  ) -> list[int]:
    return sorted({*label} ^ {*other})

  def label_value(
    self, task: task_lib.Task, label: tuple[int, ...]
  ) -> list[str]:
    return [task.labels[i] for i in label]

  def quality_inputs(
    self, task: task_lib.Task, logits: np.ndarray, label: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns the probability and the gold value of each label of each row.

    Both arrays are flat, [N c]. A gold value is 0 or 1.
    """
    return self.teacher_probs(logits, 1.0).ravel(), np.ravel(label)

  def predict_examples(
    self, task: task_lib.Task, logits: np.ndarray, uids: Sequence[str]
  ) -> list[kind.Prediction]:
    """Predicts `labels`, and `probabilities` of all labels."""
    found = []
    predicted = self.predictions(task, logits)
    for uid, chosen in zip(uids, predicted, strict=True):
      labels = [task.labels[i] for i in np.flatnonzero(chosen)]
      text = joined_labels.join_labels(labels, task, task.separator)
      found.append(kind.Prediction(uid, text, {'labels': labels}))
    probs = scipy.special.expit(logits / task.temperature)
    return kind_bases.with_probabilities(task, found, probs)

  def meaning(self, task: task_lib.Task) -> str:
    names = ', '.join(map(escape.code, task.labels))
    logit = 'logit'
    if task.temperature != 1.0:
      logit += f' / {task.temperature:.4g}'
    text = f'sigmoid({logit}) is the probability of each of {names}'
    if task.threshold is not None:
      text += f'; those above {task.threshold:.4g} are predicted'
    return text

  def print_logits(self, task: task_lib.Task) -> str:
    logits = 'logits'
    if task.temperature != 1.0:
      logits = f'(logits / {task.temperature})'
    threshold = 0.5 if task.threshold is None else task.threshold
    return (
      'labels = model.config.id2label\n'
      f'probs = {logits}.sigmoid()\n'
      f'print([labels[i] for i, x in enumerate(probs) if x > {threshold}])'
    )


def _names(task: task_lib.Task, text: str) -> list[str]:
  """Splits a text into label names, which may be unknown labels."""
  if text.startswith('[') and joined_labels.needs_list(task, task.separator):
    with contextlib.suppress(ValueError, RecursionError):
      return list(map(str, json.loads(text)))
  return joined_labels.split_cell(text, task.separator)


def _check_separator(
  task: task_lib.Task, names: Sequence[str], where: str
) -> None:
  """Raises a `UserError` if a cell seems to use the wrong separator."""
  for name in {*names}.difference(task.labels):
    mark, joined = joined_labels.find_joined([name, *task.labels])
    if name in joined:
      raise errors.UserError(
        f'{where}: {name!r} is several labels, joined by {mark!r}; set'
        f' config.custom_tasks.{task.name}.separator={mark!r}'
      )


def _indices(chosen: np.ndarray) -> tuple[int, ...]:
  return tuple(np.flatnonzero(chosen).tolist())


def _labels(task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
  """Returns the labels as 0 and 1, [N, c]; nan if a row has no labels."""
  return np.asarray(rows.fixed('label')).reshape(-1, task.num_outputs)
