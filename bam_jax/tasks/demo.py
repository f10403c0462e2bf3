"""The embedded default suite: five small generated tasks, one of each kind.

Everything is made from the word lists below. The words of a list before its `/`
stand in `train` alone, those after it in `dev` and `test` alone: only what a
pretrained encoder knows about the held-out words carries over. The tasks share
words and meaning (synonyms, categories, opposites, polarity), so that they can
teach one another. A few per cent of the training labels are noise, and some
texts are ambiguous, so that no teacher is perfect.
"""

from collections.abc import Callable
from collections.abc import Sequence
import re
from typing import NamedTuple
from typing import TypeVar

import numpy as np

from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib

_Choice = TypeVar('_Choice')
_Row = tuple[str, str | None, int | float]  # text a, text b, label

_SEED = 20190710
_LABEL_NOISE = 4  # per cent of the training rows

# Concepts: `a=b` are two words of one meaning, `!c` a word of the opposite one.
_PERSONS = """
doctor=physician teacher=instructor child=kid lawyer=attorney thief=robber
singer=vocalist sailor=seaman king=monarch
/ woman=lady author=writer boss=manager cop=policeman pilot=aviator
soldier=warrior"""
_ANIMALS = """
dog=hound horse=pony rabbit=bunny pig=hog frog=toad snake=serpent cow=ox
turtle=tortoise
/ cat=kitten donkey=mule rat=mouse chicken=hen crow=raven sheep=lamb"""
_FOODS = """
soup=broth cookie=biscuit bread=loaf pasta=spaghetti jam=jelly candy=chocolate
pie=pastry pepper=chili
/ steak=beef noodle=ramen burger=hamburger cheese=cheddar cake=cupcake
salad=lettuce"""
_VEHICLES = """
car=automobile boat=ship truck=lorry train=locomotive tractor=bulldozer
sled=sledge wagon=cart taxi=cab
/ plane=aircraft bike=bicycle bus=coach helicopter=chopper yacht=sailboat
van=minivan"""
_BUILDINGS = """
house=home shop=store church=chapel hotel=inn farm=ranch jail=prison
/ school=academy castle=fortress bar=pub cabin=cottage"""
# In the past tense, equal to the participle.
_VERBS = """
bought=purchased!sold found=discovered!lost fixed=repaired!broke
watched=observed!ignored liked=enjoyed!hated cleaned=washed!painted
/ loved=adored!disliked wrecked=destroyed!rebuilt noticed=spotted!overlooked
moved=carried!kept"""
_QUALITIES = """
big=large!small fast=quick!slow old=ancient!new clean=spotless!dirty
wet=damp!dry costly=expensive!cheap loud=noisy!quiet
/ huge=enormous!tiny hot=warm!cold hard=solid!soft rich=wealthy!poor"""
_GOOD = """
good great wonderful delightful excellent charming superb pleasant lovely
brilliant fantastic perfect fine amazing splendid beautiful
/ terrific marvelous impressive fabulous enjoyable remarkable magnificent
outstanding adorable stunning"""
_BAD = """
bad awful terrible boring horrible ugly dreadful nasty disappointing miserable
weak dull stupid annoying unpleasant mediocre
/ horrid lousy disgusting appalling pathetic worthless hideous tedious
atrocious inferior"""
# Words of every split.
_SUBJECTS = 'movie story dinner show trip room service concert game party'
_ADVERBS = 'really very quite rather truly so'

