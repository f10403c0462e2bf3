"""The embedded default suite: five small generated tasks, one of each kind.

Everything is made from the word lists below. A list's words before the `/`
stand in `train`, those after it in `dev` and `test`: only what a pretrained
encoder knows about the held-out words carries over. The tasks share words and
meaning (synonyms, categories, opposites, polarity), so that they can teach one
another. Training labels hold a few per cent of noise.
"""

from collections.abc import Callable, Sequence
import functools
import re

import numpy as np

from bam_jax.tasks import task as task_lib

_SEED = 20190710
_LABEL_NOISE = 4  # per cent of the training rows

# Nouns by category. `a=b` are two words of one meaning.
_NOUNS = {
  'person': (
    'doctor=physician teacher=instructor child=kid lawyer=attorney'
    ' thief=robber singer=vocalist sailor=seaman king=monarch'
    ' / woman=lady author=writer boss=manager cop=policeman pilot=aviator'
    ' soldier=fighter'
  ),
  'animal': (
    'dog=hound horse=pony rabbit=bunny pig=hog frog=toad snake=serpent'
    ' cow=cattle bird=sparrow'
    ' / cat=kitten donkey=mule rat=mouse chicken=hen wolf=coyote'
    ' sheep=lamb'
  ),
  'food': (
    'soup=broth cookie=biscuit bread=loaf pasta=spaghetti potato=fries'
    ' candy=sweets pie=pastry pepper=chili'
    ' / steak=beef noodles=ramen burger=sandwich cheese=cheddar'
    ' cake=cupcake salad=lettuce'
  ),
  'vehicle': (
    'car=automobile boat=ship truck=lorry train=locomotive tractor=bulldozer'
    ' sled=sledge wagon=cart taxi=cab'
    ' / plane=aircraft bike=bicycle bus=coach helicopter=chopper'
    ' yacht=sailboat van=minivan'
  ),
  'building': (
    'house=home shop=store church=chapel hotel=inn farm=ranch'
    ' jail=prison / school=academy castle=fortress bar=pub cabin=cottage'
  ),
}
# Transitive verbs in the past, equal to their participles. `a=b!c`: a and b
# mean the same, c differs.
_VERBS = (
  'bought=purchased!sold found=discovered!lost fixed=repaired!broke'
  ' watched=observed!ignored liked=enjoyed!hated cleaned=washed!painted'
  ' / loved=adored!disliked wrecked=destroyed!rebuilt'
  ' noticed=spotted!overlooked moved=carried!kept'
)
# Qualities of things: two words of one meaning and their opposite.
_QUALITIES = (
  'big=large!small fast=quick!slow old=ancient!new clean=spotless!dirty'
  ' wet=damp!dry costly=expensive!cheap loud=noisy!quiet'
  ' / huge=enormous!tiny hot=warm!cold hard=solid!soft rich=wealthy!poor'
)
_GOOD = (
  'good great wonderful delightful excellent charming superb pleasant lovely'
  ' brilliant fantastic perfect fine amazing splendid beautiful'
  ' / terrific marvelous impressive fabulous enjoyable remarkable'
  ' magnificent outstanding adorable stunning'
)
_BAD = (
  'bad awful terrible boring horrible ugly dreadful nasty disappointing'
  ' miserable poor dull stupid annoying unpleasant mediocre'
  ' / horrid lousy disgusting appalling pathetic worthless hideous'
  ' tedious atrocious inferior'
)
_THINGS = 'movie story hotel dinner show trip room service concert game'.split()
_ADVERBS = 'really very quite rather truly so'.split()
_PLACES = 'yesterday|in the morning|last week|on sunday|after lunch'.split('|')

