"""Wrong rows and labels. Oracles: scikit-learn; labels changed by hand."""

import json
import math

import numpy as np
import pytest
from sklearn import metrics as sk_metrics

from bam_jax.reporting import error_rows
from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib

_LABELS = ('low', 'normal', 'high')


def _task(kind: str, **fields) -> task_lib.Task:
  metrics = kinds.KINDS[kind].default_metrics
  return task_lib.Task(
    'own', kinds.KINDS[kind], metrics, metrics[0], {}, **fields
  )


_CLASSES = _task('classification', labels=_LABELS)


def _rows(labels, texts=None) -> error_rows.Rows:
  numbers = range(0, 2 * len(labels), 2)  # Some rows of the file were left out.
  texts = texts or [{'text': f'row {i}'} for i in numbers]
  return error_rows.Rows('dev', numbers, labels, texts)


def _analysis(**tasks) -> error_rows.Analysis:
  return error_rows.Analysis('multi', 0, 'single', tasks, {})


def test_confusions_of_classes_are_those_of_scikit_learn():
  rng = np.random.default_rng(0)
  gold, predicted = rng.integers(0, 3, (2, 500)).tolist()
  found = error_rows.confusions(
    _CLASSES, gold, [kind_lib.Decided(each) for each in predicted]
  )
  expected = sk_metrics.confusion_matrix(gold, predicted)
  actual = [[found[one, other] for other in _LABELS] for one in _LABELS]
  assert actual == expected.tolist()


def test_confusions_of_tags_are_counted_over_words():
  rng = np.random.default_rng(0)
  task = _task('tagging', labels=('O', 'B-PER', 'I-PER'))
  gold, predicted = (
    [tuple(rng.integers(0, 3, 1 + i % 5).tolist()) for i in range(200)]
    for _ in range(2)
  )
  found = error_rows.confusions(
    task, gold, list(map(kind_lib.Decided, predicted))
  )
  expected = sk_metrics.confusion_matrix(
    np.concatenate(gold), np.concatenate(predicted)
  )
  tags = task.labels
  assert [
    [found[one, two] for two in tags] for one in tags
  ] == expected.tolist()


def test_labels_that_are_missed_or_too_much():
  rng = np.random.default_rng(0)
  gold, predicted = rng.integers(0, 2, (2, 300, 3))
  labels, decided = (
    [tuple(np.flatnonzero(row).tolist()) for row in rows]
    for rows in (gold, predicted)
  )
  task = _task('multilabel', labels=_LABELS)
  found = error_rows.confusions(
    task, labels, list(map(kind_lib.Decided, decided))
  )
  matrices = sk_metrics.multilabel_confusion_matrix(gold, predicted)
  for name, ((_, extra), (missed, both)) in zip(_LABELS, matrices):
    assert found[name, error_rows.NO_LABEL] == missed
    assert found[error_rows.NO_LABEL, name] == extra
    assert found[name, name] == both
  assert found.total() == (gold | predicted).sum()


def test_wrong_rows_begin_with_the_most_confident():
  decided = [
    kind_lib.Decided(0, (0.6,)),  # Wrong.
    kind_lib.Decided(1, (0.99,)),
    kind_lib.Decided(2, (0.9,)),  # Wrong, and the teacher is right.
    kind_lib.Decided(2),  # Wrong, with an unknown probability.
  ]
  teacher = [kind_lib.Decided(label, (0.5,)) for label in (0, 2, 1, 2)]
  rows = _rows([1, 1, 1, 1])
  found, count = error_rows.find(
    _CLASSES, rows, error_rows.WRONG, decided, teacher
  )
  assert count == 3
  assert [each['row'] for each in found] == [4, 0, 6]
  assert found[0] == {
    'task': 'own', 'split': 'dev', 'row': 4, 'reason': 'wrong',
    'gold': 'normal', 'predicted': 'high', 'teacher': 'normal',
    'confidence': 0.9, 'texts': {'text': 'row 4'},
  }  # fmt: skip
  assert math.isnan(found[2]['confidence'])
  found, count = error_rows.find(
    _CLASSES, rows, error_rows.DISAGREEMENT, decided, teacher
  )
  assert (count, [each['row'] for each in found]) == (2, [2, 4])
  assert found[0]['gold'] == found[0]['predicted'] == 'normal'


def test_changed_labels_are_contradicted():
  """Teachers that are right and surest where a label was changed."""
  rng = np.random.default_rng(0)
  true = rng.integers(0, 3, 400)
  changed = rng.choice(400, 20, replace=False)
  gold = true.copy()
  gold[changed] = (true[changed] + rng.integers(1, 3, 20)) % 3
  sure = np.isin(np.arange(400), changed) * 0.3 + rng.uniform(0.4, 0.65, 400)
  wrong = rng.random(400) < 0.1
  says = np.where(wrong, rng.integers(0, 3, 400), true)
  says[changed] = true[changed]
  decided = [
    kind_lib.Decided(*e) for e in zip(says.tolist(), zip(sure.tolist()))
  ]
  found, count = error_rows.find(
    _CLASSES, _rows(gold.tolist()), error_rows.LABEL, decided
  )
  assert {row['row'] // 2 for row in found[:20]} == {*changed.tolist()}
  assert count == (says != gold).sum() > 20
  first = found[0]['row'] // 2
  assert found[0]['predicted'] is None
  assert found[0]['teacher'] == _LABELS[true[first]] != found[0]['gold']


def test_errors_of_scores_are_on_the_scale():
  task = _task('regression', scale=(1.0, 5.0))
  decided = [kind_lib.Decided(score) for score in (2.0, 4.5, 3.0)]
  rows = _rows([2.5, 1.0, 3.0])
  found, count = error_rows.find(task, rows, error_rows.WRONG, decided)
  assert count == 2
  assert [(each['row'], each['error']) for each in found] == [
    (2, 3.5),
    (0, 0.5),
  ]


def test_the_file_has_a_limit_and_no_texts_if_told(monkeypatch):
  monkeypatch.setattr(error_rows, 'MOST_ROWS', 2)
  task = _task('qa')
  decided = [kind_lib.Decided((('secret', 0),)) for _ in range(3)]
  rows = _rows([(), (('word', 3),), ()], [{'question': 'who?'}] * 3)
  found, count = error_rows.find(task, rows, error_rows.WRONG, decided)
  assert (len(found), count) == (2, 3)
  analysis = _analysis(
    own=error_rows.TaskErrors({'wrong': found}, {'wrong': (3, 3)}, {}, {})
  )
  tasks = task_lib.TaskTable((task,))
  lines = error_rows.to_json_lines(analysis, tasks, has_texts=True)
  first, second = map(json.loads, lines.splitlines())
  assert (first['gold'], second['gold']) == ([], ['word'])
  assert first['predicted'] == ['secret'] and first['confidence'] is None
  assert first['texts'] == {'question': 'who?'}
  lines = error_rows.to_json_lines(analysis, tasks, has_texts=False)
  assert not any(word in lines for word in ('secret', 'word', 'who?'))
  first, second = map(json.loads, lines.splitlines())
  assert (first['gold'], second['gold']) == ('no answer', 'an answer')


@pytest.mark.parametrize('kind', ['regression', 'qa'])
def test_kinds_without_classes_have_no_confusions(kind):
  label = 1.0 if kind == 'regression' else ()
  decided = [kind_lib.Decided(label)]
  assert not error_rows.confusions(_task(kind), [label], decided)
