"""Metrics against scikit-learn and scipy; averages and scales by hand."""

import math

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

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
    assert metrics.why_undefined(name, predicted, gold) == reason


@pytest.mark.parametrize('name', _SCIPY)
def test_a_prediction_that_is_no_number_makes_a_score_undefined(name):
  predicted, gold = np.array([0.1, np.nan, 0.3]), np.array([1.0, 2.0, 3.0])
  assert math.isnan(metrics.METRICS[name](predicted, gold))
  assert metrics.why_undefined(name, predicted, gold) == (
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
  assert metrics.matthews(predicted, gold) == pytest.approx(0.6, rel=1e-9)


def test_f1_tells_recall_from_precision():
  # The released code counted gold positives from the predictions, so that
  # recall equalled precision. Precision 2/2, recall 2/4: F1 is 2/3, not 1.
  predicted = np.array([1, 1, 0, 0, 0, 0])
  gold = np.array([1, 1, 1, 1, 0, 0])
  assert metrics.f1(predicted, gold) == pytest.approx(2 / 3)


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
