"""Schedules of the gold weight. Oracle: values by hand."""

import doctest

import pytest

from bam_jax.core import annealing


@pytest.mark.parametrize(
  ('kind', 'progress', 'expected'),
  [
    ('linear', 0.0, 0.0),
    ('linear', 0.3, 0.3),
    ('linear', 1.0, 1.0),
    ('constant', 0.9, 0.4),
    ('cosine', 0.0, 0.0),
    ('cosine', 0.25, 0.5 - 0.5 * 0.5**0.5),
    ('cosine', 0.5, 0.5),
    ('cosine', 1.0, 1.0),
    ('step', 0.69, 0.0),
    ('step', 0.7, 1.0),
  ],
)
def test_value(kind, progress, expected):
  value = annealing.gold_weight(kind, progress, constant=0.4, step_at=0.7)
  assert value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize('progress', [-0.01, 1.01, float('nan')])
def test_progress_outside_the_training_raises(progress):
  with pytest.raises(ValueError, match='progress'):
    annealing.gold_weight('linear', progress)


def test_unknown_kind_raises():
  with pytest.raises(ValueError, match='sudden'):
    annealing.gold_weight('sudden', 0.5)


def test_examples_in_docstrings():
  result = doctest.testmod(annealing)
  assert result.attempted > 0
  assert result.failed == 0
