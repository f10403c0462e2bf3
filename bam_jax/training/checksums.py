"""Checksums of arrays, computed on the devices under any sharding.

Orbax's files have no checksums of the numbers. Without these checksums, nobody
would notice that a bit flipped on a disk and changed a weight.
"""

from typing import Any

import jax
import jax.numpy as jnp

from bam_jax.modeling import dropout
from bam_jax.training import compilation


def checksums(tree: Any) -> dict[str, int]:
  """Computes a checksum, 0 to 2^32 - 1, of each leaf of a tree.

  The index of each element, times an odd number, is added to the bits of the
  element. `dropout.hash_bits` hashes the result. The checksum is the sum of the
  hashes modulo 2^32. A sum does not depend on the order of its terms, so the
  checksum does not depend on the mesh. Because `hash_bits` is a bijection, a
  change of one element always changes the checksum. If several elements change,
  the checksum stays the same with probability 2^-32.

  Args:
    tree: arrays on devices, with 1, 2 or 4 bytes per element.
  """
  sums = map(int, jax.device_get(_sums(tree)))
  return dict(zip((name for name, _ in named_leaves(tree)), sums))


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
  """Returns the leaves of a tree with names such as `encoder/pooler/bias`."""
  leaves, _ = jax.tree.flatten_with_path(tree)
  return [
    (jax.tree_util.keystr(path, simple=True, separator='/'), leaf)
    for path, leaf in leaves
  ]


def _sum(leaf: jax.Array) -> jax.Array:
  unsigned = jnp.dtype(f'uint{8 * leaf.dtype.itemsize}')
  bits = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
  x = bits + dropout.flat_index(leaf.shape) * jnp.uint32(dropout.GOLDEN)
  return dropout.hash_bits(x).sum(dtype=jnp.uint32)


_sums = compilation.synchronized(
  jax.jit(lambda tree: [_sum(leaf) for leaf in jax.tree.leaves(tree)])
)
