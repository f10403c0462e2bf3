"""LayerNorm(x + dropout(y + bias)): by Flax, kernels in the interpreter."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bam_jax.modeling import dropout
from bam_jax.modeling import family
from bam_jax.modeling import residual
from bam_jax.modeling import tiles

EPSILON = 1e-12
DROPOUT_BITS = jax.random.bits(jax.random.key(3), (2,))
_by_xla = jax.jit(tiles.run_xla, static_argnums=(0, 1))
_run_triton = jax.jit(
  functools.partial(tiles.run_triton, interpret=True), static_argnums=(0, 1)
)


def _example(rows=2, length=12, size=20):
  """x, y, their result's gradient, bias and LayerNorm's parameters."""
  rng = np.random.default_rng(0)
  arrays = jnp.float32(rng.normal(1.0, 2.0, (3, rows, length, size)))
  bias, shift = jnp.float32(rng.normal(size=(2, size)))
  params = {'scale': jnp.float32(rng.normal(1.0, 0.3, size)), 'bias': shift}
  return *arrays, bias, params


def _plain(x, y, bias, params, rate):
  """Oracle: Flax's modules one after the other, differentiated by JAX."""
  y = dropout.dropout(y + bias[None, None], rate, DROPOUT_BITS)
  norm = nn.LayerNorm(epsilon=EPSILON, use_fast_variance=False)
  return norm.apply({'params': params}, x + y)


@pytest.mark.parametrize('rate', [0.0, 0.3])
def test_values_and_gradients_match_flax(rate):
  x, y, gradient, bias, params = _example()

  def add_norm(x, y, bias, params):
    module = residual.AddNorm(EPSILON)
    return module.apply({'params': params}, x, y, bias, rate, DROPOUT_BITS)

  @functools.partial(jax.jit, static_argnums=0)
  def differentiate(function, *arrays):
    result, pull = jax.vjp(function, *arrays)
    return result, pull(gradient)

  arrays = x, y, bias, params
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
    differentiate(add_norm, *arrays),
    differentiate(functools.partial(_plain, rate=rate), *arrays),
  )


@pytest.mark.parametrize(
  # Width a power of two or not; many tiles a block, one, and one token.
  ('count', 'size', 'rate'),
  [
    (24, 20, 0.0),
    (24, 20, 0.3),
    (64, 1024, 0.3),
    (16, 2048, 0.3),
    (7, 384, 0.3),
  ],
)
def test_kernels_match_xla(count, size, rate):
  x, y, gradient, bias, params = _example(1, count, size)
  x, y, gradient = x[0], y[0], gradient[0]
  function = residual.function(rate, EPSILON, size)
  parameters = bias, params['scale'], params['bias']
  rest = jnp.uint32([5]), (x, y), parameters, DROPOUT_BITS
  expected, _ = _by_xla(function, function.forward, *rest)
  actual, _ = _run_triton(function, function.forward, *rest)
  for a, b in zip(actual, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
  rest = jnp.uint32([5]), (gradient, *expected[1:]), parameters, DROPOUT_BITS
  expected, sums = _by_xla(function, function.backward, *rest)
  actual, actual_sums = _run_triton(function, function.backward, *rest)
  for a, b in zip(actual, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(actual_sums, sums, rtol=1e-5, atol=1e-4)


def test_kernels_under_vmap_equal_a_loop():
  """Several seeds at once: arrays, parameters and dropout_bits differ."""
  x, y, _, bias, params = _example(1, 16, 32)
  function = residual.function(0.3, EPSILON, 32)

  def forward(x, bias, dropout_bits):
    parameters = bias, params['scale'], params['bias']
    first = jnp.uint32([5])
    return _run_triton(
      function, function.forward, first, (x, y[0]), parameters, dropout_bits
    )[0]

  inputs = (
    jnp.stack([x[0], -x[0]]),
    jnp.stack([bias, 2 * bias]),
    jnp.stack([DROPOUT_BITS, DROPOUT_BITS + 1]),
  )
  mapped = jax.jit(jax.vmap(forward))(*inputs)
  for i in range(2):
    for a, b in zip(mapped, forward(*(array[i] for array in inputs))):
      np.testing.assert_allclose(a[i], b, atol=1e-6)


def test_rows_over_devices_do_as_one():
  """Masks go by the token's number in the batch; the gradients add up."""
  x, y, gradient, bias, params = _example(rows=8)
  mesh = jax.make_mesh(
    (4, 2), ('data', 'fsdp'), axis_types=(jax.sharding.AxisType.Auto,) * 2
  )

  def run(mesh):
    module = residual.AddNorm(EPSILON, family.Compute(mesh=mesh))

    def total(x, y, bias, params):
      result = module.apply({'params': params}, x, y, bias, 0.3, DROPOUT_BITS)
      return jnp.sum(result * gradient)

    return jax.jit(jax.value_and_grad(total, (0, 1, 2, 3)))(x, y, bias, params)

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
    run(mesh),
    run(None),
  )


def test_parameters_are_those_of_flax():
  x = jnp.zeros((1, 2, 4))
  key = jax.random.key(0)
  init = jax.jit(residual.AddNorm(EPSILON).init, static_argnums=4)
  actual = init(key, x, x, x[0, 0], 0.0, DROPOUT_BITS)
  expected = jax.jit(nn.LayerNorm(epsilon=EPSILON).init)(key, x)
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_statistics_are_float32_under_bfloat16():
  """Oracle: float64 on the rounded input.

  With a mean of 64 deviations, bfloat16 statistics have no correct digit.
  """
  x = np.random.default_rng(0).normal(64.0, 1.0, (1, 4, 256))
  x = jnp.asarray(x, jnp.bfloat16)
  ones, zeros = np.ones(256, np.float32), np.zeros(256, np.float32)
  actual = jax.jit(residual.AddNorm(EPSILON).apply, static_argnums=4)(
    {'params': {'scale': ones, 'bias': zeros}},
    *(x, jnp.zeros_like(x), jnp.bfloat16(zeros), 0.0, DROPOUT_BITS),
  )
  assert actual.dtype == jnp.bfloat16
  wide = np.asarray(x, np.float64)
  expected = wide - wide.mean(axis=-1, keepdims=True)
  expected /= wide.std(axis=-1, keepdims=True)
  np.testing.assert_allclose(
    np.asarray(actual, np.float64), expected, rtol=2**-8, atol=1e-3
  )
