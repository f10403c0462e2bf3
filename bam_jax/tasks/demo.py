"""Nine small generated tasks, which need no download.

The texts are generated from the words and templates in demo.toml. The tasks
share words and meanings (synonyms, categories, opposites, polarity), so that a
model can transfer what it learns between tasks. There are two suites:

  NEW_WORDS  five tasks. Some words are used only in `train`, and other words
             only in `dev` and `test`. A model needs a pretrained encoder that
             knows the words of `dev` and `test`. Few training labels are wrong;
             some texts are ambiguous.
  REVIEWS    four tasks about reviews, which the demo trains. All splits use the
             same words, so that an encoder with random weights can learn them.
             Many training labels are wrong, as if careless people had given
             them; the labels of `dev` are right.
"""

from collections.abc import Callable, Sequence
import functools
import itertools
from pathlib import Path
import re
import string
import tomllib
from typing import NamedTuple, TypeVar

import numpy as np

from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib

_Choice = TypeVar('_Choice')
_Row = tuple[str, str | None, int | float]  # text a, text b, label

_SEED = 20190710

_DATA = tomllib.loads(Path(__file__).with_name('demo.toml').read_text('utf-8'))
_TEMPLATES = {
  name: text.strip().split('\n') for name, text in _DATA['templates'].items()
}
_SUBJECTS, _ADVERBS = (
  _DATA['words'][k].split() for k in ('subjects', 'adverbs')
)


class _Concept(NamedTuple):
  words: tuple[str, ...]
  opposite: str
  category: str


def _concept(entry: str, category: str) -> _Concept:
  """Parses an entry of demo.toml, `word=synonym!opposite`."""
  meaning, _, opposite = entry.partition('!')
  return _Concept(tuple(meaning.split('=')), opposite, category)


def _halves(words: str) -> list[list[str]]:
  """Splits a word list at `/`: words of train, and words of dev and test."""
  return [half.split() for half in words.split('/')]


_TOPICS = ('animal', 'food', 'vehicle')
_OBJECTS = (*_TOPICS, 'building')
_CONCEPTS = {
  category: [[_concept(e, category) for e in half] for half in _halves(words)]
  for category, words in _DATA['concepts'].items()
}
_POLAR = [_halves(_DATA['polar'][name]) for name in ('bad', 'good')]
# Polar word -> number that the word adds to a review's grade: -1 or 1, or -2 or
# 2 for a strong word.
_GRADES = {
  word: (2 * polarity - 1) * (1 + (word in _DATA['polar']['strong'].split()))
  for polarity, halves in enumerate(_POLAR)
  for word in itertools.chain(*halves)
}


class _Draw:
  """Draws random words and templates for one split."""

  def __init__(self, seed: Sequence[int], held_out: bool):
    self._generator = np.random.Generator(np.random.PCG64(seed))
    self._half = int(held_out)

  def below(self, limit: int) -> int:
    return int(self._generator.integers(limit))

  def one(self, choices: Sequence[_Choice]) -> _Choice:
    return choices[self.below(len(choices))]

  def other(self, choices: Sequence[_Choice], taken: _Choice) -> _Choice:
    return self.one([choice for choice in choices if choice != taken])

  def line(self, templates: str, **words: str) -> str:
    return self.one(_TEMPLATES[templates]).format(**words)

  def polar(self, polarity: int) -> str:
    return self.one(_POLAR[polarity][self._half])

  def concept(self, category: str) -> _Concept:
    return self.one(_CONCEPTS[category][self._half])

  def word(self, category: str) -> str:
    return self.one(self.concept(category).words)

  def any_word(self, category: str) -> str:
    """Draws a word of a category, from the words of all splits."""
    concepts = [*itertools.chain(*_CONCEPTS[category])]
    return self.one(self.one(concepts).words)

  def unlike(self, concept: _Concept) -> str:
    """Draws a word from the category of a concept, with another meaning."""
    near = _CONCEPTS[concept.category][self._half]
    return self.one(self.other(near, concept).words)

  def scene(self) -> dict[str, _Concept]:
    """Draws the concepts of a sentence: person, verb, quality and object."""
    return {
      'p': self.concept('person'),
      'v': self.concept('verb'),
      'q': self.concept('quality'),
      'n': self.concept(self.one(_OBJECTS)),
    }

  def words(self, scene: dict[str, _Concept]) -> dict[str, str]:
    return {slot: self.one(concept.words) for slot, concept in scene.items()}


