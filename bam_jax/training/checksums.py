"""Checksums of arrays, computed on the devices under any sharding.

Orbax's files have no checksums of the numbers, so a flipped bit on a disk would
be read as another weight.
"""

from typing import Any

import jax
import jax.numpy as jnp

from bam_jax.modeling import dropout
from bam_jax.training import compilation


def checksums(tree: Any) -> dict[str, int]:
  """Computes a checksum, 0 to 2^32 - 1, of each leaf of a tree.

  The bits of each element, plus its index times an odd number, go through the
  finaliser of MurmurHash3 (Appleby, public domain). The results are summed
  modulo 2^32, so their order, and thus the mesh, makes no difference. The
  finaliser is a bijection: a change of one element always changes the sum, a
  change of several leaves it equal with probability 2^-32.

  Args:
    tree: arrays on devices, of 1, 2 or 4 bytes per element.
  """
  sums = map(int, jax.device_get(_sums(tree)))
  return dict(zip((name for name, _ in named_leaves(tree)), sums))


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
  """Leaves of a tree with their names, such as `encoder/pooler/bias`."""
  leaves, _ = jax.tree.flatten_with_path(tree)
  return [
    (jax.tree_util.keystr(path, simple=True, separator='/'), leaf)
    for path, leaf in leaves
  ]


def _sum(leaf: jax.Array) -> jax.Array:
  unsigned = jnp.dtype(f'uint{8 * leaf.dtype.itemsize}')
  bits = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
  x = bits + dropout.flat_index(leaf.shape) * jnp.uint32(0x9E3779B1)
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  return (x ^ (x >> 16)).sum(dtype=jnp.uint32)


_sums = compilation.synchronized(
  jax.jit(lambda tree: [_sum(leaf) for leaf in jax.tree.leaves(tree)])
)
