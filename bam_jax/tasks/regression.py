"""Regression: one score per example, on the task's scale; trained on 0-1."""

from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.special

from bam_jax import errors
from bam_jax import plain_text
from bam_jax.tasks import kind
from bam_jax.tasks import kind_bases
from bam_jax.tasks import raw_values
from bam_jax.tasks import task as task_lib


@dataclasses.dataclass(frozen=True)
class Regression(kind_bases.PerExample):
  """Tasks with one score per example; the target is channel 0.

  With a linear head, the logit itself is the score, as in the released code. It
  may be outside 0-1, but predictions on the task's scale are clipped.
  """

  head: Literal['sigmoid', 'linear'] = 'sigmoid'
  loss_name: Literal['squared_error', 'cross_entropy'] = 'squared_error'

  name = 'regression'
  measures = 'scores'
  default_metrics = ('pearson', 'spearman')
  output_names = ('score',)
  has_scale = True
  problem_type = 'regression'

  def with_head(self, head: str, loss: str = 'squared_error') -> 'Regression':
    return dataclasses.replace(self, head=head, loss_name=loss)

  def fault(self, labels: Sequence[str], scale: tuple[float, float]) -> str:
    if labels:
      return (
        f'labels: {labels} given for a regression task; leave it empty and give'
        ' scale'
      )
    if not scale[0] < scale[1]:
      return f'scale: {scale} must be the lowest and the highest score'
    return ''

  def parse(self, task: task_lib.Task, value: str, where: str) -> float:
    """Parses a score on the task's scale.

    Returns the shortest decimal that rounds to the same float32. TFDS stores
    scores as float32, and STS-B must have the same scores from TFDS and files.
    """
    low, high = task.scale
    try:
      score = plain_text.parse_number(value)
    except ValueError:
      remedy = f'fix the row{raw_values.no_label_remedy(task, value)}'
      point = value.replace(',', '.')
      with contextlib.suppress(ValueError):
        if low <= plain_text.parse_number(point) <= high:
          remedy = f'write the comma as a point, {point}, in all rows'
      if (bare := value.strip()) != value:
        with contextlib.suppress(ValueError):
          plain_text.parse_number(bare)
          remedy = f'write {bare}, without blanks around it, in all rows'
      raise errors.UserError(
        f'{where}: score {value!r} is not a number; {remedy}'
      ) from None
    if not low <= score <= high:
      raise errors.UserError(
        f'{where}: score {value} is not from {low:g} to {high:g}; fix the row'
        f' or the scale of task {task.name!r}'
      )
    return float(str(np.float32(score)))

  def encode_label(self, task: task_lib.Task, label: float | None) -> float:
    """Converts a score from the task's scale to 0-1."""
    if label is None:
      return math.nan
    low, high = task.scale
    return (label - low) / (high - low)

  def is_trainable(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    label = np.asarray(rows.fixed('label'))
    return (label >= 0) & (label <= 1)

  def example_targets(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    return np.asarray(rows.fixed('label'), np.float32)[:, None]

  def teacher_probs(
    self, logits: np.ndarray, temperature: float, rows: kind.Rows | None = None
  ) -> np.ndarray:
    """Returns scores on 0-1; the temperature has no effect."""
    logits = np.asarray(logits, np.float64)
    if self.head == 'sigmoid':
      logits = scipy.special.expit(logits)
    return logits.astype(np.float32)

  def loss(
    self, logits: jax.Array, target: jax.Array, class_mask: jax.Array
  ) -> jax.Array:
    """Squared error, or cross-entropy, between target and score in channel 0.

    The gradient of the cross-entropy with respect to the logit is p - y, for a
    score p and a target y. With a sigmoid head, the gradient of the squared
    error is 2 p (1 - p) (p - y), which is at most half as large.
    """
    logit, target = logits[..., 0], target[..., 0]
    if self.loss_name == 'cross_entropy':
      return optax.sigmoid_binary_cross_entropy(logit, target)
    score = jax.nn.sigmoid(logit) if self.head == 'sigmoid' else logit
    return jnp.square(score - target)

  def constant_loss(self, task: task_lib.Task, rows: kind.Rows) -> float:
    score = np.asarray(rows.fixed('label'), np.float64)
    if self.loss_name == 'squared_error':
      return float(np.var(score))
    entropy = kind_bases.entropy(np.stack([score, 1 - score], -1))
    mean = np.array([score.mean(), 1 - score.mean()])
    return float(kind_bases.entropy(mean) - entropy.mean())

  def constant_logits(
    self, task: task_lib.Task, train: kind.Rows, rows: kind.Rows
  ) -> np.ndarray:
    """Predicts the mean score of the training rows."""
    mean = np.mean(train.fixed('label'), dtype=np.float64)
    if self.head == 'sigmoid':
      mean = scipy.special.logit(np.clip(mean, 1e-6, 1 - 1e-6))
    return np.full((len(rows), 1), mean, np.float32)

  def predictions(self, task: task_lib.Task, logits: np.ndarray) -> np.ndarray:
    raw = np.asarray(logits)[:, 0].astype(np.float64)
    if self.head == 'sigmoid':
      share = 0.5 * (1.0 + np.tanh(0.5 * raw))  # exp would overflow
    else:
      share = np.clip(raw, 0.0, 1.0)
    low, high = task.scale
    return low + share * (high - low)

  def gold(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    low, high = task.scale
    return np.asarray(rows.fixed('label'), np.float64) * (high - low) + low

  def decided(
    self, task: task_lib.Task, arrays: Mapping[str, np.ndarray]
  ) -> list[kind.Decided]:
    scores = self.predictions(task, arrays['logits']).tolist()
    return list(map(kind.Decided, scores))

  def contradiction(
    self, task: task_lib.Task, decided: kind.Decided, label: float
  ) -> float | None:
    low, high = task.scale
    return abs(decided.label - label) / (high - low) or None

  def label_value(self, task: task_lib.Task, label: float) -> float:
    return round(label, 6)

  def quality_inputs(
    self, task: task_lib.Task, logits: np.ndarray, label: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    return self.teacher_probs(logits, 1.0)[:, 0], label

  def predict_examples(
    self, task: task_lib.Task, logits: np.ndarray, uids: Sequence[str]
  ) -> list[kind.Prediction]:
    """Predicts `score`, on the task's scale."""
    scores = self.predictions(task, logits).tolist()
    return [
      kind.Prediction(uid, f'{score:.3f}', {'score': round(score, 6)})
      for uid, score in zip(uids, scores, strict=True)
    ]

  def meaning(self, task: task_lib.Task) -> str:
    low, high = task.scale
    inner = 'sigmoid(logit)' if self.head == 'sigmoid' else 'logit'
    return (
      f'a score from {low:g} to {high:g}: {low:g} + {high - low:g} · {inner}'
    )

  def print_logits(self, task: task_lib.Task) -> str:
    low, high = task.scale
    share = 'sigmoid()' if self.head == 'sigmoid' else 'clamp(0, 1)'
    return (
      f'share = logits[0].{share}.item()\n'
      f'print({low!r} + share * {high - low!r})'
    )
