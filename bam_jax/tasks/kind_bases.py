"""Base classes of kinds, for outputs per example and for outputs per token.

In shapes, N is the number of rows of features and c the number of outputs of
the task.
"""

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import jax
import numpy as np
import scipy.special

from bam_jax.tasks import kind
from bam_jax.tasks import metrics
from bam_jax.tasks import task as task_lib
from bam_jax.tasks import windows

# Value of `Task.windows` -> method of a PyTorch tensor.
_TORCH_POOL = {'mean': 'mean', 'max': 'amax'}


class PerExample(kind.Kind):
  """A kind with one number per example or label, from the pooled vector.

  If a task has windows, each row of outputs belongs to one window. The scores
  of an example's windows are pooled before anything is predicted or measured.
  """

  joins_windows = True
  # `window_scores` as a method call on a PyTorch tensor; '' if window
  # scores are the logits.
  torch_scores = ''

  @abc.abstractmethod
  def example_targets(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    """Returns the gold targets of labelled rows, [N, c] float32.

    The targets are multiplied by the weights of the labels. This weights the
    loss, because the loss is linear in the targets.
    """

  def example_totals(
    self, task: task_lib.Task, rows: kind.Rows
  ) -> np.ndarray | None:
    """Returns gold target of yes + gold target of no per label, [N, c] float32.

    Returns None if the sum is always 1, or if the labels are not separate
    yes/no decisions.
    """
    return None

  @abc.abstractmethod
  def loss(
    self, logits: jax.Array, target: jax.Array, class_mask: jax.Array
  ) -> jax.Array:
    """Computes the loss of each example in the packed rows, [B, S] float32.

    The loss must also be finite in slots that belong to other kinds.

    Args:
      logits: [B, S, C] float32.
      target: [B, S, C] float32, a mix of gold labels and teacher predictions.
      class_mask: [B, S, C] bool, the outputs that the slot's head has.

    Kinds with `decides_each_label` take one more argument, [B, S, C] float32:
    the sum of the targets of yes and of no, or None if all sums are 1.
    """

  @abc.abstractmethod
  def print_logits(self, task: task_lib.Task) -> str:
    """Returns Python code that prints the prediction for `logits`, [c]."""

  def usage(self, task: task_lib.Task) -> str:
    texts = "'a text'" + (", 'another one'" if task.is_pair else '')
    if task.windows:
      return self._use_windows(task, texts) + self.print_logits(task)
    inputs = (
      f"inputs = tokenizer({texts}, truncation=True, return_tensors='pt')"
    )
    call = 'model(**inputs).logits[0]'
    if task.is_bi_encoder:
      # The model card defines `model` as a function of two texts.
      inputs, call = '', f'model({texts})'
    return (
      f'{inputs}\nwith torch.no_grad():\n  logits = {call}\n'
    ) + self.print_logits(task)

  def _use_windows(self, task: task_lib.Task, texts: str) -> str:
    """Returns Python code that pools the logits of all windows of an example.

    The code reads a variable `max_length`, the maximum tokens per window.
    """
    special = f'tokenizer.num_special_tokens_to_add({task.is_pair})'
    lines = [f'texts = [{texts}]', f'room = max_length - {special}']
    which = "'only_first'"
    if task.is_pair:
      lines += [
        'sizes = [len(tokenizer.tokenize(text)) for text in texts]',
        'room -= min(sizes)  # the shorter text is in each window',
      ]
      which = "'only_second' if sizes[1] > sizes[0] else 'only_first'"
    return '\n'.join(lines) + (
      '\n'
      'inputs = tokenizer(\n'
      f'  *texts, truncation={which},\n'
      f'  max_length=max_length, stride=room - {task.stride or "room // 2"},\n'
      '  padding=True, return_overflowing_tokens=True,'
      " return_tensors='pt')\n"
      "inputs.pop('overflow_to_sample_mapping')\n"
      'with torch.no_grad():\n'
      '  logits = model(**inputs).logits  # a row for each window\n'
      f'logits = logits{self.torch_scores}.{_TORCH_POOL[task.windows]}(0)\n'
    )

  def window_scores(
    self, task: task_lib.Task, logits: np.ndarray
  ) -> np.ndarray:
    """Returns scores that can be compared between windows, [N, c]."""
    return logits

  def join_windows(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> tuple[Sequence[str], np.ndarray, np.ndarray]:
    if not task.windows:
      return super().join_windows(task, logits, rows)
    uids, offsets = windows.examples_of(rows.uids)
    scores = self.window_scores(task, logits[:, : task.num_outputs])
    return uids, windows.pool(task.windows, scores, offsets), offsets[:-1]

  @abc.abstractmethod
  def predictions(self, task: task_lib.Task, logits: np.ndarray) -> np.ndarray:
    """Predicts class indices, or scores on the task's scale, [N].

    For multi-label tasks, predicts 0 or 1 for each label, [N, c]. Outputs
    beyond the task's `num_outputs` are ignored.
    """

  @abc.abstractmethod
  def gold(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    """Returns the gold labels in the same form as `predictions`."""

  def class_scores(
    self, task: task_lib.Task, logits: np.ndarray
  ) -> np.ndarray | None:
    """Returns scores that rank the examples by the probability of each class.

    Returns:
      [N, c] float64, because rounding to float32 could make ties; None if the
      kind has no classes.
    """
    return None

  def measure(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> metrics.Measured:
    _, logits, firsts = self.join_windows(task, logits, rows)
    return self._measured(task, logits, self.gold(task, rows)[firsts])

  def predict(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> list[kind.Prediction]:
    uids, logits, _ = self.join_windows(task, logits, rows)
    return self.predict_examples(task, logits, uids)

  @abc.abstractmethod
  def predict_examples(
    self, task: task_lib.Task, logits: np.ndarray, uids: Sequence[str]
  ) -> list[kind.Prediction]:
    """Turns logits, one row per example, into predictions."""

  def _measured(
    self, task: task_lib.Task, logits: np.ndarray, gold: np.ndarray | None
  ) -> metrics.Measured:
    scores = self.class_scores(task, logits)
    return metrics.Measured(self.predictions(task, logits), gold, scores)

  def outputs(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> dict[str, np.ndarray]:
    uids, logits, firsts = self.join_windows(task, logits, rows)
    return {
      'uid': np.array(list(uids)),
      'logits': logits,
      'label': self.gold(task, rows)[firsts],
    }

  def read_outputs(
    self, task: task_lib.Task, arrays: Mapping[str, np.ndarray]
  ) -> metrics.Measured:
    rows, logits = np.shape(arrays['uid'])[:1], arrays['logits']
    # `np.shape`, because NumPy reads an array with a damaged header as bytes.
    if np.shape(logits) != (*rows, task.num_outputs):
      raise ValueError('not one row of logits for every example')
    measured = self._measured(task, logits, arrays.get('label'))
    gold, shape = measured.gold, np.shape(measured.predictions)
    if gold is not None and np.shape(gold) != shape:
      raise ValueError('not one label for every example')
    return measured


class PerToken(kind.Kind):
  """A kind whose outputs are per token: logits are [tokens, c].

  Its metrics are computed from sums over the examples.
  """

  per_token = True

  @abc.abstractmethod
  def windows(
    self,
    task: task_lib.Task,
    examples: Sequence[task_lib.Example],
    tokenizer: kind.Tokenizer,
    max_length: int,
    on_cut: Callable[[str], None],
  ) -> Iterator[kind.Features]:
    """Cuts long examples into windows of up to `max_length` tokens.

    Each window is a `Features`, or a named tuple with the fields of `Features`
    and the kind's `more_fields`. If an example loses tokens, `on_cut` is called
    with the example's uid before the example's first window is yielded.

    Raises:
      errors.UserError: the task's windows would skip tokens.
    """

  @abc.abstractmethod
  def token_targets(
    self, task: task_lib.Task, rows: kind.Rows, chosen: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns the gold target and the loss weight of each token of chosen rows.

    Returns:
      [tokens, c] float32 targets, and [tokens] float32 weights. A token with
      the weight 0 does not enter the loss.
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
    """Computes the loss of each example from its tokens, [B, S] float32.

    The loss must also be finite in slots that belong to other kinds.

    Args:
      logits: [B, L, K] float32.
      target: [B, L, K] float32, a mix of gold labels and teacher predictions.
      share: [B, L] float32, the loss weights from `token_targets`.
      inside: [B, S, L] bool, which tokens of each slot add to the loss.
      class_mask: [B, S, K] bool, the outputs that the slot's head has.
    """

  @abc.abstractmethod
  def tally(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> np.ndarray:
    """Returns the numbers that the metrics sum up, [examples, n]."""

  def measure(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> metrics.Measured:
    return metrics.Measured(self.tally(task, logits, rows), None)

  def outputs(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> dict[str, np.ndarray]:
    found = self.predict(task, logits, rows)
    return {
      'uid': np.array([prediction.uid for prediction in found]),
      'prediction': np.array([prediction.text for prediction in found]),
      'tally': self.tally(task, logits, rows),
    }

  def read_outputs(
    self, task: task_lib.Task, arrays: Mapping[str, np.ndarray]
  ) -> metrics.Measured:
    tally = arrays['tally']
    rows = np.shape(arrays['uid'])[:1]
    if np.shape(tally)[:1] != rows or tally.dtype.kind not in 'if':
      raise ValueError('not one tally for every example')
    # The tallies include the gold labels; the zeros are only placeholders.
    return metrics.Measured(tally, np.zeros(rows))


def are_decisions(logits: np.ndarray) -> bool:
  """Whether logits are only zeros and ones, as in the archives of docs/results.

  Such logits give the predicted label, but not its probability.
  """
  return bool(np.isin(logits, (0, 1)).all())


def entropy(probs: np.ndarray) -> np.ndarray:
  """Computes the entropy of distributions over the last axis, in nats.

  >>> entropy(np.array([0.5, 0.5])).round(4).item()  # ln 2
  0.6931
  """
  return scipy.special.entr(np.asarray(probs, np.float64)).sum(-1)


def constant_cross_entropy(target: np.ndarray) -> np.ndarray:
  """Lowest cross-entropy of a constant prediction for a weighted mean target.

  The result is Σ -t log(t / Σ t) over the last axis, in nats. It equals the
  entropy if the target t sums up to 1.

  >>> constant_cross_entropy(np.array([2.0, 2.0])).round(4).item()  # 4 ln 2
  2.7726
  """
  total = np.sum(target, axis=-1, dtype=np.float64)
  return entropy(target) - scipy.special.entr(total)


def with_probabilities(
  task: task_lib.Task,
  predictions: Iterable[kind.Prediction],
  probabilities: np.ndarray,
) -> list[kind.Prediction]:
  """Adds the probability of each label, [N, c], to N predictions."""
  found = []
  for each, probs in zip(predictions, probabilities.tolist(), strict=True):
    by_label = dict(zip(task.labels, (round(p, 6) for p in probs), strict=True))
    said = {**each.said, 'probabilities': by_label}
    found.append(each._replace(said=said, probabilities=probs))
  return found
