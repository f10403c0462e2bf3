"""Answers from logits. Oracles: a search over all spans, softmax by hand."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import scipy.special

from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib

_KIND = kinds.KINDS['qa']
_TASK = task_lib.Task(
  name='things',
  kind=kinds.KINDS['qa'],
  metrics=('answer_f1', 'exact_match'),
  paper_metric='answer_f1',
  tables={},
  unanswerable=True,
)
_CONTEXT = 'zoe bought  a boat from the lawyer'
# The characters of its words.
_WORDS = [(0, 3), (4, 10), (12, 13), (14, 18), (19, 23), (24, 27), (28, 34)]


class _Rows:
  """Features of windows of two words of question, and some of the context."""

  def __init__(self, windows, answers=(), labels=None):
    """Takes windows by example: of each the words (first, end)."""
    self.uids, lengths, spans = [], [], []
    self._strings = {'context': [], 'answers': []}
    for number, own in enumerate(windows):
      for place, (first, end) in enumerate(own):
        self.uids.append(task_lib.window_uid(f'things/dev/{number}', place))
        lengths.append(end - first + 5)
        spans.append([-1] * 8 + list(itertools.chain(*_WORDS[first:end])))
        spans[-1] += [-1, -1]
        known = json.dumps(answers[number]) if answers else '[]'
        self._strings['context'].append('' if place else _CONTEXT)
        self._strings['answers'].append('' if place else known)
    self._spans = np.concatenate(spans)
    self.offsets = np.cumsum([0, *lengths])
    self._labels = labels

  def __len__(self):
    return len(self.uids)

  def fixed(self, name):
    if name == 'length_a':
      return np.full(len(self), 4)
    assert name == 'label'
    return np.float32(self._labels)

  def ragged(self, name):
    if name == 'input_ids':
      return np.zeros(self.offsets[-1]), self.offsets
    if name == 'spans':
      return self._spans, 2 * self.offsets
    strings = [text.encode() for text in self._strings[name]]
    flat = np.frombuffer(b''.join(strings), np.uint8)
    return flat, np.cumsum([0, *map(len, strings)])


def _plain(rows, logits, unanswerable):
  """The text of the best span of all windows, by trying all of them."""
  best, none = (-np.inf, ''), np.inf
  for row in range(len(rows)):
    own = logits[rows.offsets[row] : rows.offsets[row + 1]]
    spans = rows._spans[2 * rows.offsets[row] :]
    none = min(none, own[0, 0] + own[0, 1])
    for start, end in itertools.product(range(4, len(own) - 1), repeat=2):
      if start <= end:
        text = _CONTEXT[spans[2 * start] : spans[2 * end + 1]]
        best = max(best, (own[start, 0] + own[end, 1], text))
  return '' if unanswerable and none > best[0] else ' '.join(best[1].split())


@pytest.mark.parametrize('unanswerable', [False, True])
def test_the_best_span_of_all_windows_is_the_answer(unanswerable):
  task = dataclasses.replace(_TASK, unanswerable=unanswerable)
  rows = _Rows([[(0, 4), (2, 6), (4, 7)]])
  rng = np.random.default_rng(0)
  found = set()
  for _ in range(60):
    logits = rng.normal(size=(rows.offsets[-1], 2))
    logits[rows.offsets[:-1]] += 1.5
    expected = _plain(rows, logits, unanswerable)
    texts = {p.uid: p.text for p in _KIND.predict(task, logits, rows)}
    assert texts == {'things/dev/0': expected}
    found.add(expected)
  assert ('' in found) == unanswerable
  assert len(found) > 10


def test_scores_by_hand():
  """Boat is right; "the lawyer" has half of the gold; the third has none."""
  rows = _Rows(
    [[(0, 7)], [(0, 4), (3, 7)], [(0, 7)], [(0, 7)]],
    [['a boat', 'boat'], ['from lawyer', 'zoe'], [], ['boat']],
  )
  logits = np.zeros((rows.offsets[-1], 2))
  first, second, third, fourth, fifth, _ = rows.offsets
  logits[first + 4 + 3] = 5
  # In its second window the words are 3 to 6: "the lawyer" are 5 and 6.
  logits[third + 4 + 2, 0] = logits[third + 4 + 3, 1] = 4
  logits[second + 4] = 3
  logits[fourth] = 2  # Not answered, as is right;
  logits[fifth] = 2  # as is wrong.
  np.testing.assert_allclose(
    _KIND.tally(_TASK, logits, rows),
    [[1, 1, 1], [0, 2 / 3, 1], [1, 1, 1], [0, 0, 1]],
  )
  found = _KIND.score(_TASK, logits, rows)
  assert found == {
    'answer_f1': pytest.approx(100 * (2 + 2 / 3) / 4),
    'exact_match': 50.0,
  }


def test_an_answer_has_at_most_30_tokens():
  class Long(_Rows):
    def fixed(self, name):
      return np.full(len(self), 4)

  rows = Long([[(0, 7)]])
  rows.offsets = np.array([0, 45])
  rows._spans = np.array(
    [-1] * 8 + [x for i in range(40) for x in (i % 30, i % 30 + 1)] + [-1] * 2
  )
  logits = np.zeros((45, 2))
  logits[4, 0], logits[4 + 30, 1], logits[4 + 29, 1] = 9, 9, 1
  (prediction,) = _KIND.predict(_TASK, logits, rows)
  assert prediction.text == ' '.join(_CONTEXT[:30].split())


@pytest.mark.parametrize('temperature', [1.0, 3.0])
def test_a_teacher_says_how_likely_each_place_is(temperature):
  rows = _Rows([[(0, 3)], [(1, 7), (2, 3)]])
  logits = np.random.default_rng(0).normal(0, 30, (rows.offsets[-1], 2))
  found = _KIND.teacher_probs(logits, temperature, rows)
  for first, end in itertools.pairwise(rows.offsets):
    places = [first, *range(first + 4, end - 1)]
    expected = np.zeros((end - first, 2))
    expected[np.array(places) - first] = scipy.special.softmax(
      logits[places] / temperature, axis=0
    )
    np.testing.assert_allclose(found[first:end], expected, atol=1e-7)


def test_targets_are_one_hot_over_the_places_of_a_row():
  rows = _Rows([[(0, 3)], [(1, 3)]], labels=[[5, 6], [0, 0]])
  target, share = _KIND.token_targets(_TASK, rows, np.array([1, 0]))
  np.testing.assert_array_equal(
    np.argwhere(target), [[0, 0], [0, 1], [7 + 5, 0], [7 + 6, 1]]
  )
  np.testing.assert_array_equal(
    share, [1, 0, 0, 0, 1, 1, 0, 1, 0, 0, 0, 1, 1, 1, 0]
  )


def test_rows_to_train_on_have_an_answer_within_or_none():
  labels = [[0, 0], [4, 6], [3, 5], [5, 7], [6, 5], [np.nan, np.nan], [0, 5]]
  rows = _Rows([[(0, 3)]] * len(labels), labels=labels)
  np.testing.assert_array_equal(
    _KIND.is_trainable(_TASK, rows), [True] * 2 + [False] * 5
  )
