"""The bootstrap over seeds and examples, against plain enumeration."""

import itertools
import math

import numpy as np
import pytest

from bam_jax.reporting import bootstrap
from bam_jax.tasks import metrics
from benchmarks.false_positives import bootstrap_test


def _rng(seed=0):
  return np.random.default_rng(seed)


def test_bootstrap_equals_the_enumeration_of_all_resamples():
  student = np.array([[1, 1, 0], [1, 1, 1]])
  baseline = np.array([[0, 1, 0], [1, 0, 0], [1, 1, 0]])
  observed = 5 / 6 - 1 / 3  # of 2/3 and 3/3; of 1/3, 1/3 and 2/3
  shifted = below = total = 0
  for rows in itertools.product(range(3), repeat=3):
    a, b = (g[:, rows].mean(axis=1) for g in (student, baseline))
    for first in itertools.product(a, repeat=2):
      for second in itertools.product(b, repeat=3):
        difference = np.median(first) - np.median(second)
        shifted += difference - observed >= observed - 1e-9
        below += difference <= 1e-9
        total += 1
  resamples = 40_000
  for method, hits in (('shifted', shifted), ('percentile', below)):
    share = hits / total
    assert 0.02 < share < 0.5
    found = bootstrap_test(
      [student], [baseline], _rng(), method=method, resamples=resamples
    )
    error = math.sqrt(share * (1 - share) / resamples)
    assert found == pytest.approx(share, abs=4 * error)


def test_bootstrap_by_a_metric_equals_that_by_its_contributions():
  # Accuracy is a mean, so that both ways see the same draws and numbers.
  targets = _rng(0).integers(0, 2, 40)
  student, baseline = (
    np.where(_rng(i).random((4, 40)) < 0.7, targets, 1 - targets)
    for i in (1, 2)
  )
  accuracy = metrics.METRICS['accuracy']
  scores = [lambda outputs, counts: accuracy(outputs, targets, counts)]
  by_metric = bootstrap_test(
    [student], [baseline], _rng(), scores, resamples=200
  )
  right = [(student == targets).astype(float)]
  other = [(baseline == targets).astype(float)]
  by_mean = bootstrap_test(right, other, _rng(), resamples=200)
  assert by_metric == by_mean
  assert 0 < by_mean < 1


def test_bootstrap_averages_over_tasks_seed_by_seed():
  # What one task gains the other loses, in every seed: no difference.
  gain = [np.tile([[1.0], [0.9], [0.2]], 6), np.tile([[0.0], [0.1], [0.8]], 4)]
  flat = [np.full((3, 6), 0.5), np.full((3, 4), 0.5)]
  assert bootstrap_test(gain, flat, _rng(), resamples=99) == 1.0
  alone = bootstrap_test(gain[:1], flat[:1], _rng(), resamples=99)
  assert alone < 1.0


def test_bootstrap_of_a_certain_gain_has_the_smallest_p_value():
  student, baseline = np.ones((3, 8)), np.zeros((4, 8))
  for method in ('shifted', 'percentile'):
    p = bootstrap_test(
      [student], [baseline], _rng(), method=method, resamples=199
    )
    # All resampled differences are the observed one: none is twice as large.
    assert p == 1 / 200


def test_bootstrap_draws_the_same_examples_for_both_groups():
  # The difference is 0.5 on every example, which only pairing can tell.
  easy = np.tile(np.linspace(0, 10, 6), (2, 1))
  p = bootstrap_test([easy + 0.5], [easy], _rng(), resamples=199)
  assert p == 1 / 200


def test_bootstrap_in_blocks_draws_every_resample(monkeypatch):
  values = _rng(1).random((2, 3, 50))
  whole = bootstrap_test([values[0]], [values[1]], _rng())
  monkeypatch.setattr(bootstrap, '_MAX_COUNTS', 1000)
  parts = bootstrap_test([values[0]], [values[1]], _rng())
  # Drawn one after the other, blocks are the rows of one large draw.
  assert parts == whole


@pytest.mark.parametrize(
  ('student', 'baseline'),
  [
    ([], []),
    ([np.ones((2, 3))], [np.ones((2, 4))]),
    ([np.ones((2, 3))], [np.ones((2, 3))] * 2),
    ([np.ones((2, 3)), np.ones((3, 3))], [np.ones((2, 3))] * 2),
  ],
  ids=['nothing', 'examples', 'tasks', 'seeds'],
)
def test_bootstrap_refuses_groups_that_do_not_match(student, baseline):
  with pytest.raises(ValueError):
    bootstrap_test(student, baseline, _rng(), resamples=9)


def test_a_resample_with_an_undefined_score_counts_against_the_claim():
  """By hand: of 99 certain gains 9 draws are undefined for the student."""
  student, baseline = np.full((100, 4), 90.0), np.full((100, 4), 50.0)
  student[10:19] = np.nan
  assert bootstrap.p_value(student, baseline, _rng()) == (1 + 9) / 100


def test_an_undefined_score_over_all_examples_is_no_test():
  student, baseline = np.full((100, 4), 90.0), np.full((100, 4), 50.0)
  baseline[0, 2] = np.nan
  with pytest.raises(ValueError, match='undefined'):
    bootstrap.p_value(student, baseline, _rng())
