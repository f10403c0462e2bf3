"""Metrics against scikit-learn and scipy; averages and scales by hand."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from bam_jax.tasks import class_metrics
from bam_jax.tasks import glue
from bam_jax.tasks import kinds
from bam_jax.tasks import metrics
from bam_jax.tasks import task as task_lib

_SKLEARN = {
  'accuracy': sklearn.metrics.accuracy_score,
  'f1': sklearn.metrics.f1_score,
  'matthews': sklearn.metrics.matthews_corrcoef,
}
_SCIPY = {
  'pearson': scipy.stats.pearsonr,
  'spearman': scipy.stats.spearmanr,
}
_OF_PREDICTIONS = (*_SKLEARN, *_SCIPY)


def _regression(scale: tuple[float, float]) -> task_lib.Task:
  return task_lib.Task(
    name='r',
    kind=kinds.KINDS['regression'],
    scale=scale,
    metrics=('pearson', 'spearman'),
    paper_metric='spearman',
    tables={},
  )


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('name', _SKLEARN)
def test_two_classes_equal_scikit_learn(name, seed):
  rng = np.random.default_rng(seed)
  gold = rng.integers(0, 2, 137)
  predicted = np.where(rng.random(137) < 0.7, gold, rng.integers(0, 2, 137))
  assert metrics.METRICS[name](predicted, gold) == pytest.approx(
    _SKLEARN[name](gold, predicted), rel=1e-12
  )


@pytest.mark.parametrize('name', ['accuracy', 'matthews'])
def test_four_classes_equal_scikit_learn(name):
  rng = np.random.default_rng(5)
  gold = rng.integers(0, 4, 211)
  predicted = np.where(rng.random(211) < 0.5, gold, rng.integers(0, 3, 211))
  assert metrics.METRICS[name](predicted, gold) == pytest.approx(
    _SKLEARN[name](gold, predicted), rel=1e-12
  )


@pytest.mark.parametrize('levels', [0, 6], ids=['continuous', 'ties'])
@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('name', _SCIPY)
def test_correlations_equal_scipy(name, dtype, levels):
  rng = np.random.default_rng(7)
  gold = rng.normal(size=113)
  predicted = gold + rng.normal(size=113)
  if levels:
    gold, predicted = np.round(gold * 2), np.round(predicted)
  gold, predicted = gold.astype(dtype), predicted.astype(dtype)
  expected = _SCIPY[name](
    predicted.astype(np.float64), gold.astype(np.float64)
  ).statistic
  assert metrics.METRICS[name](predicted, gold) == pytest.approx(
    expected, rel=1e-12
  )


@pytest.mark.parametrize(
  ('name', 'predicted', 'gold', 'expected'),
  [
    ('f1', [0, 0], [1, 0], 0.0),
    ('f1', [1, 1], [0, 0], 0.0),
    ('f1', [1, 1], [1, 1], 1.0),
    ('pearson', [0.0, 1e-200, 2e-200], [1.0, 2.0, 3.0], 1.0),
    ('spearman', [3.0, 2.0, 1.0], [1.0, 2.0, 30.0], -1.0),
    ('accuracy', [2], [2], 1.0),
  ],
)
def test_degenerate_inputs_give_the_documented_value(
  name, predicted, gold, expected
):
  # Hand-computed; pytest turns any NumPy warning into an error.
  value = metrics.METRICS[name](np.array(predicted), np.array(gold))
  assert isinstance(value, float)
  assert value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
  ('predicted', 'gold', 'reason'),
  [
    ([1, 1, 1], [0, 1, 0], 'all predictions are equal'),
    ([0, 1, 0], [1, 1, 1], 'all gold labels are equal'),
    (
      [0, 0, 0],
      [0, 0, 0],
      'all gold labels are equal, and all predictions are equal',
    ),
    ([0.1] * 7, range(7), 'all predictions are equal'),
    ([2.5], [1.0], 'all gold labels are equal, and all predictions are equal'),
  ],
)
@pytest.mark.parametrize('name', _OF_PREDICTIONS)
@pytest.mark.filterwarnings('ignore:.*constant.*')
def test_undefined_where_scipy_and_scikit_learn_have_nan(
  name, predicted, gold, reason
):
  """Of two classes, Matthews' coefficient is Pearson's."""
  predicted, gold = np.array(predicted), np.array(gold)
  if name == 'accuracy':
    expected = sklearn.metrics.accuracy_score(gold == gold, predicted == gold)
  elif name == 'f1':
    expected = sklearn.metrics.f1_score(
      gold == 1, predicted == 1, zero_division=np.nan
    )
  elif len(gold) == 1:
    expected = math.nan  # scipy refuses one row.
  else:
    expected = _SCIPY.get(name, scipy.stats.pearsonr)(predicted, gold).statistic
  value = metrics.METRICS[name](predicted, gold)
  np.testing.assert_equal(value, expected)
  if math.isnan(value):
    measured = metrics.Measured(predicted, gold)
    assert metrics.why_undefined(name, measured) == reason


@pytest.mark.parametrize('name', _SCIPY)
def test_a_prediction_that_is_no_number_makes_a_score_undefined(name):
  predicted, gold = np.array([0.1, np.nan, 0.3]), np.array([1.0, 2.0, 3.0])
  assert math.isnan(metrics.METRICS[name](predicted, gold))
  assert metrics.why_undefined(name, metrics.Measured(predicted, gold)) == (
    'a prediction is not a finite number'
  )


def _expected(gold, predicted, scores):
  """Metrics of K inputs of N rows, [N, K, c] each, by scikit-learn's columns.

  One call has all columns; the means over the c of each input are taken here.
  """
  shape = gold.shape[1:]
  columns = [x.reshape(len(x), -1) for x in (gold, predicted, scores)]
  _, recall, f1, support = (
    x.reshape(shape)
    for x in sklearn.metrics.precision_recall_fscore_support(
      *columns[:2], average=None, zero_division=np.nan
    )
  )
  hits, either = (gold & predicted).sum((0, 2)), (gold + predicted).sum((0, 2))
  is_defined = ~np.isnan(f1)
  known = np.where(is_defined, f1, 0)
  rows = np.fmax(support.sum(-1), 1)
  return {
    'micro_f1': np.where(either, 2 * hits / np.fmax(either, 1), np.nan),
    'weighted_f1': np.where(either, (support * known).sum(-1) / rows, np.nan),
    'macro_f1': np.where(either, known.mean(-1), np.nan),
    'f1_of_present': known.sum(-1) / np.fmax(is_defined.sum(-1), 1),
    'balanced_accuracy': np.nansum(recall, -1)
    / np.fmax((support > 0).sum(-1), 1),
    **{
      name: np.reshape(function(columns[0], columns[2], average=None), shape)
      for name, function in (
        ('roc_auc', sklearn.metrics.roc_auc_score),
        ('average_precision', sklearn.metrics.average_precision_score),
      )
    },
  }


@pytest.mark.parametrize('is_multilabel', [True, False])
@pytest.mark.parametrize('width', [2, 3])
@pytest.mark.filterwarnings('ignore::sklearn.exceptions.UndefinedMetricWarning')
@pytest.mark.filterwarnings('ignore:No positive class found')
def test_many_inputs_equal_scikit_learn(width, is_multilabel):
  """Few rows, so that classes are missing and scores are equal."""
  rng = np.random.default_rng(width)
  scores = rng.integers(-2, 2, (5, 150, width)) - rng.integers(0, 3, (150, 1))
  if is_multilabel:
    gold = (rng.random(scores.shape) < rng.random((150, 1)) ** 4).astype(int)
    predicted = (scores > 0).astype(int)
    inputs = gold, predicted
  else:
    inputs = rng.integers(0, width, scores.shape[:2]), scores.argmax(-1)
    gold, predicted = (
      (x[..., None] == np.arange(width)).astype(int) for x in inputs
    )
  expected = _expected(gold, predicted, scores)
  areas = 'roc_auc', 'average_precision'
  for name in areas:
    is_binary = width == 2 and not is_multilabel
    of = expected[name]
    expected[name] = of[:, 1] if is_binary else of.mean(-1)
  of_present = expected.pop('f1_of_present')
  if not is_multilabel:
    expected['macro_f1'] = of_present
  else:
    del expected['balanced_accuracy']
  for name, values in expected.items():
    found = [
      metrics.METRICS[name](
        scores[:, i] if name in areas else inputs[1][:, i], inputs[0][:, i]
      )
      for i in range(150)
    ]
    np.testing.assert_allclose(
      found, values, rtol=1e-12, atol=1e-12, err_msg=name
    )
    if is_multilabel or name == 'roc_auc':
      assert np.isnan(found).any() == (name != 'average_precision')


@pytest.mark.filterwarnings('ignore:y_pred contains classes not in y_true')
def test_means_over_classes_are_those_of_scikit_learn():
  """Of one input with a class that is never gold, and one never predicted."""
  rng = np.random.default_rng(0)
  gold, predicted = rng.integers(0, 3, 40), rng.integers(1, 4, 40)
  scores = scipy.special.softmax(rng.normal(size=(40, 3)), -1)
  for average in ('macro', 'micro', 'weighted'):
    assert metrics.METRICS[f'{average}_f1'](predicted, gold) == pytest.approx(
      sklearn.metrics.f1_score(gold, predicted, average=average), rel=1e-12
    )
  assert class_metrics.balanced_accuracy(predicted, gold) == pytest.approx(
    sklearn.metrics.balanced_accuracy_score(gold, predicted), rel=1e-12
  )
  assert class_metrics.roc_auc(scores, gold) == pytest.approx(
    sklearn.metrics.roc_auc_score(gold, scores, multi_class='ovr'), rel=1e-12
  )
  assert class_metrics.average_precision(scores, gold) == pytest.approx(
    sklearn.metrics.average_precision_score(gold, scores), rel=1e-12
  )


def test_precision_recall_and_f1_of_classes_equal_scikit_learn():
  rng = np.random.default_rng(1)
  gold, predicted = rng.integers(0, 3, 40), rng.integers(1, 4, 40)
  found = class_metrics.per_class(predicted, gold, 5)
  expected = sklearn.metrics.precision_recall_fscore_support(
    gold, predicted, labels=range(5), zero_division=np.nan
  )
  for name, values in zip(('precision', 'recall', 'f1', 'rows'), expected):
    np.testing.assert_allclose(found[name], values, rtol=1e-12, err_msg=name)
  one_hot = (values[:, None] == np.arange(5) for values in (predicted, gold))
  again = class_metrics.per_class(*one_hot, 5)
  assert all(
    np.array_equal(again[name], found[name], equal_nan=True) for name in found
  )


def test_the_absolute_error_equals_scikit_learn():
  rng = np.random.default_rng(2)
  gold, predicted = rng.normal(size=(2, 30))
  name = 'neg_mean_absolute_error'
  assert metrics.METRICS[name](predicted, gold) == pytest.approx(
    -sklearn.metrics.mean_absolute_error(gold, predicted), rel=1e-12
  )


def test_why_an_area_is_undefined():
  gold = np.array([1, 1])
  found = metrics.Measured(gold, gold, np.array([[0.1, 0.9], [0.2, 0.8]]))
  assert math.isnan(metrics.compute(['roc_auc'], found)['roc_auc'])
  assert metrics.why_undefined('roc_auc', found) == (
    'a class or label is gold in no row or in every row'
  )
  found = found._replace(class_scores=np.full((2, 2), np.nan))
  for name in ('roc_auc', 'average_precision'):
    assert math.isnan(metrics.compute([name], found)[name])
    assert metrics.why_undefined(name, found) == (
      'a prediction is not a finite number'
    )


def test_an_average_with_an_undefined_score_is_undefined():
  tasks = [glue.TASKS['cola'], glue.TASKS['mrpc'], glue.TASKS['wnli']]
  scores = {
    'cola': {'dev': {'matthews': 60.0}},
    'mrpc': {'dev': {'f1': math.nan, 'accuracy': 80.0}},
    'wnli': {'dev': {'accuracy': math.nan}},
  }
  found = metrics.averages(tasks, scores)
  # F1 is no part of the paper's average, WNLI of neither.
  assert found['paper'] == 70.0
  assert math.isnan(found['glue'])


def test_matthews_does_not_overflow_on_many_rows():
  # Hand-computed: 2x2 table with equal margins, coefficient 0.8 - 0.2.
  rows = 400_000
  gold = np.arange(rows, dtype=np.int32) % 2
  predicted = np.where(np.arange(rows) % 10 < 8, gold, 1 - gold)
  assert class_metrics.matthews(predicted, gold) == pytest.approx(0.6, rel=1e-9)


def test_f1_tells_recall_from_precision():
  # The released code counted gold positives from the predictions, so that
  # recall equalled precision. Precision 2/2, recall 2/4: F1 is 2/3, not 1.
  predicted = np.array([1, 1, 0, 0, 0, 0])
  gold = np.array([1, 1, 1, 1, 0, 0])
  assert class_metrics.f1(predicted, gold) == pytest.approx(2 / 3)


@pytest.mark.parametrize('name', _OF_PREDICTIONS)
@pytest.mark.parametrize(
  ('predicted', 'gold'),
  [([], []), ([1, 0], [1]), ([[1], [0]], [1, 0])],
  ids=['empty', 'lengths', 'ranks'],
)
def test_inputs_that_do_not_match_raise(name, predicted, gold):
  with pytest.raises(ValueError):
    metrics.METRICS[name](np.array(predicted), np.array(gold))


def _predicted(task, logits):
  return task.kind.predictions(task, logits)


def _scores(task, logits, gold):
  predicted = _predicted(task, logits)
  return {
    name: 100 * metrics.METRICS[name](predicted, gold) for name in task.metrics
  }


def test_predictions_are_classes_of_the_tasks_own_head():
  # The fourth output belongs to a wider task of the same table.
  logits = np.array([[0.1, 2.0, 0.3, 9.0], [0.5, 0.1, 0.6, 9.0]], np.float32)
  np.testing.assert_array_equal(_predicted(glue.TASKS['mnli'], logits), [1, 2])
  np.testing.assert_array_equal(_predicted(glue.TASKS['rte'], logits), [1, 0])


def test_stsb_predictions_are_on_its_scale_with_a_sigmoid():
  # The released code left them on 0-1. sigmoid(ln 3) = 3/4; no overflow.
  logits = np.array([[0.0], [math.log(3.0)], [-1e4], [1e4]], np.float32)
  np.testing.assert_allclose(
    _predicted(glue.TASKS['stsb'], logits), [2.5, 3.75, 0.0, 5.0], rtol=1e-6
  )


def test_stsb_predictions_are_on_its_scale_with_a_linear_head():
  logits = np.array([[-0.3], [0.5], [0.9], [1.7]])
  np.testing.assert_allclose(
    _predicted(glue.TASKS['stsb'].with_head('linear'), logits),
    [0.0, 2.5, 4.5, 5.0],
  )


def test_a_scale_need_not_start_at_zero():
  np.testing.assert_allclose(
    _predicted(
      _regression((-1.0, 3.0)).with_head('linear'), np.array([[0.25]])
    ),
    [0.0],
  )


def test_score_names_the_tasks_metrics_and_counts_to_100():
  logits = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
  gold = np.array([1, 0, 1, 0])
  assert _scores(glue.TASKS['mrpc'], logits, gold) == {
    'f1': 50.0,
    'accuracy': 50.0,
  }


def test_score_of_a_regression_is_of_the_activated_prediction():
  # The clip makes ties of the first two and of the last two.
  logits = np.array([[-2.0], [-1.0], [0.5], [2.0], [3.0]])
  gold = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
  clipped = [0.0, 0.0, 2.5, 5.0, 5.0]
  result = _scores(glue.TASKS['stsb'].with_head('linear'), logits, gold)
  assert result['pearson'] == pytest.approx(
    100 * scipy.stats.pearsonr(clipped, gold).statistic
  )
  assert result['spearman'] == pytest.approx(
    100 * scipy.stats.spearmanr(clipped, gold).statistic
  )


def test_averages_by_hand():
  tasks = [glue.TASKS[n] for n in ('cola', 'mrpc', 'stsb', 'mnli', 'wnli')]
  scores = {
    'cola': {'dev': {'matthews': 60.0}},
    'mrpc': {'dev': {'f1': 90.0, 'accuracy': 80.0}},
    'stsb': {'dev': {'pearson': 90.0, 'spearman': 70.0}},
    'mnli': {
      'dev_matched': {'accuracy': 86.0},
      'dev_mismatched': {'accuracy': 84.0},
    },
    'wnli': {'dev': {'accuracy': 12.0}},
  }
  result = metrics.averages(tasks, scores)
  # (60 + 80 + 70 + 86) / 4 and (60 + 85 + 80 + 85) / 4.
  assert result == {'paper': 74.0, 'glue': 77.5}


def test_a_distance_on_the_own_scale_is_in_no_average():
  stsb = dataclasses.replace(
    glue.TASKS['stsb'], metrics=('neg_mean_absolute_error', 'spearman')
  )
  scores = {
    'stsb': {'dev': {'neg_mean_absolute_error': -290.0, 'spearman': 70.0}},
    'rte': {'dev': {'accuracy': 80.0}},
  }
  result = metrics.averages([stsb, glue.TASKS['rte']], scores)
  assert result == {'paper': 75.0, 'glue': 75.0}


def test_averages_over_no_task_are_nan():
  result = metrics.averages([glue.TASKS['wnli']], {})
  assert set(result) == {'paper', 'glue'}
  assert all(math.isnan(value) for value in result.values())


def test_a_missing_score_is_an_error_not_a_smaller_average():
  with pytest.raises(KeyError):
    metrics.averages(
      [glue.TASKS['rte'], glue.TASKS['sst2']],
      {'rte': {'dev': {'accuracy': 70.0}}},
    )
