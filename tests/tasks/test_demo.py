"""The generated suite: deterministic, balanced, spelt, and held out."""

import collections
import hashlib
import itertools
import json
import re

import numpy as np
import pytest

from bam_jax.data import features
from bam_jax.tasks import demo
from bam_jax.tasks import metrics

_SPLITS = ('train', 'dev', 'test')


@pytest.fixture(scope='module')
def rows():
  return {
    (name, split): demo.generate(name, split)
    for name, split in itertools.product(demo.TASKS, _SPLITS)
  }


def _words(examples) -> set[str]:
  return {
    word
    for example in examples
    for text in (example.text_a, example.text_b or '')
    for word in re.findall(r'[a-z]+', text)
  }


@pytest.mark.parametrize('split', _SPLITS)
def test_more_rows_begin_with_those_of_the_suite(rows, split):
  few = rows['demo_topic', split]
  more = demo.generate('demo_topic', split, len(few) + 7)
  assert len(more) == len(few) + 7
  assert more[: len(few)] == few


def test_tasks_of_each_shape():
  shapes = [
    (task.is_pair, task.kind.has_scale, len(task.labels))
    for task in demo.TASKS.values()
  ]
  of_both = [(False, False, 2), (False, False, 3), (True, False, 2)]
  assert shapes == [
    *of_both, (True, False, 3), (True, True, 0), *of_both, (True, True, 0)
  ]  # fmt: skip
  assert tuple(demo.TASKS) == demo.NEW_WORDS + demo.REVIEWS
  for name, task in demo.TASKS.items():
    assert name == task.name
    assert name.startswith('demo_')
    assert set(task.metrics) <= set(metrics.METRICS)


@pytest.mark.parametrize(
  ('suite', 'digest'),
  [
    ('NEW_WORDS',
     '9db59db94b5d85d78aca55df52ee2063f3c294008ed17950fa88164c8fb2ef21'),
    ('REVIEWS',
     '9c8aa00c089049bda2c1c6faadc815cfbc5d4251911540d1d3511a4f352c0941'),
  ],
)  # fmt: skip
def test_rows_are_the_same_everywhere(rows, suite, digest):
  # The digests were computed once: a change of the rows, or of NumPy's stream,
  # shows here, because it changes every number that the demo reports.
  names = getattr(demo, suite)
  parts = [part for (name, _), part in rows.items() if name in names]
  text = json.dumps([list(map(list, part)) for part in parts])
  assert hashlib.sha256(text.encode()).hexdigest() == digest


def test_a_second_call_gives_the_same_rows(rows):
  assert demo.generate('demo_nli', 'dev') == rows['demo_nli', 'dev']


def test_sizes(rows):
  train = [len(rows[name, 'train']) for name in demo.TASKS]
  assert len(set(train[:5])) == 5
  assert sum(train[:5]) == 1200
  assert train[5:] == [1600, 1600, 1600, 800]
  for name in demo.TASKS:
    dev = 500 if name in demo.REVIEWS else 100
    assert (len(rows[name, 'dev']), len(rows[name, 'test'])) == (dev, 50)


@pytest.mark.parametrize('name', demo.TASKS)
def test_uids_count_the_rows_and_no_text_comes_twice(rows, name):
  for split in _SPLITS:
    part = rows[name, split]
    assert [e.uid for e in part] == [
      f'{name}/{split}/{i}' for i in range(len(part))
    ]
    assert len({(e.text_a, e.text_b) for e in part}) == len(part)
    assert all((e.text_b is not None) == demo.TASKS[name].is_pair for e in part)
    assert all(e.text_a != e.text_b for e in part)


@pytest.mark.parametrize('name', demo.TASKS)
def test_labels_fit_the_task_and_no_class_rules(rows, name):
  task = demo.TASKS[name]
  for split in ('train', 'dev'):
    labels = [e.label for e in rows[name, split]]
    if task.kind.has_scale:
      assert min(labels) == 0.0
      assert max(labels) == 5.0
      assert np.std(labels) > 1.0
    else:
      share = np.bincount(labels, minlength=task.num_outputs) / len(labels)
      assert len(share) == task.num_outputs
      fair = 1 / task.num_outputs
      deviation = np.sqrt(fair * (1 - fair) / len(labels))
      assert share.max() < fair + 3 * deviation
  assert all(e.label is None for e in rows[name, 'test'])


def test_content_words_of_dev_and_test_never_stand_in_train(rows):
  """Also not in another task's training rows."""
  names = demo.NEW_WORDS
  train = set().union(*(_words(rows[n, 'train']) for n in names))
  held_out = set().union(
    *(_words(rows[n, s]) for n in names for s in ('dev', 'test'))
  )
  lists = [*demo._POLAR, *demo._CONCEPTS.values()]
  halves = [
    {
      word
      for part in lists
      for entry in part[half]
      for word in (
        [entry]
        if isinstance(entry, str)
        else [*entry.words, *filter(None, [entry.opposite])]
      )
    }
    for half in (0, 1)
  ]
  assert not halves[0] & halves[1]
  assert not train & halves[1]
  assert not held_out & halves[0]
  # Every listed word is used, so that none of the above holds by accident.
  assert halves[0] <= train
  assert halves[1] <= held_out


