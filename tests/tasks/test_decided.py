"""What kinds decided, read from their outputs. Oracles: `predict`, softmax."""

import dataclasses
import json
import math

import numpy as np
import pytest
import scipy.special

from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib
from tests.tasks import test_answers
from tests.tasks import test_tagging

_LABELS = ('low', 'normal', 'high')


class _Rows:
  """Rows of one label each, or of some."""

  def __init__(self, label):
    self._label = np.asarray(label)
    self.uids = [f'own/dev/{i}' for i in range(len(label))]

  def __len__(self):
    return len(self.uids)

  def fixed(self, name):
    assert name == 'label'
    return self._label


def _task(kind: str, **fields) -> task_lib.Task:
  metrics = kinds.KINDS[kind].default_metrics
  return task_lib.Task(
    'own', kinds.KINDS[kind], metrics, metrics[0], {}, **fields
  )


def _decide(task, logits, rows):
  return task.kind.decided(task, task.kind.outputs(task, logits, rows))


def test_a_class_and_its_probability():
  task = _task('classification', labels=_LABELS)
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(50, 3)).astype(np.float32)
  rows = _Rows(rng.integers(0, 3, 50))
  found = _decide(task, logits, rows)
  said = [each.text for each in task.kind.predict(task, logits, rows)]
  assert [task.kind.label_value(task, each.label) for each in found] == said
  probs = scipy.special.softmax(logits.astype(np.float64), axis=-1)
  for each, row, gold in zip(found, probs, rows.fixed('label')):
    strength = task.kind.contradiction(task, each, int(gold))
    expected = None if row.argmax() == gold else pytest.approx(row.max())
    assert strength == expected


@pytest.mark.parametrize(
  ('kind', 'gold', 'labels'),
  [
    ('classification', [0, 1, 2], [0, 1, 2]),
    ('multilabel', np.eye(3), [(0,), (1,), (2,)]),
  ],
)
def test_an_archive_has_labels_and_no_probabilities(kind, gold, labels):
  task = _task(kind, labels=_LABELS)
  found = _decide(task, np.eye(3, dtype=np.float32), _Rows(gold))
  assert found == list(map(kind_lib.Decided, labels))
  assert math.isnan(task.kind.contradiction(task, found[0], labels[1]))


def test_the_surest_wrong_label_of_several():
  task = _task('multilabel', labels=_LABELS)
  logits = np.log(np.float32([[0.9, 0.2, 0.6]]) / [[0.1, 0.8, 0.4]])
  (found,) = _decide(task, logits, _Rows([[1, 0, 1]]))
  assert task.kind.label_value(task, found.label) == ['low', 'high']
  for label, expected in (
    ((0, 2), None), ((0,), 0.6), ((0, 1), 0.8), ((2,), 0.9), ((1,), 0.9)
  ):  # fmt: skip
    strength = task.kind.contradiction(task, found, label)
    assert strength == (expected and pytest.approx(expected))


def test_scores_are_apart_by_their_distance_on_the_scale():
  task = _task('regression', scale=(1.0, 5.0))
  logits = np.float32([[0.0], [math.log(3)]])  # Scores 3 and 4.
  found = _decide(task, logits, _Rows([0.5, 0.5]))
  assert [each.label for each in found] == pytest.approx([3, 4])
  assert task.kind.contradiction(task, found[1], 2.0) == pytest.approx(0.5)
  assert task.kind.contradiction(task, found[0], found[0].label) is None


