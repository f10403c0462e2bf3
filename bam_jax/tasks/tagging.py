"""Tagging: one tag per word, for spans (names) or plain (parts of speech).

Tags of spans follow the scheme BIO, BIOES or BILOU; a task's labels show which.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from bam_jax import errors
from bam_jax import escape
from bam_jax import plain_text
from bam_jax.tasks import classification
from bam_jax.tasks import joined_labels
from bam_jax.tasks import kind
from bam_jax.tasks import kind_bases
from bam_jax.tasks import ragged
from bam_jax.tasks import raw_values
from bam_jax.tasks import task as task_lib
from bam_jax.tasks import windows

# The tag schemes BIO, BIOES and BILOU; all tags of a task follow one scheme. L
# and U of BILOU mean the same as E and S of BIOES.
_SCHEMES = tuple(
  re.compile(rf'O|[{letters}]-.+') for letters in ('BI', 'BIES', 'BILU')
)
# Label of a token at which no word begins.
NO_WORD = -1

_USAGE = """\
words = 'these are the words of a text'.split()
inputs = tokenizer(
  words, is_split_into_words=True, truncation=True, return_tensors='pt'
)
with torch.no_grad():
  tags = model(**inputs).logits[0].argmax(-1).tolist()
before = None
for place, word in enumerate(inputs.word_ids()):
  if word is not None and word != before:  # the first piece of a word
    print(words[word], model.config.id2label[tags[place]])
  before = word"""


class Tagging(kind_bases.PerToken):
  """Tasks with one tag per word, predicted at the word's first token.

  In the features, `label` has one number per token: the index of the tag, nan
  if the tag is missing, or `NO_WORD` if no word begins at the token.
  """

  name = 'tagging'
  measures = 'spans'
  default_metrics = ('span_f1',)
  formats = ('conll', 'jsonl')
  num_texts = (1,)
  holds = 'words'
  of_words = True
  has_class_weights = True
  infers_labels = True
  architecture = 'ForTokenClassification'
  pipeline = 'token-classification'

  def fault(self, labels: Sequence[str], scale: tuple[float, float]) -> str:
    good = len(set(labels)) == len(labels) >= 2 and 'O' in labels
    if good and any(
      all(scheme.fullmatch(label) for label in labels) for scheme in _SCHEMES
    ):
      return ''
    return (
      f'labels: {labels} must be different tags: O, B-TYPE and I-TYPE, with'
      ' E-TYPE and S-TYPE, or L-TYPE and U-TYPE, if the files have them; other'
      f' tags are those of kind={PlainTagging.name!r}'
    )

  def label_names(
    self, task: task_lib.Task, value: tuple[str, ...]
  ) -> tuple[str, ...]:
    return value

  def label_width(self, task: task_lib.Task) -> None:
    return None

  def parse(
    self, task: task_lib.Task, value: tuple[str, ...], where: str
  ) -> tuple[int, ...]:
    return tuple(classification.label_index(task, tag, where) for tag in value)

  def encode_label(
    self, task: task_lib.Task, label: tuple[int, ...] | None
  ) -> np.ndarray:
    """Returns the tag index of each word; `windows` assigns them to tokens."""
    return np.array(np.nan if label is None else label, np.float32)

  def windows(
    self,
    task: task_lib.Task,
    examples: Sequence[task_lib.Example],
    tokenizer: kind.Tokenizer,
    max_length: int,
    on_cut: Callable[[str], None],
  ) -> Iterator[kind.Features]:
    """Cuts texts into windows `[CLS] pieces [SEP]`, without splitting words.

    A word without any piece becomes `[UNK]`. A word that is longer than a
    window loses its last pieces.
    """
    room = max_length - 2
    words = [example.text_a.split(' ') for example in examples]
    ids = iter(tokenizer.encode_words(list(itertools.chain(*words))))
    cls, sep = [tokenizer.cls_id], [tokenizer.sep_id]
    unknown = np.array([tokenizer.unk_id], np.int32)
    for example, split in zip(examples, words):
      pieces = [next(ids) for _ in split]
      pieces = [piece if len(piece) else unknown for piece in pieces]
      if max(map(len, pieces)) > room:
        on_cut(example.uid)
        pieces = [piece[:room] for piece in pieces]
      tags = np.broadcast_to(self.encode_label(task, example.label), len(split))
      for number, (first, last) in enumerate(_windows(pieces, room)):
        own = pieces[first:last]
        input_ids = np.concatenate([cls, *own, sep], dtype=np.int32)
        label = np.full(len(input_ids), NO_WORD, np.float32)
        label[np.cumsum([1, *map(len, own[:-1])])] = tags[first:last]
        uid = task_lib.window_uid(example.uid, number)
        yield kind.Features(uid, input_ids, len(input_ids), label)

  def is_trainable(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    label, offsets = rows.ragged('label')
    good = np.isin(label, np.arange(NO_WORD, task.num_outputs))
    whole = np.array_equal(offsets, rows.ragged('input_ids')[1])
    words = np.add.reduceat(label >= 0, offsets[:-1])
    bad = np.add.reduceat(~good, offsets[:-1])
    return (bad == 0) & (words > 0) & whole

  def token_targets(
    self, task: task_lib.Task, rows: kind.Rows, chosen: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns one-hot tags and loss weights; a word has 1 / (words in row)."""
    values, offsets = rows.ragged('label')
    label = np.asarray(values[ragged.places(offsets, chosen)])
    lengths = np.diff(offsets)[chosen]
    word = label >= 0
    words = np.add.reduceat(word, np.cumsum(lengths) - lengths)
    share = np.where(word, 1 / np.repeat(words, lengths), 0)
    return classification.one_hot(label, task), share.astype(np.float32)

  def label_counts(self, task: task_lib.Task, rows: kind.Rows) -> np.ndarray:
    tags = rows.ragged('label')[0]
    return np.bincount(
      tags[tags >= 0].astype(np.int64), minlength=task.num_outputs
    )

  def teacher_probs(
    self, logits: np.ndarray, temperature: float, rows: kind.Rows | None = None
  ) -> np.ndarray:
    return classification.softmax(logits, temperature)

  def loss(
    self,
    logits: jax.Array,
    target: jax.Array,
    share: jax.Array,
    inside: jax.Array,
    class_mask: jax.Array,
  ) -> jax.Array:
    """Weighted sum of the soft cross-entropies of an example's words."""
    mask = jnp.any(inside[..., None] & class_mask[:, :, None], axis=1)
    # Tokens outside of all slots get all outputs, so that losses are finite.
    mask |= ~jnp.any(inside, axis=1)[..., None]  # [B, L, K]
    log_probs = classification.masked_log_softmax(logits, mask)
    losses = -share * jnp.sum(target * log_probs, axis=-1)  # [B, L]
    return jnp.sum(jnp.where(inside, losses[:, None], 0.0), axis=-1)

  def constant_loss(self, task: task_lib.Task, rows: kind.Rows) -> float:
    targets, share = self.token_targets(task, rows, np.arange(len(rows)))
    mean = share @ targets / len(rows)
    if task.target_weights:
      return float(kind_bases.constant_cross_entropy(mean))
    return float(kind_bases.entropy(mean))

  def constant_logits(
    self, task: task_lib.Task, train: kind.Rows, rows: kind.Rows
  ) -> np.ndarray:
    """Predicts the most frequent tag of the training words, mostly `O`."""
    counts = self.label_counts(task, train)
    tokens = len(rows.ragged('input_ids')[0])
    return np.tile(np.log1p(counts).astype(np.float32), (tokens, 1))

  def tally(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> np.ndarray:
    """Counts correct, predicted and gold spans, [examples, 3]."""
    found = []
    for _, predicted, gold in _examples(task, logits, rows):
      one, other = spans(predicted), spans(gold)
      found.append((len(one & other), len(one), len(other)))
    return np.array(found, np.int64)

  def outputs(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> dict[str, np.ndarray]:
    """Adds `confidence`, [words]: the probability of each predicted tag."""
    words = logits[rows.ragged('label')[0] != NO_WORD]
    confidence = self.teacher_probs(words, 1.0).max(-1)
    found = super().outputs(task, logits, rows)
    return found | {'confidence': confidence}

  def decided(
    self, task: task_lib.Task, arrays: Mapping[str, np.ndarray]
  ) -> list[kind.Decided]:
    index = {label: place for place, label in enumerate(task.labels)}
    labels = [
      tuple(index[tag] for tag in joined_labels.split_labels(text, task, ' '))
      for text in arrays['prediction'].tolist()
    ]
    # Outputs of older versions have no `confidence`.
    if 'confidence' not in arrays:
      return list(map(kind.Decided, labels))
    ends = np.cumsum([len(label) for label in labels])
    if len(arrays['confidence']) != ends[-1]:
      raise ValueError('not one probability for every word')
    words = np.split(arrays['confidence'], ends[:-1])
    return [
      kind.Decided(*each) for each in zip(labels, map(np.ndarray.tolist, words))
    ]

  def differing_parts(
    self, task: task_lib.Task, label: tuple[int, ...], other: tuple[int, ...]
  ) -> list[int]:
    """Returns the indices of words whose tags differ between two labels.

    Returns [] if both labels have the same spans, even if some tags differ.
    """
    one, two = (self.label_value(task, each) for each in (label, other))
    if spans(one) == spans(two):
      return []
    return _differing_words(label, other)

  def label_value(
    self, task: task_lib.Task, label: tuple[int, ...]
  ) -> list[str]:
    return [task.labels[tag] for tag in label]

  def is_positive(self, task: task_lib.Task, label: tuple[int, ...]) -> bool:
    return any(tag != task.labels.index('O') for tag in label)

  def quality_inputs(
    self, task: task_lib.Task, logits: np.ndarray, label: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns log-probabilities and gold tags of all words."""
    word = np.asarray(label) >= 0
    logits = np.asarray(logits, np.float64)[word]
    return scipy.special.log_softmax(logits, -1), label[word].astype(np.int64)

  def input_names(self, task: task_lib.Task) -> list[tuple[str, ...]]:
    """Accepts a list of words, or a `text` of words separated by spaces."""
    *own, common = super().input_names(task)
    return list(dict.fromkeys([*own, ('words',), common]))

  def parse_input(
    self, values: Mapping[str, object], where: str
  ) -> tuple[str, ...]:
    """Returns one text: the words joined by single spaces."""
    ((name, value),) = values.items()
    if isinstance(value, list):
      words = [
        raw_values.check_word(word, f'{where}: {name!r}[{place}]')
        for place, word in enumerate(value)
      ]
    elif name == 'text':
      text = raw_values.check_text(value, f"{where}: 'text'")
      text = plain_text.one_line(text)
      words = text.split(' ') if text else []
    else:
      raise errors.UserError(
        f'{where}: {name!r} is not a list; give a list of strings, or the'
        " sentence as 'text'"
      )
    if not words:
      raise errors.UserError(
        f'{where}: {name!r} has no word; give at least one word'
      )
    return (' '.join(words),)

  def predict(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> list[kind.Prediction]:
    """Predicts `tags`, one per word, and `spans` as word indices from 0."""
    found = []
    for uid, tags, _ in _examples(task, logits, rows):
      by_place = sorted(spans(tags), key=lambda span: span[1])
      said = {
        'tags': tags,
        'spans': [
          {'type': name, 'first': first, 'last': last}
          for name, first, last in by_place
        ],
      }
      text = joined_labels.join_labels(tags, task, ' ')
      found.append(kind.Prediction(uid, text, said))
    return found

  def meaning(self, task: task_lib.Task) -> str:
    names = ', '.join(map(escape.code, task.labels))
    return f"logits of {names} at each word's first piece"

  def usage(self, task: task_lib.Task) -> str:
    return _USAGE


class PlainTagging(Tagging):
  """Tasks with one tag per word and no spans, such as parts of speech."""

  name = 'plain_tagging'
  measures = 'tags'
  default_metrics = ('tag_accuracy',)

  def fault(self, labels: Sequence[str], scale: tuple[float, float]) -> str:
    if len(set(labels)) == len(labels) >= 2:
      return ''
    return f'labels: {labels} must be two or more different tags'

  def tally(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> np.ndarray:
    """Counts correct tags, and words, of each example, [examples, 2]."""
    found = []
    for _, predicted, gold in _examples(task, logits, rows):
      right = sum(one == other for one, other in zip(predicted, gold))
      found.append((right, len(gold)))
    return np.array(found, np.int64)

  def differing_parts(
    self, task: task_lib.Task, label: tuple[int, ...], other: tuple[int, ...]
  ) -> list[int]:
    return _differing_words(label, other)

  def is_positive(self, task: task_lib.Task, label: tuple[int, ...]) -> bool:
    return True  # The metric of plain tags does not need a positive.

  def predict(
    self, task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
  ) -> list[kind.Prediction]:
    """Predicts `tags`, one per word."""
    return [
      kind.Prediction(
        uid, joined_labels.join_labels(tags, task, ' '), {'tags': tags}
      )
      for uid, tags, _ in _examples(task, logits, rows)
    ]


def spans(tags: Sequence[str]) -> set[tuple[str, int, int]]:
  """Finds spans as conlleval does: type, first word, last word.

  An I, E or L continues a span if the previous tag is a B or I of the same
  type. Every other tag except O begins a span.

  >>> sorted(spans(['B-PER', 'I-PER', 'O', 'I-LOC', 'B-LOC']))
  [('LOC', 3, 3), ('LOC', 4, 4), ('PER', 0, 1)]
  >>> sorted(spans(['B-PER', 'E-PER', 'E-PER', 'S-LOC']))
  [('LOC', 3, 3), ('PER', 0, 1), ('PER', 2, 2)]
  """
  found: list[tuple[str, int, int]] = []
  before = 'O'
  for place, tag in enumerate(tags):
    if tag != 'O':
      continues = (
        tag[0] in 'IEL' and before[0] in 'BI' and before[2:] == tag[2:]
      )
      first = found.pop()[1] if continues else place
      found.append((tag[2:], first, place))
    before = tag
  return set(found)


def _differing_words(
  label: tuple[int, ...], other: tuple[int, ...]
) -> list[int]:
  pairs = enumerate(zip(label, other, strict=True))
  return [word for word, (one, two) in pairs if one != two]


def _examples(
  task: task_lib.Task, logits: np.ndarray, rows: kind.Rows
) -> Iterator[tuple[str, list[str], list[str]]]:
  """Yields uid, predicted tags and gold tags of each example.

  A missing gold tag becomes O, or the first label if the task has no O.
  """
  label, offsets = rows.ragged('label')
  uids, bounds = windows.examples_of(rows.uids)
  begins = np.asarray(offsets)[bounds]
  best = np.argmax(logits, axis=-1)
  names = np.array(task.labels)
  missing = task.labels.index('O') if 'O' in task.labels else 0
  for uid, begin, end in zip(uids, begins[:-1], begins[1:]):
    own = np.asarray(label[begin:end])
    word = own != NO_WORD
    gold = np.nan_to_num(own[word], nan=missing).astype(int)
    yield uid, names[best[begin:end][word]].tolist(), names[gold].tolist()


def _windows(pieces: list[np.ndarray], room: int) -> Iterator[tuple[int, int]]:
  """Yields each window as the indices of its first word and its end word.

  The end word is the word after the last one. A window has room for `room`
  pieces.
  """
  first = used = 0
  for place, piece in enumerate(pieces):
    if used + len(piece) > room:
      yield first, place
      first, used = place, 0
    used += len(piece)
  yield first, len(pieces)
