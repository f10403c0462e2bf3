"""LayerNorm (Ba et al. 2016, arXiv 1607.06450) with a gradient of its own.

Kept for the backward pass are the input as it came and two numbers a token.
Left to itself, automatic differentiation keeps float32 copies of the input.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp


class LayerNorm(nn.Module):
  """`nn.LayerNorm` over the last axis, in less memory traffic.

  Attributes:
    epsilon: added to the variance.
  """

  epsilon: float

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[..., D] -> [..., D] of the same type; computed in float32."""
    scale = self.param('scale', nn.initializers.ones, x.shape[-1:])
    bias = self.param('bias', nn.initializers.zeros, x.shape[-1:])
    return layer_norm(self.epsilon, x, scale, bias)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def layer_norm(
  epsilon: float, x: jax.Array, scale: jax.Array, bias: jax.Array
) -> jax.Array:
  """(x - mean) / sqrt(variance + epsilon) · scale + bias, over the last axis.

  Args:
    epsilon: added to the variance.
    x: [..., D].
    scale: [D] float32.
    bias: [D] float32.

  Returns:
    [..., D] of the type of `x`.
  """
  return _forward(epsilon, x, scale, bias)[0]


def _forward(epsilon, x, scale, bias):
  wide = x.astype(jnp.float32)
  mean = jnp.mean(wide, axis=-1, keepdims=True)
  variance = jnp.mean(jnp.square(wide - mean), axis=-1, keepdims=True)
  inverse = jax.lax.rsqrt(variance + epsilon)
  result = (wide - mean) * inverse * _row(scale, x) + _row(bias, x)
  saved = (x, *jax.lax.optimization_barrier((mean, inverse)), scale)
  return result.astype(x.dtype), saved


def _backward(epsilon, saved, gradient):
  del epsilon
  x, mean, inverse, scale = saved
  normal = (x.astype(jnp.float32) - mean) * inverse
  gradient = gradient.astype(jnp.float32)
  scaled = gradient * _row(scale, x)
  of_x = inverse * (
    scaled
    - jnp.mean(scaled, axis=-1, keepdims=True)
    - normal * jnp.mean(scaled * normal, axis=-1, keepdims=True)
  )
  tokens = tuple(range(x.ndim - 1))
  of_scale = jnp.sum(gradient * normal, axis=tokens)
  of_bias = jnp.sum(gradient, axis=tokens)
  return of_x.astype(x.dtype), of_scale, of_bias


def _row(parameter: jax.Array, x: jax.Array) -> jax.Array:
  """[D] -> [1, ..., D], of the rank of `x`."""
  return jnp.expand_dims(parameter, range(x.ndim - 1))


layer_norm.defvjp(_forward, _backward)
