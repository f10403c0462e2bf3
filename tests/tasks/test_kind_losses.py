"""Losses of the kinds that GLUE lacks. Oracle: loops in float64, scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special

from bam_jax.core import losses
from bam_jax.tasks import kinds as kinds_lib
from bam_jax.tasks import task as task_lib


def _kinds(*names):
  return tuple(kinds_lib.KINDS[name] for name in names)


def _cross_entropy(logit, target):
  """Of one sigmoid."""
  return -(
    target * scipy.special.log_expit(logit)
    + (1 - target) * scipy.special.log_expit(-logit)
  )


def test_regression_by_cross_entropy():
  rng = np.random.default_rng(0)
  kind = kinds_lib.KINDS['regression'].with_head('sigmoid', 'cross_entropy')
  logits = rng.normal(0, 20, (5, 2, 3)).astype(np.float32)
  target = rng.random((5, 2, 3), np.float32)
  mask = np.zeros_like(target, bool)

  @jax.jit
  def differentiate(logits):
    found, pull = jax.vjp(lambda z: kind.loss(z, target, mask), logits)
    return found, *pull(jnp.ones_like(found))

  found, gradient = differentiate(logits)
  expected = _cross_entropy(
    logits[..., 0].astype(np.float64), target[..., 0].astype(np.float64)
  )
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  np.testing.assert_allclose(
    gradient[..., 0],
    scipy.special.expit(logits[..., 0]) - target[..., 0],
    atol=1e-6,
  )
  assert not np.any(gradient[..., 1:])


@pytest.mark.parametrize('gold_weight', [0.0, 0.3, 1.0])
def test_multilabel_is_the_mean_over_the_tasks_own_labels(gold_weight):
  rng = np.random.default_rng(0)
  kinds = _kinds('classification', 'multilabel')
  class_mask = np.array([[True] * 4, [True] * 3 + [False]])
  logits = rng.normal(0, 20, (5, 2, 4)).astype(np.float32)
  batch = {
    'task_id': np.tile(np.int32([1, 0]), (5, 1)),
    'gold': rng.integers(0, 2, (5, 2, 4)).astype(np.float32),
    'teacher': rng.random((5, 2, 4), np.float32),
    'weight': rng.random((5, 2), np.float32) + 0.5,
  }

  def loss(logits):
    return losses.multitask_loss(logits, batch, class_mask, kinds, gold_weight)

  gradient, parts = jax.jit(jax.grad(loss, has_aux=True))(logits)
  target = gold_weight * batch['gold'].astype(np.float64)
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
  np.testing.assert_allclose(
    gradient[:, 0, :3],
    (scipy.special.expit(logits[:, 0, :3]) - target[:, 0, :3])
    * weight[:, None]
    / 3,
    atol=1e-6,
  )
  np.testing.assert_array_equal(gradient[:, 0, 3], 0)


# Task 0 is a classification, 1 and 2 are of tokens and differ in width.
_KINDS = _kinds('classification', 'tagging', 'tagging')
_MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]], bool)


def _token_batch(seed=0, rows=6, tokens=14):
  """Three segments a row and padding; of some tokens no loss is asked."""
  rng = np.random.default_rng(seed)
  segment = np.repeat(np.int32([1, 2, 3, 0]), [3, 5, 4, tokens - 12])
  task_id = rng.integers(0, 3, (rows, 3)).astype(np.int32)
  task_id[0] = 0, 1, 2
  mask = np.zeros((rows, tokens, 3))
  for b, t in np.ndindex(rows, 12):
    mask[b, t] = _MASK[task_id[b, segment[t] - 1], :3]
  scores = rng.random((2, rows, tokens, 3)) * mask
  gold, teacher = scores / np.maximum(scores.sum(-1, keepdims=True), 1e-9)
  share = rng.choice([0.0, 0.2, 0.5], (rows, tokens))
  for b, t in np.ndindex(rows, tokens):
    if not segment[t] or not task_id[b, segment[t] - 1]:
      share[b, t] = 0
  return {
    'segment_ids': np.tile(segment, (rows, 1)),
    'task_id': task_id,
    'gold': np.eye(4, dtype=np.float32)[np.zeros((rows, 3), int)],
    'teacher': np.eye(4, dtype=np.float32)[np.zeros((rows, 3), int)],
    'weight': rng.choice([0.0, 0.5, 1.0], (rows, 3)).astype(np.float32),
    'token_gold': gold.astype(np.float32),
    'token_teacher': teacher.astype(np.float32),
    'token_share': share.astype(np.float32),
  }, rng.normal(size=(rows, tokens, 3)).astype(np.float32)


def _token_loss(tokens, batch, gold_weight):
  slots = jnp.zeros((*batch['task_id'].shape, 4))
  return losses.multitask_loss(slots, batch, _MASK, _KINDS, gold_weight, tokens)


_differentiate = jax.jit(jax.value_and_grad(_token_loss, has_aux=True))


@pytest.mark.parametrize('gold_weight', [0.0, 0.3, 1.0])
def test_tagging_is_the_cross_entropy_of_words_times_their_share(gold_weight):
  batch, logits = _token_batch()
  (_, parts), gradient = _differentiate(logits, batch, gold_weight)
  expected, slope = np.zeros(3), np.zeros(logits.shape)
  for b, t in np.ndindex(logits.shape[:2]):
    slot = batch['segment_ids'][b, t] - 1
    if slot < 0 or not batch['task_id'][b, slot]:
      continue
    task = batch['task_id'][b, slot]
    width = _MASK[task].sum()
    target = gold_weight * batch['token_gold'][b, t, :width].astype(float)
    target += (1 - gold_weight) * batch['token_teacher'][b, t, :width]
    z = logits[b, t, :width].astype(float)
    scale = batch['weight'][b, slot] * batch['token_share'][b, t]
    expected[task] -= scale * np.sum(target * scipy.special.log_softmax(z))
    slope[b, t, :width] = scale * (
      scipy.special.softmax(z) * target.sum() - target
    )
  np.testing.assert_allclose(parts['loss'][1:], expected[1:], rtol=1e-6)
  np.testing.assert_allclose(gradient, slope, atol=1e-6)


def test_tokens_without_a_share_add_nothing_whatever_they_hold():
  batch, logits = _token_batch(1)
  (expected, _), _ = _differentiate(logits, batch, 0.3)
  weight = np.concatenate(
    [np.zeros((6, 1)), batch['weight']], axis=1
  )  # of segment 0, 1, 2, 3
  dead = (batch['token_share'] == 0) | (
    np.take_along_axis(weight, batch['segment_ids'], axis=1) == 0
  )
  logits[dead] = np.nan
  batch['token_teacher'][dead] = np.inf
  (value, _), gradient = _differentiate(logits, batch, 0.3)
  assert value == expected
  np.testing.assert_array_equal(gradient[dead], 0)
  assert np.isfinite(gradient).all()


def test_qa_is_the_mean_cross_entropy_of_start_and_end_over_a_slots_places():
  kinds = _kinds('classification', 'qa', 'tagging')
  batch, logits = _token_batch(2)
  batch['token_share'] = (batch['token_share'] > 0).astype(np.float32)
  class_mask = np.array([[1] * 4, [1, 1, 0, 0], [1, 1, 1, 0]], bool)

  def loss(tokens):
    slots = jnp.zeros((*batch['task_id'].shape, 4))
    _, parts = losses.multitask_loss(
      slots, batch, class_mask, kinds, 0.3, tokens
    )
    return parts['loss'][1]

  expected, slope = 0.0, np.zeros(logits.shape)
  for b, s in np.ndindex(batch['task_id'].shape):
    places = np.flatnonzero(
      (batch['segment_ids'][b] == s + 1) & (batch['token_share'][b] > 0)
    )
    if batch['task_id'][b, s] != 1 or not len(places):
      continue
    for channel in (0, 1):
      z = logits[b, places, channel].astype(float)
      target = 0.3 * batch['token_gold'][b, places, channel].astype(float)
      target += 0.7 * batch['token_teacher'][b, places, channel]
      scale = batch['weight'][b, s] / 2
      expected -= scale * np.sum(target * scipy.special.log_softmax(z))
      slope[b, places, channel] = scale * (
        scipy.special.softmax(z) * target.sum() - target
      )
  found, gradient = jax.jit(jax.value_and_grad(loss))(logits)
  np.testing.assert_allclose(found, expected, rtol=1e-6)
  np.testing.assert_allclose(gradient, slope, atol=1e-6)


class _Rows:
  """Features of a split, by name."""

  def __init__(self, lengths=None, **values):
    self._values = values
    self._offsets = np.cumsum([0, *(lengths or ())])
    self._size = len(lengths or values['label'])

  def __len__(self):
    return self._size

  def fixed(self, name):
    return self._values[name]

  def ragged(self, name):
    return self._values.get(name), self._offsets


def _task(kind, labels=()):
  return task_lib.Task(
    'x', kind, kind.default_metrics, '', tables={}, labels=labels
  )


@pytest.mark.parametrize(
  ('name', 'loss'),
  [
    ('classification', ''),
    ('multilabel', ''),
    ('regression', 'squared_error'),
    ('regression', 'cross_entropy'),
  ],
)
def test_the_loss_of_a_constant_is_the_least_that_one_can_have(name, loss):
  # Oracle: the constant logits with the least mean loss, found by scipy.
  rng = np.random.default_rng(0)
  kind = kinds_lib.KINDS[name].with_head('sigmoid', loss)
  task = _task(kind, () if loss else ('a', 'b', 'c'))
  label = {
    'classification': rng.choice(3, 40, p=[0.6, 0.3, 0.1]),
    'multilabel': rng.random((40, 3)) < [0.5, 0.1, 0.7],
    'regression': rng.random(40),
  }[name].astype(np.float32)
  rows = _Rows(label=label)
  target = jnp.asarray(kind.example_targets(task, rows))[:, None]
  mask = np.ones_like(target, bool)

  @jax.jit
  def mean_loss(constant):
    logits = jnp.broadcast_to(constant, target.shape)
    return jnp.mean(kind.loss(logits, target, mask))

  least = scipy.optimize.minimize(
    jax.value_and_grad(mean_loss), np.zeros(task.num_outputs), jac=True
  ).fun
  if loss == 'cross_entropy':  # The gold scores themselves have a loss.
    logits = scipy.special.logit(target)
    least -= float(jnp.mean(kind.loss(logits, target, mask)))
  assert kind.constant_loss(task, rows) == pytest.approx(least, rel=1e-4)


def test_the_loss_of_a_constant_tag_and_answer():
  # By hand: words of two examples, of which each counts as a half.
  task = _task(kinds_lib.KINDS['tagging'], ('O', 'B-X'))
  tags = np.float32([-1, 0, 1, -1, 0, -1])  # One word is half an example.
  shares = np.array([0.25 + 0.5, 0.25])
  found = task.kind.constant_loss(task, _Rows([4, 2], label=tags))
  assert found == pytest.approx(-np.sum(shares * np.log(shares)))
  # Three candidates in the first window: [CLS] and two of context; two in the
  # second. Each window ends with [SEP].
  task = _task(kinds_lib.KINDS['qa'])
  rows = _Rows([6, 5], length_a=np.array([3, 3]))
  found = task.kind.constant_loss(task, rows)
  assert found == pytest.approx((np.log(3) + np.log(2)) / 2)


def test_equal_labels_leave_a_constant_nothing_to_lose():
  for name, label in (('classification', 1), ('regression', 0.3)):
    task = _task(kinds_lib.KINDS[name], ('a', 'b') * (name[0] == 'c'))
    rows = _Rows(label=np.full(7, label, np.float32))
    assert task.kind.constant_loss(task, rows) == 0
