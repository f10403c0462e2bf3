"""Temperatures and thresholds. Oracles: scikit-learn, all thresholds, loops."""

import numpy as np
import pytest
import scipy.special
from sklearn import linear_model
from sklearn import metrics as oracle

from bam_jax import config as config_lib
from bam_jax.data import folds
from bam_jax.distillation import quality
from bam_jax.inference import decisions
from bam_jax.tasks import kinds
from bam_jax.tasks import metrics
from bam_jax.tasks import task as task_lib

_N = 300


def _task(kind, labels):
  return task_lib.Task(
    name='own',
    kind=kinds.KINDS[kind],
    metrics=(),
    paper_metric='',
    tables={},
    labels=labels,
  )


_BINARY = _task('classification', ('no', 'yes'))
_MOODS = _task('multilabel', ('joy', 'anger', 'fear'))


def _config(**values):
  return config_lib.Config(
    tasks=('own',), decisions=config_lib.DecisionConfig(**values)
  )


def _overconfident(width):
  """Rare positives, and logits three times too large: [N, width] each."""
  rng = np.random.default_rng(0)
  logits = rng.normal(-2, 1.5, (_N, width))
  gold = (rng.random((_N, width)) < scipy.special.expit(logits)).astype(int)
  return 3 * logits, gold


def test_temperature_is_that_of_a_logistic_regression():
  """Of two classes 1 / T is the slope of one without an intercept."""
  margin, gold = _overconfident(1)
  model = linear_model.LogisticRegression(
    C=np.inf, fit_intercept=False, tol=1e-9
  ).fit(margin, gold[:, 0])
  logits = np.concatenate([0 * margin, margin], axis=1)
  found = decisions.fit_temperature(logits, gold[:, 0])
  assert found == pytest.approx(1 / model.coef_.item(), rel=1e-3)
  assert 2 < found < 4
  # A model that is always right has no best temperature.
  found = decisions.fit_temperature(logits, (margin[:, 0] > 0).astype(int))
  assert found == pytest.approx(0.05, abs=0.001)


@pytest.mark.parametrize('width', [1, 3])
def test_threshold_is_the_best_of_all(width):
  margins, gold = _overconfident(width)
  margins, gold = margins[:60], gold[:60]
  if width == 1:
    margins, gold, name = margins[:, 0], gold[:, 0], 'f1'
    score = oracle.f1_score
  else:
    name = 'micro_f1'

    def score(gold, predicted):
      return oracle.f1_score(gold, predicted, average='micro')

  found = decisions.fit_threshold(margins, gold, metrics.METRICS[name])
  best = max(
    score(gold, (margins >= place).astype(int)) for place in np.unique(margins)
  )
  assert score(gold, (margins > found).astype(int)) == pytest.approx(best)
  assert best > score(gold, (margins > 0).astype(int))
  assert np.abs(margins - found).min() > 0


def test_a_threshold_that_changes_nothing_is_a_half():
  metric = metrics.METRICS['accuracy']
  for gold in ([1, 0, 1], [1, 1, 1]):
    margins = np.array([2.0, -2.0, 1.0])
    if all(gold):
      margins = abs(margins)
    assert decisions.fit_threshold(margins, np.array(gold), metric) == 0


@pytest.mark.parametrize('task', [_BINARY, _MOODS], ids=['classes', 'labels'])
def test_reported_numbers_are_cross_fitted(task):
  """Oracle: the same, written as loops over rows and halves."""
  margins, gold = _overconfident(1 if task is _BINARY else 3)
  uids = [f'own/dev/{i}' for i in range(_N)]
  scores, name = margins, 'macro_f1'
  if task is _BINARY:
    scores = task.kind.class_scores(
      task, np.concatenate([0 * margins, margins], axis=1)
    )
    margins, gold = margins[:, 0], gold[:, 0]
  measured = metrics.Measured((margins > 0).astype(int), gold, scores)
  config = _config(temperature=True, thresholds=(f'own={name}',))
  found = decisions.fit(task, config, uids, measured)

  metric = metrics.METRICS[name]
  rest, half = folds.split(uids, folds.Fold(1, 2, seed=0))
  assert len(half) == len(rest) == _N / 2
  predicted, scaled = np.empty_like(gold), np.empty_like(margins)
  for rows, others in ((rest, half), (half, rest)):
    place = decisions.fit_threshold(margins[others], gold[others], metric)
    own = margins[others].reshape(-1, 1)
    temperature = decisions.fit_temperature(
      np.concatenate([0 * own, own], axis=1), gold[others].ravel()
    )
    for row in rows:
      predicted[row] = margins[row] > place
      scaled[row] = margins[row] / temperature
  assert found['default_score'] == 100 * metric(measured.predictions, gold)
  assert found['threshold_score'] == 100 * metric(predicted, gold)
  assert found['threshold_score'] > found['default_score']
  for key, logits in (
    ('calibration_error', margins),
    ('calibrated_error', scaled),
  ):
    expected = quality.calibration_error(
      scipy.special.expit(np.abs(logits)).ravel(),
      ((logits > 0) == gold).ravel(),
    )
    assert found[key] == pytest.approx(expected, rel=1e-6), key
  assert found['calibrated_error'] < found['calibration_error'] / 2

  # What is fitted on all rows decides later predictions.
  best = decisions.fit_threshold(margins, gold, metric)
  decided = decisions.decide(task, found)
  logits = scores.astype(np.float32)
  np.testing.assert_array_equal(
    decided.kind.predictions(decided, logits), margins > best
  )
  rows = type('Rows', (), {'uids': uids})
  probs = [
    each.probabilities for each in task.kind.predict(decided, logits, rows)
  ]
  np.testing.assert_allclose(
    np.array(probs)[:, -1],
    scipy.special.expit(margins.reshape(_N, -1)[:, -1] / found['temperature']),
    atol=1e-6,
  )
  settings = task.kind.export_settings(decided)['decision']
  assert settings == {
    'temperature': found['temperature'],
    'threshold': found['threshold'],
  }
  assert 'decision' not in task.kind.export_settings(task)


def test_one_row_is_its_own_half():
  measured = metrics.Measured(
    np.array([1]), np.array([0]), np.log([[0.2, 0.8]])
  )
  config = _config(temperature=True, thresholds=('own=accuracy',))
  found = decisions.fit(_BINARY, config, ['own/dev/0'], measured)
  assert found['temperature'] == pytest.approx(20, abs=0.1)


def test_nothing_is_wanted_by_default():
  assert decisions.wanted(_BINARY, _config()) == {}
  scores = _task('regression', ())
  assert decisions.wanted(scores, _config(temperature=True)) == {}
