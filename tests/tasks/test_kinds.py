"""What kinds say of logits. Oracles: powers and the logistic curve by hand."""

import doctest

import numpy as np
import pytest

from bam_jax.tasks import classification
from bam_jax.tasks import kinds


@pytest.mark.parametrize('temperature', [0.5, 1.0, 4.0])
def test_teacher_softmax_has_a_temperature(temperature):
  logits = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
  result = kinds.KINDS['classification'].teacher_probs(logits, temperature)
  powers = np.exp(logits.astype(np.float64)) ** (1 / temperature)
  assert result.dtype == np.float32
  np.testing.assert_allclose(
    result, powers / powers.sum(-1, keepdims=True), rtol=1e-6
  )


def test_teacher_scores_have_none():
  logits = np.float32([[-1.0], [0.0], [2.0]])
  for temperature in (1.0, 4.0):
    np.testing.assert_allclose(
      kinds.KINDS['regression'].teacher_probs(logits, temperature),
      1 / (1 + np.exp(-logits.astype(np.float64))),
      rtol=1e-6,
    )
    np.testing.assert_array_equal(
      kinds.KINDS['regression']
      .with_head('linear')
      .teacher_probs(logits, temperature),
      logits,
    )


def test_examples_in_docstrings():
  result = doctest.testmod(classification)
  assert result.attempted > 0
  assert result.failed == 0
