"""Attention: values by a NumPy loop, dropout by its distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bam_jax.modeling import attention

SEGMENTS = np.array([[1, 1, 2, 2, 2, 0], [3, 0, 3, 1, 0, 0]], np.int32)


def _numpy_attend(q, k, v, segment_ids):
  """Oracle: one query at a time, in float64."""
  result = np.zeros(v.shape)
  for b, i, h in np.ndindex(*q.shape[:3]):
    if segment_ids[b, i] == 0:
      continue
    seen = segment_ids[b] == segment_ids[b, i]
    logits = k[b, seen, h] @ q[b, i, h] / np.sqrt(q.shape[-1])
    probs = np.exp(logits) / np.exp(logits).sum()
    result[b, i, h] = probs @ v[b, seen, h]
  return result


def _attend(q, k, v, segment_ids=SEGMENTS, rate=0.0, rng=None):
  return attention.attend(q, k, v, segment_ids, rate, rng is None, rng)


def test_values_match_a_numpy_loop():
  q, k, v = np.random.default_rng(0).normal(size=(3, 2, 6, 2, 5))
  expected = _numpy_attend(q, k, v, SEGMENTS)
  actual = _attend(*(jnp.float32(x) for x in (q, k, v)))
  np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_softmax_is_float32_under_bfloat16():
  """Oracle: float64 on the rounded inputs; only the output is rounded.

  Probabilities near one value: with a softmax in bfloat16 the sum of 256
  terms of 1/256 would stop growing far below one.
  """
  q = jnp.zeros((1, 256, 1, 4), jnp.bfloat16)
  v = jax.random.normal(jax.random.key(0), q.shape, jnp.bfloat16) + 3
  segment_ids = jnp.ones((1, 256), jnp.int32)
  actual = _attend(q, q, v, segment_ids)
  assert actual.dtype == jnp.bfloat16
  expected = np.asarray(v, np.float64).mean(axis=1, keepdims=True)
  np.testing.assert_allclose(
    np.asarray(actual, np.float64),
    np.broadcast_to(expected, v.shape),
    rtol=2**-8,
  )


def test_logits_are_float32_under_bfloat16():
  """Two keys whose logits differ by less than a bfloat16 of their size."""
  q = jnp.full((1, 2, 1, 1), 100.0, jnp.bfloat16)
  k = jnp.bfloat16([1.0, 1.0078125]).reshape(1, 2, 1, 1)  # 100 and 100.78
  v = jnp.bfloat16([0.0, 1.0]).reshape(1, 2, 1, 1)
  actual = _attend(q, k, v, jnp.ones((1, 2), jnp.int32))
  expected = 1 / (1 + np.exp(-0.78125))
  np.testing.assert_allclose(np.float32(actual), expected, rtol=2**-8)


def test_padding_alone_is_finite_in_values_and_gradients():
  q, k, v = np.random.default_rng(1).normal(size=(3, 1, 4, 2, 3))
  segment_ids = np.zeros((1, 4), np.int32)

  def total(q, k, v):
    return (_attend(q, k, v, segment_ids) ** 2).sum()

  arrays = [jnp.float32(x) for x in (q, k, v)]
  value, gradients = jax.value_and_grad(total, (0, 1, 2))(*arrays)
  assert value == 0
  for gradient in gradients:
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize('rate', [0.1, 0.5])
def test_dropout_zeroes_a_share_and_scales_the_rest(rate):
  """With equal logits and the identity as values, contexts are probs."""
  size = 64
  q = jnp.zeros((2, size, 1, size))
  v = jnp.broadcast_to(jnp.eye(size)[None, :, None], q.shape)
  segment_ids = jnp.ones((2, size), jnp.int32)
  probs = np.asarray(_attend(q, q, v, segment_ids, rate, jax.random.key(0)))
  kept = probs[probs != 0]
  np.testing.assert_allclose(kept, 1 / size / (1 - rate), rtol=1e-6)
  share = 1 - kept.size / probs.size
  # Five deviations of a binomial share of 8192 draws.
  assert abs(share - rate) < 5 * np.sqrt(rate * (1 - rate) / probs.size)
