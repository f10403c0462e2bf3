"""Checksums of arrays, computed on the devices under any sharding.

Orbax's files have no checksums of the numbers themselves: a bit that flips on a
disk would be read back as another weight.
"""

from typing import Any

import jax
import jax.numpy as jnp

from bam_jax.modeling import dropout
from bam_jax.training import compilation


def checksums(tree: Any) -> dict[str, int]:
  """Checksum from 0 to 2^32 - 1 of each leaf, by its name.

  The bits of each element, plus its index times an odd number, go through the
  finaliser of MurmurHash3 (Appleby, public domain) and are summed modulo 2^32,
  so the result is the same in any order, hence on any mesh. The finaliser is a
  bijection: if one element changes, the sum always changes; if several change,
  it stays the same with probability 2^-32.

  Args:
    tree: of arrays of 1, 2 or 4 bytes an element, on devices.
  """
  sums = jax.device_get(_sums(tree))
  return {
    name: int(value) for (name, _), value in zip(named_leaves(tree), sums)
  }


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
  """The leaves of a tree and their names, such as `encoder/pooler/bias`."""
  leaves, _ = jax.tree.flatten_with_path(tree)
  return [
    (jax.tree_util.keystr(path, simple=True, separator='/'), leaf)
    for path, leaf in leaves
  ]


def _sum(leaf: jax.Array) -> jax.Array:
  """Scalar uint32."""
  unsigned = jnp.dtype(f'uint{8 * leaf.dtype.itemsize}')
  bits = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
  x = bits + dropout.flat_index(leaf.shape) * jnp.uint32(0x9E3779B1)
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  return (x ^ (x >> 16)).sum(dtype=jnp.uint32)


_sums = compilation.synchronized(
  jax.jit(lambda tree: [_sum(leaf) for leaf in jax.tree.leaves(tree)])
)
