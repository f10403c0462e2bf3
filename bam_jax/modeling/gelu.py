"""GELU(x + bias), exact (Hendrycks and Gimpel 2016, arXiv 1606.08415).

The widest array of a layer: nothing but x is kept for the backward pass, which
on an NVIDIA GPU is one Triton kernel that adds up the bias's gradient too.
"""

import functools

import jax
from jax.experimental import pallas as pl
import jax.numpy as jnp
from jax.sharding import Mesh

from bam_jax.modeling import kernels

# A block of a GPU takes so many columns, and of the tokens as many as make a
# tile, several times over.
_COLUMNS = 128
_TILE = 2048  # numbers
_TILES = 4

_FACTORS = 1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592


def biased_gelu(
  x: jax.Array, bias: jax.Array, mesh: Mesh | None = None, platform: str = ''
) -> jax.Array:
  """(x + bias) · Φ(x + bias), Φ the normal distribution function.

  Args:
    x: [B, L, F].
    bias: [F].
    mesh: the rows lie spread over all its axes; None: on one device.
    platform: whose own kernel is used, if it has one; empty: XLA's.

  Returns:
    [B, L, F] of the type of `x`; computed in float32.
  """
  return kernels.over_devices(
    functools.partial(_biased_gelu, platform), mesh, (x,), (bias,)
  )


def _biased_gelu(platform, first, x, bias):
  del first
  return _flat(platform, x.reshape(-1, x.shape[-1]), bias).reshape(x.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _flat(platform: str, x: jax.Array, bias: jax.Array) -> jax.Array:
  """[N, F] and [F] -> [N, F]."""
  way = _forward_by_triton if _has_kernel(platform, x) else _forward_by_xla
  return way(x, bias[None])


def _forward(platform, x, bias):
  return _flat(platform, x, bias), (x, bias)


def _backward(platform, saved, gradient):
  x, bias = saved
  way = _backward_by_triton if _has_kernel(platform, x) else _backward_by_xla
  of_x, sums = way(gradient, x, bias[None])
  # Summed before anything is done with it: else XLA sums where it is used.
  return of_x, jax.lax.optimization_barrier(sums).astype(bias.dtype)


_flat.defvjp(_forward, _backward)


def _has_kernel(platform: str, x: jax.Array) -> bool:
  return platform == 'cuda' and x.shape[1] % _COLUMNS == 0


def _forward_by_xla(x, bias):
  return _tile(x, bias, _distribution)[0]


def _backward_by_xla(gradient, x, bias):
  of_x = gradient.astype(jnp.float32) * _tile(x, bias, _distribution)[1]
  return of_x.astype(x.dtype), jnp.sum(of_x, axis=0)


def _tile(x, bias, distribution):
  """GELU(x + bias) in the type of `x`, and its derivative in float32."""
  total = x.astype(jnp.float32) + bias.astype(jnp.float32)
  bell = jnp.exp(-0.5 * total * total)
  probability = distribution(total, bell)
  derivative = probability + total * bell * (2 * jnp.pi) ** -0.5
  return (total * probability).astype(x.dtype), derivative


def _distribution(x, bell):
  del bell
  return 0.5 * (1 + jax.lax.erf(x * 0.5**0.5))


def _distribution_by_polynomial(x, bell):
  """Normal CDF, by Abramowitz and Stegun (1964) 7.1.26; error up to 7.5e-8.

  Pallas has no erf for Triton. The exponential is the derivative's own.
  """
  t = 1 / (1 + 0.3275911 * 0.5**0.5 * jnp.abs(x))
  polynomial = jnp.zeros_like(x)
  for factor in _FACTORS:
    polynomial = (polynomial + factor) * t
  tail = 0.5 * polynomial * bell
  return jnp.where(x < 0, tail, 1 - tail)


def _forward_by_triton(x, bias, interpret=False):
  def kernel(x_ref, bias_ref, result_ref):
    result_ref[...] = _tile(
      x_ref[...], bias_ref[...], _distribution_by_polynomial
    )[0]

  height = kernels.divisor(len(x), _TILE // _COLUMNS)
  tile = pl.BlockSpec((height, _COLUMNS), lambda i, j: (i, j))
  return pl.pallas_call(
    kernel,
    grid=(len(x) // height, x.shape[1] // _COLUMNS),
    in_specs=[tile, pl.BlockSpec((1, _COLUMNS), lambda i, j: (0, j))],
    out_specs=tile,
    out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
    compiler_params=kernels.triton(),
    interpret=interpret,
    name='gelu_forward',
  )(x, bias)


def _backward_by_triton(gradient, x, bias, interpret=False):
  height = kernels.divisor(len(x), _TILE // _COLUMNS)
  block = kernels.divisor(len(x), _TILES * height)

  def kernel(gradient_ref, x_ref, bias_ref, of_x_ref, sums_ref):
    bias = bias_ref[...]

    def add_tile(number, total):
      some = pl.ds(number * height, height)
      of_x = gradient_ref[some, :].astype(jnp.float32)
      of_x *= _tile(x_ref[some, :], bias, _distribution_by_polynomial)[1]
      of_x_ref[some, :] = of_x.astype(of_x_ref.dtype)
      return total + of_x

    zeros = jnp.zeros((height, _COLUMNS), jnp.float32)
    total = jax.lax.fori_loop(0, block // height, add_tile, zeros)
    sums_ref[0, :] = jnp.sum(total, axis=0)

  tile = pl.BlockSpec((block, _COLUMNS), lambda i, j: (i, j))
  blocks = len(x) // block
  of_x, sums = pl.pallas_call(
    kernel,
    grid=(blocks, x.shape[1] // _COLUMNS),
    in_specs=[tile, tile, pl.BlockSpec((1, _COLUMNS), lambda i, j: (0, j))],
    out_specs=[tile, pl.BlockSpec((1, _COLUMNS), lambda i, j: (i, j))],
    out_shape=[
      jax.ShapeDtypeStruct(x.shape, x.dtype),
      jax.ShapeDtypeStruct((blocks, x.shape[1]), jnp.float32),
    ],
    compiler_params=kernels.triton(),
    interpret=interpret,
    name='gelu_backward',
  )(gradient, x, bias)
  return of_x, jnp.sum(sums, axis=0)
