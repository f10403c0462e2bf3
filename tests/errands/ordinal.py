"""A kind of task in one file: labels in an order, as grades are.

The loss is the squared distance between the distributions' cumulative sums, so
a label that is far off costs more than the next one.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from bam_jax.tasks import classification
from bam_jax.tasks import kind
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib


class Ordinal(classification.Classification):
  """An example has one of the labels, which are given in their order."""

  name = 'ordinal'
  default_metrics = ('mean_closeness', 'accuracy')
  infers_labels = False  # Rows do not tell the order.

  def fault(self, labels: Sequence[str], scale: tuple[float, float]) -> str:
    if len(set(labels)) == len(labels) >= 3:
      return ''
    return f'labels: {labels} must be three or more labels, lowest first'

  def loss(
    self, logits: jax.Array, target: jax.Array, class_mask: jax.Array
  ) -> jax.Array:
    probs = jax.nn.softmax(jnp.where(class_mask, logits, -1e9))
    return jnp.sum(jnp.square(jnp.cumsum(probs - target, axis=-1)), axis=-1)

  def constant_loss(self, task: task_lib.Task, rows: kind.Rows) -> float:
    targets = self.example_targets(task, rows)
    apart = np.cumsum(targets.mean(0) - targets, axis=-1)
    return float(np.square(apart).sum(-1).mean())

  def predict(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> list[kind.Prediction]:
    return [
      each._replace(said={'grade': each.text})
      for each in super().predict(task, logits, rows)
    ]

  def meaning(self, task: task_lib.Task) -> str:
    return 'logits of ' + ', '.join(task.labels) + ', lowest first'


kinds.KINDS[Ordinal.name] = Ordinal()
