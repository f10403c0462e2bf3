"""A kind of task in one file: labels in an order, as grades are.

The loss is the squared distance between the distributions' cumulative sums, so
a label that is far off costs more than the next one.
"""

from collections.abc import Sequence
import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from bam_jax import errors
from bam_jax.tasks import export as export_lib
from bam_jax.tasks import kind
from bam_jax.tasks import kind_bases
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib


class Ordinal(kind_bases.Plain):
  """An example has one of the labels, which are given in their order."""

  name = 'ordinal'
  metrics = ('mean_closeness', 'accuracy')
  default_metrics = ('mean_closeness', 'accuracy')
  has_probabilities = True

  def fault(
    self, labels: Sequence[str], scale: tuple[float, float]
  ) -> tuple[str, str] | None:
    if len(set(labels)) == len(labels) >= 3:
      return None
    return 'labels', f'{labels} must be three or more labels, lowest first'

  def parse(self, task: task_lib.Task, value: str, where: str) -> int:
    if value not in task.labels:
      raise errors.UserError(f'{where}: {value!r} is no grade; mend the row')
    return task.labels.index(value)

  def target(self, task: task_lib.Task, label: int | None) -> float:
    return math.nan if label is None else float(label)

  def is_trainable(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    return np.isin(rows.fixed('label'), np.arange(task.num_outputs))

  def entries(
    self, task: task_lib.Task, rows: kind.Rows
  ) -> tuple[np.ndarray, np.ndarray]:
    return rows.fixed('label'), np.ones(len(rows))

  def teacher_targets(
    self,
    logits: np.ndarray,
    temperature: float,
    regression_head: str,
    rows: kind.Rows | None = None,
  ) -> np.ndarray:
    return scipy.special.softmax(logits / temperature, -1).astype(np.float32)

  def loss(
    self,
    logits: jax.Array,
    target: jax.Array,
    class_mask: jax.Array,
    regression_head: str,
  ) -> jax.Array:
    probs = jax.nn.softmax(jnp.where(class_mask, logits, -1e9))
    return jnp.sum(jnp.square(jnp.cumsum(probs - target, axis=-1)), axis=-1)

  def predictions(
    self, task: task_lib.Task, logits: np.ndarray, regression_head: str
  ) -> np.ndarray:
    return np.argmax(np.asarray(logits)[:, : task.num_outputs], axis=-1)

  def gold(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    return np.asarray(rows.fixed('label')).astype(np.int64)

  def judged(
    self,
    task: task_lib.Task,
    logits: np.ndarray,
    label: np.ndarray,
    regression_head: str,
  ) -> kind.Judged:
    log_probs = scipy.special.log_softmax(np.asarray(logits, np.float64), -1)
    return kind.Judged('classes', log_probs, np.asarray(label).astype(np.int64))

  def probabilities(self, logits: np.ndarray) -> np.ndarray:
    return scipy.special.softmax(logits, axis=-1)

  def predict(
    self,
    task: task_lib.Task,
    logits: np.ndarray,
    rows: kind.Rows,
    regression_head: str,
  ) -> list[kind.Prediction]:
    chosen = self.predictions(task, logits, regression_head)
    shares = self.probabilities(logits).tolist()
    return [
      kind.Prediction(uid, task.labels[i], {'grade': task.labels[i]}, share)
      for uid, i, share in zip(rows.uids, chosen, shares, strict=True)
    ]

  def meaning(self, task: task_lib.Task, regression_head: str) -> str:
    return 'logits of ' + ', '.join(task.labels) + ', lowest first'

  def usage(self, task: task_lib.Task, regression_head: str) -> str:
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


kinds.KINDS[Ordinal.name] = Ordinal()
