"""Dropout whose mask is a hash of random bits and each element's flat index.

So any batch size, `vmap` and any number of devices give the same mask. XLA
fuses the hash into the arithmetic around it; threefry would be a separate
kernel that moves every number through memory.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

_GOLDEN = 0x9E3779B1


def draw_bits(module: nn.Module, sites: int, deterministic: bool) -> jax.Array:
  """Draws random bits for each dropout site, [sites, 2] uint32.

  They are from the module's rng collection 'dropout', or 0 if the module is
  deterministic.
  """
  if deterministic:
    return jnp.zeros((sites, 2), jnp.uint32)
  return jax.random.bits(module.make_rng('dropout'), (sites, 2))


def flat_index(shape: tuple[int, ...]) -> jax.Array:
  """Returns the row-major index of each element of an array, uint32.

  >>> flat_index((2, 3)).tolist()
  [[0, 1, 2], [3, 4, 5]]
  """
  index = jnp.zeros(shape, jnp.uint32)
  stride = 1
  for axis in reversed(range(len(shape))):
    iota = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    index += iota * jnp.uint32(stride % 2**32)
    stride *= shape[axis]
  return index


def keep(
  dropout_bits: tuple[jax.Array, jax.Array], rate: float, *index: jax.Array
) -> jax.Array:
  """Returns a dropout mask, each element True with probability 1 - rate.

  The finaliser of MurmurHash3 (Appleby, public domain) hashes the flat index
  plus the first word. The product with the second word, made odd, keeps sites
  apart that share the first word.

  Args:
    dropout_bits: two uint32 of the site.
    rate: share of elements dropped, 0 to below 1.
    *index: uint32 of `flat_index`, which may wrap around; or several arrays
      that add up to it, such as [n, 1] and [1, m], which is cheaper.
  """
  first, *others = (part * jnp.uint32(_GOLDEN) for part in index)
  x = sum(others, first + dropout_bits[0])
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  x = (x ^ (x >> 16)) * (dropout_bits[1] | jnp.uint32(1))
  return x >= jnp.uint32(round(rate * 2**32))


def keep_tile(
  dropout_bits: tuple[jax.Array, jax.Array],
  rate: float,
  first: jax.Array,
  shape: tuple[int, int],
  strides: tuple[int, int],
) -> jax.Array:
  """Returns a tile [n, m] of the dropout mask of a larger array.

  Args:
    dropout_bits: two uint32 of the site.
    rate: share of elements dropped, 0 to below 1.
    first: uint32 flat index of the part's first element; it may wrap around.
    shape: (n, m).
    strides: number of elements from one row of the part to the next, and from
      one column to the next.
  """
  height, width = shape
  rows = jax.lax.broadcasted_iota(jnp.uint32, (height, 1), 0)
  columns = jax.lax.broadcasted_iota(jnp.uint32, (1, width), 1)
  rows *= jnp.uint32(strides[0])
  columns *= jnp.uint32(strides[1])
  return keep(dropout_bits, rate, first + rows, columns)


def keep_mask(
  dropout_bits: jax.Array, rate: float, shape: tuple[int, ...]
) -> jax.Array:
  """Returns an array's dropout mask, computed from two random uint32."""
  return keep((dropout_bits[0], dropout_bits[1]), rate, flat_index(shape))


def scale_kept(x: jax.Array, kept: jax.Array | None, rate: float) -> jax.Array:
  """Zeroes elements outside of the mask and scales the rest by 1/(1-rate)."""
  return x if kept is None else jnp.where(kept, x * (1 / (1 - rate)), 0)


def dropout(x: jax.Array, rate: float, dropout_bits: jax.Array) -> jax.Array:
  """Applies dropout, with a mask computed from two random uint32."""
  if rate == 0:
    return x
  return scale_kept(x, keep_mask(dropout_bits, rate, x.shape), rate)
