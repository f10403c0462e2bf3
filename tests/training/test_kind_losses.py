"""Losses of the kinds that GLUE lacks. Oracle: loops in float64, scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from bam_jax.training import losses


def _cross_entropy(logit, target):
  """Of one sigmoid."""
  return -(
    target * scipy.special.log_expit(logit)
    + (1 - target) * scipy.special.log_expit(-logit)
  )


@pytest.mark.parametrize('gold_weight', [0.0, 0.3, 1.0])
def test_multilabel_is_the_mean_over_the_tasks_own_labels(gold_weight):
  rng = np.random.default_rng(0)
  kinds = ('classification', 'multilabel')
  class_mask = np.array([[True] * 4, [True] * 3 + [False]])
  logits = rng.normal(0, 20, (5, 2, 4)).astype(np.float32)
  batch = {
    'task_id': np.tile(np.int32([1, 0]), (5, 1)),
    'target': rng.integers(0, 2, (5, 2, 4)).astype(np.float32),
    'teacher': rng.random((5, 2, 4), np.float32),
    'weight': rng.random((5, 2), np.float32) + 0.5,
  }

  def loss(logits):
    return losses.multitask_loss(
      logits, batch, class_mask, kinds, gold_weight, 'sigmoid'
    )

  _, parts = loss(jnp.asarray(logits))
  target = gold_weight * batch['target'].astype(np.float64)
  target += (1 - gold_weight) * batch['teacher']
  expected = np.zeros(5)
  for row, label in np.ndindex(5, 3):
    expected[row] += (
      _cross_entropy(logits[row, 0, label], target[row, 0, label]) / 3
    )
  weight = batch['weight'][:, 0]
  np.testing.assert_allclose(
    parts['loss'][1], np.sum(weight * expected), rtol=1e-6
  )
  gradient = jax.grad(lambda z: loss(z)[0])(jnp.asarray(logits))
  np.testing.assert_allclose(
    gradient[:, 0, :3],
    (scipy.special.expit(logits[:, 0, :3]) - target[:, 0, :3])
    * weight[:, None]
    / 3,
    atol=1e-6,
  )
  np.testing.assert_array_equal(gradient[:, 0, 3], 0)
