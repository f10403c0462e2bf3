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
    theta: base of the angles; pair i of a head's elements is rotated by the
      angle position * theta^(-2 i / size).

  Returns:
    Cosines and sines of the angles, each [B, L, size / 2] float32.
  """
  speeds = theta ** -(jnp.arange(0, size, 2, dtype=jnp.float32) / size)
  turns = positions[..., None].astype(jnp.float32) * speeds[None, None]
  return jnp.cos(turns), jnp.sin(turns)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """Rotates each pair of elements i and i + hd / 2 of every head's vector.

  Args:
    x: [B, L, n, H, hd].
    cos: [B, L, hd / 2] float32, from `angles`.
    sin: [B, L, hd / 2] float32, from `angles`.

  Returns:
    An array with the shape and dtype of `x`, computed in float32.
  """
  cos, sin = cos[:, :, None, None], sin[:, :, None, None]
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  turned = first * cos - second * sin, second * cos + first * sin
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)