def test_train_labels_hold_noise_and_dev_labels_none(rows):
  """Oracle: the text decides wherever the template does."""

  polarity = {
    word: int(words is demo._POLAR[1])
    for words in demo._POLAR
    for word in itertools.chain(*words)
  }
  turns = (' at all ', 'nobody ', ' never ', ' but it is not ')

  def wrong(split: str) -> float:
    result = []
    for example in rows['demo_sentiment', split]:
      found = [polarity[w] for w in example.text_a.split() if w in polarity]
      if ' and the ' not in example.text_a:  # else ambiguous
        turned = any(turn in example.text_a for turn in turns)
        result.append((found[-1] ^ turned) != example.label)
    return float(np.mean(result))

  assert wrong('dev') == 0.0
  assert 0.02 < wrong('train') < 0.08


def _grade(text: str) -> int:
  """Grades a review: strong words count twice, a single polar word again."""
  strong = set(demo._DATA['polar']['strong'].split())
  bad, good = (set(itertools.chain(*halves)) for halves in demo._POLAR)
  words = [word for word in text.split() if word in bad | good]
  grades = [(1 + (w in strong)) * (1 if w in good else -1) for w in words]
  return sum(grades) * (3 - len(grades))


@pytest.mark.parametrize('name', demo.REVIEWS)
def test_reviews_are_labelled_by_their_grade_but_for_wrong_labels(rows, name):
  """Oracle: grades counted from the texts."""

  def wrong(split: str) -> float:
    result = []
    for example in rows[name, split]:
      grade = _grade(example.text_a)
      if example.text_b is not None:
        grade += _grade(example.text_b)
      if name == 'demo_stars':
        expected = 2.5 + min(max(grade, -5), 5) / 2
      elif name == 'demo_verdict':
        expected = 0 if grade < -1 else 2 if grade > 1 else 1
      elif grade:
        expected = int(grade > 0)
      else:  # Either label is right.
        continue
      result.append(example.label != expected)
    return float(np.mean(result))

  assert wrong('dev') == 0.0
  assert 0.25 < wrong('train') < 0.35


@pytest.mark.parametrize('name', demo.REVIEWS)
def test_reviews_of_train_and_dev_share_polar_words_but_no_rows(rows, name):
  train, dev = rows[name, 'train'], rows[name, 'dev']
  polar = {word for halves in demo._POLAR for half in halves for word in half}
  assert polar <= _words(train)
  assert polar <= _words(dev)
  assert not {e[1:3] for e in train} & {e[1:3] for e in dev}


def test_similarity_follows_the_meaning_in_common(rows):
  """Oracle: concepts counted from the texts."""
  concept_of = {
    word: concept
    for part in demo._CONCEPTS.values()
    for concept in itertools.chain(*part)
    for word in concept.words
  }
  for example in rows['demo_similarity', 'dev']:
    first, second = (
      collections.Counter(
        concept_of[w] for w in text.split() if w in concept_of
      )
      for text in (example.text_a, example.text_b)
    )
    points = {'person': 1.0, 'verb': 1.5, 'quality': 0.5}
    expected = sum(points.get(c.category, 2.0) for c in first & second)
    assert abs(example.label - expected) <= 0.4 + 1e-9


def test_texts_are_short(rows):
  lengths = [
    len(text.split())
    for part in rows.values()
    for example in part
    for text in (example.text_a, example.text_b)
    if text
  ]
  assert 7 <= np.mean(lengths) <= 12
  assert max(lengths) <= 20


def test_the_vocabulary_spells_every_text(rows):
  words = demo.vocabulary()
  assert words[:5] == ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')
  assert len(set(words)) == len(words)
  tokenizer = features.Tokenizer.from_vocab(words, lowercase=True)
  for (name, _), part in rows.items():
    task = demo.TASKS[name]
    for row in features.featurize(part, task, tokenizer, 64, swap=False):
      assert words.index('[UNK]') not in row.input_ids


@pytest.mark.parametrize('word', ['unheard', 'z', 'abcdefghijklmnopqrstuvwxyz'])
def test_the_vocabulary_spells_other_words_by_letters(word):
  pieces = set(demo.vocabulary())
  assert word[0] in pieces
  assert all(f'##{letter}' in pieces for letter in word[1:])


@pytest.mark.parametrize(
  ('name', 'split'), [('cola', 'dev'), ('demo_nli', 'dev_matched')]
)
def test_an_unknown_task_or_split_raises(name, split):
  with pytest.raises(KeyError):
    demo.generate(name, split)
