"""Multi-label: any number of the task's labels, each with a sigmoid."""

from collections.abc import Sequence
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
from bam_jax import plain_text
from bam_jax.tasks import classification
from bam_jax.tasks import export as export_lib
from bam_jax.tasks import kind
from bam_jax.tasks import kind_bases
from bam_jax.tasks import tallies
from bam_jax.tasks import task as task_lib

_SEPARATOR = ','


class Multilabel(kind_bases.Tallied, kind_bases.Pooled):
  """An example has some labels or none; its target is 0 or 1 for each."""

  name = 'multilabel'
  metrics = ('micro_f1', 'macro_f1')
  default_metrics = ('micro_f1', 'macro_f1')
  has_probabilities = True

  def fault(
    self, labels: Sequence[str], scale: tuple[float, float]
  ) -> tuple[str, str] | None:
    if len(set(labels)) == len(labels) >= 1:
      return None
    return 'labels', f'{labels} must be different labels, as in the files'

  def label_width(self, task: task_lib.Task) -> int:
    return task.num_outputs

  def parse(
    self, task: task_lib.Task, value: task_lib.RawLabel, where: str
  ) -> tuple[int, ...]:
    """Ascending indices.

    Of a list, or of names with commas between them. Where these would be
    ambiguous, a text may also be a JSON list, as `texts` writes it.
    """
    names = value
    if isinstance(value, str):
      names = _names(task, value)
    found = sorted(
      classification.label_index(task, name, where) for name in names
    )
    for one, other in itertools.pairwise(found):
      if one == other:
        raise errors.UserError(
          f'{where}: label {task.labels[one]!r} stands there twice; mend the'
          ' row'
        )
    return tuple(found)

  def target(
    self, task: task_lib.Task, label: tuple[int, ...] | None
  ) -> np.ndarray:
    """[c] float32 of 0 and 1."""
    if label is None:
      return np.full(task.num_outputs, np.nan, np.float32)
    return np.isin(np.arange(task.num_outputs), label).astype(np.float32)

  def is_trainable(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    return np.isin(_labels(task, rows), (0, 1)).all(-1)

  def dense_targets(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    return _labels(task, rows)

  def teacher_probs(
    self, logits: np.ndarray, temperature: float, rows: kind.Rows | None = None
  ) -> np.ndarray:
    """The probability of each label."""
    logits = np.asarray(logits, np.float64)
    return scipy.special.expit(logits / temperature).astype(np.float32)

  def loss(
    self, logits: jax.Array, target: jax.Array, class_mask: jax.Array
  ) -> jax.Array:
    """The mean over the labels of the cross-entropy of a sigmoid."""
    each = optax.sigmoid_binary_cross_entropy(logits, target)
    return jnp.mean(each, axis=-1, where=class_mask)

  def predictions(self, logits: np.ndarray) -> np.ndarray:
    """[N, c] bool: labels of probability above a half."""
    return np.asarray(logits) > 0

  def tally(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> np.ndarray:
    """[N, c, 3], as `tallies.counts`."""
    return tallies.counts(self.predictions(logits), _labels(task, rows) == 1)

  def unmeasurable(
    self, task: task_lib.Task, labels: Sequence[tuple[int, ...]]
  ) -> tuple[str, ...]:
    return () if any(labels) else task.metrics

  def judged(
    self, task: task_lib.Task, logits: np.ndarray, label: np.ndarray
  ) -> kind.Judged:
    """The probability of each label of each row, against 0 or 1."""
    predicted = self.teacher_probs(logits, 1.0)
    return kind.Judged('scores', predicted.ravel(), np.ravel(label))

  def predict(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> list[kind.Prediction]:
    """`labels` and `probabilities`.

    As text the labels as a file may have them.
    """
    found = []
    shares = self.probabilities(logits).tolist()
    for uid, chosen, share in zip(
      rows.uids, self.predictions(logits), shares, strict=True
    ):
      labels = [task.labels[i] for i in np.flatnonzero(chosen)]
      said = {
        'labels': labels,
        'probabilities': kind_bases.probabilities_by_label(task, share),
      }
      found.append(
        kind.Prediction(
          uid, kind_bases.join_labels(labels, task, _SEPARATOR), said, share
        )
      )
    return found

  def probabilities(self, logits: np.ndarray) -> np.ndarray:
    return scipy.special.expit(logits)

  def meaning(self, task: task_lib.Task) -> str:
    names = ', '.join(map(escape.code, task.labels))
    return f'sigmoid(logit) is the probability of each of {names}'

  def usage(self, task: task_lib.Task) -> str:
    return export_lib.usage_of_pooled(
      task,
      'labels = model.config.id2label',
      'print([labels[i] for i, x in enumerate(logits.sigmoid()) if x > 0.5])',
    )

  def export(self, task: task_lib.Task) -> export_lib.Export:
    return export_lib.sequence_classifier(
      {
        'problem_type': 'multi_label_classification',
        **export_lib.label_maps(task.labels),
      }
    )


def _names(task: task_lib.Task, text: str) -> list[str]:
  """The labels that a text names, known or not."""
  if text.startswith('[') and kind_bases.needs_list(task, _SEPARATOR):
    with contextlib.suppress(ValueError, RecursionError):
      return list(map(str, json.loads(text)))
  names = (name.strip(plain_text.BLANKS) for name in text.split(_SEPARATOR))
  return [name for name in names if name]


def _labels(task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
  """[N, c] of 0 and 1; nan where there are none."""
  return np.asarray(rows.fixed('label')).reshape(-1, task.num_outputs)
