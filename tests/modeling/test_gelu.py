"""GELU: values by scipy, gradients by JAX, kernels in the interpreter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from bam_jax.modeling import family
from bam_jax.modeling import gelu
from bam_jax.modeling import tiles


def _example(rows=4, length=6, size=128):
  rng = np.random.default_rng(0)
  x, gradient = jnp.float32(rng.normal(0.0, 2.0, (2, rows, length, size)))
  return x, gradient, jnp.float32(rng.normal(size=size))


def test_values_match_scipy():
  x, _, bias = _example()
  wide = np.asarray(x, np.float64) + np.asarray(bias, np.float64)
  expected = wide * scipy.stats.norm.cdf(wide)
  actual = jax.jit(gelu.biased_gelu)(x, bias)
  np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_gradients_match_automatic_differentiation():
  x, gradient, bias = _example()

  def plain(x, bias):
    return jax.nn.gelu(x + bias[None, None], approximate=False)

  actual, expected = (
    jax.jit(lambda x, bias, f=f: jax.vjp(f, x, bias)[1](gradient))(x, bias)
    for f in (gelu.biased_gelu, plain)
  )
  for a, b in zip(actual, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('count', 'size'), [(24, 128), (512, 256), (7, 384)])
def test_kernels_match_xla(count, size):
  x, gradient, bias = _example(1, count, size)
  x, gradient = x[0], gradient[0]
  # The polynomial and float32 are off by a few 1e-7, times numbers up to 8.
  close = functools.partial(np.testing.assert_allclose, rtol=0, atol=3e-6)
  function, first = gelu.FUNCTION, jnp.zeros(1, jnp.uint32)
  for method, arrays in (
    (function.forward, (x,)),
    (function.backward, (gradient, x)),
  ):
    rest = first, arrays, (bias,), None
    (actual,), actual_sums = jax.jit(
      functools.partial(tiles.run_triton, function, method, interpret=True)
    )(*rest)
    (expected,), sums = jax.jit(
      functools.partial(tiles.run_xla, function, method)
    )(*rest)
    close(actual, expected)
  np.testing.assert_allclose(actual_sums, sums, rtol=1e-5, atol=1e-4)


def test_rows_over_devices_do_as_one():
  x, gradient, bias = _example(rows=8)
  mesh = jax.make_mesh(
    (4, 2), ('data', 'fsdp'), axis_types=(jax.sharding.AxisType.Auto,) * 2
  )

  def run(mesh):
    def total(x, bias):
      return jnp.sum(
        gelu.biased_gelu(x, bias, family.Compute(mesh=mesh)) * gradient
      )

    return jax.jit(jax.value_and_grad(total, (0, 1)))(x, bias)

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4),
    run(mesh),
    run(None),
  )
