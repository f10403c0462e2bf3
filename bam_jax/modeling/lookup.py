"""Embedding lookup whose gradient is all-reduced in the compute dtype."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from bam_jax.modeling import family


def lookup(
  table: jax.Array, ids: jax.Array, compute: family.Compute
) -> jax.Array:
  """Looks up the embeddings of token ids.

  Args:
    table: [V, D] float32.
    ids: [B, L] int, below V.
    compute: the devices of `compute.mesh` all-reduce the gradient of the table
      in `compute.dtype`. Each device first sums its own gradients in float32,
      so that the sums for frequent tokens lose no small terms.

  Returns:
    Embeddings [B, L, D] float32; NaN for ids of V or more.
  """
  if compute.mesh is None or compute.mesh.size == 1:
    return jnp.take(table, ids, axis=0)
  return _lookup(compute, table, ids)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _lookup(compute, table, ids):
  del compute
  return jnp.take(table, ids, axis=0)


def _backward(compute, saved, gradient):
  mesh, (table, ids) = compute.mesh, saved

  def on_device(ids, gradient):
    own = jnp.zeros(table.shape, table.dtype)
    own = own.at[ids].add(gradient).astype(compute.dtype)
    return jax.lax.psum(own, mesh.axis_names)

  rows = P(mesh.axis_names)
  of_table = jax.shard_map(
    on_device,
    mesh=mesh,
    in_specs=(rows, rows),
    out_specs=P(),
    check_vma=False,
  )(ids, gradient)
  return of_table.astype(table.dtype), None


_lookup.defvjp(
  lambda compute, *arrays: (_lookup(compute, *arrays), arrays), _backward
)