# `a` and `b` are of opposite polarity, `t` and `u` subjects. The text takes
# the polarity of `a`,
_KEPT = """
the {t} was {r} {a} .
i thought the {t} {a} , as did my friends .
the {t} was {b} but the {u} was {r} {a} .
i expected the {t} to be {b} , yet it was {a} .
the {t} was not {b} , it was {r} {a} ."""
# its opposite,
_TURNED = """
the {t} was not {a} at all .
nobody would call this {t} {a} .
the {t} was never {a} , and neither was the {u} .
they say the {t} is {a} , but it is not ."""
# or either: nothing tells which of the two words decides.
_MIXED = """
the {t} was {a} and the {u} was {b} .
the {t} was {b} and the {u} was {a} ."""
# The text is about `x`, `y` is of another topic; the last two are ambiguous.
_TOPIC = """
she wrote a long book about the {x} .
the {y} is on the cover , but the story is about the {x} .
the talk began with the {y} and then was all about the {x} .
he drew the {x} instead of the {y} that we had asked for .
instead of the {y} , the painting shows the {q} {x} .
we saw the {x} , and nobody cared about the {y} .
my sister knows all there is to know about the {x} .
it was the {q} {x} and not the {y} that they wanted .
there was the {x} and also the {y} .
there was the {y} and also the {x} ."""
_SCENES = """
the {p} {v} the {q} {n} .
the {q} {n} was {v} by the {p} .
it was the {p} who {v} the {q} {n} .
the {n} that the {p} {v} was {q} ."""


class _Concept(NamedTuple):
  words: tuple[str, ...]
  opposite: str
  category: str


def _halves(words: str) -> tuple[list[str], list[str]]:
  """The words of training, and those held out."""
  train, held_out = words.split('/')
  return train.split(), held_out.split()


def _concepts(words: str, category: str) -> tuple[list[_Concept], ...]:
  def concept(entry: str) -> _Concept:
    meaning, _, opposite = entry.partition('!')
    return _Concept(tuple(meaning.split('=')), opposite, category)

  return tuple([concept(entry) for entry in half] for half in _halves(words))


_TOPICS = ('animal', 'food', 'vehicle')
_OBJECTS = (*_TOPICS, 'building')
_CONCEPTS = {
  'person': _concepts(_PERSONS, 'person'),
  'animal': _concepts(_ANIMALS, 'animal'),
  'food': _concepts(_FOODS, 'food'),
  'vehicle': _concepts(_VEHICLES, 'vehicle'),
  'building': _concepts(_BUILDINGS, 'building'),
  'verb': _concepts(_VERBS, 'verb'),
  'quality': _concepts(_QUALITIES, 'quality'),
}
_POLAR = (_halves(_BAD), _halves(_GOOD))


class _Draw:
  """Random choices for one split, from its own half of the words."""

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
    return self.one(templates.strip().split('\n')).format(**words)

  def polar(self, polarity: int) -> str:
    return self.one(_POLAR[polarity][self._half])

  def concept(self, category: str) -> _Concept:
    return self.one(_CONCEPTS[category][self._half])

  def word(self, category: str) -> str:
    return self.one(self.concept(category).words)

  def unlike(self, concept: _Concept) -> str:
    """A word of the category, of another meaning."""
    near = _CONCEPTS[concept.category][self._half]
    return self.one(self.other(near, concept).words)

  def scene(self) -> dict[str, _Concept]:
    """Who (p) did (v) what to which (q) thing (n)."""
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
  templates = _TURNED if kind < 35 else _MIXED if kind < 48 else _KEPT
  subjects = _SUBJECTS.split()
  subject = draw.one(subjects)
  text = draw.line(
    templates,
    a=draw.polar(polarity),
    b=draw.polar(1 - polarity),
    t=subject,
    u=draw.other(subjects, subject),
    r=draw.one(_ADVERBS.split()),
  )
  return text, None, 1 - polarity if templates is _TURNED else polarity


