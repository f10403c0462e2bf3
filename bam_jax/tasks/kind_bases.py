"""Base classes of kinds: outputs per example or per token, and their scoring.

N rows of features, c outputs of the task.
"""

import abc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import itertools
import json

import jax
import numpy as np
import scipy.special

from bam_jax import plain_text
from bam_jax.tasks import kind
from bam_jax.tasks import metrics
from bam_jax.tasks import task as task_lib
from bam_jax.tasks import windows

# What files write between the labels of a cell, and those of them that hardly
# stand within one label.
_SEPARATORS, _CLEAR_SEPARATORS = (';', '|', '/', ','), (';', '|')
# Methods of a tensor for `Task.windows`.
_TORCH_POOL = {'mean': 'mean', 'max': 'amax'}


class Pooled(kind.Kind):
  """A kind whose outputs are per example, computed from the pooled vector."""

  # The method of a tensor that is `Plain.window_scores`, or ''.
  torch_scores = ''

  @abc.abstractmethod
  def example_targets(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    """Returns the gold targets of labelled rows, [N, c] float32.

    They are multiplied by the labels' weights: the loss is linear in them.
    """

  def example_totals(
    self, task: task_lib.Task, rows: kind.Rows
  ) -> np.ndarray | None:
    """Returns the sum of the gold targets of yes and of no, [N, c] float32.

    None if the sum is always 1, or labels are no decisions of their own.
    """
    return None

  @abc.abstractmethod
  def loss(
    self, logits: jax.Array, target: jax.Array, class_mask: jax.Array
  ) -> jax.Array:
    """Computes the loss of each example in the packed rows, [B, S] float32.

    It must be finite in slots of other kinds too.

    Args:
      logits: [B, S, C] float32.
      target: [B, S, C] float32, a mix of gold labels and teacher predictions.
      class_mask: [B, S, C] bool, the outputs that the slot's head has.

    Kinds with `decides_each_label` also take [B, S, C] float32, what the
    targets of yes and of no sum up to; None: 1.
    """

  @abc.abstractmethod
  def print_logits(self, task: task_lib.Task) -> str:
    """Returns Python code that prints the prediction of `logits`, [c]."""

  def usage(self, task: task_lib.Task) -> str:
    texts = "'a text'" + (", 'another one'" if task.is_pair else '')
    if task.windows:
      return self._use_windows(task, texts) + self.print_logits(task)
    inputs = (
      f"inputs = tokenizer({texts}, truncation=True, return_tensors='pt')"
    )
    call = 'model(**inputs).logits[0]'
    if task.is_bi_encoder:
      # A function of two texts in the card.
      inputs, call = '', f'model({texts})'
    return (
      f'{inputs}\nwith torch.no_grad():\n  logits = {call}\n'
    ) + self.print_logits(task)

  def _use_windows(self, task: task_lib.Task, texts: str) -> str:
    """Returns Python code that joins the logits of the windows of texts.

    It reads `max_length`, the tokens of a window.
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


class Plain(Pooled):
  """A kind whose prediction for an example is one number, or one per label.

  Where a task has windows, outputs of rows are those of windows, and the scores
  of an example's windows are joined before anything is predicted or measured.
  """

  joins_windows = True

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

    Of any number of labels: 0 or 1 of each, [N, c]. Outputs beyond the task's
    own number are ignored.
    """

  @abc.abstractmethod
  def gold(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    """Returns the gold class indices, scores or labels, like `predictions`."""

  def class_scores(
    self, task: task_lib.Task, logits: np.ndarray
  ) -> np.ndarray | None:
    """Returns [N, c] scores in the order of the probabilities of each class.

    float64, so that two that differ are no tie; None if there are no classes.
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
    """Turns the logits of examples into predictions."""

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
    # NumPy reads an array with a damaged header as bytes.
    if np.shape(logits) != (*rows, task.num_outputs):
      raise ValueError('not one row of logits for every example')
    measured = self._measured(task, logits, arrays.get('label'))
    gold, shape = measured.gold, np.shape(measured.predictions)
    if gold is not None and np.shape(gold) != shape:
      raise ValueError('not one label for every example')
    return measured


class Tallied(kind.Kind):
  """A kind whose metrics are computed from sums over the examples."""

  @abc.abstractmethod
  def tally(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> np.ndarray:
    """Returns the numbers of each example, [N, ...], that metrics sum up."""

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
    # Gold labels are in the tallies already.
    return metrics.Measured(tally, np.zeros(rows))


class PerToken(Tallied):
  """A kind whose outputs are per token: logits are [tokens, c]."""

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

    Windows are `Features`, or named tuples that also have the `more_fields`.
    Calls `on_cut` with the uid of each example that loses tokens, before its
    first window.

    Raises:
      errors.UserError: the task's windows would leave tokens out.
    """

  @abc.abstractmethod
  def token_targets(
    self, task: task_lib.Task, rows: kind.Rows, chosen: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns gold target and loss weight of each token of the chosen rows.

    Returns:
      [tokens, c] float32 targets, and [tokens] float32, the token's share of
      the example's loss: 0 if a token has no loss.
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

    It must be finite in slots of other kinds too.

    Args:
      logits: [B, L, K] float32.
      target: [B, L, K] float32, a mix of gold labels and teacher predictions.
      share: [B, L] float32, from `token_targets`.
      inside: [B, S, L] bool, the tokens of each slot that have a share.
      class_mask: [B, S, K] bool, the outputs that the slot's head has.
    """


def are_decisions(logits: np.ndarray) -> bool:
  """Whether logits are zeros and ones, as in the archives of docs/results.

  They say what is predicted, and not how probable it is.
  """
  return bool(np.isin(logits, (0, 1)).all())


def entropy(probs: np.ndarray) -> np.ndarray:
  """Computes the entropy of distributions over the last axis, in nats.

  >>> entropy(np.array([0.5, 0.5])).round(4).item()  # ln 2
  0.6931
  """
  return scipy.special.entr(np.asarray(probs, np.float64)).sum(-1)


def constant_cross_entropy(target: np.ndarray) -> np.ndarray:
  """Lowest cross-entropy of a constant prediction, in nats, given weights.

  Σ -t log(t / Σ t) over the last axis of the mean target; the entropy if it
  sums up to 1.

  >>> constant_cross_entropy(np.array([2.0, 2.0])).round(4).item()  # 4 ln 2
  2.7726
  """
  total = np.sum(target, axis=-1, dtype=np.float64)
  return entropy(target) - scipy.special.entr(total)


def join_labels(
  labels: Sequence[str], task: task_lib.Task, separator: str
) -> str:
  """Joins labels by a separator, or as a JSON list if that is ambiguous."""
  if needs_list(task, separator):
    return json.dumps(list(labels), ensure_ascii=False)
  return separator.join(labels)


def split_labels(text: str, task: task_lib.Task, separator: str) -> list[str]:
  """Splits what `join_labels` joined."""
  return (
    json.loads(text) if needs_list(task, separator) else text.split(separator)
  )


def needs_list(task: task_lib.Task, separator: str) -> bool:
  """Whether a label would change when labels are joined and split again."""
  return any(
    not label
    or label != label.strip(plain_text.BLANKS)
    or (label + separator).index(separator) < len(label)
    for label in task.labels
  )


def split_cell(text: str, separator: str) -> list[str]:
  """Splits a cell into labels, without the blanks around them.

  >>> split_cell('joy; anger;', ';')
  ['joy', 'anger']
  """
  names = (name.strip(plain_text.BLANKS) for name in text.split(separator))
  return [name for name in names if name]


def find_joined(labels: Sequence[str]) -> tuple[str, list[str]]:
  """Finds labels that seem to be several, joined by another separator.

  Most pieces of such a label are labels too, or stand in another one.

  >>> find_joined(['bill', 'mail', 'bill; mail', 'TCP/IP'])
  (';', ['bill; mail'])

  Returns:
    The separator that joins the most of the labels, and these; '' and none.
  """
  best: tuple[str, list[str]] = ('', [])
  for mark in _SEPARATORS:
    split = {label: {*split_cell(label, mark)} for label in labels}
    known = {*labels}
    if mark in _CLEAR_SEPARATORS:
      counts = Counter(itertools.chain.from_iterable(split.values()))
      known |= {piece for piece, count in counts.items() if count > 1}
    joined = [
      label
      for label, pieces in split.items()
      if len(pieces) > 1 and len(pieces & known) * 2 > len(pieces)
    ]
    best = max(best, (mark, joined), key=lambda found: len(found[1]))
  return best


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
