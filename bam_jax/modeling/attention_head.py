"""Self-attention of one head in one row, for all queries or some of them.

All arithmetic is float32, except that the operands of matrix products have the
dtype of the inputs.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bam_jax.modeling import dropout

# Half of the lowest float32: it stays finite when it is scaled.
LOWEST = float(jnp.finfo(jnp.float32).min) / 2


class Tile(NamedTuple):
  """Attention mask and dropout mask of a tile [n, m] of one head.

  A tile is a part of the head's matrix of logits or probabilities [L, L]. Its
  rows are queries and its columns are keys; in a transposed tile, the rows are
  keys and the columns are queries.

  Attributes:
    row_segments: [n, 1] int32, the segment of each row.
    column_segments: [1, m] int32, the segment of each column.
    rate: dropout rate, 0 to below 1.
    dropout_bits: two uint32, random bits for the dropout mask.
    first: uint32, flat index of the tile's first element in the array
      [B, H, L, L] of all probabilities; it may wrap around.
    strides: difference in that flat index between adjacent rows of the tile,
      and between adjacent columns: (L, 1), or (1, L) if transposed.
    window: how many tokens before and after itself a query sees; None: no
      limit.
    offset: int32, position of the tile's first row minus position of its first
      column, counted in tokens; only read if `window` is set.
  """

  row_segments: jax.Array
  column_segments: jax.Array
  rate: float
  dropout_bits: tuple[jax.Array, jax.Array]
  first: jax.Array
  strides: tuple[int, int]
  window: int | None = None
  offset: jax.Array | int = 0

  def mask(self, logits: jax.Array) -> jax.Array:
    """Sets the logits of keys that a query does not see to -1.7e38.

    A query does not see padding, other segments, or keys outside the window.
    """
    segments = jnp.where(self.row_segments == 0, -1, self.row_segments)
    seen = segments == self.column_segments
    if self.window is not None:
      height, width = logits.shape
      rows = jax.lax.broadcasted_iota(jnp.int32, (height, 1), 0)
      columns = jax.lax.broadcasted_iota(jnp.int32, (1, width), 1)
      seen &= jnp.abs(rows + self.offset - columns) <= self.window
    return jnp.where(seen, logits, LOWEST)

  def sign(self, x: jax.Array) -> jax.Array:
    """Negates the positive numbers that dropout will set to zero.

    So one array holds both the numbers and the dropout mask: the registers of a
    GPU block have no room for two arrays.
    """
    if self.rate == 0:
      return x
    kept = dropout.keep_tile(
      self.dropout_bits, self.rate, self.first, x.shape, self.strides
    )
    return jnp.where(kept, x, -x)


def first_index(
  row: jax.Array, head: jax.Array | int, num_heads: int, length: int
) -> jax.Array:
  """Returns the flat index of a head's first probability in [B, H, L, L]."""
  number = row * jnp.uint32(num_heads) + jnp.asarray(head).astype(jnp.uint32)
  return number * jnp.uint32(length * length)


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
  """Adds a bias to `x` in float32; the result has the dtype of `x`."""
  return (x.astype(jnp.float32) + bias.astype(jnp.float32)).astype(x.dtype)


def forward(
  tile: Tile, q: jax.Array, k: jax.Array, v: jax.Array
) -> tuple[jax.Array, ...]:
  """Returns the contexts [n, hd] of queries [n, hd], keys and values [L, hd].

  Factors that are constant in a row are applied at the end, because contexts
  are narrower than probabilities.
  """
  weights, inverse = _softmax(tile, q, k)
  dropped = jnp.maximum(tile.sign(weights), 0).astype(v.dtype)
  contexts = product(dropped, v, (1, 0))
  return (contexts * (inverse * (1 / (1 - tile.rate))),)


def backward(
  tile: Tile, q: jax.Array, k: jax.Array, v: jax.Array, gradient: jax.Array
) -> tuple[jax.Array, ...]:
  """Returns the gradients of q, k, v, given the contexts' gradient [n, hd]."""
  weights, inverse = _softmax(tile, q, k)
  probs = tile.sign(weights * inverse)
  dropped = jnp.maximum(probs, 0).astype(v.dtype)
  # The widest operand is on the right, because Triton computes a transposed
  # operand on the left twice.
  of_v = product(gradient, dropped, (0, 0)).T
  of_probs = jnp.where(probs > 0, product(gradient, v, (1, 1)), 0)
  mean = jnp.sum(probs * of_probs, axis=1, keepdims=True)
  of_logits = (jnp.abs(probs) * (of_probs - mean)).astype(q.dtype)
  of_q, of_k = product(of_logits, k, (1, 0)), product(q, of_logits, (0, 0)).T
  kept = 1 / (1 - tile.rate)
  scale = kept * q.shape[-1] ** -0.5
  return of_q * scale, of_k * scale, of_v * kept


def _softmax(
  tile: Tile, q: jax.Array, k: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns the softmax as numerators [n, L] and inverse sums [n, 1].

  Both are 0 for a query that sees no key.
  """
  logits = tile.mask(product(q, k, (1, 1)))
  highest = jnp.max(logits, axis=1, keepdims=True)
  # The maximum is kept above masked logits, so that the weights of a query that
  # sees no key are zero.
  highest = jnp.maximum(highest, LOWEST / 2)
  scale = q.shape[-1] ** -0.5 * math.log2(math.e)
  weights = jnp.exp2(logits * scale - highest * scale)
  total = jnp.sum(weights, axis=1, keepdims=True)
  return weights, jnp.where(total == 0, 0, 1 / total)


def product(a: jax.Array, b: jax.Array, axes: tuple[int, int]) -> jax.Array:
  """Contracts one axis of each matrix; products are summed in float32."""
  return jax.lax.dot_general(
    a,
    b,
    (((axes[0],), (axes[1],)), ((), ())),
    preferred_element_type=jnp.float32,
  )
