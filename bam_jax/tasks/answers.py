"""Extractive question answering: the answer is a span of the context.

Each token has two logits: one for the start and one for the end of the answer.
A start and an end at [CLS] mean that there is no answer. A long context is
split into windows, and the best answer of all windows is predicted, as in
BERT's `run_squad.py`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from bam_jax import errors
from bam_jax import plain_text
from bam_jax.tasks import kind
from bam_jax.tasks import kind_bases
from bam_jax.tasks import ragged
from bam_jax.tasks import squad_metrics
from bam_jax.tasks import task as task_lib
from bam_jax.tasks import windows

# Maximum tokens of an answer, as in BERT's `run_squad.py`.
_LONGEST = 30

_USAGE = f"""\
question, context = 'what is this?', 'this is a text, and it has an answer.'
inputs = tokenizer(
  question,
  context,
  truncation='only_second',
  return_offsets_mapping=True,
  return_tensors='pt',
)
offsets = inputs.pop('offset_mapping')[0].tolist()
with torch.no_grad():
  outputs = model(**inputs)
# [start, end] of each answer, up to {_LONGEST} tokens of the context
scores = outputs.start_logits[0][:, None] + outputs.end_logits[0]
inside = torch.tensor([part == 1 for part in inputs.sequence_ids(0)])
allowed = torch.ones_like(scores).triu().tril({_LONGEST - 1}).bool()
allowed &= inside[:, None] & inside
found = scores.masked_fill(~allowed, float('-inf'))
start, end = divmod(found.argmax().item(), len(found))"""
_PRINT = 'print(context[offsets[start][0] : offsets[end][1]])'
_OR_NONE = f"""\
if scores[0, 0] > found.max():
  print('no answer')
