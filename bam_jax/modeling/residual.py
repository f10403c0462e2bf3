"""Residual connection, dropout and LayerNorm (Ba et al. 2016) in one pass."""

import functools

import flax.linen as nn
import jax
from jax.experimental import pallas as pl
import jax.numpy as jnp

from bam_jax.modeling import dropout
from bam_jax.modeling import family
from bam_jax.modeling import tiles

_WIDEST = 4096  # maximum number of columns of a kernel's tile
_TILE = 1024  # elements of a kernel's tile, unless one row has more


class AddNorm(nn.Module):
  """Residual connection with dropout, followed by LayerNorm.

  Attributes:
    epsilon: added to the variance.
    compute: on `cuda`, a Triton kernel is used if D is at most 4096.
  """

  epsilon: float
  compute: family.Compute = family.ONE_DEVICE

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    y: jax.Array,
    bias: jax.Array,
    rate: float,
    dropout_bits: jax.Array,
  ) -> jax.Array:
    """Computes LayerNorm(x + dropout(y + bias)), with float32 statistics.

    Args:
      x: [B, L, D].
      y: [B, L, D] of the same dtype.
      bias: [D], added to y.
      rate: dropout rate, 0 to below 1.
      dropout_bits: [2] uint32, random bits for the dropout mask; not read if
        `rate` is 0.

    Returns:
      [B, L, D] in the dtype of `x`.
    """
    size = x.shape[-1]
    scale = self.param('scale', nn.initializers.ones, (size,))
    shift = self.param('bias', nn.initializers.zeros, (size,))
    return tiles.apply(
      function(rate, self.epsilon, size),
      (x, y),
      (bias, scale, shift),
      dropout_bits,
      self.compute.mesh,
      self.compute.platform == 'cuda' and size <= _WIDEST,
    )


def function(rate: float, epsilon: float, size: int) -> tiles.TokenFunction:
  """Returns LayerNorm(x + dropout(y + bias)) as a `TokenFunction`."""
  width = pl.next_power_of_2(size)
  return tiles.TokenFunction(
    'add_norm',
    functools.partial(_forward, rate, epsilon),
    functools.partial(_backward, rate),
    width=width,
    height=max(_TILE // width, 1),
    block=8,
  )


def _forward(rate, epsilon, tile, x, y, bias, scale, shift):
  kept = tile.keep_mask(rate, x.shape)
  y = y.astype(jnp.float32) + bias.astype(jnp.float32)
  total = x.astype(jnp.float32) + dropout.scale_kept(y, kept, rate)
  total = total.astype(x.dtype)  # rounded as for the backward pass
  wide = total.astype(jnp.float32)
  mean = jnp.sum(wide, axis=1, keepdims=True) / tile.size
  centred = jnp.where(tile.valid, wide - mean, 0.0)
  variance = jnp.sum(centred * centred, axis=1, keepdims=True) / tile.size
  inverse = jax.lax.rsqrt(variance + epsilon)
  result = centred * inverse * scale + shift
  return (result.astype(x.dtype), total, mean, inverse), ()


def _backward(rate, tile, gradient, total, mean, inverse, bias, scale, shift):
  del bias, shift
  kept = tile.keep_mask(rate, total.shape)
  gradient = gradient.astype(jnp.float32)
  normal = (total.astype(jnp.float32) - mean) * inverse
  normal = jnp.where(tile.valid, normal, 0.0)
  scaled = gradient * scale
  of_x = inverse * (
    scaled
    - jnp.sum(scaled, axis=1, keepdims=True) / tile.size
    - normal * (jnp.sum(scaled * normal, axis=1, keepdims=True) / tile.size)
  )
  of_x = jnp.where(tile.valid, of_x, 0.0)
  of_y = dropout.scale_kept(of_x, kept, rate)
  gradients = of_x.astype(total.dtype), of_y.astype(total.dtype)
  return gradients, (of_y, gradient * normal, gradient)
