"""The best constant prediction of each kind, by counting on fingers."""

import numpy as np
import pytest

from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import kinds as kinds_lib
from bam_jax.tasks import metrics
from bam_jax.tasks import task as task_lib


class _Rows:
  """Features of a split, by name."""

  def __init__(self, lengths=(), **values):
    self._values = values
    self._offsets = np.cumsum([0, *lengths])
    self._size = len(lengths or values['label'])
    self.uids = [f'x/dev/{i}' for i in range(self._size)]

  def __len__(self):
    return self._size

  def fixed(self, name):
    return self._values[name]

  def ragged(self, name):
    values = self._values.get(name, np.zeros(self._offsets[-1]))
    return values, self._offsets


def _task(kind, labels=(), **fields):
  return task_lib.Task(
    'x', kind, kind.default_metrics, '', tables={}, labels=labels, **fields
  )


def _predictions(task, train, rows):
  logits = task.kind.constant_logits(task, train, rows)
  assert logits.dtype == np.float32
  return [each.said for each in task.kind.predict(task, logits, rows)]


_DEV = _Rows(label=np.float32([0, 1, 2]))


@pytest.mark.parametrize(
  ('label', 'expected'),
  [
    ([2, 0, 2, 1], 'c'),
    ([2, 0, 0, 2, 1], 'a'),  # Of two, the first.
    ([1], 'b'),
  ],
)
def test_a_class_is_the_most_frequent_one(label, expected):
  task = _task(kinds_lib.KINDS['classification'], ('a', 'b', 'c'))
  found = _predictions(task, _Rows(label=np.float32(label)), _DEV)
  assert [said['label'] for said in found] == [expected] * 3


@pytest.mark.parametrize('head', ['sigmoid', 'linear'])
def test_a_score_is_the_mean(head):
  kind = kinds_lib.KINDS['regression'].with_head(head)
  task = _task(kind, scale=(1.0, 5.0))
  found = _predictions(task, _Rows(label=np.float32([0, 0.5, 0.25])), _DEV)
  # (1 + 3 + 2) / 3
  assert [said['score'] for said in found] == pytest.approx([2.0] * 3, abs=1e-5)


def test_labels_are_those_of_more_than_half_of_the_rows():
  task = _task(kinds_lib.KINDS['multilabel'], ('a', 'b', 'c'))
  label = np.float32([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0]])
  found = _predictions(task, _Rows(label=label), _DEV)
  assert [said['labels'] for said in found] == [['a']] * 3


def test_a_tag_is_the_most_frequent_one_of_words():
  task = _task(kinds_lib.KINDS['tagging'], ('O', 'B-X', 'I-X'))
  # Tokens at which no word begins are not counted.
  train = _Rows([5, 4], label=np.float32([-1, 1, 2, 2, -1, -1, 0, -1, -1]))
  dev = _Rows([3], label=np.float32([-1, 0, 0]), input_ids=np.zeros(3))
  assert _predictions(task, train, dev)[0]['tags'] == ['I-X', 'I-X']


def test_no_answer_is_an_answer_only_where_there_may_be_none():
  kind = kinds_lib.KINDS['qa']
  rows = _Rows(
    [6, 5],
    length_a=np.array([3, 3]),
    spans=np.repeat(np.arange(11), 2),
    context=np.frombuffer(b'abcdefabcde', np.uint8),
  )
  found = _predictions(_task(kind, unanswerable=True), rows, rows)
  assert [said['answer'] for said in found] == [None, None]
  with pytest.raises(kind_lib.NoConstant, match='part of its own context'):
    kind.constant_logits(_task(kind), rows, rows)


def test_what_is_better_than_a_constant():
  nan = float('nan')
  assert metrics.is_above(60.1, 60.0)
  assert not metrics.is_above(60.0, 60.0)
  assert metrics.is_above(0.1, nan)
  assert not metrics.is_above(0.0, nan)
  assert not metrics.is_above(-3.0, nan)
  assert not metrics.is_above(nan, nan)
  assert not metrics.is_above(nan, -10.0)
