"""Activations of x + bias, such as GELU (Hendrycks and Gimpel 2016).

x is the widest array of a layer, so only x is kept for the backward pass. Exact
GELU (arXiv 1606.08415) has a Triton kernel.
"""

import functools

import jax
import jax.numpy as jnp

from bam_jax.modeling import family
from bam_jax.modeling import tiles

_COLUMNS = 128  # number of columns in a kernel's tile
_FACTORS = 1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592

_TANH_GELU = functools.partial(jax.nn.gelu, approximate=True)
# The keys are transformers' names. Two of them mean the same function.
ACTIVATIONS = {
  'gelu': functools.partial(jax.nn.gelu, approximate=False),
  'gelu_new': _TANH_GELU,
  'gelu_pytorch_tanh': _TANH_GELU,
  'relu': jax.nn.relu,
}


def activate(
  name: str, x: jax.Array, bias: jax.Array, compute: family.Compute
) -> jax.Array:
  """Computes the activation `name` of x + bias in float32.

  Args:
    name: one of `ACTIVATIONS`.
    x: [B, L, F].
    bias: [F].
    compute: how to compute the activation; only `gelu` has a kernel.

  Returns:
    [B, L, F] in the dtype of `x`.
  """
  if name == 'gelu':
    return biased_gelu(x, bias, compute)

  @jax.checkpoint
  def apply(x: jax.Array, bias: jax.Array) -> jax.Array:
    total = x.astype(jnp.float32) + bias.astype(jnp.float32)
    return ACTIVATIONS[name](total).astype(x.dtype)

  return apply(x, bias.reshape((1,) * (x.ndim - 1) + bias.shape))


def biased_gelu(
  x: jax.Array, bias: jax.Array, compute: family.Compute = family.ONE_DEVICE
) -> jax.Array:
  """Computes (x + bias) · Φ(x + bias); Φ is the normal distribution function.

  Args:
    x: [B, L, F].
    bias: [F].
    compute: on `cuda`, a Triton kernel is used if 128 divides F.

  Returns:
    [B, L, F] in the dtype of `x`; computed in float32.
  """
  use_kernel = compute.platform == 'cuda' and x.shape[-1] % _COLUMNS == 0
  return tiles.apply(FUNCTION, (x,), (bias,), None, compute.mesh, use_kernel)


def _forward(tile, x, bias):
  total, _, probability = _distribution(tile, x, bias)
  return ((total * probability).astype(x.dtype),), ()


def _backward(tile, gradient, x, bias):
  total, bell, probability = _distribution(tile, x, bias)
  derivative = probability + total * bell * (2 * jnp.pi) ** -0.5
  of_x = gradient.astype(jnp.float32) * derivative
  return (of_x.astype(x.dtype),), (of_x,)


FUNCTION = tiles.TokenFunction(
  'gelu', _forward, _backward, width=_COLUMNS, height=16, block=64
)


def _distribution(tile, x, bias):
  """Returns t = x + bias, exp(-t²/2) and Φ(t), float32.

  Pallas has no erf for Triton. In a kernel, a polynomial approximates Φ with an
  error of at most 7.5e-8 (Abramowitz and Stegun 1964, formula 7.1.26).
  """
  total = x.astype(jnp.float32) + bias.astype(jnp.float32)
  bell = jnp.exp(-0.5 * total * total)
  if not tile.in_kernel:
    return total, bell, 0.5 * (1 + jax.lax.erf(total * 0.5**0.5))
  t = 1 / (1 + 0.3275911 * 0.5**0.5 * jnp.abs(total))
  polynomial = jnp.zeros_like(total)
  for factor in _FACTORS:
    polynomial = (polynomial + factor) * t
  tail = 0.5 * polynomial * bell
  return total, bell, jnp.where(total < 0, tail, 1 - tail)