def _topic(draw: _Draw) -> _Row:
  topic = draw.one(_TOPICS)
  text = draw.line(
    _TOPIC,
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
  return draw.line(_SCENES, **first), draw.line(_SCENES, **second), same


def _nli(draw: _Draw) -> _Row:
  """Entailment: the same or a wider word; contradiction: the opposite."""
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
  return draw.line(_SCENES, **first), draw.line(_SCENES, **second), label


def _similarity(draw: _Draw) -> _Row:
  """The score sums the meanings in common, and wavers by up to 0.4."""
  scene, other = draw.scene(), draw.scene()
  level = draw.below(101)
  tenths = draw.below(9) - 4
  for slot, points in (('p', 10), ('v', 15), ('q', 5), ('n', 20)):
    if draw.below(100) < level:
      other[slot] = scene[slot]
    if other[slot] == scene[slot]:
      tenths += points
  first = draw.line(_SCENES, **draw.words(scene))
  second = draw.line(_SCENES, **draw.words(other))
  return first, second, min(max(tenths, 0), 50) / 10


def _task(name: str, text: tuple[str, ...], *labels: str) -> task_lib.Task:
  """A generated task; regression from 0 to 5 where there are no labels."""
  metrics = ('accuracy',) if labels else ('pearson', 'spearman')
  return task_lib.Task(
    name=name,
    kind=kinds.KINDS['classification' if labels else 'regression'],
    labels=labels,
    scale=(0.0, 1.0) if labels else (0.0, 5.0),
    metrics=metrics,
    paper_metric=metrics[-1],
    glue_metrics=metrics,
    tables={
      split: task_lib.Table(text=text, label=label, format='generated')
      for split, label in (('train', 'label'), ('dev', 'label'), ('test', None))
    },
  )


_SINGLE, _PAIR = ('text',), ('text_a', 'text_b')
_NLI = ('entailment', 'neutral', 'contradiction')
TASKS: dict[str, task_lib.Task] = {
  task.name: task
  for task in (
    _task('demo_sentiment', _SINGLE, 'negative', 'positive'),
    _task('demo_topic', _SINGLE, *_TOPICS),
    _task('demo_paraphrase', _PAIR, 'different', 'same'),
    _task('demo_nli', _PAIR, *_NLI),
    _task('demo_similarity', _PAIR),
  )
}

# Task -> maker of one row, training rows.
_RECIPES: dict[str, tuple[Callable[[_Draw], _Row], int]] = {
  'demo_sentiment': (_sentiment, 240),
  'demo_topic': (_topic, 180),
  'demo_paraphrase': (_paraphrase, 200),
  'demo_nli': (_nli, 320),
  'demo_similarity': (_similarity, 260),
}
_HELD_OUT_ROWS = {'dev': 100, 'test': 50}


def generate(
  task_name: str, split: str, rows: int | None = None
) -> list[task_lib.Example]:
  """The rows of a split: the same on every machine, no text twice.

  Args:
    task_name: a key of `TASKS`.
    split: `train`, `dev` or `test`; the last has no labels.
    rows: how many; None: as many as the suite has. The first ones are those.

  Returns:
    Examples; a score is a multiple of 0.1 from 0 to 5.

  Raises:
    KeyError: no such task or split.
  """
  task = TASKS[task_name]
  make, train_rows = _RECIPES[task_name]
  size = rows or {'train': train_rows, **_HELD_OUT_ROWS}[split]
  seed = (_SEED, list(TASKS).index(task_name), list(task.tables).index(split))
  draw = _Draw(seed, held_out=split != 'train')
  drawn: dict[tuple[str, str | None], int | float | None] = {}
  while len(drawn) < size:
    text_a, text_b, label = make(draw)
    if text_a == text_b:
      continue
    noisy = split == 'train' and draw.below(100) < _LABEL_NOISE
    if noisy and not task.kind.has_scale:
      label = draw.other(range(task.num_outputs), label)
    drawn.setdefault((text_a, text_b), None if split == 'test' else label)
  return [
    task_lib.Example(f'{task_name}/{split}/{index}', text_a, text_b, label)
    for index, ((text_a, text_b), label) in enumerate(drawn.items())
  ]


def vocabulary() -> list[str]:
  """A WordPiece vocabulary for a random encoder.

  Returns:
    The special tokens, [PAD] first; letters, alone and as `##` continuations,
    which spell any lower-case word; then every word and mark of the suite.
  """
  words = set()
  for name, task in TASKS.items():
    for split in task.tables:
      for example in generate(name, split):
        text = f'{example.text_a} {example.text_b or ""}'
        words.update(re.findall(r'\w+|[^\w\s]', text))
  letters = [chr(code) for code in range(ord('a'), ord('z') + 1)]
  special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
  pieces = [f'##{letter}' for letter in letters]
  return [*special, *letters, *pieces, *sorted(words - set(letters))]
