"""Dropout whose mask is a cheap hash of the key and of the flat position.

The mask depends on (key, position) alone: the first rows of a larger batch,
a vmapped call and any number of devices all see the same one. A counter-based
hash fuses into the arithmetic around it, where threefry would be a kernel of
its own that reads and writes every number through memory.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

_GOLDEN = 0x9E3779B1


def mask_words(key: jax.Array) -> jax.Array:
  """What masks are drawn by: [2] uint32 of the PRNG key of a site and step."""
  return jax.random.bits(key, (2,))


def flat_index(shape: tuple[int, ...]) -> jax.Array:
  """[*shape] uint32, the place of each element in row-major order.

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
  words: tuple[jax.Array, jax.Array], rate: float, index: jax.Array
) -> jax.Array:
  """Which elements survive.

  Two rounds of the finaliser of MurmurHash3 (Appleby, public domain), each
  with one word of the key added, over the flat index.

  Args:
    words: the two of `mask_words`.
    rate: share of elements dropped, 0 to below 1.
    index: uint32, as `flat_index` returns; it may wrap around.

  Returns:
    Bool of the shape of `index`, each True with probability 1 - rate.
  """
  hashed = _mix(_mix(index * jnp.uint32(_GOLDEN) + words[0]) + words[1])
  return hashed >= jnp.uint32(round(rate * 2**32))


def _mix(x: jax.Array) -> jax.Array:
  """A bijection of uint32 in which every bit depends on every other."""
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  return x ^ (x >> 16)


def keep_mask(key: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
  """Bool of `shape`: which elements of an array survive."""
  return keep(tuple(mask_words(key)), rate, flat_index(shape))


def dropout(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
  """Zeroes a share of the elements and scales the others up by 1/(1-rate)."""
  return jnp.where(keep_mask(key, rate, x.shape), x / (1 - rate), 0)


class Dropout(nn.Module):
  """`dropout` with a key of its own from the rng collection 'dropout'."""

  rate: float

  @nn.compact
  def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
    if deterministic or self.rate == 0:
      return x
    return dropout(x, self.rate, self.make_rng('dropout'))
