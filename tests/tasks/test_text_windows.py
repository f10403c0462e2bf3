"""Long texts in windows: cut, weighed and joined.

Oracles: windows and weights by hand, scores by loops over the examples.
"""

import dataclasses

import numpy as np
import pytest

from bam_jax import errors
from bam_jax.data import columns as columns_lib
from bam_jax.data import features
from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib
from bam_jax.tasks import windows

_LETTERS = 'abcdefghij'
_TOKENIZER = features.Tokenizer.from_vocab(
  ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *_LETTERS], lowercase=True
)
# Windows of five examples, in their order.
_COUNTS = (1, 3, 2, 1, 4)


def _task(kind='classification', text=('text',), **fields) -> task_lib.Task:
  kind = kinds.KINDS[kind]
  return task_lib.Task(
    name='own',
    kind=kind,
    labels=() if kind.has_scale else ('x', 'y', 'z'),
    scale=(1.0, 5.0),
    metrics=kind.default_metrics,
    paper_metric='',
    tables={'train': task_lib.Table(text=text)},
    **fields,
  )


def _cut(*texts, max_length, stride=0):
  """Uids and letters of the windows; whether some letters were not read."""
  names = ('text', 'other')[: len(texts)]
  task = _task(text=names, windows='mean', stride=stride)
  example = task_lib.Example('a', *(*texts, None)[:2], 0)
  cut = []
  rows = list(
    features.featurize(
      [example], task, _TOKENIZER, max_length, on_cut=cut.append
    )
  )
  assert all(len(row.input_ids) <= max_length for row in rows)
  assert all(row.label == 0 for row in rows)
  shown = {}
  for row in rows:
    ids = row.input_ids.tolist()
    assert ids[row.length_a - 1] == _TOKENIZER.sep_id
    shown[row.uid] = ''.join('#####'[: i == 3] or _letter(i) for i in ids)
  return shown, cut == ['a']


def _letter(number: int) -> str:
  return '' if number < 5 else _LETTERS[number - 5]


def test_windows_of_a_text():
  found, is_cut = _cut('a b c d e f g', max_length=6)
  assert found == {'a': 'abcd#', 'a~1': 'cdef#', 'a~2': 'efg#'}
  assert not is_cut
  found, _ = _cut('a b c d e f g', max_length=6, stride=3)
  assert found == {'a': 'abcd#', 'a~1': 'defg#'}
  assert _cut('a b c d', max_length=6)[0] == {'a': 'abcd#'}


def test_windows_over_the_longer_text_of_a_pair():
  found, is_cut = _cut('a b', 'c d e f g', max_length=8)
  assert found == {'a': 'ab#cde#', 'a~1': 'ab#def#', 'a~2': 'ab#efg#'}
  assert not is_cut
  found, is_cut = _cut('c d e f', 'a', max_length=7, stride=1)
  assert found == {'a': 'cde#a#', 'a~1': 'def#a#'}
  assert not is_cut
  # Both are too long: the shorter one keeps half of the room.
  found, is_cut = _cut('a b c', 'd e f g', max_length=7, stride=2)
  assert found == {'a': 'ab#de#', 'a~1': 'ab#fg#'}
  assert is_cut


@pytest.mark.parametrize(
  ('texts', 'room'),
  [(('a',), '4 tokens of text, so'), (('a', 'b'), '2 tokens of text beside')],
)
def test_a_stride_that_would_skip_tokens(texts, room):
  with pytest.raises(errors.UserError, match=f'own.stride=5: .* hold {room}'):
    _cut(*texts, max_length=6, stride=5)


def test_examples_weigh_alike():
  uids = [
    task_lib.window_uid(f'own/train/{example}', number)
    for example, count in enumerate(_COUNTS)
    for number in range(count)
  ]
  weights = windows.weights(uids)
  assert weights.mean() == pytest.approx(1)
  sums = np.add.reduceat(weights, np.cumsum(_COUNTS) - _COUNTS)
  np.testing.assert_allclose(sums, sum(_COUNTS) / len(_COUNTS), rtol=1e-6)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
  return logits - np.log(np.exp(logits).sum())


@pytest.mark.parametrize('how', ['mean', 'max'])
@pytest.mark.parametrize('kind', ['classification', 'multilabel', 'regression'])
def test_scores_are_of_examples(kind, how):
  """By a loop over the examples, each alone."""
  task = _task(kind, windows=how)
  rng = np.random.default_rng(0)
  logits = rng.normal(0, 2, (sum(_COUNTS), task.num_outputs))
  labels, rows, expected, begin = [], [], [], 0
  for example, count in enumerate(_COUNTS):
    label = {
      'classification': lambda: float(rng.integers(3)),
      'multilabel': lambda: rng.integers(0, 2, 3).astype(np.float32),
      'regression': lambda: rng.random(),
    }[kind]()
    labels.append(label)
    for number in range(count):
      uid = task_lib.window_uid(f'own/dev/{example}', number)
      rows.append(kind_lib.Features(uid, np.zeros(2, int), 2, label))
    own = logits[begin : begin + count]
    if kind == 'classification':
      own = np.array([_log_softmax(each) for each in own])
    expected.append(sum(own) / count if how == 'mean' else np.max(own, 0))
    begin += count
  rows, expected = columns_lib.InMemory(rows), np.array(expected)
  examples = columns_lib.InMemory(
    [
      kind_lib.Features(f'own/dev/{i}', np.zeros(2, int), 2, label)
      for i, label in enumerate(labels)
    ]
  )
  alone = dataclasses.replace(task, windows='')
  found = task.kind.predict(task, logits, rows)
  assert [each.uid for each in found] == examples.uids
  for one, other in zip(found, task.kind.predict(alone, expected, examples)):
    assert one.text == other.text
    assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
  assert task.kind.score(task, logits, rows) == pytest.approx(
    task.kind.score(alone, expected, examples)
  )
  outputs = task.kind.outputs(task, logits, rows)
  assert outputs['uid'].tolist() == examples.uids
  np.testing.assert_allclose(outputs['logits'], expected, rtol=1e-5)
  measured = task.kind.read_outputs(task, outputs)
  np.testing.assert_allclose(measured.gold, task.kind.gold(alone, examples))
