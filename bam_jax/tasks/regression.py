"""Regression: a score on the task's own scale, trained on 0-1."""

from collections.abc import Sequence
import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from bam_jax import errors
from bam_jax import plain_text
from bam_jax.tasks import export as export_lib
from bam_jax.tasks import kind
from bam_jax.tasks import kind_bases
from bam_jax.tasks import task as task_lib


@dataclasses.dataclass(frozen=True)
class Regression(kind_bases.Plain):
  """An example has a score; its target is channel 0."""

  head: Literal['sigmoid', 'linear'] = 'sigmoid'

  name = 'regression'
  has_scale = True
  metrics = ('pearson', 'spearman')
  default_metrics = ('pearson', 'spearman')

  def fault(
    self, labels: Sequence[str], scale: tuple[float, float]
  ) -> tuple[str, str] | None:
    if labels:
      return (
        'labels',
        f'{labels} given for a regression task; leave it empty and give scale',
      )
    low, high = scale
    if not low < high:
      return 'scale', f'{scale} must be the lowest and the highest score'
    return None

  def with_head(self, head: str) -> 'Regression':
    return dataclasses.replace(self, head=head)

  def num_outputs(self, labels: Sequence[str]) -> int:
    return 1

  def parse(self, task: task_lib.Task, value: str, where: str) -> float:
    """The score in the task's scale.

    As the shortest decimal of its float32: TFDS keeps scores in float32, and
    those of STS-B must be equal from either source.
    """
    low, high = task.scale
    try:
      score = plain_text.parse_number(value)
    except ValueError:
      raise errors.UserError(
        f'{where}: score {value!r} is no number; mend the row'
      ) from None
    if not low <= score <= high:
      raise errors.UserError(
        f'{where}: score {value} is not from {low:g} to {high:g}; mend the row'
        f' or the scale of task {task.name!r}'
      )
    return float(str(np.float32(score)))

  def target(self, task: task_lib.Task, label: float | None) -> float:
    """On 0-1."""
    if label is None:
      return math.nan
    low, high = task.scale
    return (label - low) / (high - low)

  def is_trainable(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    label = np.asarray(rows.fixed('label'))
    return (label >= 0) & (label <= 1)

  def entries(
    self, task: task_lib.Task, rows: kind.Rows
  ) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(len(rows)), rows.fixed('label')

  def teacher_probs(
    self, logits: np.ndarray, temperature: float, rows: kind.Rows | None = None
  ) -> np.ndarray:
    """The prediction on 0-1, which has no temperature.

    A linear head's is the logit itself, which may leave 0-1 as in the released
    code.
    """
    logits = np.asarray(logits, np.float64)
    if self.head == 'sigmoid':
      logits = scipy.special.expit(logits)
    return logits.astype(np.float32)

  def loss(
    self, logits: jax.Array, target: jax.Array, class_mask: jax.Array
  ) -> jax.Array:
    """The squared error of channel 0, of a sigmoid or the logit itself."""
    logit = logits[..., 0]
    is_sigmoid = self.head == 'sigmoid'
    score = jax.nn.sigmoid(logit) if is_sigmoid else logit
    return jnp.square(score - target[..., 0])

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

  def judged(
    self, task: task_lib.Task, logits: np.ndarray, label: np.ndarray
  ) -> kind.Judged:
    predicted = self.teacher_probs(logits, 1.0)
    return kind.Judged('scores', predicted[:, 0], label)

  def predict(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> list[kind.Prediction]:
    """`score`, on the task's own scale."""
    scores = self.predictions(task, logits).tolist()
    return [
      kind.Prediction(uid, f'{score:.3f}', {'score': round(score, 6)})
      for uid, score in zip(rows.uids, scores, strict=True)
    ]

  def meaning(self, task: task_lib.Task) -> str:
    low, high = task.scale
    inner = 'sigmoid(logit)' if self.head == 'sigmoid' else 'logit'
    return (
      f'a score from {low:g} to {high:g}: {low:g} + {high - low:g} · {inner}'
    )

  def usage(self, task: task_lib.Task) -> str:
    low, high = task.scale
    is_sigmoid = self.head == 'sigmoid'
    share = 'sigmoid()' if is_sigmoid else 'clamp(0, 1)'
    return export_lib.usage_of_pooled(
      task,
      f'share = logits[0].{share}.item()',
      f'print({low!r} + share * {high - low!r})',
    )

  def export(self, task: task_lib.Task) -> export_lib.Export:
    return export_lib.sequence_classifier(
      {'problem_type': 'regression', **export_lib.label_maps(['score'])}
    )
