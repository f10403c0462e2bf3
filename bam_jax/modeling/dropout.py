"""Dropout whose mask is a hash of random bits and each element's flat index.

So the mask does not depend on batch size, `vmap` or the number of devices. XLA
fuses the hash into the arithmetic around it, whereas threefry would be a
separate kernel that moves every number through memory.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

# An odd number by which flat indices are multiplied before they are hashed.
GOLDEN = 0x9E3779B1


def draw_bits(module: nn.Module, sites: int, deterministic: bool) -> jax.Array:
  """Draws random bits for each dropout site, [sites, 2] uint32.

  A site is a place in the model where dropout is applied. The bits come from
  the module's rng collection 'dropout'; they are 0 if `deterministic`.
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


def hash_bits(x: jax.Array) -> jax.Array:
  """Hashes each uint32 with the finaliser of MurmurHash3, a bijection.

  MurmurHash3 is by Appleby, in the public domain.
  """
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  return x ^ (x >> 16)


def keep(
  dropout_bits: tuple[jax.Array, jax.Array], rate: float, *index: jax.Array
) -> jax.Array:
  """Returns a dropout mask: each element is True with probability 1 - rate.

  The flat index is multiplied by a constant, and the first uint32 of
  `dropout_bits` is added. `hash_bits` hashes the sum. The hash is then
  multiplied by the second uint32, made odd, so that sites that share the first
  uint32 have different masks.

  Args:
    dropout_bits: two random uint32; each dropout site has its own pair.
    rate: share of elements dropped, 0 to below 1.
    *index: one or more uint32 arrays; their broadcast sum is the flat index of
      each element, which may wrap around. Two arrays [n, 1] and [1, m] are
      cheaper than one array [n, m].
  """
  first, *others = (part * jnp.uint32(GOLDEN) for part in index)
  x = hash_bits(sum(others, first + dropout_bits[0]))
  x *= dropout_bits[1] | jnp.uint32(1)
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
    dropout_bits: two random uint32; each dropout site has its own pair.
    rate: share of elements dropped, 0 to below 1.
    first: uint32, flat index of the tile's first element in the larger array;
      it may wrap around.
    shape: (n, m), the shape of the tile.
    strides: difference in that flat index between adjacent rows of the tile,
      and between adjacent columns.
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
  """Zeroes elements outside of the mask and scales the rest by 1/(1-rate).

  Returns `x` if `kept`, the mask, is None.
  """
  return x if kept is None else jnp.where(kept, x * (1 / (1 - rate)), 0)


def dropout(x: jax.Array, rate: float, dropout_bits: jax.Array) -> jax.Array:
  """Applies dropout, with a mask computed from two random uint32."""
  if rate == 0:
    return x
  return scale_kept(x, keep_mask(dropout_bits, rate, x.shape), rate)
