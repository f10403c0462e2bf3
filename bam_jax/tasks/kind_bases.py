"""What several kinds have in common: how they are scored and kept.

N rows of features, c outputs of the task.
"""

import abc
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import json

import jax
import numpy as np

from bam_jax import plain_text
from bam_jax.tasks import kind
from bam_jax.tasks import metrics
from bam_jax.tasks import tallies
from bam_jax.tasks import task as task_lib


class Pooled(kind.Kind):
  """A kind whose outputs are per example, computed from the pooled vector."""

  @abc.abstractmethod
  def loss(
    self, logits: jax.Array, target: jax.Array, class_mask: jax.Array
  ) -> jax.Array:
    """The loss of each segment slot.

    Args:
      logits: [B, S, C] float32.
      target: [B, S, C] float32, a mix of gold labels and teacher predictions.
      class_mask: [B, S, C] bool, the outputs that the slot's head has.

    Returns:
      [B, S] float32; finite in slots of other kinds too.
    """


class Plain(Pooled):
  """A kind whose predictions are one number an example."""

  @abc.abstractmethod
  def predictions(self, task: task_lib.Task, logits: np.ndarray) -> np.ndarray:
    """What the logits say, in the task's own terms.

    Args:
      task: the task of the rows.
      logits: [N, C]; outputs beyond the task's own number are ignored.

    Returns:
      [N] class indices, int64; or [N] scores in the task's scale, float64.
    """

  @abc.abstractmethod
  def gold(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    """The labels of the features, as `predictions` has them."""

  def score(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> dict[str, float]:
    predicted = self.predictions(task, logits)
    return metrics.score(task, predicted, self.gold(task, rows))

  def why_undefined(
    self, task: task_lib.Task, metric: str, logits: np.ndarray, rows: kind.Rows
  ) -> str:
    predicted = self.predictions(task, logits)
    return metrics.why_undefined(predicted, self.gold(task, rows))

  def unmeasurable(
    self, task: task_lib.Task, labels: Sequence[task_lib.Label]
  ) -> tuple[str, ...]:
    return metrics.unmeasurable(task, np.array(labels, np.float64))

  def outputs(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> dict[str, np.ndarray]:
    return {
      'uid': np.array(list(rows.uids)),
      'logits': logits,
      'label': self.gold(task, rows),
    }

  def kept(
    self, task: task_lib.Task, arrays: Mapping[str, np.ndarray]
  ) -> tuple[np.ndarray, np.ndarray | None]:
    rows, logits = np.shape(arrays['uid'])[:1], arrays['logits']
    gold = arrays.get('label')
    # What begins unlike an array comes back as bytes.
    if np.shape(logits) != (*rows, task.num_outputs) or (
      gold is not None and np.shape(gold) != rows
    ):
      raise ValueError('not one row of each for every example')
    return self.predictions(task, logits), gold


class Tallied(kind.Kind):
  """A kind whose metrics are of `tallies`, sums over the examples."""

  @abc.abstractmethod
  def tally(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> np.ndarray:
    """[N, ...] what each example adds to the sums that metrics are of."""

  def score(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> dict[str, float]:
    sums = self.tally(task, logits, rows).sum(axis=0)
    return {
      name: 100.0 * float(tallies.METRICS[name](sums)) for name in task.metrics
    }

  def why_undefined(
    self, task: task_lib.Task, metric: str, logits: np.ndarray, rows: kind.Rows
  ) -> str:
    return tallies.REASONS[metric]

  def outputs(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> dict[str, np.ndarray]:
    texts = self.texts(task, logits, rows)
    return {
      'uid': np.array(list(texts)),
      'prediction': np.array(list(texts.values())),
      'tally': self.tally(task, logits, rows),
    }

  def kept(
    self, task: task_lib.Task, arrays: Mapping[str, np.ndarray]
  ) -> tuple[np.ndarray, np.ndarray | None]:
    tally = arrays['tally']
    rows = np.shape(arrays['uid'])[:1]
    if np.shape(tally)[:1] != rows or tally.dtype.kind not in 'if':
      raise ValueError('not one tally for every example')
    # Gold labels are in the tallies already.
    return tally, np.zeros(rows)


class PerToken(Tallied):
  """A kind whose outputs are per token: logits are [tokens, c]."""

  per_token = True
  can_swap = False
  in_windows = True

  @abc.abstractmethod
  def windows(
    self,
    task: task_lib.Task,
    examples: Sequence[task_lib.Example],
    tokenizer: kind.Tokenizer,
    max_length: int,
    on_cut: Callable[[str], None],
  ) -> Iterator[kind.Features]:
    """Cuts long examples into windows.

    Args:
      task: of all the examples.
      examples: up to a thousand.
      tokenizer: makes the ids.
      max_length: tokens a window has at most, specials included.
      on_cut: called with the uid of each example of which tokens are dropped,
        before its first window is returned.

    Returns:
      `Features`, or named tuples that have `more_fields` besides.

    Raises:
      errors.UserError: the task's windows would leave tokens out.
    """

  @abc.abstractmethod
  def token_targets(
    self, task: task_lib.Task, rows: kind.Rows, chosen: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """What the tokens of some rows are to be.

    Args:
      task: the task of the rows.
      rows: of the training split.
      chosen: [n] int, which of them.

    Returns:
      [tokens, c] float32, and [tokens] float32, the token's share of the
      example's loss: 0 if a token has no loss.
    """

  @abc.abstractmethod
  def loss(
    self,
    logits: jax.Array,
    target: jax.Array,
    share: jax.Array,
    inside: jax.Array,
    class_mask: jax.Array,
  ) -> jax.Array:
    """The loss of each segment slot, summed over its tokens.

    Args:
      logits: [B, L, K] float32.
      target: [B, L, K] float32, a mix of gold labels and teacher predictions.
      share: [B, L] float32, as `token_targets` returns it.
      inside: [B, S, L] bool, the tokens of each slot that have a share.
      class_mask: [B, S, K] bool, the outputs that the slot's head has.

    Returns:
      [B, S] float32; finite in slots of other kinds too.
    """


def examples_of(rows: kind.Rows) -> tuple[list[str], np.ndarray]:
  """The examples that rows are windows of.

  Returns:
    Uids of N examples, and [N + 1] int64: the windows of example i are rows
    [offsets[i], offsets[i + 1]).
  """
  bases = [task_lib.example_uid(uid) for uid in rows.uids]
  begins = [i for i, base in enumerate(bases) if not i or base != bases[i - 1]]
  return [bases[i] for i in begins], np.array([*begins, len(bases)], np.int64)


def join_labels(
  labels: Sequence[str], task: task_lib.Task, separator: str
) -> str:
  """Several labels as one text that can be split again.

  They have `separator` between them. Where a label of the task could not be
  told apart so, because it holds the separator or begins or ends with a space,
  every prediction of the task is a JSON list.

  Args:
    labels: some of the task's, in any order.
    task: whose labels these are.
    separator: one character.
  """
  if needs_list(task, separator):
    return json.dumps(list(labels), ensure_ascii=False)
  return separator.join(labels)


def needs_list(task: task_lib.Task, separator: str) -> bool:
  """Whether labels of a task with separators between them are ambiguous."""
  return any(
    not label or separator in label or label != label.strip(plain_text.BLANKS)
    for label in task.labels
  )


def probabilities_by_label(
  task: task_lib.Task, probabilities: Sequence[float]
) -> dict[str, float]:
  """A probability of each label, as JSON has them."""
  return {
    label: round(p, 6)
    for label, p in zip(task.labels, probabilities, strict=True)
  }
