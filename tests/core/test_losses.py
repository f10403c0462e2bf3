"""Losses. Oracles: scipy in float64, hand computations, identities."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from bam_jax.core import losses
from bam_jax.tasks import kinds

# Task 0 has three classes, task 1 is a regression, task 2 has two classes.
CLASS_MASK = np.array([[1, 1, 1], [1, 0, 0], [1, 1, 0]], bool)
KINDS = tuple(
  kinds.KINDS[name]
  for name in ('classification', 'regression', 'classification')
)
IS_REGRESSION = np.array([False, True, False])


def _batch(rows=4, slots=3, seed=0):
  rng = np.random.default_rng(seed)
  task_id = rng.integers(0, 3, (rows, slots)).astype(np.int32)
  task_id[0] = 0, 1, 2
  mask = CLASS_MASK[task_id]

  def probabilities(hard):
    scores = np.where(mask, rng.normal(size=mask.shape), -np.inf)
    probs = scipy.special.softmax(scores, -1)
    if hard:
      probs = np.eye(3)[np.argmax(probs, -1)]
    score = rng.uniform(size=(rows, slots, 1)) * [1, 0, 0]
    chosen = np.where(IS_REGRESSION[task_id][..., None], score, probs)
    return chosen.astype(np.float32)

  return {
    'task_id': task_id,
    'gold': probabilities(hard=True),
    'teacher': probabilities(hard=False),
    'weight': rng.choice([0.0, 0.5, 1.0, 2.0], (rows, slots)).astype(
      np.float32
    ),
  }, rng.normal(size=(rows, slots, 3)).astype(np.float32)


def _reference(logits, batch, gold_weight, head):
  """Slot by slot, in float64."""
  result = np.zeros(logits.shape[:2])
  for index in np.ndindex(*result.shape):
    task = batch['task_id'][index]
    width = CLASS_MASK[task].sum()
    z = logits[index][:width].astype(np.float64)
    target = gold_weight * batch['gold'][index][:width].astype(np.float64)
    target += (1 - gold_weight) * batch['teacher'][index][:width]
    if IS_REGRESSION[task]:
      score = scipy.special.expit(z[0]) if head == 'sigmoid' else z[0]
      result[index] = (score - target[0]) ** 2
    else:
      result[index] = -np.sum(target * scipy.special.log_softmax(z))
  return result


def _loss(logits, batch, gold_weight=0.3, head='sigmoid'):
  return losses.multitask_loss(
    jnp.asarray(logits),
    jax.tree.map(jnp.asarray, batch),
    CLASS_MASK,
    tuple(kind.with_head(head) for kind in KINDS),
    gold_weight,
  )


@pytest.mark.parametrize('head', ['sigmoid', 'linear'])
@pytest.mark.parametrize('gold_weight', [0.0, 0.3, 1.0])
def test_equals_scipy_slot_by_slot(head, gold_weight):
  batch, logits = _batch()
  total, parts = _loss(logits, batch, gold_weight, head)
  expected = _reference(logits, batch, gold_weight, head) * batch['weight']
  np.testing.assert_allclose(total, expected.sum(), rtol=1e-6)
  for task in range(3):
    chosen = batch['task_id'] == task
    np.testing.assert_allclose(
      parts['loss'][task], expected[chosen].sum(), rtol=1e-6
    )
    assert parts['count'][task] == np.sum(chosen & (batch['weight'] > 0))


@pytest.mark.parametrize('head', ['sigmoid', 'linear'])
def test_gradient_equals_the_closed_form(head):
  """softmax - target; 2 (p - y) p (1 - p) or 2 (z - y), by hand."""
  batch, logits = _batch(seed=1)
  gradient = jax.grad(lambda z: _loss(z, batch, 0.3, head)[0])(
    jnp.asarray(logits)
  )
  target = 0.3 * batch['gold'] + 0.7 * batch['teacher']
  mask = CLASS_MASK[batch['task_id']]
  expected = scipy.special.softmax(np.where(mask, logits, -np.inf), -1) - target
  z = logits[..., 0]
  p = scipy.special.expit(z)
  slope = p * (1 - p) if head == 'sigmoid' else np.ones_like(z)
  error = (p if head == 'sigmoid' else z) - target[..., 0]
  regression = np.zeros_like(logits)
  regression[..., 0] = 2 * error * slope
  chosen = IS_REGRESSION[batch['task_id']][..., None]
  expected = np.where(chosen, regression, expected) * batch['weight'][..., None]
  np.testing.assert_allclose(gradient, expected, atol=2e-6)


def test_mixed_squared_error_is_the_mix_less_a_constant():
  """L(mix) = λ L(y) + (1-λ) L(t) - λ (1-λ) (y-t)², with one gradient."""
  weight, gold, teacher = 0.3, jnp.array(0.9), jnp.array(0.2)

  def squared(z, target):
    slot = jnp.array([[[1.0, 0.0, 0.0]]])
    mask = jnp.array([[CLASS_MASK[1]]])
    return KINDS[1].loss(z * slot, target * slot, mask)[0, 0]

  def mixed(z):
    return squared(z, losses.mix_targets(gold, teacher, weight))

  def mix(z):
    return weight * squared(z, gold) + (1 - weight) * squared(z, teacher)

  z = jnp.array(0.7)
  constant = weight * (1 - weight) * (gold - teacher) ** 2
  assert constant > 0.1
  np.testing.assert_allclose(mixed(z), mix(z) - constant, rtol=1e-6)
  np.testing.assert_allclose(jax.grad(mixed)(z), jax.grad(mix)(z), rtol=1e-5)


@pytest.mark.parametrize(('weight', 'chosen'), [(1.0, 0), (0.0, 1)])
def test_the_ends_of_annealing_are_exact(weight, chosen):
  pair = np.float32([[0.1, 0.9], [0.7, 0.3]])
  mixed = losses.mix_targets(jnp.asarray(pair[0]), jnp.asarray(pair[1]), weight)
  np.testing.assert_array_equal(mixed, pair[chosen])


@pytest.mark.parametrize('garbage', [1e30, np.nan, np.inf])
def test_empty_slots_add_exactly_nothing(garbage):
  batch, logits = _batch()
  empty = batch['weight'] == 0
  assert empty.any()
  clean_total, clean_parts = _loss(logits, batch)
  logits[empty] = garbage
  batch['gold'][empty] = garbage
  batch['teacher'][empty] = garbage
  total, parts = _loss(logits, batch)
  assert total == clean_total
  jax.tree.map(np.testing.assert_array_equal, parts, clean_parts)
  gradient = jax.grad(lambda z: _loss(z, batch)[0])(jnp.asarray(logits))
  assert np.all(np.asarray(gradient)[empty] == 0)
  assert np.all(np.isfinite(gradient))


def test_absent_classes_have_no_gradient():
  batch, logits = _batch()
  logits[..., 2] = 50.0
  gradient = jax.grad(lambda z: _loss(z, batch)[0])(jnp.asarray(logits))
  absent = ~CLASS_MASK[batch['task_id']]
  assert np.all(np.asarray(gradient)[absent] == 0)


@pytest.mark.parametrize('task', [0, 1, 2])
def test_nan_shows_in_the_entry_of_its_own_task(task):
  batch, logits = _batch()
  batch['weight'][:] = 1.0
  logits[0, task] = np.nan  # the first row has slot k of task k
  total, parts = _loss(logits, batch)
  assert np.isnan(total)
  np.testing.assert_array_equal(np.isnan(parts['loss']), np.arange(3) == task)


def test_examples_in_docstrings():
  result = doctest.testmod(losses)
  assert result.attempted > 0
  assert result.failed == 0