# `a`, `b`: words of opposite polarity; `t`, `u`: things. The first group takes
# the polarity of `a`, the second its opposite.
_SENTIMENT_KEPT = (
  'the {t} was {r} {a} .',
  'i found the {t} {a} , as did my friends .',
  'the {t} was {b} but the {u} was {r} {a} .',
  'i expected a {b} {t} , yet it was {a} .',
  'not a {b} {t} , it was {r} {a} .',
)
_SENTIMENT_TURNED = (
  'the {t} was not {a} at all .',
  'nobody would call this {t} {a} .',
  'the {t} was never {a} , and neither was the {u} .',
  'they say the {t} is {a} , but it is not .',
)
# The text is about `x`; `y` is of another topic.
_TOPIC = (
  'she wrote a long book about the {x} .',
  'the {y} is on the cover , but the story is about a {x} .',
  'the talk began with a {y} and then was all about the {x} .',
  'he drew a {x} instead of the {y} that we had asked for .',
  'instead of a {y} , the painting shows a {q} {x} .',
  'we saw a {x} , and nobody cared about the {y} .',
)
_SCENES = (
  'the {p} {v} the {q} {n} .',
  'the {q} {n} was {v} by the {p} .',
  'it was the {p} who {v} the {q} {n} .',
  'the {n} that the {p} {v} was {q} .',
)


class _Concept:
  """Two words of one meaning, their category, and a word of another meaning."""

  def __init__(self, entry: str, category: str):
    meaning, _, self.opposite = entry.partition('!')
    self.words = tuple(meaning.split('='))
    self.category = category


def _halves(words: str) -> tuple[list[str], list[str]]:
  """The words of training, and those held out."""
  train, held_out = words.split(' / ')
  return train.split(), held_out.split()


def _concepts(words: str, category: str) -> tuple[list[_Concept], ...]:
  return tuple(
    [_Concept(entry, category) for entry in half] for half in _halves(words)
  )


_NOUN_CONCEPTS = {c: _concepts(words, c) for c, words in _NOUNS.items()}
_VERB_CONCEPTS = _concepts(_VERBS, 'verb')
_QUALITY_CONCEPTS = _concepts(_QUALITIES, 'quality')
_POLAR = (_halves(_BAD), _halves(_GOOD))
_THING_CATEGORIES = ('animal', 'food', 'vehicle', 'building')
_TOPICS = ('animal', 'food', 'vehicle')


class _Draw:
  """Random choices for one split: seeded, and from its own half of the words."""

  def __init__(self, seed: Sequence[int], held_out: bool):
    self._generator = np.random.Generator(np.random.PCG64(seed))
    self._half = int(held_out)

  def below(self, limit: int) -> int:
    return int(self._generator.integers(limit))

  def chance(self, per_cent: int) -> bool:
    return self.below(100) < per_cent

  def one(self, choices: Sequence):
    return choices[self.below(len(choices))]

  def other(self, choices: Sequence, taken):
    """Any choice but the one taken."""
    return self.one([choice for choice in choices if choice is not taken])

  def polar(self, polarity: int) -> str:
    return self.one(_POLAR[polarity][self._half])

  def nouns(self, category: str) -> list[_Concept]:
    return _NOUN_CONCEPTS[category][self._half]

  def scene(self) -> dict[str, _Concept]:
    return {
      'p': self.one(self.nouns('person')),
      'v': self.one(_VERB_CONCEPTS[self._half]),
      'q': self.one(_QUALITY_CONCEPTS[self._half]),
      'n': self.one(self.nouns(self.one(_THING_CATEGORIES))),
    }

  def words(self, scene: dict[str, _Concept]) -> dict[str, str]:
    return {slot: self.one(concept.words) for slot, concept in scene.items()}

  def render(self, words: dict[str, str]) -> str:
    return self.one(_SCENES).format(**words)


_Row = tuple[str, str | None, int | float]


def _sentiment(draw: _Draw) -> _Row:
  polarity, turned = draw.below(2), draw.chance(40)
  thing = draw.one(_THINGS)
  text = draw.one(_SENTIMENT_TURNED if turned else _SENTIMENT_KEPT).format(
    a=draw.polar(polarity),
    b=draw.polar(1 - polarity),
    t=thing,
    u=draw.other(_THINGS, thing),
    r=draw.one(_ADVERBS),
  )
  return text, None, polarity ^ turned


def _topic(draw: _Draw) -> _Row:
  topic = draw.one(_TOPICS)
  text = draw.one(_TOPIC).format(
    x=draw.one(draw.one(draw.nouns(topic)).words),
    y=draw.one(draw.one(draw.nouns(draw.other(_TOPICS, topic))).words),
    q=draw.one(draw.scene()['q'].words),
  )
  return text, None, _TOPICS.index(topic)


