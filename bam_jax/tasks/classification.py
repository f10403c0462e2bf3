"""Classification: one label per example, from a softmax over the labels."""

from collections.abc import Mapping, Sequence
import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from bam_jax import errors
from bam_jax import escape
from bam_jax.tasks import kind
from bam_jax.tasks import kind_bases
from bam_jax.tasks import raw_values
from bam_jax.tasks import task as task_lib


class Classification(kind_bases.PerExample):
  """Tasks with exactly one label per example; the target is one-hot."""

  name = 'classification'
  measures = 'classes'
  default_metrics = ('accuracy',)
  one_class = True
  has_class_weights = True
  infers_labels = True
  has_probabilities = True
  problem_type = 'single_label_classification'
  torch_scores = '.log_softmax(-1)'

  def fault(self, labels: Sequence[str], scale: tuple[float, float]) -> str:
    if len(set(labels)) == len(labels) >= 2:
      return ''
    return f'labels: {labels} must be two or more different labels'

  def label_names(self, task: task_lib.Task, value: str) -> tuple[str, ...]:
    return (value,)

  def parse(self, task: task_lib.Task, value: str, where: str) -> int:
    return label_index(task, value, where)

  def encode_label(self, task: task_lib.Task, label: int | None) -> float:
    return math.nan if label is None else float(label)

  def is_trainable(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    return np.isin(rows.fixed('label'), np.arange(task.num_outputs))

  def example_targets(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    return one_hot(self.gold(task, rows), task)

  def label_counts(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    return np.bincount(self.gold(task, rows), minlength=task.num_outputs)

  def teacher_probs(
    self, logits: np.ndarray, temperature: float, rows: kind.Rows | None = None
  ) -> np.ndarray:
    """Returns the probability of each class.

    >>> teacher_probs = Classification().teacher_probs
    >>> teacher_probs(np.log([[1.0, 9.0]]), temperature=2.0).tolist()
    [[0.25, 0.75]]
    """
    return softmax(logits, temperature)

  def loss(
    self, logits: jax.Array, target: jax.Array, class_mask: jax.Array
  ) -> jax.Array:
    """Soft cross-entropy over the head's outputs."""
    log_probs = masked_log_softmax(logits, class_mask)  # [B, S, C]
    return -jnp.sum(target * log_probs, axis=-1)

  def constant_loss(self, task: task_lib.Task, rows: kind.Rows) -> float:
    shares = self.example_targets(task, rows).mean(0, np.float64)
    if task.target_weights:
      return float(kind_bases.constant_cross_entropy(shares))
    return float(kind_bases.entropy(shares))

  def constant_logits(
    self, task: task_lib.Task, train: kind.Rows, rows: kind.Rows
  ) -> np.ndarray:
    """Predicts the most frequent label of the training rows."""
    counts = self.label_counts(task, train)
    return np.tile(np.log1p(counts).astype(np.float32), (len(rows), 1))

  def predictions(self, task: task_lib.Task, logits: np.ndarray) -> np.ndarray:
    logits = np.asarray(logits)[:, : task.num_outputs]
    if task.threshold is None:
      return np.argmax(logits, axis=-1)
    probs = scipy.special.softmax(logits / task.temperature, axis=-1)
    return (probs[:, 1] > task.threshold).astype(np.int64)

  def class_scores(self, task: task_lib.Task, logits: np.ndarray) -> np.ndarray:
    logits = np.asarray(logits, np.float64)[:, : task.num_outputs]
    return scipy.special.log_softmax(logits, axis=-1)

  def window_scores(
    self, task: task_lib.Task, logits: np.ndarray
  ) -> np.ndarray:
    """Returns log-probabilities, because logits have an arbitrary offset."""
    return self.class_scores(task, logits)

  def gold(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    return np.asarray(rows.fixed('label')).astype(np.int64)

  def decided(
    self, task: task_lib.Task, arrays: Mapping[str, np.ndarray]
  ) -> list[kind.Decided]:
    logits = arrays['logits']
    found = map(int, self.predictions(task, logits))
    if kind_bases.are_decisions(logits):
      return list(map(kind.Decided, found))
    probs = self.teacher_probs(logits, 1.0).max(-1).tolist()
    return [kind.Decided(*each) for each in zip(found, zip(probs))]

  def quality_inputs(
    self, task: task_lib.Task, logits: np.ndarray, label: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    label = np.asarray(label).astype(np.int64)
    return self.class_scores(task, logits), label

  def predict_examples(
    self, task: task_lib.Task, logits: np.ndarray, uids: Sequence[str]
  ) -> list[kind.Prediction]:
    """Predicts `label`, and `probabilities` of all labels."""
    labels = [task.labels[i] for i in self.predictions(task, logits)]
    found = [
      kind.Prediction(uid, label, {'label': label})
      for uid, label in zip(uids, labels, strict=True)
    ]
    probs = scipy.special.softmax(logits / task.temperature, axis=-1)
    return kind_bases.with_probabilities(task, found, probs)

  def meaning(self, task: task_lib.Task) -> str:
    names = [escape.code(label) for label in task.exported_labels]
    text = 'logits of ' + ', '.join(names)
    if task.temperature != 1.0:
      text += f'; softmax(logits / {task.temperature:.4g}) are probabilities'
    if task.threshold is not None:
      text += (
        f'; {names[1]} is predicted above a probability of {task.threshold:.4g}'
      )
    return text

  def print_logits(self, task: task_lib.Task) -> str:
    if not task.decision:
      return 'print(model.config.id2label[logits.argmax().item()])'
    best = 'probs.argmax().item()'
    if task.threshold is not None:
      best = f'int(probs[1] > {task.threshold})'
    return (
      f'probs = (logits / {task.temperature}).softmax(-1)\n'
      f'print(model.config.id2label[{best}], probs.tolist())'
    )


def masked_log_softmax(logits: jax.Array, mask: jax.Array) -> jax.Array:
  """Log-softmax over the last axis, restricted to the outputs in a mask.

  Args:
    logits: [..., C].
    mask: [..., C] bool; at least one of the C outputs must be True.

  Returns:
    [..., C] log-probabilities. They are 0 where `mask` is False, because -inf
    times a target of 0 would be nan.
  """
  log_probs = jax.nn.log_softmax(jnp.where(mask, logits, -jnp.inf))
  return jnp.where(mask, log_probs, 0.0)


def one_hot(label: np.ndarray, task: task_lib.Task) -> np.ndarray:
  """Converts class indices [N] to one-hot gold targets, [N, c] float32.

  If the task has `target_weights`, each target is multiplied by the weight of
  its class.
  """
  targets = label[:, None] == np.arange(task.num_outputs)
  if task.target_weights:
    targets = targets * np.array(task.target_weights)
  return targets.astype(np.float32)


def softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
  """Returns softmax(logits / temperature) as float32, computed in float64."""
  logits = np.asarray(logits, np.float64)
  result = scipy.special.softmax(logits / temperature, axis=-1)
  return result.astype(np.float32)


def label_index(task: task_lib.Task, value: str, where: str) -> int:
  """Returns the index of a label in `task.labels`.

  Raises:
    errors.UserError: the task does not have the label.
  """
  if value not in task.labels:
    remedy = f'fix the row or the labels of task {task.name!r}'
    raise errors.UserError(
      f'{where}: label {value!r} is none of {errors.some_quoted(task.labels)};'
      f' {task.labels_remedy or remedy}'
      f'{raw_values.no_label_remedy(task, value)}'
    )
  return task.labels.index(value)
