"""Classification: one of the task's labels, by a softmax."""

from collections.abc import Sequence
import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from bam_jax import errors
from bam_jax import escape
from bam_jax.tasks import export as export_lib
from bam_jax.tasks import kind
from bam_jax.tasks import kind_bases
from bam_jax.tasks import task as task_lib


class Classification(kind_bases.Plain):
  """An example has one label; its target is one-hot."""

  name = 'classification'
  metrics = ('accuracy', 'f1', 'matthews')
  default_metrics = ('accuracy',)
  one_class = True
  has_probabilities = True

  def fault(
    self, labels: Sequence[str], scale: tuple[float, float]
  ) -> tuple[str, str] | None:
    if len(set(labels)) == len(labels) >= 2:
      return None
    return (
      'labels',
      f'{labels} must be two or more different labels, as in the files',
    )

  def parse(self, task: task_lib.Task, value: str, where: str) -> int:
    """The index in `task.labels`."""
    return label_index(task, value, where)

  def target(self, task: task_lib.Task, label: int | None) -> float:
    return math.nan if label is None else float(label)

  def is_trainable(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    return np.isin(rows.fixed('label'), np.arange(task.num_outputs))

  def entries(
    self, task: task_lib.Task, rows: kind.Rows
  ) -> tuple[np.ndarray, np.ndarray]:
    return rows.fixed('label'), np.ones(len(rows))

  def teacher_probs(
    self, logits: np.ndarray, temperature: float, rows: kind.Rows | None = None
  ) -> np.ndarray:
    """Class probabilities.

    >>> of_teacher = Classification().teacher_probs
    >>> of_teacher(np.log([[1.0, 9.0]]), 2.0, 'sigmoid').tolist()
    [[0.25, 0.75]]
    """
    return distribution(logits, temperature)

  def loss(
    self, logits: jax.Array, target: jax.Array, class_mask: jax.Array
  ) -> jax.Array:
    """The soft cross-entropy over the head's outputs."""
    log_probs = masked_log_softmax(logits, class_mask)  # [B, S, C]
    return -jnp.sum(target * log_probs, axis=-1)

  def predictions(self, task: task_lib.Task, logits: np.ndarray) -> np.ndarray:
    return np.argmax(np.asarray(logits)[:, : task.num_outputs], axis=-1)

  def gold(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    return np.asarray(rows.fixed('label')).astype(np.int64)

  def judged(
    self, task: task_lib.Task, logits: np.ndarray, label: np.ndarray
  ) -> kind.Judged:
    log_probs = scipy.special.log_softmax(np.asarray(logits, np.float64), -1)
    return kind.Judged('classes', log_probs, np.asarray(label).astype(np.int64))

  def predict(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> list[kind.Prediction]:
    """`label` and `probabilities`."""
    chosen = self.predictions(task, logits)
    shares = self.probabilities(logits).tolist()
    return [
      kind.Prediction(
        uid,
        task.labels[i],
        {
          'label': task.labels[i],
          'probabilities': kind_bases.probabilities_by_label(task, share),
        },
        share,
      )
      for uid, i, share in zip(rows.uids, chosen, shares, strict=True)
    ]

  def probabilities(self, logits: np.ndarray) -> np.ndarray:
    return scipy.special.softmax(logits, axis=-1)

  def meaning(self, task: task_lib.Task) -> str:
    return 'logits of ' + ', '.join(map(escape.code, task.labels))

  def usage(self, task: task_lib.Task) -> str:
    return export_lib.usage_of_pooled(
      task, 'print(model.config.id2label[logits.argmax().item()])'
    )

  def export(self, task: task_lib.Task) -> export_lib.Export:
    return export_lib.sequence_classifier(
      {
        'problem_type': 'single_label_classification',
        **export_lib.label_maps(task.labels),
      }
    )


def masked_log_softmax(logits: jax.Array, mask: jax.Array) -> jax.Array:
  """Log-softmax over the last axis among the outputs that exist.

  Args:
    logits: [..., C].
    mask: [..., C] bool; at least one output of each distribution exists.

  Returns:
    [..., C]; 0 for the others, since their -inf must not meet a target of 0.
  """
  log_probs = jax.nn.log_softmax(jnp.where(mask, logits, -jnp.inf))
  return jnp.where(mask, log_probs, 0.0)


def distribution(logits: np.ndarray, temperature: float) -> np.ndarray:
  """Softmax over the last axis, computed in float64; float32."""
  logits = np.asarray(logits, np.float64)
  result = scipy.special.softmax(logits / temperature, axis=-1)
  return result.astype(np.float32)


def label_index(task: task_lib.Task, value: str, where: str) -> int:
  """The index of a label.

  Raises:
    errors.UserError: the task does not have it.
  """
  if value not in task.labels:
    raise errors.UserError(
      f'{where}: label {value!r} is none of {errors.some(task.labels)}; mend'
      f' the row or the labels of task {task.name!r}'
    )
  return task.labels.index(value)
