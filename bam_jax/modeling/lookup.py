"""Embedding lookup whose gradient is all-reduced in the compute dtype."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P


def lookup(
  table: jax.Array, ids: jax.Array, dtype: jnp.dtype, mesh: Mesh | None = None
) -> jax.Array:
  """Looks up embeddings.

  Args:
    table: [V, D] float32.
    ids: [B, L] int, below V.
    dtype: type in which the devices' gradients are added up. Within a device
      they are added in float32, so that no term of a frequent row is lost.
    mesh: the rows of `ids` lie spread over all its axes; None: on one device.

  Returns:
    [B, L, D] float32; NaN for ids from V on.
  """
  if mesh is None or mesh.size == 1:
    return jnp.take(table, ids, axis=0)
  return _lookup((dtype, mesh), table, ids)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _lookup(options, table, ids):
  del options
  return jnp.take(table, ids, axis=0)


def _backward(options, saved, gradient):
  dtype, mesh = options
  table, ids = saved

  def on_device(ids, gradient):
    own = jnp.zeros(table.shape, table.dtype)
    own = own.at[ids].add(gradient).astype(dtype)
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
  lambda options, *arrays: (_lookup(options, *arrays), arrays), _backward
)
