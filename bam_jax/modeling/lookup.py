"""Rows of a table, whose gradient the devices add up in few bytes."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P


def lookup(
  table: jax.Array, ids: jax.Array, dtype: jnp.dtype, mesh: Mesh | None = None
) -> jax.Array:
  """The rows of some numbers.

  Args:
    table: [V, D] float32.
    ids: [B, L] int, below V.
    dtype: in which gradients of several devices are added up. Each adds up
      those of its own tokens in float32: the many terms of a frequent row would
      be lost in a narrower type.
    mesh: the rows of `ids` lie spread over all its axes; None: on one device.

  Returns:
    [B, L, D] float32; NaN for a number of V or above.
  """
  if mesh is None or mesh.size == 1:
    return _rows(table, ids)
  return _lookup((dtype, mesh), table, ids)


def _rows(table, ids):
  return jnp.take(table, ids, axis=0)  # NaN where a number is out of range


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _lookup(options, table, ids):
  del options
  return _rows(table, ids)


def _forward(options, table, ids):
  return _lookup(options, table, ids), (table, ids)


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


_lookup.defvjp(_forward, _backward)
