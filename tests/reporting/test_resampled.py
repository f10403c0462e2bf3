"""Metrics of resamples, against the metrics of the rows drawn."""

import itertools

import numpy as np
import pytest

from bam_jax.tasks import metrics
from bam_jax.tasks import score_metrics

_N = 40


def _rng(seed=0):
  return np.random.default_rng(seed)


def _data(kind):
  """Gold [N] and predictions [3, N], of which each kind has its traps."""
  if kind == 'classes':
    targets = _rng(1).integers(0, 3, _N)
    guesses = _rng(2).integers(0, 3, (3, _N))
    return targets, np.where(_rng(3).random((3, _N)) < 0.5, targets, guesses)
  targets = _rng(1).normal(size=_N)
  outputs = targets + _rng(2).normal(size=(3, _N))
  if kind == 'ties':
    return np.round(targets), np.round(outputs)
  # Far from zero, where squares of means take figures away.
  return targets + 1e3, outputs + 1e3


@pytest.mark.parametrize(
  ('name', 'kind'),
  [
    ('accuracy', 'classes'),
    ('f1', 'classes'),
    ('matthews', 'classes'),
    ('macro_f1', 'classes'),
    ('weighted_f1', 'classes'),
    ('balanced_accuracy', 'classes'),
    ('neg_mean_absolute_error', 'values'),
    ('pearson', 'values'),
    ('pearson', 'ties'),
    ('spearman', 'values'),
    ('spearman', 'ties'),
  ],
)
def test_score_is_the_metric_of_the_drawn_rows(name, kind):
  targets, outputs = _data(kind)
  rows = _rng(4).integers(0, _N, (20, _N))
  counts = np.array([np.bincount(row, minlength=_N) for row in rows])
  found = metrics.METRICS[name](outputs, targets, counts).T
  expected = [
    [metrics.METRICS[name](output[row], targets[row]) for output in outputs]
    for row in rows
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-9)
  assert np.std(found) > 0.02


@pytest.mark.parametrize(
  'name',
  ['micro_f1', 'macro_f1', 'weighted_f1', 'roc_auc', 'average_precision'],
)
def test_score_of_labels_is_the_metric_of_the_drawn_rows(name):
  gold = _rng(1).integers(0, 2, (_N, 4))
  outputs = _rng(2).integers(-2, 3, (3, _N, 4)) + gold  # Some are equal.
  if not metrics.METRICS[name].takes_class_scores:
    outputs = (outputs > 0).astype(int)
  rows = _rng(4).integers(0, _N, (20, _N))
  counts = np.array([np.bincount(row, minlength=_N) for row in rows])
  found = metrics.METRICS[name](outputs, gold, counts).T
  expected = [
    [metrics.METRICS[name](output[row], gold[row]) for output in outputs]
    for row in rows
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-9)
  assert np.std(found) > 0.01


@pytest.mark.parametrize('rows', [3, 1_501])
@pytest.mark.parametrize(
  ('name', 'scale'),
  [
    *(
      (name, 1)
      for name in ('accuracy', 'f1', 'matthews', 'pearson', 'spearman')
    ),
    *itertools.product(('pearson', 'spearman'), (0.1, 1e-3)),
  ],
)
def test_score_is_undefined_where_the_metric_is(name, rows, scale):
  """Draws of one example alone, of equals alone, of one that differs."""
  targets = np.zeros(rows) + 5 * scale
  outputs = np.zeros((3, rows))
  targets[1], outputs[0, 0], outputs[1, 1] = scale, scale, scale
  if scale == 1:
    targets, outputs = (targets == 1).astype(int), outputs.astype(int)
  counts = np.zeros((5, rows), np.int64)
  counts[0, 0] = counts[1, 1] = counts[2, 2] = rows
  counts[3] = 1
  counts[4] = [2, 0] + [1] * (rows - 2)
  found = metrics.METRICS[name](outputs, targets, counts).T
  expected = [
    [
      metrics.METRICS[name](np.repeat(output, times), np.repeat(targets, times))
      for output in outputs
    ]
    for times in counts
  ]
  assert np.isnan(expected).any() == (name != 'accuracy')
  np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_a_small_variance_is_no_constant():
  """Of the values that are drawn all but one are far smaller than that one."""
  targets = np.array([1e9, 3.0, 1.0, 2.0])
  outputs = np.array([[1.0, 2.0, 3.0, 5.0]])
  counts = np.array([[0, 2, 1, 1], [0, 0, 4, 0], [1, 1, 1, 1]])
  found = metrics.METRICS['pearson'](outputs, targets, counts).T
  expected = [
    [score_metrics.pearson(np.repeat(outputs[0], c), np.repeat(targets, c))]
    for c in counts
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize(
  ('name', 'sums', 'expected'),
  [
    ('span_f1', [0, 0, 0], np.nan),
    ('span_f1', [0, 0, 2], 0.0),
    ('span_precision', [0, 0, 2], np.nan),
    ('span_recall', [0, 2, 0], np.nan),
    ('span_recall', [0, 0, 2], 0.0),
    ('exact_match', [0, 0, 4], 0.0),
  ],
)
def test_a_tallied_score_is_undefined_where_nothing_is_counted(
  name, sums, expected
):
  """By hand: each is a share, of 0 in some cases."""
  tally = np.array([[sums, [0, 0, 0]]])  # One run, two examples.
  found = metrics.METRICS[name](tally, np.zeros(2), np.array([[1, 1]])).T
  np.testing.assert_array_equal(found, [[expected]])
  assert metrics.METRICS[name].reason or name == 'exact_match'


def test_ranks_of_many_examples_are_exact():
  targets = _rng(1).normal(size=5_000)
  outputs = (targets + _rng(2).normal(size=5_000))[None]
  counts = _rng(3).multinomial(5_000, np.full(5_000, 1 / 5_000), 2)
  found = metrics.METRICS['spearman'](outputs, targets, counts).T
  for times, score in zip(counts, found):
    expected = score_metrics.spearman(
      np.repeat(outputs[0], times), np.repeat(targets, times)
    )
    assert score[0] == pytest.approx(expected, rel=1e-9)
