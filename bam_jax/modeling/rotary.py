"""Rotary positions of queries and keys (Su et al. 2021, arXiv 2104.09864)."""

import jax
import jax.numpy as jnp


def angles(
  positions: jax.Array, size: int, theta: float
) -> tuple[jax.Array, jax.Array]:
  """Computes the rotation of each position.

  Args:
    positions: [B, L] int, counted from 0 in each segment.
    size: size of a head, even.
    theta: base: the angle of pair i is position * theta^(-2 i / size).

  Returns:
    Cosines and sines, [B, L, size / 2] float32.
  """
  speeds = theta ** -(jnp.arange(0, size, 2, dtype=jnp.float32) / size)
  turns = positions[..., None].astype(jnp.float32) * speeds[None, None]
  return jnp.cos(turns), jnp.sin(turns)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """Rotates elements i and i + hd / 2 of each head's vector, as a pair.

  Args:
    x: [B, L, n, H, hd].
    cos: [B, L, hd / 2] float32.
    sin: [B, L, hd / 2] float32.

  Returns:
    An array with the shape and dtype of `x`, computed in float32.
  """
  cos, sin = cos[:, :, None, None], sin[:, :, None, None]
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  turned = first * cos - second * sin, second * cos + first * sin
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)
