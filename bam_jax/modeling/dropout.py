"""Dropout whose mask is a cheap hash of the key and of the flat position.

The mask depends on (words, position) alone: the first rows of a larger batch,
a vmapped call and any number of devices all see the same one. A counter-based
hash fuses into the arithmetic around it, where threefry would be a kernel of
its own that reads and writes every number through memory.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

_GOLDEN = 0x9E3779B1


def draw_words(module: nn.Module, sites: int, deterministic: bool) -> jax.Array:
  """What the masks of a step are drawn by: [sites, 2] uint32.

  Args:
    module: whose rng collection 'dropout' is used.
    sites: where the module drops out.
    deterministic: there is no dropout, and no collection is needed.
  """
  if deterministic:
    return jnp.zeros((sites, 2), jnp.uint32)
  return jax.random.bits(module.make_rng('dropout'), (sites, 2))


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
  words: tuple[jax.Array, jax.Array], rate: float, *index: jax.Array
) -> jax.Array:
  """Which elements survive.

  The finaliser of MurmurHash3 (Appleby, public domain) over the flat index plus
  the one word, then a product with the other, made odd: two sites that meet in
  their first word still drop other elements.

  Args:
    words: those of the site.
    rate: share of elements dropped, 0 to below 1.
    *index: uint32, as `flat_index` returns; it may wrap around. Or arrays of
      which it is the sum, such as [n, 1] and [1, m]: so it costs an element
      one addition.

  Returns:
    Bool of the shape of the index, each True with probability 1 - rate.
  """
  first, *others = (part * jnp.uint32(_GOLDEN) for part in index)
  x = sum(others, first + words[0])
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  x = (x ^ (x >> 16)) * (words[1] | jnp.uint32(1))
  return x >= jnp.uint32(round(rate * 2**32))


def keep_tile(
  words: tuple[jax.Array, jax.Array],
  rate: float,
  first: jax.Array,
  shape: tuple[int, int],
  stride: int,
) -> jax.Array:
  """Part of a larger mask, as `keep` has it.

  Args:
    words: those of the site.
    rate: share of elements dropped, 0 to below 1.
    first: uint32, the place of its first element; it may wrap around.
    shape: [n, m] of the part.
    stride: elements from one row of it to the next.

  Returns:
    [n, m] bool.
  """
  height, width = shape
  rows = jax.lax.broadcasted_iota(jnp.uint32, (height, 1), 0)
  columns = jax.lax.broadcasted_iota(jnp.uint32, (1, width), 1)
  return keep(words, rate, first + rows * jnp.uint32(stride), columns)


def keep_mask(
  words: jax.Array, rate: float, shape: tuple[int, ...]
) -> jax.Array:
  """Bool of `shape`: which elements of an array survive; words [2]."""
  return keep((words[0], words[1]), rate, flat_index(shape))


def scale_kept(x: jax.Array, kept: jax.Array | None, rate: float) -> jax.Array:
  """Zeroes what is not kept and scales the rest up by 1/(1-rate).

  Args:
    x: of any shape.
    kept: bool of the same shape; None: all.
    rate: share of elements dropped, 0 to below 1.
  """
  return x if kept is None else jnp.where(kept, x * (1 / (1 - rate)), 0)


def dropout(x: jax.Array, rate: float, words: jax.Array) -> jax.Array:
  """Zeroes a share of the elements; words [2] are not read at rate 0."""
  if rate == 0:
    return x
  return scale_kept(x, keep_mask(words, rate, x.shape), rate)