def _paraphrase(draw: _Draw) -> _Row:
  scene = draw.scene()
  words = draw.words(scene)
  second = draw.words(scene)
  same = draw.below(2)
  if not same:
    slot = draw.one('pvqn')
    if slot in 'vq':
      second[slot] = scene[slot].opposite
    else:
      near = draw.nouns(scene[slot].category)
      second[slot] = draw.one(draw.other(near, scene[slot]).words)
  return draw.render(words), draw.render(second), same


def _nli(draw: _Draw) -> _Row:
  scene = draw.scene()
  words, second = draw.words(scene), draw.words(scene)
  label = draw.below(3)
  if label == 0:
    slot = draw.one('pn')
    if draw.chance(60):
      second[slot] = scene[slot].category
  elif label == 1:
    slot = draw.one('pn')
    near = draw.nouns(scene[slot].category)
    second[slot] = draw.one(draw.other(near, scene[slot]).words)
  else:
    slot = draw.one('vq')
    second[slot] = scene[slot].opposite
  return draw.render(words), draw.render(second), label


def _similarity(draw: _Draw) -> _Row:
  scene = draw.scene()
  words, second = draw.words(scene), draw.words(scene)
  level = draw.below(101)
  other = draw.words(draw.scene())
  score = 0
  for slot, points in (('p', 10), ('v', 15), ('q', 5), ('n', 20)):
    if draw.chance(level):
      score += points
    else:
      second[slot] = other[slot]
  return draw.render(words), draw.render(second), score / 10


def _make(
  name: str,
  kind: task_lib.Kind,
  labels: tuple[str, ...],
  text: tuple[str, ...],
) -> task_lib.Task:
  regression = kind == 'regression'
  metrics = ('pearson', 'spearman') if regression else ('accuracy',)
  return task_lib.Task(
    name=name,
    kind=kind,
    labels=labels,
    scale=(0.0, 5.0) if regression else (0.0, 1.0),
    metrics=metrics,
    paper_metric=metrics[-1],
    glue_metrics=metrics,
    tables={
      split: task_lib.Table(
        text=text,
        label=None if split == 'test' else 'label',
        format='generated',
      )
      for split in ('train', 'dev', 'test')
    },
  )


_SINGLE, _PAIR = ('text',), ('text_a', 'text_b')
TASKS: dict[str, task_lib.Task] = {
  task.name: task
  for task in (
    _make(
      'demo_sentiment', 'classification', ('negative', 'positive'), _SINGLE
    ),
    _make('demo_topic', 'classification', _TOPICS, _SINGLE),
    _make('demo_paraphrase', 'classification', ('different', 'same'), _PAIR),
    _make(
      'demo_nli',
      'classification',
      ('entailment', 'neutral', 'contradiction'),
      _PAIR,
    ),
    _make('demo_similarity', 'regression', (), _PAIR),
  )
}

# Task -> generator of a row, rows of train, dev and test.
_RECIPES: dict[str, tuple[Callable[[_Draw], _Row], dict[str, int]]] = {
  'demo_sentiment': (_sentiment, {'train': 500, 'dev': 200, 'test': 50}),
  'demo_topic': (_topic, {'train': 350, 'dev': 200, 'test': 50}),
  'demo_paraphrase': (_paraphrase, {'train': 280, 'dev': 200, 'test': 50}),
  'demo_nli': (_nli, {'train': 900, 'dev': 200, 'test': 50}),
  'demo_similarity': (_similarity, {'train': 600, 'dev': 200, 'test': 50}),
}


def generate(task_name: str, split: str) -> list[task_lib.Example]:
  task = TASKS[task_name]
  make, sizes = _RECIPES[task_name]
  seed = (_SEED, list(TASKS).index(task_name), list(sizes).index(split))
  draw = _Draw(seed, held_out=split != 'train')
  examples, seen = [], set()
  while len(examples) < sizes[split]:
    text_a, text_b, label = make(draw)
    if (text_a, text_b) in seen:
      continue
    seen.add((text_a, text_b))
    if (
      split == 'train' and draw.chance(_LABEL_NOISE) and not task.is_regression
    ):
      label = draw.below(task.num_outputs)
    uid = f'{task_name}/{split}/{len(examples)}'
    label = None if split == 'test' else label
    examples.append(task_lib.Example(uid, text_a, text_b, label))
  return examples
