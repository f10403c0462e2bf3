"""Self-attention of one head of one row; float32 except for matrix products.

The same functions compute the whole [L, L] at once and, in a kernel, a tile.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bam_jax.modeling import dropout

# Half of it, so that a scale above 1 leaves it finite.
_LOWEST = float(jnp.finfo(jnp.float32).min) / 2


class Tile(NamedTuple):
  """Where some queries and all keys of a head meet, [n, L] of [B, H, L, L].

  Attributes:
    query_segments: [n, 1] int32.
    key_segments: [1, L] int32.
    rate: of dropout, 0 to below 1.
    words: two uint32 of the dropout mask.
    first: uint32, the place of its first element; it may wrap around.
  """

  query_segments: jax.Array
  key_segments: jax.Array
  rate: float
  words: tuple[jax.Array, jax.Array]
  first: jax.Array

  def mask(self, logits: jax.Array) -> jax.Array:
    """Lowest float where a query may not attend to a key; padding never may."""
    segments = jnp.where(self.query_segments == 0, -1, self.query_segments)
    return jnp.where(segments == self.key_segments, logits, _LOWEST)

  def sign(self, x: jax.Array) -> jax.Array:
    """Positive numbers, negative where dropout does not leave them.

    One array where number and mask would be two, which a GPU's block has no
    registers for.
    """
    if self.rate == 0:
      return x
    kept = dropout.keep_tile(
      self.words, self.rate, self.first, x.shape, x.shape[1]
    )
    return jnp.where(kept, x, -x)


def forward(
  tile: Tile, q: jax.Array, k: jax.Array, v: jax.Array
) -> tuple[jax.Array, ...]:
  """The contexts of some queries.

  Factors that a whole row shares wait for the narrower arrays at the end, here
  as backward.

  Args:
    tile: n queries, L keys.
    q: [n, hd].
    k: [L, hd].
    v: [L, hd].

  Returns:
    [n, hd], alone in a tuple.
  """
  weights, inverse = _softmax(tile, q, k)
  dropped = jnp.maximum(tile.sign(weights), 0).astype(v.dtype)
  contexts = _product(dropped, v, (1, 0))
  return (contexts * (inverse * (1 / (1 - tile.rate))),)


def backward(
  tile: Tile, q: jax.Array, k: jax.Array, v: jax.Array, gradient: jax.Array
) -> tuple[jax.Array, ...]:
  """The gradients of queries, keys and values, given that of the contexts."""
  weights, inverse = _softmax(tile, q, k)
  probs = tile.sign(weights * inverse)
  dropped = jnp.maximum(probs, 0).astype(v.dtype)
  # The widest operands on the right: on the left Triton turns them by computing
  # all of them twice.
  of_v = _product(gradient, dropped, (0, 0)).T
  of_probs = jnp.where(probs > 0, _product(gradient, v, (1, 1)), 0)
  mean = jnp.sum(probs * of_probs, axis=1, keepdims=True)
  of_logits = (jnp.abs(probs) * (of_probs - mean)).astype(q.dtype)
  of_q, of_k = _product(of_logits, k, (1, 0)), _product(q, of_logits, (0, 0)).T
  kept = 1 / (1 - tile.rate)
  scale = kept * q.shape[-1] ** -0.5
  return of_q * scale, of_k * scale, of_v * kept


def _softmax(
  tile: Tile, q: jax.Array, k: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Numerators [n, L] and the inverse of their sums [n, 1], float32.

  Both are 0 for a query that sees nothing.
  """
  logits = tile.mask(_product(q, k, (1, 1)))
  highest = jnp.max(logits, axis=1, keepdims=True)
  # Above what is masked, so that a query that sees nothing has weights of zero.
  highest = jnp.maximum(highest, _LOWEST / 2)
  scale = q.shape[-1] ** -0.5 * math.log2(math.e)
  weights = jnp.exp2(logits * scale - highest * scale)
  total = jnp.sum(weights, axis=1, keepdims=True)
  return weights, jnp.where(total == 0, 0, 1 / total)


def _product(a: jax.Array, b: jax.Array, axes: tuple[int, int]) -> jax.Array:
  """The matrix product over one axis of each, summed and left in float32."""
  return jax.lax.dot_general(
    a,
    b,
    (((axes[0],), (axes[1],)), ((), ())),
    preferred_element_type=jnp.float32,
  )
