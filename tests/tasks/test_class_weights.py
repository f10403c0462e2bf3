"""Weights of classes. Oracles: scikit-learn, losses by NumPy, a minimiser."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
from sklearn.utils import class_weight

from bam_jax.core import losses
from bam_jax.data import targets
from bam_jax.tasks import class_weights
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib

_LABELS = ('a', 'b', 'c')
_TEACHER = np.float32([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8], [0.6, 0.3, 0.1]] * 4)


class _Rows:
  """Features that hold labels alone, of 12 rows."""

  def __init__(self, label):
    self._label = np.float32(label)

  def __len__(self):
    return 12

  def fixed(self, name):
    return self._label

  def ragged(self, name):
    return self._label, np.arange(13)  # One word, and token, a row.


_CLASS = [0] * 8 + [1] * 3 + [2]
_DECISIONS = (np.arange(36).reshape(12, 3) % 5 < 2).astype(np.float32)


def _task(kind, entries):
  task = task_lib.Task(
    name='own',
    kind=kinds.KINDS[kind],
    metrics=(),
    paper_metric='',
    tables={},
    labels=_LABELS,
    class_weights=entries,
  )
  rows = _Rows(_DECISIONS if kind == 'multilabel' else _CLASS)
  return task.kind.weigh(task, rows), rows


@pytest.mark.parametrize('kind', ['classification', 'tagging'])
def test_balanced_weights_are_those_of_scikit_learn(kind):
  task, _ = _task(kind, ('balanced',))
  expected = class_weight.compute_class_weight(
    'balanced', classes=np.arange(3), y=_CLASS
  )
  np.testing.assert_allclose(task.target_weights, expected, rtol=1e-12)
  np.testing.assert_allclose(
    class_weights.balance(np.array([8, 0, 3, 1, 0]))[[0, 2, 3]], expected
  )


def test_balanced_weights_of_decisions_are_those_of_scikit_learn():
  task, _ = _task('multilabel', ('balanced',))
  for weights, column in zip(task.target_weights, _DECISIONS.T):
    expected = class_weight.compute_class_weight(
      'balanced', classes=np.arange(2), y=column
    )
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
  # One that is never given has one class alone, of weight 1.
  assert class_weights.balance(np.array([12, 0])).tolist() == [1, 1]


def _expected(task, label, logits, gold_weight):
  """The loss of each row, in float64: gold is weighted, the teacher is not."""
  weights = np.array(task.target_weights)
  teacher, logits = np.float64(_TEACHER), np.float64(logits)
  if task.kind.name == 'multilabel':
    log_yes, log_no = scipy.special.log_expit([logits, -logits])
    own = label * weights[:, 1] * log_yes + (1 - label) * weights[:, 0] * log_no
    taught = teacher * log_yes + (1 - teacher) * log_no
    return -np.mean(gold_weight * own + (1 - gold_weight) * taught, axis=-1)
  log_probs = scipy.special.log_softmax(logits, -1)
  own = weights[label] * log_probs[np.arange(12), label]
  taught = np.sum(teacher * log_probs, axis=-1)
  return -(gold_weight * own + (1 - gold_weight) * taught)


@pytest.mark.parametrize('gold_weight', [0.0, 0.3, 1.0])
@pytest.mark.parametrize('entries', [('balanced',), ('c=5', 'a=0.5')])
@pytest.mark.parametrize('kind', ['classification', 'multilabel'])
def test_loss_of_a_batch_with_a_teacher(kind, entries, gold_weight):
  """Beside a task without weights, which a plain plan computes alike."""
  task, rows = _task(kind, entries)
  plain = dataclasses.replace(task, class_weights=(), target_weights=())
  table = task_lib.TaskTable((task, plain))
  found = targets.Targets(
    [task, plain], [rows] * 2, [None] * 2, [_TEACHER] * 2, 3, 0,
    table.has_totals,
  )  # fmt: skip
  assert table.has_totals == (kind == 'multilabel')
  number, row = np.divmod(np.arange(24), 12)
  batch, _ = found(number, row, np.ones(24, np.int64))
  batch = {key: value.reshape(4, 6, 3) for key, value in batch.items()}
  batch['task_id'] = number.reshape(4, 6)
  batch['weight'] = np.ones((4, 6), np.float32)
  logits = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)

  def loss(logits, batch=batch):
    return losses.multitask_loss(
      logits, batch, table.class_mask, table.kinds, gold_weight
    )

  total, parts = loss(jnp.asarray(logits))
  label = np.int64(rows.fixed('label'))
  flat = logits.reshape(24, 3)
  expected = _expected(task, label, flat[:12], gold_weight).sum()
  np.testing.assert_allclose(parts['loss'][0], expected, rtol=1e-6)
  ones = np.ones_like(task.target_weights)
  even = dataclasses.replace(task, target_weights=ones)
  expected = _expected(even, label, flat[12:], gold_weight).sum()
  np.testing.assert_allclose(parts['loss'][1], expected, rtol=1e-6)
  if gold_weight == 0.3 and kind == 'multilabel':
    # What is in a slot without an example counts for nothing.
    batch['weight'][0] = 0
    kept = loss(jnp.asarray(logits))[0]
    batch['gold_total'][0] = np.nan
    value, gradient = jax.value_and_grad(lambda z: loss(z)[0])(
      jnp.asarray(logits)
    )
    assert value == kept and np.all(np.isfinite(gradient))
    assert not np.any(gradient[0]) and np.all(gradient[1:] != 0)
    assert kept < total


@pytest.mark.parametrize('kind', ['classification', 'multilabel', 'tagging'])
def test_loss_of_the_best_constant_is_the_least_of_all_constants(kind):
  task, rows = _task(kind, ('balanced',))
  label = np.int64(rows.fixed('label'))
  found = scipy.optimize.minimize(
    lambda z: _expected(task, label, np.tile(z, (12, 1)), 1.0).mean(),
    np.zeros(3),
    tol=1e-9,
  ).fun
  assert task.kind.constant_loss(task, rows) == pytest.approx(found, rel=1e-6)
  plain = dataclasses.replace(task, target_weights=())
  assert plain.kind.constant_loss(plain, rows) != pytest.approx(found, rel=0.01)


def test_tags_are_weighted_as_classes_are():
  task, rows = _task('tagging', ('b=4',))
  found, share = task.kind.token_targets(task, rows, np.arange(12))
  np.testing.assert_array_equal(share, 1)
  np.testing.assert_array_equal(found, np.eye(3)[_CLASS] * [1, 4, 1])