def test_tags_and_the_surest_wrong_word():
  task, kind = test_tagging._TASK, test_tagging._KIND
  rows, gold = test_tagging._random(0)
  label, _ = rows.ragged('label')
  logits = np.random.default_rng(1).normal(size=(len(label), 5))
  logits[np.arange(len(label)), label.astype(int)] += 2
  probs = iter(scipy.special.softmax(logits, axis=-1)[label >= 0].max(-1))
  tally = kind.tally(task, logits, rows)
  found = _decide(task, logits, rows)
  said = [each.said['tags'] for each in kind.predict(task, logits, rows)]
  wrong = 0
  for each, tags, own, (common, predicted, golden) in zip(
    found, said, gold, tally, strict=True
  ):
    words = [next(probs) for _ in tags]
    assert kind.label_value(task, each.label) == tags
    assert each.confidence == pytest.approx(words)
    label = tuple(map(task.labels.index, own))
    strength = kind.contradiction(task, each, label)
    differ = [p for p, one, two in zip(words, tags, own) if one != two]
    is_wrong = not common == predicted == golden
    assert strength == (pytest.approx(max(differ)) if is_wrong else None)
    wrong += is_wrong
  assert 5 < wrong < len(found)
  parts = dataclasses.replace(task, kind=kinds.KINDS['plain_tagging'])
  one = kind_lib.Decided((1, 2), (0.5, 0.7))
  # Of spans both are the person of two words; tags differ.
  assert kind.contradiction(task, one, (2, 2)) is None
  assert parts.kind.contradiction(parts, one, (2, 2)) == 0.5


@pytest.mark.parametrize('unanswerable', [False, True])
def test_an_answer_and_its_probability(unanswerable):
  """In the window of the answer; of none, where that is least likely."""
  task = dataclasses.replace(test_answers._TASK, unanswerable=unanswerable)
  rows = test_answers._Rows([[(0, 4), (2, 6), (4, 7)]], [['boat']])
  rng = np.random.default_rng(0)
  is_answered = set()
  for _ in range(20):
    logits = rng.normal(size=(rows.offsets[-1], 2))
    logits[rows.offsets[:-1]] += 1.5
    (found,) = _decide(task, logits, rows)
    best, products = (-np.inf, 0.0), []
    for first, end in zip(rows.offsets[:-1], rows.offsets[1:]):
      own = logits[first:end].copy()
      own[1:4] = own[-1] = -np.inf  # The question and [SEP].
      probs = scipy.special.softmax(own, axis=0)
      products.append(probs[0].prod())
      for start in range(4, len(own) - 1):
        for last in range(start, len(own) - 1):
          score = own[start, 0] + own[last, 1]
          best = max(best, (score, probs[start, 0] * probs[last, 1]))
    expected = best[1] if found.label else min(products)
    assert found.confidence == pytest.approx((expected,))
    is_answered.add(bool(found.label))
  assert (False in is_answered) == unanswerable


def test_an_answer_is_compared_as_squad_does():
  task = test_answers._TASK
  found = kind_lib.Decided((('The boat', 0),), (0.25,))
  gold = (('car', 1), ('boat', 2), ('boat', 2))
  assert task.kind.contradiction(task, found, gold) is None
  assert task.kind.contradiction(task, found, gold[:1]) == 0.25
  assert task.kind.contradiction(task, found, ()) == 0.25
  assert task.kind.contradiction(task, kind_lib.Decided((), ()), ()) is None
  assert task.kind.label_value(task, gold) == ['car', 'boat']


@pytest.mark.parametrize('name', ['tagging', 'qa'])
def test_older_outputs_have_predictions_alone(name):
  if name == 'qa':
    task, arrays = test_answers._TASK, {'prediction': np.array(['a', ''])}
    labels = [(('a', 0),), ()]
  else:
    task, arrays = test_tagging._TASK, {'prediction': np.array(['O B-PER'])}
    labels = [(0, 1)]
  found = task.kind.decided(task, arrays)
  assert found == [kind_lib.Decided(label) for label in labels]


def test_tags_with_spaces_are_read_again():
  task = dataclasses.replace(
    test_tagging._TASK,
    kind=kinds.KINDS['plain_tagging'],
    labels=('a b', 'c'),
  )
  arrays = {'prediction': np.array([json.dumps(['a b', 'c'])])}
  assert task.kind.decided(task, arrays)[0].label == (0, 1)
