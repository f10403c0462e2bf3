"""LayerNorm: values and gradients against Flax's, statistics in float32."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bam_jax.modeling import norm

EPSILON = 1e-12


def test_values_and_gradients_match_flax():
  rng = np.random.default_rng(0)
  x, weights = jnp.float32(rng.normal(1.0, 2.0, (2, 3, 5, 16)))
  params = {
    'scale': jnp.float32(rng.normal(1.0, 0.3, 16)),
    'bias': jnp.float32(rng.normal(0.0, 0.3, 16)),
  }

  def total(module):
    def function(params, x):
      return jnp.sum(weights * module.apply({'params': params}, x))

    return jax.value_and_grad(function, (0, 1))(params, x)

  actual = total(norm.LayerNorm(EPSILON))
  expected = total(nn.LayerNorm(epsilon=EPSILON, use_fast_variance=False))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
    actual,
    expected,
  )


def test_parameters_are_those_of_flax():
  x = jnp.zeros((2, 4))
  key = jax.random.key(0)
  actual = norm.LayerNorm(EPSILON).init(key, x)
  expected = nn.LayerNorm(epsilon=EPSILON).init(key, x)
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_statistics_are_float32_under_bfloat16():
  """Oracle: float64 on the rounded input.

  With a mean of 64 deviations, bfloat16 statistics have no correct digit.
  """
  x = np.random.default_rng(0).normal(64.0, 1.0, (4, 256))
  x = jnp.asarray(x, jnp.bfloat16)
  module = norm.LayerNorm(EPSILON)
  actual = module.apply(module.init(jax.random.key(0), x), x)
  assert actual.dtype == jnp.bfloat16
  wide = np.asarray(x, np.float64)
  expected = wide - wide.mean(axis=1, keepdims=True)
  expected /= wide.std(axis=1, keepdims=True)
  np.testing.assert_allclose(
    np.asarray(actual, np.float64), expected, rtol=2**-8, atol=1e-3
  )
