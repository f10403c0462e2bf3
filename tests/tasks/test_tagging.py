"""Tagged words. Oracles: seqeval's scores, tags and shares by hand."""

import dataclasses
import doctest
import warnings

import numpy as np
import pytest

from bam_jax import errors
from bam_jax.tasks import kinds
from bam_jax.tasks import ragged
from bam_jax.tasks import tagging
from bam_jax.tasks import task as task_lib

with warnings.catch_warnings():
  warnings.simplefilter('ignore')
  seqeval = pytest.importorskip('seqeval.metrics')

_TAGS = ('O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC')
_KIND = kinds.KINDS['tagging']
_TASK = task_lib.Task(
  name='names',
  kind=kinds.KINDS['tagging'],
  labels=_TAGS,
  metrics=('span_f1', 'span_precision', 'span_recall'),
  paper_metric='span_f1',
  tables={},
)


class _Rows:
  """Features of windows, a label for each of their tokens."""

  def __init__(self, uids, labels):
    self.uids = uids
    self._values = np.concatenate(labels).astype(np.float32)
    self._offsets = np.cumsum([0, *map(len, labels)])

  def __len__(self):
    return len(self.uids)

  def ragged(self, name):
    assert name in ('label', 'input_ids')
    return self._values, self._offsets


def _random(seed, examples=40):
  """Rows of one to three windows an example, and their tags by example."""
  rng = np.random.default_rng(seed)
  uids, labels, tags = [], [], []
  for number in range(examples):
    tags.append([])
    for window in range(rng.integers(1, 4)):
      uids.append(task_lib.window_uid(f'names/dev/{number}', window))
      words = rng.integers(0, 5, rng.integers(1, 6))
      tags[-1] += [_TAGS[word] for word in words]
      pieces = [[word, *[-1] * rng.integers(0, 3)] for word in words]
      labels.append([-1, *np.concatenate(pieces), -1])
  return _Rows(uids, labels), tags


def test_metrics_are_those_of_seqeval():
  rows, gold = _random(0)
  label, _ = rows.ragged('label')
  rng = np.random.default_rng(1)
  logits = rng.normal(size=(len(label), 5))
  logits[np.arange(len(label)), label.astype(int)] += 1.5
  texts = {p.uid: p.text for p in _KIND.predict(_TASK, logits, rows)}
  assert list(texts) == [f'names/dev/{i}' for i in range(len(gold))]
  predicted = [text.split() for text in texts.values()]
  found = _KIND.score(_TASK, logits, rows)
  for name, value in found.items():
    score = getattr(seqeval, f'{name.removeprefix("span_")}_score')
    assert value == pytest.approx(100 * score(gold, predicted), rel=1e-12)
  assert 20 < found['span_f1'] < 90


def test_spans_are_those_of_seqeval():
  rng = np.random.default_rng(0)
  for _ in range(200):
    tags = [_TAGS[i] for i in rng.integers(0, 5, rng.integers(1, 12))]
    expected = seqeval.sequence_labeling.get_entities(tags)
    assert tagging.spans(tags) == set(expected)


def test_a_span_goes_on_into_the_next_window():
  rows = _Rows(['names/dev/0', 'names/dev/0~1'], [[-1, 1, -1], [-1, 2, 0, -1]])
  logits = np.eye(5)[[0, 1, 0, 0, 2, 0, 0]]
  np.testing.assert_array_equal(_KIND.tally(_TASK, logits, rows), [[1, 1, 1]])


def test_targets_are_of_first_pieces_and_share_the_example():
  rows = _Rows(
    ['a/b/0', 'a/b/1', 'a/b/2'],
    [[-1, 3, -1, 0, -1], [-1, 4, -1], [-1, 1, 2, 0, 0, -1]],
  )
  target, share = _KIND.token_targets(_TASK, rows, np.array([2, 0]))
  np.testing.assert_allclose(
    share, [0, 0.25, 0.25, 0.25, 0.25, 0, 0, 0.5, 0, 0.5, 0]
  )
  np.testing.assert_array_equal(
    target[share > 0], np.eye(5)[[1, 2, 0, 0, 3, 0]]
  )


def test_quality_is_measured_on_words():
  logits = np.zeros((5, 5))
  logits[1, 3] = 2
  label = np.float32([-1, 3, -1, 0, -1])
  predicted, gold = _KIND.quality_inputs(_TASK, logits, label)
  np.testing.assert_array_equal(gold, [3, 0])
  np.testing.assert_allclose(np.exp(predicted[1]), 0.2)
  np.testing.assert_allclose(
    np.exp(predicted[0, 3]), np.exp(2) / (np.exp(2) + 4)
  )


@pytest.mark.parametrize(
  ('labels', 'good'),
  [
    ([-1, 3, -1], True),
    ([-1, 5, -1], False),
    ([-1, np.nan, -1], False),
    ([-1, -1, -1], False),
  ],
  ids=['whole', 'unknown', 'unlabelled', 'wordless'],
)
def test_rows_to_train_on_have_a_tag_a_word(labels, good):
  rows = _Rows(['a/b/0', 'a/b/1'], [[-1, 0, -1], labels])
  np.testing.assert_array_equal(_KIND.is_trainable(_TASK, rows), [True, good])


def test_an_unknown_tag_is_told():
  with pytest.raises(
    errors.UserError, match=r"f:3: label 'B-ORG' is none of O"
  ):
    _KIND.parse(_TASK, ('O', 'B-ORG'), 'f:3')


@pytest.mark.parametrize('module', [tagging, ragged, task_lib])
def test_examples_in_docstrings(module):
  result = doctest.testmod(module)
  assert result.attempted > 0
  assert result.failed == 0


def test_tags_that_hold_a_space_are_a_list():
  """'B-New O' is one tag, and two."""
  task = dataclasses.replace(_TASK, labels=('O', 'B-New', 'B-New O'))
  rows = _Rows(['names/dev/0', 'names/dev/1'], [[-1, 2, -1], [-1, 1, 0, -1]])
  values, _ = rows.ragged('label')
  logits = np.eye(3)[values.astype(int)]
  texts = {p.uid: p.text for p in _KIND.predict(task, logits, rows)}
  assert texts == {
    'names/dev/0': '["B-New O"]',
    'names/dev/1': '["B-New", "O"]',
  }