def _sentiment(draw: _Draw) -> _Row:
  polarity, kind = draw.below(2), draw.below(100)
  templates = 'turned' if kind < 35 else 'mixed' if kind < 48 else 'kept'
  subject = draw.one(_SUBJECTS)
  text = draw.line(
    templates,
    a=draw.polar(polarity),
    b=draw.polar(1 - polarity),
    t=subject,
    u=draw.other(_SUBJECTS, subject),
    r=draw.one(_ADVERBS),
  )
  return text, None, 1 - polarity if templates == 'turned' else polarity


def _topic(draw: _Draw) -> _Row:
  topic = draw.one(_TOPICS)
  text = draw.line(
    'topic',
    x=draw.word(topic),
    y=draw.word(draw.other(_TOPICS, topic)),
    q=draw.word('quality'),
  )
  return text, None, _TOPICS.index(topic)


def _paraphrase(draw: _Draw) -> _Row:
  scene = draw.scene()
  first, second = draw.words(scene), draw.words(scene)
  same = draw.below(2)
  if not same:
    for slot in draw.one(('v', 'pn', 'vn', 'pvn', 'pvqn')):
      second[slot] = draw.unlike(scene[slot])
  return draw.line('scene', **first), draw.line('scene', **second), same


def _nli(draw: _Draw) -> _Row:
  """Draws two texts and a label: 0 entailed, 1 neutral, 2 contradicted."""
  scene = draw.scene()
  first, second = draw.words(scene), draw.words(scene)
  label = draw.below(3)
  if label == 0:
    for slot in draw.one(('', 'p', 'n')):
      second[slot] = scene[slot].category
  elif label == 1:
    for slot in draw.one(('p', 'n', 'pn')):
      second[slot] = draw.unlike(scene[slot])
  else:
    slot = draw.one('vvq')
    second[slot] = scene[slot].opposite
  return draw.line('scene', **first), draw.line('scene', **second), label


def _similarity(draw: _Draw) -> _Row:
  """Draws two texts and a score from 0 to 5 for their similarity.

  The score is a weighted count of the concepts that both texts share, plus
  noise.
  """
  scene, other = draw.scene(), draw.scene()
  level = draw.below(101)
  tenths = draw.below(9) - 4
  for slot, points in (('p', 10), ('v', 15), ('q', 5), ('n', 20)):
    if draw.below(100) < level:
      other[slot] = scene[slot]
    if other[slot] == scene[slot]:
      tenths += points
  first = draw.line('scene', **draw.words(scene))
  second = draw.line('scene', **draw.words(other))
  return first, second, min(max(tenths, 0), 50) / 10


def _review(draw: _Draw) -> tuple[str, int]:
  """Draws a review and its grade from -4 to 4."""
  a, b = draw.one(list(_GRADES)), draw.one(list(_GRADES))
  subject = draw.one(_SUBJECTS)
  has_one = draw.below(10) < 3
  text = draw.line(
    'review_of_one' if has_one else 'review_of_two',
    a=a,
    b=b,
    t=subject,
    u=draw.other(_SUBJECTS, subject),
    r=draw.one(_ADVERBS),
    p=draw.any_word('person'),
    n=draw.any_word(draw.one(_OBJECTS)),
  )
  return text, _GRADES[a] + _GRADES[a if has_one else b]


def _opinion(draw: _Draw) -> _Row:
  text, grade = _review(draw)
  return text, None, int(grade > 0) if grade else draw.below(2)


def _verdict(draw: _Draw) -> _Row:
  text, grade = _review(draw)
  return text, None, 1 + (grade > 1) - (grade < -1)


