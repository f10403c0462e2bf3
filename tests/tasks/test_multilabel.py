"""Multi-label tasks. Oracles: scikit-learn's F1, files written by hand."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import scipy.special
import sklearn.metrics

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import registry
from bam_jax.data import sources
from bam_jax.tasks import kinds
from bam_jax.tasks import metrics

_LABELS = ('joy', 'anger', 'fear', 'never')
_DECLARED = config_lib.TaskConfig(
  kind='multilabel',
  labels=_LABELS,
  train='train.jsonl',
  dev='train.jsonl',
  format='jsonl',
  text=('text',),
)
_KIND = kinds.KINDS['multilabel']


class _Rows:
  """Features that hold labels alone."""

  def __init__(self, gold):
    self._gold = np.asarray(gold, np.float32)
    self.uids = [f'moods/dev/{i}' for i in range(len(self._gold))]

  def __len__(self):
    return len(self._gold)

  def fixed(self, name):
    assert name == 'label'
    return self._gold


def _config(folder='', **changes):
  return config_lib.Config(
    tasks=('moods',),
    custom_tasks={'moods': dataclasses.replace(_DECLARED, **changes)},
    data=config_lib.DataConfig(dir=str(folder)),
  )


def _task(**changes):
  return registry.resolve(_config(**changes))['moods']


@pytest.mark.parametrize(
  ('format', 'content'),
  [
    (
      'jsonl',
      '{"text": "a", "label": ["fear", "joy"]}\n'
      '{"text": "b", "label": []}\n'
      '{"text": "c", "label": "anger"}\n',
    ),
    ('tsv', 'text\tlabel\na\tfear, joy\nb\t\nc\tanger\n'),
    ('csv', 'text,label\na,fear/joy\nb,\nc,anger/\n'),
  ],
)
def test_labels_are_read(tmp_path, format, content):
  (tmp_path / 'rows').write_text(content)
  separator = '/' if format == 'csv' else ','
  config = _config(tmp_path, format=format, train='rows', separator=separator)
  task = registry.resolve(config)['moods']
  rows = sources.read(task, 'train', config.data)
  assert [row.label for row in rows] == [(0, 2), (), (1,)]


@pytest.mark.parametrize('separator', [',', ';', '|', ' / ', ' '])
@pytest.mark.parametrize('labels', [('joy', 'n/a', 'a'), ('a /', '/', 'b ')])
def test_predictions_are_read_as_labels(separator, labels):
  task = _task(separator=separator, labels=labels)
  for chosen in itertools.product([-1, 1], repeat=3):
    (found,) = _KIND.predict_examples(task, np.array([chosen]), ['moods/dev/0'])
    read = _KIND.parse(task, found.text, 'f:1')
    assert read == tuple(np.flatnonzero(np.array(chosen) > 0))
    if 'joy' in labels:
      assert found.text == separator.join(found.said['labels'])


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'separator': ''}, "separator: ''; give one to 8 characters, such as"),
    ({'separator': ' and also '}, 'separator: .* give one to 8 characters'),
    (
      {'separator': ';', 'kind': 'classification'},
      'separator: is only for multilabel, not for classification; leave it out',
    ),
  ],
)
def test_a_separator_that_cannot_be_used_is_told(changes, message):
  with pytest.raises(errors.UserError, match=message):
    _task(**changes)


@pytest.mark.parametrize(
  ('value', 'message'),
  [
    (
      'never, joy|fear',
      "f:1: 'joy|fear' is several labels, joined by '|'; set"
      " config.custom_tasks.moods.separator='|'",
    ),
    (
      ('joy|fear',),
      "f:1: label 'joy|fear' is none of 'joy', 'anger', 'fear', 'never'; fix"
      " the row or the labels of task 'moods'",
    ),
    (
      ('joy', 'rage'),
      "f:1: label 'rage' is none of 'joy', 'anger', 'fear', 'never'; fix the"
      " row or the labels of task 'moods'",
    ),
    ('joy,joy', "f:1: label 'joy' is given twice; remove one"),
  ],
)
def test_a_label_that_cannot_be_used_is_told(value, message):
  with pytest.raises(errors.UserError) as told:
    _KIND.parse(_task(), value, 'f:1')
  assert str(told.value) == message


def test_metrics_are_those_of_scikit_learn():
  rng = np.random.default_rng(0)
  gold = rng.integers(0, 2, (50, 4))
  logits = rng.normal(size=(50, 4)) + gold
  gold[:, 3], logits[:, 3] = 0, -1  # A label that nobody has.
  found = _KIND.score(_task(), logits, _Rows(gold))
  assert list(found) == ['micro_f1', 'macro_f1']
  for name, value in found.items():
    expected = sklearn.metrics.f1_score(
      gold, logits > 0, average=name.removesuffix('_f1'), zero_division=0
    )
    assert value == pytest.approx(100 * expected, rel=1e-12)
  assert 0 < found['macro_f1'] < found['micro_f1'] < 100


@pytest.mark.parametrize('gold', [0.0, 1.0])
@pytest.mark.parametrize('logit', [-1.0, 1.0])
def test_undefined_where_scikit_learn_has_nan(gold, logit):
  """Nothing gold and nothing predicted; else a label without either is 0."""
  logits, labels = np.full((2, 4), logit), np.zeros((2, 4))
  labels[0, 1] = gold
  rows = _Rows(labels)
  found = _KIND.score(_task(), logits, rows)
  for average in ('micro', 'macro'):
    expected = sklearn.metrics.f1_score(
      labels,
      logits > 0,
      average=average,
      zero_division=0.0 if gold or logit > 0 else np.nan,
    )
    name = f'{average}_f1'
    assert found[name] == pytest.approx(100 * expected, nan_ok=True)
    if np.isnan(expected):
      reason = 'no label is gold and none is predicted'
      measured = _KIND.measure(_task(), logits, rows)
      assert metrics.why_undefined(name, measured) == reason


@pytest.mark.parametrize('temperature', [1.0, 2.0])
def test_a_teacher_says_how_likely_each_label_is(temperature):
  logits = np.float32([[-3.0, 0.0, 100.0]])
  np.testing.assert_allclose(
    _KIND.teacher_probs(logits, temperature),
    1 / (1 + np.exp(-logits.astype(np.float64) / temperature)),
    rtol=1e-6,
  )


def test_predictions_as_text():
  logits = np.float32([[1, -1, 2, -1], [-1, -1, -1, -1]])
  rows = _Rows(np.zeros((2, 4)))
  predictions = _KIND.predict(_task(), logits, rows)
  assert {each.uid: each.text for each in predictions} == {
    'moods/dev/0': 'joy,fear',
    'moods/dev/1': '',
  }
  np.testing.assert_allclose(
    [each.probabilities for each in predictions], scipy.special.expit(logits)
  )


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'labels': ('joy', 'joy')},
      "config.custom_tasks.moods.labels: ('joy', 'joy') must be different"
      ' labels, as in the files',
    ),
    (
      {'metrics': ('accuracy',)},
      "config.custom_tasks.moods.metrics: 'accuracy' is none of micro_f1,"
      ' macro_f1, weighted_f1, roc_auc, average_precision; these are the'
      ' metrics of a multilabel task',
    ),
  ],
  ids=['labels', 'metric'],
)
def test_a_declaration_that_cannot_be_used_is_told(changes, message):
  with pytest.raises(errors.UserError) as told:
    _task(**changes)
  assert str(told.value) == message


_AMBIGUOUS = ('Paris', 'Paris, Texas', 'Texas', ' x')


@pytest.mark.parametrize('format', ['tsv', 'jsonl'])
def test_labels_that_hold_a_comma_are_read_again(tmp_path, format):
  """A prediction is one text for each set of labels, and reads as that set."""
  sets = [c for n in range(5) for c in itertools.combinations(range(4), n)]
  logits = np.array([[1 if i in c else -1 for i in range(4)] for c in sets])
  rows = _Rows(np.zeros((len(sets), 4)))
  task = _task(labels=_AMBIGUOUS)
  texts = [each.text for each in _KIND.predict(task, logits, rows)]
  assert len(set(texts)) == len(sets)
  assert texts[sets.index((1, 3))] == '["Paris, Texas", " x"]'
  lines = ['text\tlabel', *(f'a\t{text}' for text in texts)]
  if format == 'jsonl':
    lines = [json.dumps({'text': 'a', 'label': text}) for text in texts]
  (tmp_path / 'rows').write_text('\n'.join(lines) + '\n')
  config = _config(tmp_path, format=format, train='rows', labels=_AMBIGUOUS)
  read = sources.read(registry.resolve(config)['moods'], 'train', config.data)
  assert [row.label for row in read] == sets


@pytest.mark.parametrize('value', ['[Paris]', '["Rome"]', '[1]', '[[', '{"a"'])
def test_a_list_of_other_labels_is_told(value):
  with pytest.raises(
    errors.UserError, match=r'f:1: label .* is none of .Paris'
  ):
    _KIND.parse(_task(labels=_AMBIGUOUS), value, 'f:1')


def test_only_spaces_surround_a_name():
  assert _KIND.parse(_task(), 'joy , fear', 'f:1') == (0, 2)
  for space in '\u00a0\u2028\x1c\x85':
    with pytest.raises(errors.UserError, match=r'is none of .joy'):
      _KIND.parse(_task(), f'joy,{space}fear', 'f:1')
