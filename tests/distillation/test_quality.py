"""Quality of teachers; the oracles are loops over rows and scikit-learn."""

import doctest
import math

import numpy as np
import pytest
import scipy.stats
from sklearn import metrics as sk_metrics

from bam_jax.distillation import quality
from tests.distillation import tiny_tasks

_MOOD = tiny_tasks.make_task(
  'mood', 'classification', 'accuracy', labels=('down', 'even', 'up')
)
_CLOSENESS = tiny_tasks.make_task(
  'closeness', 'regression', 'pearson', scale=(0.0, 5.0)
)


def _calibration_error(confidence, hit):
  """Guo et al.'s definition, word by word."""
  total = 0.0
  for m in range(1, 16):
    inside = [n for n, p in enumerate(confidence) if (m - 1) / 15 < p <= m / 15]
    if inside:
      accuracy = sum(hit[n] for n in inside) / len(inside)
      mean = sum(confidence[n] for n in inside) / len(inside)
      total += len(inside) / len(confidence) * abs(accuracy - mean)
  return total


def test_distributions_against_loops_and_scikit_learn():
  random = np.random.default_rng(0)
  logits = random.normal(0, 2, (400, 3)).astype(np.float32)
  gold = random.integers(0, 3, 400)
  found = quality.measure(_MOOD, logits, gold.astype(np.float32))
  probs = np.array(
    [
      [math.exp(x) / sum(math.exp(y) for y in row) for x in row]
      for row in logits.astype(float).tolist()
    ]
  )
  confidence, predicted = probs.max(-1), probs.argmax(-1)
  assert found == pytest.approx(
    {
      'accuracy': sk_metrics.accuracy_score(gold, predicted),
      'confidence': sum(confidence) / 400,
      'calibration_error': _calibration_error(confidence, predicted == gold),
      'entropy': np.mean([scipy.stats.entropy(row) for row in probs]),
      'log_loss': sk_metrics.log_loss(gold, probs),
    },
    rel=1e-12,
  )


@pytest.mark.parametrize(
  ('confidence', 'hit', 'expected'),
  [
    # One bin, 0.7 sure and right once in four: |1/4 - 0.7|.
    ([0.7] * 4, [True, False, False, False], 0.45),
    # Two bins, by the share of their rows: 3/4 |1 - 0.9| + 1/4 |0 - 0.5|.
    ([0.9, 0.9, 0.9, 0.5], [True, True, True, False], 0.2),
    # 0.6 is the upper end of a bin, of which 0.61 is outside.
    ([0.6, 0.61], [True, False], (0.4 + 0.61) / 2),
    # Within one bin too high and too low make up for each other.
    ([0.61, 0.63], [True, False], 0.12),
    # Certain: in the last bin.
    ([1.0, 1.0], [True, False], 0.5),
  ],
  ids=['one-bin', 'two-bins', 'upper-end', 'within-a-bin', 'certain'],
)
def test_calibration_error_by_hand(confidence, hit, expected):
  found = quality.calibration_error(np.array(confidence), np.array(hit))
  assert found == pytest.approx(expected, abs=1e-12)


def test_a_certain_and_wrong_teacher_has_a_finite_loss():
  """exp(-2000) is 0 in float64; the entropy of certainty is 0, not nan."""
  found = quality.measure(
    _MOOD, np.array([[2000.0, 0.0, 0.0]]), np.array([1.0])
  )
  assert found == {
    'accuracy': 0.0,
    'confidence': 1.0,
    'calibration_error': 1.0,
    'entropy': 0.0,
    'log_loss': 2000.0,
  }


@pytest.mark.parametrize(
  ('head', 'logits'),
  [
    # Odds of 3, 1 and 1 / 3.
    ('sigmoid', [[math.log(3)], [0.0], [-math.log(3)]]),
    ('linear', [[0.75], [0.5], [0.25]]),
  ],
)
def test_scores_by_hand(head, logits):
  """Predictions of 0.75, 0.5 and 0.25 on gold of 0.5, 0.5 and 0.75."""
  found = quality.measure(
    _CLOSENESS.with_head(head), np.array(logits), np.array([0.5, 0.5, 0.75])
  )
  assert found == pytest.approx(
    {
      'mean_absolute_error': 0.75 / 3,
      'mean_squared_error': (0.25**2 + 0.5**2) / 3,
      'bias': -0.25 / 3,
    },
    abs=1e-7,
  )


_ORDER = np.array([0, 1, 2, 2, 1, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(
  ('task', 'logits', 'label', 'told'),
  [
    # Right on 7 of 10.
    (_MOOD, np.eye(3)[[0, 1, 2, 2, 1, 0, 0, 1, 2, 2]], _ORDER, None),
    (_MOOD, np.eye(3)[_ORDER], _ORDER, None),
    (
      _MOOD,
      np.eye(3)[np.array([2, 0, 1])[_ORDER]],
      _ORDER,
      'the logits agree with 0.0% of the labels, but would with 100.0% if the'
      ' outputs were {1}, {2}, {0}; check the order of the labels; if it is'
      ' right, the teacher is poor',
    ),
    (_CLOSENESS, [[0.2], [0.9]], [0.3, 0.8], None),
    (
      _CLOSENESS,
      [[1.0], [4.0]],
      [0.2, 0.8],
      'the predictions differ from the gold values, from 0 to 1, by 2.000 on'
      ' average, but their median by only 0.300; check the scale of the scores'
      ' or, for multilabel, the order of the labels; if these are right,'
      ' the teacher is poor',
    ),
  ],
  ids=['good', 'perfect', 'turned', 'scores', 'scale'],
)
def test_logits_of_other_labels_are_told(task, logits, label, told, caplog):
  if task is _CLOSENESS:
    task = task.with_head('linear')
  logits = np.asarray(logits, np.float64)
  quality.log_agreement('theirs', task, logits, np.array(label))
  warnings = [
    r.getMessage() for r in caplog.records if r.levelname == 'WARNING'
  ]
  expected = [f'theirs: {told.format(*task.labels)}'] if told else []
  assert warnings == expected


def test_examples_in_docstrings():
  result = doctest.testmod(quality)
  assert result.attempted > 0
  assert result.failed == 0
