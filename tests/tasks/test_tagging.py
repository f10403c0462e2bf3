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


_TYPES = ('PER', 'LOC')


@pytest.mark.parametrize('letters', ['BIES', 'BILU'])
def test_spans_of_other_schemes_are_those_of_seqeval(letters):
  """seqeval reads BIOES; BILOU has other letters for E and S."""
  labels = ('O', *(f'{x}-{name}' for x in letters for name in _TYPES))
  assert _KIND.fault(labels, (0.0, 0.0)) == ''
  rng = np.random.default_rng(0)
  for _ in range(300):
    tags = [labels[i] for i in rng.integers(0, len(labels), rng.integers(1, 9))]
    as_bioes = [
      tag.replace('L-', 'E-').replace('U-', 'S-') if tag[0] in 'LU' else tag
      for tag in tags
    ]
    expected = seqeval.sequence_labeling.get_entities(as_bioes)
    assert tagging.spans(tags) == set(expected), tags


@pytest.mark.parametrize('letters', ['BI', 'BIES', 'BILU'])
def test_each_scheme_gives_back_the_spans_that_were_tagged(letters):
  rng = np.random.default_rng(0)
  for _ in range(100):
    tags, expected = [], set()
    while len(tags) < 12:
      name = _TYPES[rng.integers(2)]
      size, first = int(rng.integers(0, 4)), len(tags)
      if not size:
        tags.append('O')
        continue
      own = ['B', *'I' * (size - 1)]
      if len(letters) == 4:
        own = ['B', *'I' * (size - 2), letters[2]] if size > 1 else [letters[3]]
      tags += [f'{letter}-{name}' for letter in own]
      expected.add((name, first, first + size - 1))
    assert tagging.spans(tags) == expected


@pytest.mark.parametrize(
  ('labels', 'good'),
  [
    (('O', 'B-a', 'I-a', 'E-a', 'S-a'), True),
    (('O', 'B-a', 'I-a', 'L-a', 'U-a'), True),
    (('O', 'B-a', 'E-a', 'U-a'), False),
    (('O', 'S-a'), True),
    (('O', 'NOUN'), False),
    (('B-a', 'E-a'), False),
  ],
)
def test_tags_are_of_one_scheme(labels, good):
  fault = _KIND.fault(labels, (0.0, 0.0))
  assert (fault == '') == good
  assert good or "other tags are those of kind='plain_tagging'" in fault


def test_plain_tags_are_scored_by_accuracy():
  """Oracle: the share of equal tags, counted by hand."""
  kind = kinds.KINDS['plain_tagging']
  labels = ('NOUN', 'VERB', 'O', 'B-', 'X')
  assert kind.fault(labels, (0.0, 0.0)) == ''
  assert 'must be two or more different tags' in kind.fault(('NOUN',), (0, 0))
  task = dataclasses.replace(
    _TASK, kind=kind, labels=labels, metrics=kind.default_metrics
  )
  rows = _Rows(
    ['names/dev/0', 'names/dev/0~1', 'names/dev/1'],
    [[-1, 0, -1, 1, -1], [-1, 2, -1], [-1, 3, 4, -1]],
  )
  logits = np.eye(5)[[0, 0, 3, 0, 0, 0, 2, 0, 0, 3, 1, 0]]
  np.testing.assert_array_equal(
    kind.tally(task, logits, rows), [[2, 3], [1, 2]]
  )
  assert kind.score(task, logits, rows) == {'tag_accuracy': 60.0}
  found = kind.predict(task, logits, rows)
  assert [(each.text, each.said) for each in found] == [
    ('NOUN NOUN O', {'tags': ['NOUN', 'NOUN', 'O']}),
    ('B- VERB', {'tags': ['B-', 'VERB']}),
  ]
  assert kind.unmeasurable_metrics(task, [(0,)]) == ()
  assert kind.metrics == ('tag_accuracy',)
  # Rows without tags are predicted too, also if no tag is O.
  task = dataclasses.replace(task, labels=('NOUN', 'VERB'))
  rows = _Rows(['names/test/0'], [[-1, np.nan, -1]])
  (found,) = kind.predict(task, np.eye(2)[[0, 1, 0]], rows)
  assert found.text == 'VERB'


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
    errors.UserError, match=r"f:3: label 'B-ORG' is none of 'O'"
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
