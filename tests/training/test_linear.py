"""Linear models. Oracles: scikit-learn, and the closed form of ridge."""

import jax
import numpy as np
import pytest
from sklearn import linear_model

from bam_jax.tasks import kinds as kinds_lib
from bam_jax.tasks import task as task_lib
from bam_jax.training import linear


class _Rows:
  """Features of a split with these labels."""

  def __init__(self, label, lengths=()):
    self._label = np.float32(label)
    self._offsets = np.cumsum([0, *lengths])
    self.uids = [f'x/train/{i}' for i in range(len(lengths or label))]

  def __len__(self):
    return len(self.uids)

  def fixed(self, name):
    return self._label

  def ragged(self, name):
    return self._label, self._offsets


def _task(kind, labels=()):
  return task_lib.Task(
    'x', kind, kind.default_metrics, '', tables={}, labels=labels
  )


def _vectors(count=60, width=4):
  rng = np.random.default_rng(0)
  # Of different sizes, which the standard deviation takes out.
  scale = np.float32([1, 10, 0.1, 3])[:width]
  return rng.normal(1, 1, (count, width)).astype(np.float32) * scale


def _noisy_classes(vectors, count):
  rng = np.random.default_rng(1)
  logits = vectors[:, :count] / vectors[:, :count].std(0)
  return np.argmax(logits + rng.normal(0, 1, logits.shape), axis=1)


def _standard(vectors):
  return (vectors - vectors.mean(0)) / vectors.std(0)


def _probs(logits):
  powers = np.exp(logits - logits.max(1, keepdims=True))
  return powers / powers.sum(1, keepdims=True)


@pytest.fixture
def strength(monkeypatch):
  """Only one strength, so that the oracle has the same."""
  monkeypatch.setattr(linear, '_STRENGTHS', (0.03,))
  monkeypatch.setattr(linear, '_TOLERANCE', 1e-9)
  return 0.03


def test_classes_are_those_of_logistic_regression(strength):
  vectors = _vectors()
  chosen = np.arange(5, 60)  # Vectors are those of the chosen rows alone.
  label = _noisy_classes(vectors, 3)
  task = _task(kinds_lib.KINDS['classification'], ('a', 'b', 'c'))
  model = linear.fit(task, vectors[chosen], _Rows(label), chosen)
  oracle = linear_model.LogisticRegression(
    C=1 / (strength * len(chosen)), tol=1e-8, max_iter=1000
  ).fit(_standard(vectors[chosen]), label[chosen])
  expected = oracle.predict_proba(_standard(vectors[chosen]))
  found = _probs(model.logits(vectors[chosen]))
  np.testing.assert_allclose(found, expected, atol=1e-3)
  assert 0.34 < expected.max(1).min() < expected.max(1).max() < 0.99


def test_each_label_is_that_of_a_logistic_regression(strength):
  vectors = _vectors()
  noise = np.random.default_rng(1).normal(0, 3, (60, 2))
  label = _standard(vectors)[:, :2] + noise > [0.5, 0]
  task = _task(kinds_lib.KINDS['multilabel'], ('a', 'b'))
  model = linear.fit(task, vectors, _Rows(label), np.arange(60))
  for i in range(2):
    # The loss is the mean over two labels.
    oracle = linear_model.LogisticRegression(
      C=1 / (2 * strength * 60), tol=1e-8, max_iter=1000
    ).fit(_standard(vectors), label[:, i])
    expected = oracle.decision_function(_standard(vectors))
    found = model.logits(vectors)[:, i]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_scores_are_those_of_ridge_regression(strength):
  vectors = _vectors()
  x = _standard(vectors).astype(np.float64)
  score = np.clip(0.5 + 0.1 * x[:, 0] - 0.05 * x[:, 2], 0, 1)
  task = _task(kinds_lib.KINDS['regression'].with_head('linear'))
  model = linear.fit(task, vectors, _Rows(score), np.arange(60))
  # Derivative of mean((x w + b - y)^2) + strength / 2 |w|^2, b = mean(y).
  left = 2 * x.T @ x / 60 + strength * np.eye(4)
  weights = np.linalg.solve(left, 2 * x.T @ (score - score.mean()) / 60)
  expected = x @ weights + score.mean()
  np.testing.assert_allclose(model.logits(vectors)[:, 0], expected, atol=1e-4)


def test_tags_are_those_of_a_regression_whose_rows_count_alike(strength):
  lengths = [5, 3, 8, 4, 7, 6, 9, 2, 3, 8]
  rng = np.random.default_rng(2)
  vectors = _vectors(sum(lengths))
  label = _noisy_classes(vectors, 2).astype(np.float32)
  # No word begins at the first token, and at a few others.
  ends = np.cumsum(lengths)
  label[ends - lengths] = -1
  label[rng.choice(len(label), 9, replace=False)] = -1
  label[ends - 1] = np.abs(label[ends - 1])
  task = _task(kinds_lib.KINDS['tagging'], ('O', 'B-X'))
  rows, chosen = _Rows(label, lengths), np.arange(len(lengths))
  word = label >= 0
  model = linear.fit(task, vectors[word], rows, chosen)
  row = np.repeat(chosen, lengths)[word]
  x = _standard(vectors[word])
  # Two columns, w / 2 and -w / 2, have half the squared norm of w alone.
  oracle = linear_model.LogisticRegression(
    C=2 / (strength * len(lengths)), tol=1e-8, max_iter=1000
  ).fit(x, label[word], 1 / np.bincount(row)[row])
  expected = oracle.predict_proba(x)
  found = _probs(model.logits(vectors[word]))
  np.testing.assert_allclose(found, expected, atol=1e-3)


def test_cross_validation_shrinks_noise_and_keeps_what_is_there():
  vectors = _vectors(200)
  task = _task(kinds_lib.KINDS['classification'], ('a', 'b'))
  noise = np.random.default_rng(3).integers(0, 2, 200)
  clear = (vectors[:, 0] > 1).astype(int)
  chosen = np.arange(200)
  strong = linear.fit(task, vectors, _Rows(noise), chosen)
  weak = linear.fit(task, vectors, _Rows(clear), chosen)
  assert strong.strength >= 1 > 0.05 > weak.strength
  # A coin has ln 2; the held-out loss is not that of the rows fitted to.
  assert strong.loss == pytest.approx(np.log(2), abs=0.02)
  assert weak.loss < 0.1
  share = np.mean(np.argmax(weak.logits(vectors), 1) == clear)
  assert share > 0.97


def test_windows_of_an_example_are_in_one_fold():
  uids = [f'x/train/{i // 2}' + '~1' * (i % 2) for i in range(12)]
  weights = linear._fold_weights(uids, np.ones(12, 'f'))
  assert weights.shape == (6, 12)
  np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)
  np.testing.assert_array_equal(weights[:, ::2], weights[:, 1::2])
  assert ((weights[:-1] == 0).sum(0) == 1).all()
  assert (weights[-1] > 0).all()


@pytest.mark.parametrize('name', ['classification', 'regression'])
def test_the_folds_of_a_task_share_a_program(name):
  kind = kinds_lib.KINDS[name]
  task = _task(kind, ('a', 'b') if kind.one_class else ())
  vectors = _vectors()
  rows = _Rows(_noisy_classes(vectors, 2))
  compiled = []

  def listen(event, seconds, **_):
    if event == '/jax/core/compile/backend_compile_duration':
      compiled.append(seconds)

  first, second = np.arange(0, 40), np.arange(20, 60)
  linear.fit(task, vectors[first], rows, first)
  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    found = linear.fit(task, vectors[second], rows, second)
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  assert not compiled
  assert found.strength > 0