def _visit(draw: _Draw) -> _Row:
  """Draws two reviews and a label for the sum of their grades.

  The label is 1 if the sum is above 0, 0 if it is below 0, and random if the
  sum is 0.
  """
  (first, grade), (second, other) = _review(draw), _review(draw)
  grade += other
  return first, second, int(grade > 0) if grade else draw.below(2)


def _stars(draw: _Draw) -> _Row:
  """Draws two reviews and a score from 0 to 5 for the sum of their grades.

  A sum of 0 gives 2.5.
  """
  (first, grade), (second, other) = _review(draw), _review(draw)
  return first, second, min(max(grade + other + 5, 0), 10) / 2


_MAKERS: dict[str, Callable[[_Draw], _Row]] = {
  'demo_sentiment': _sentiment,
  'demo_topic': _topic,
  'demo_paraphrase': _paraphrase,
  'demo_nli': _nli,
  'demo_similarity': _similarity,
  'demo_opinion': _opinion,
  'demo_verdict': _verdict,
  'demo_visit': _visit,
  'demo_stars': _stars,
}
NEW_WORDS, REVIEWS = tuple(_MAKERS)[:5], tuple(_MAKERS)[5:]
_SCORES = [tenths / 10 for tenths in range(51)]


def _task(name: str) -> task_lib.Task:
  declared = _DATA['tasks'][name]
  labels = tuple(declared.get('labels', '').split())
  kind = kinds.KINDS['classification' if labels else 'regression']
  text = ('text_a', 'text_b') if declared['pair'] else ('text',)
  return task_lib.Task(
    name=name,
    kind=kind,
    labels=labels,
    scale=(0.0, 1.0) if labels else (0.0, 5.0),
    metrics=kind.default_metrics,
    paper_metric=kind.default_metrics[-1],
    tables={
      split: task_lib.Table(text=text, label=label, format='generated')
      for split, label in (('train', 'label'), ('dev', 'label'), ('test', None))
    },
  )


TASKS: dict[str, task_lib.Task] = {name: _task(name) for name in _MAKERS}


def generate(
  task_name: str, split: str, rows: int | None = None
) -> list[task_lib.Example]:
  """Generates the rows of a split; the rows are the same on every machine.

  All rows have different texts. A score is a multiple of 0.1 from 0 to 5. The
  split `test` has no labels.

  Args:
    task_name: a key of `TASKS`.
    split: `train`, `dev` or `test`.
    rows: number of rows; a larger number only appends rows. None means the
      number in demo.toml.

  Raises:
    KeyError: the task or split is unknown.
  """
  task, declared = TASKS[task_name], _DATA['tasks'][task_name]
  size = rows or declared['rows'][split]
  seed = (_SEED, list(TASKS).index(task_name), list(task.tables).index(split))
  draw = _Draw(seed, held_out=split != 'train')
  drawn: dict[tuple[str, str | None], int | float | None] = {}
  while len(drawn) < size:
    text_a, text_b, label = _MAKERS[task_name](draw)
    if text_a == text_b:
      continue
    if split == 'train' and draw.below(100) < declared['wrong']:
      wrong = range(task.num_outputs) if task.labels else _SCORES
      label = draw.other(wrong, label)
    drawn.setdefault((text_a, text_b), None if split == 'test' else label)
  return [
    task_lib.Example(
      task_lib.make_uid(task_name, split, index), text_a, text_b, label
    )
    for index, ((text_a, text_b), label) in enumerate(drawn.items())
  ]


@functools.cache
def vocabulary() -> tuple[str, ...]:
  """Makes a WordPiece vocabulary for an encoder with random weights.

  Returns:
    The special tokens, [PAD] first; then the letters a to z, first plain and
    then with `##`, so that they can spell any lower-case word; then every word
    and punctuation mark of all tasks.
  """
  words = {
    word
    for name, task in TASKS.items()
    for split in task.tables
    for example in generate(name, split)
    for word in re.findall(
      r'\w+|[^\w\s]', f'{example.text_a} {example.text_b or ""}'
    )
  }
  special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
  letters = list(string.ascii_lowercase)
  pieces = [f'##{letter}' for letter in letters]
  return (*special, *letters, *pieces, *sorted(words - set(letters)))