else:
  {_PRINT}"""


class Window(NamedTuple):
  """A window as token ids: `[CLS] question [SEP] part of the context [SEP]`.

  Some tokenizers put two [SEP] before the context.
  """

  uid: str
  input_ids: np.ndarray
  length_a: int
  # [2]: positions of the first and last token of the answer; zeros if the
  # window does not contain the answer; nan if the example has no label.
  label: np.ndarray
  # First character and end character (exclusive) of each token; two values of
  # -1 for a token that is not in the context.
  spans: np.ndarray
  # Only the first window of an example has `context` and `answers`; both are
  # empty in the other windows.
  context: str
  answers: str  # The gold texts as JSON.


class Answers(kind_bases.PerToken):
  """Tasks whose answer is a span of a context; the features are `Window`s."""

  name = 'qa'
  measures = 'answers'
  default_metrics = ('answer_f1', 'exact_match')
  formats = ('squad', 'jsonl')
  holds = 'answers'
  by_id = ('id', 'answer')
  num_texts = (0,)
  columns = (('question', 'context'), 'answers')
  more_fields = (
    ('spans', 'int', None),
    ('context', 'bytes', 1),
    ('answers', 'bytes', 1),
  )
  own_fields = ('stride', 'unanswerable')
  output_names = ('start', 'end')
  architecture = 'ForQuestionAnswering'
  head_layer = 'qa_outputs'
  pipeline = 'question-answering'

  def fault(self, labels: Sequence[str], scale: tuple[float, float]) -> str:
    if labels:
      return f'labels: {labels} is given for a qa task; leave it empty'
    return ''

  def division_unit(self, texts: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the context, so that dev and training share no context."""
    return texts[1:]

  def label_width(self, task: task_lib.Task) -> int:
    return 2

  def parse(
    self, task: task_lib.Task, value: task_lib.Answers, where: str
  ) -> task_lib.Answers:
    """Returns the answers unchanged, each as (text, position in the context).

    Raises:
      errors.UserError: there is no answer, and the task is not `unanswerable`.
    """
    if not value and not task.unanswerable:
      raise errors.UserError(
        f'{where}: has no answer; fix the row or set'
        f' config.custom_tasks.{task.name}.unanswerable=True'
      )
    return value

  def encode_label(self, task: task_lib.Task, label: object) -> np.ndarray:
    """Returns the label of a window that does not contain the answer.

    The label is [2] float32: zeros, or nan if the example has no label.
    """
    return np.full(2, np.nan if label is None else 0, np.float32)

  def windows(
    self,
    task: task_lib.Task,
    examples: Sequence[task_lib.Example],
    tokenizer: kind.Tokenizer,
    max_length: int,
    on_cut: Callable[[str], None],
  ) -> Iterator[Window]:
    """Cuts contexts into windows that begin `task.stride` tokens apart.

    A stride of 0 means half of the room for the context. A question may fill
    up to half of a window; a longer question is truncated. The training target
    is the first gold answer if the window contains all of it, else "no answer".
    """
    separators = [tokenizer.sep_id] * tokenizer.num_separators
    budget = max_length - 2 - len(separators)
    longest = budget // 2
    questions = tokenizer.encode([example.text_a for example in examples])
    # Several questions often share a context, which is encoded only once.
    contexts = list(dict.fromkeys(example.text_b for example in examples))
    encoded = dict(
      zip(contexts, tokenizer.encode_with_spans(contexts), strict=True)
    )
    cls, sep = [tokenizer.cls_id], [tokenizer.sep_id]
    for example, question in zip(examples, questions):
      if len(question) > longest:
        on_cut(example.uid)
        question = question[:longest]
      ids, spans = encoded[example.text_b]
      answer = _first_answer(example, spans)
      no_answer = self.encode_label(task, example.label)
      room = budget - len(question)
      # Number of tokens before the context.
      before = 1 + len(question) + len(separators)
      begins = windows.begins(len(ids), room, task.stride)
      for number, begin in enumerate(begins):
        part = ids[begin : begin + room]
        label = no_answer
        if answer and begin <= answer[0] and answer[1] < begin + room:
          label = np.float32(answer) + np.float32(before - begin)
        places = np.full((before + len(part) + 1, 2), -1, np.int32)
        places[before:-1] = spans[begin : begin + room]
        answers = [text for text, _ in example.label or ()]
        yield Window(
          task_lib.window_uid(example.uid, number),
          np.concatenate(
            [cls, question, separators, part, sep], dtype=np.int32
          ),
          before,
          label,
          places.ravel(),
          '' if number else example.text_b,
          '' if number else json.dumps(answers),
        )

  def is_trainable(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    start, end = rows.fixed('label').T
    lengths = np.diff(rows.ragged('input_ids')[1])
    first = rows.fixed('length_a')
    inside = (first <= start) & (start <= end) & (end < lengths - 1)
    return inside | ((start == 0) & (end == 0))

  def token_targets(
    self, task: task_lib.Task, rows: kind.Rows, chosen: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns one-hot start and end targets, and the loss weight of each token.

    [CLS] and the tokens of the context have the weight 1, other tokens 0.
    """
    lengths, candidate = _candidates(rows, chosen)
    target = np.zeros((len(candidate), 2), np.float32)
    places = np.asarray(rows.fixed('label')[chosen]).astype(np.int64)
    places += (np.cumsum(lengths) - lengths)[:, None]
    target[places, [0, 1]] = 1
    return target, candidate.astype(np.float32)

  def teacher_probs(
    self, logits: np.ndarray, temperature: float, rows: kind.Rows | None = None
  ) -> np.ndarray:
    """Returns the start probability and the end probability of each token.

    In each window, the start probabilities of [CLS] and the context tokens sum
    up to 1, and so do the end probabilities.
    """
    lengths, candidate = _candidates(rows, np.arange(len(rows)))
    begins = np.cumsum(lengths) - lengths
    logits = np.asarray(logits, np.float64) / temperature
    logits = np.where(candidate[:, None], logits, -np.inf)
    highest = np.maximum.reduceat(logits, begins)
    powers = np.exp(logits - np.repeat(highest, lengths, axis=0))
    sums = np.repeat(np.add.reduceat(powers, begins), lengths, axis=0)
    return (powers / sums).astype(np.float32)

  def loss(
    self,
    logits: jax.Array,
    target: jax.Array,
    share: jax.Array,
    inside: jax.Array,
    class_mask: jax.Array,
  ) -> jax.Array:
    """Mean of the soft cross-entropies of start and end."""
    inside = inside[..., None]  # [B, S, L, 1]
    # A slot without tokens gets all tokens, so that the loss is finite.
    mask = inside | ~jnp.any(inside, axis=2, keepdims=True)
    masked = jnp.where(mask, logits[:, None, :, :2], -jnp.inf)
    log_probs = jax.nn.log_softmax(masked, axis=2)  # [B, S, L, 2]
    log_probs = jnp.where(inside, log_probs, 0.0)
    return -jnp.sum(target[:, None, :, :2] * log_probs, axis=(2, 3)) / 2

  def constant_loss(self, task: task_lib.Task, rows: kind.Rows) -> float:
    """Mean loss if [CLS] and all context tokens are equally likely."""
    lengths, candidate = _candidates(rows, np.arange(len(rows)))
    begins = np.cumsum(lengths) - lengths
    return float(np.log(np.add.reduceat(candidate, begins, dtype=int)).mean())

  def constant_logits(
    self, task: task_lib.Task, train: kind.Rows, rows: kind.Rows
  ) -> np.ndarray:
    """Predicts "no answer"; raises NoConstant if not `task.unanswerable`."""
    if not task.unanswerable:
      raise kind.NoConstant('an answer is a part of its own context')
    offsets = rows.ragged('input_ids')[1]
    logits = np.zeros((offsets[-1], 2), np.float32)
    logits[offsets[:-1]] = 1  # [CLS]
    return logits

  def tally(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> np.ndarray:
    """Returns [exact match, F1, 1] of each example; the 1 counts examples."""
    return _tally(_predictions(task, logits, rows), rows)

  def outputs(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> dict[str, np.ndarray]:
    """Returns `uid`, `prediction`, `tally` and `confidence` of each example.

    `confidence`, [examples], is the probability of the predicted answer.
    """
    found = list(_predictions(task, logits, rows))
    texts = [plain_text.one_line(each.text) for each in found]
    return {
      'uid': np.array([each.uid for each in found]),
      'prediction': np.array(texts),
      'tally': _tally(found, rows),
      'confidence': np.float32([each.confidence for each in found]),
    }

  def decided(
    self, task: task_lib.Task, arrays: Mapping[str, np.ndarray]
  ) -> list[kind.Decided]:
    texts = arrays['prediction'].tolist()
    labels = [((text, 0),) if text else () for text in texts]
    # Outputs of older versions have no `confidence`.
    if 'confidence' not in arrays:
      return list(map(kind.Decided, labels))
    probs = zip(arrays['confidence'].tolist())
    return [kind.Decided(*each) for each in zip(labels, probs, strict=True)]

  def differing_parts(
    self, task: task_lib.Task, label: task_lib.Answers, other: task_lib.Answers
  ) -> list[int]:
    """Returns [] if `other` contains the first answer of `label`, else [0]."""
    text = label[0][0] if label else ''
    known = self.label_value(task, other)
    is_equal = squad_metrics.best(squad_metrics.exact_match, text, known)
    return [] if is_equal else [0]

  def label_value(
    self, task: task_lib.Task, label: task_lib.Answers
  ) -> list[str]:
    return list(dict.fromkeys(text for text, _ in label))

  def input_names(self, task: task_lib.Task) -> list[tuple[str, ...]]:
    return [('question', 'context')]

  def parse_input(
    self, values: Mapping[str, object], where: str
  ) -> tuple[str, ...]:
    """Returns question and context; raises UserError if either is blank."""
    texts = super().parse_input(values, where)
    for name, text in zip(values, texts, strict=True):
      if not plain_text.one_line(text):
        raise errors.UserError(f'{where}: {name!r} is empty; give a text')
    return texts

  def predict(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> list[kind.Prediction]:
    """Predicts `answer`, `start` and `end`; all are None if there is no answer.

    `start` and `end` count characters of the context; `end` is exclusive. The
    prediction's `text` is the answer as one line, or empty if there is none.
    """
    found = []
    for uid, text, start, _ in _predictions(task, logits, rows):
      said = dict.fromkeys(('answer', 'start', 'end'))
      if text:
        said = {'answer': text, 'start': start, 'end': start + len(text)}
      found.append(kind.Prediction(uid, plain_text.one_line(text), said))
    return found

  def meaning(self, task: task_lib.Task) -> str:
    none = 'no answer' if task.unanswerable else 'none in this window'
    return f'logits of start and end of the answer at each token; [CLS]: {none}'

  def usage(self, task: task_lib.Task) -> str:
    end = _OR_NONE if task.unanswerable else _PRINT
    return f'{_USAGE}\n{end}'

  def export_settings(self, task: task_lib.Task) -> dict[str, object]:
    return {}


def _first_answer(
  example: task_lib.Example, spans: np.ndarray
) -> tuple[int, int] | None:
  """Returns the context tokens where the first gold answer begins and ends.

  Returns None if there is no answer, or if the answer has no token.
  """
  if not example.label:
    return None
  text, start = example.label[0]
  inside = (spans[:, 1] > start) & (spans[:, 0] < start + len(text))
  places = np.flatnonzero(inside)
  # White space, and characters that the tokenizer drops, have no token.
  return (int(places[0]), int(places[-1])) if len(places) else None


def _candidates(
  rows: kind.Rows, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the tokens where an answer may start or end: [CLS] and the context.

  Returns:
    [n] int, the number of tokens of each chosen row; and [tokens] bool, whether
    an answer may start or end at the token.
  """
  offsets = rows.ragged('input_ids')[1]
  lengths = np.diff(offsets)[chosen]
  place = ragged.indices(np.zeros_like(lengths), lengths)
  first = np.repeat(rows.fixed('length_a')[chosen], lengths)
  last = np.repeat(lengths - 2, lengths)
  return lengths, (place == 0) | ((first <= place) & (place <= last))


def _text(rows: kind.Rows, name: str, row: int) -> str:
  values, offsets = rows.ragged(name)
  return bytes(values[offsets[row] : offsets[row + 1]]).decode()


class _Predicted(NamedTuple):
  """The predicted answer to a question; an empty text means no answer."""

  uid: str
  text: str
  start: int  # The answer's first character.
  # Probability of the start times probability of the end, in the window with
  # the answer. Without an answer, it is the product at [CLS], in the window
  # where this product is lowest.
  confidence: float


def _tally(found: Iterable[_Predicted], rows: kind.Rows) -> np.ndarray:
  """Returns [exact match, F1, 1] of each example; the 1 counts examples."""
  result = []
  first_windows = windows.examples_of(rows.uids)[1][:-1]
  for each, row in zip(found, first_windows, strict=True):
    gold = json.loads(_text(rows, 'answers', row))
    exact = squad_metrics.best(squad_metrics.exact_match, each.text, gold)
    f1 = squad_metrics.best(squad_metrics.f1, each.text, gold)
    result.append((exact, f1, 1))
  return np.array(result, np.float64)


def _predictions(
  task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
) -> Iterator[_Predicted]:
  """Yields the prediction for each example."""
  offsets = rows.ragged('input_ids')[1]
  spans, _ = rows.ragged('spans')
  first = rows.fixed('length_a')
  uids, bounds = windows.examples_of(rows.uids)
  for uid, begin, end in zip(uids, bounds[:-1], bounds[1:]):
    best, none, answer = -np.inf, np.inf, (0, 0)
    confidence, none_confidence = 0.0, 1.0
    for row in range(begin, end):
      own = logits[offsets[row] : offsets[row + 1]].astype(np.float64)
      none = min(none, own[0].sum())
      score, start, last = _best(own[first[row] : -1])
      places = np.concatenate([own[:1], own[first[row] : -1]])
      total = scipy.special.logsumexp(places, axis=0).sum()
      none_confidence = min(none_confidence, np.exp(own[0].sum() - total))
      if score > best:
        place = offsets[row] + first[row]
        best, confidence = score, np.exp(score - total)
        answer = spans[2 * (place + start)], spans[2 * (place + last) + 1]
    context, place = _text(rows, 'context', begin), int(answer[0])
    if task.unanswerable and none > best:
      yield _Predicted(uid, '', place, none_confidence)
    else:
      yield _Predicted(uid, context[slice(*answer)], place, confidence)


def _best(logits: np.ndarray) -> tuple[float, int, int]:
  """Finds the best answer for [tokens, 2] logits: score, first, last token."""
  best = -np.inf, 0, 0
  for more in range(min(_LONGEST, len(logits))):
    sums = logits[: len(logits) - more, 0] + logits[more:, 1]
    start = int(np.argmax(sums))
    best = max(best, (sums[start], start, start + more))
  return best
