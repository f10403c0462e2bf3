"""Helpers for Pallas kernels: platform and devices.

Pallas's Triton backend is deprecated as of jax 0.11. Without it, the code for
XLA is used.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P


def map_over_devices(
  function: Callable,
  mesh: Mesh | None,
  by_row: Sequence[jax.Array],
  whole: Sequence[jax.Array],
) -> jax.Array:
  """Calls a function on each device with the device's own rows.

  The compiler cannot divide a kernel among devices by itself.

  Args:
    function: (first, *by_row, *whole) -> an array with as many rows as
      `by_row`. `first`, [1] uint32, is the index, in the whole batch, of the
      device's first row; dropout masks depend on it.
    mesh: the rows are sharded over all its axes; None: one device.
    by_row: arrays of B rows.
    whole: trees of arrays that are replicated on all devices. The gradients of
      these arrays are summed over the devices.
  """
  if mesh is None or mesh.size == 1:
    return function(jnp.zeros(1, jnp.uint32), *by_row, *whole)

  def on_device(*arrays):
    number = jax.lax.axis_index(mesh.axis_names) * len(arrays[0])
    return function(number.astype(jnp.uint32)[None], *arrays)

  rows = P(mesh.axis_names)
  return jax.shard_map(
    on_device,
    mesh=mesh,
    in_specs=(rows,) * len(by_row) + (P(),) * len(whole),
    out_specs=rows,
    check_vma=False,
  )(*by_row, *whole)


def find_platform(device: jax.Device) -> str:
  """Returns `cuda` or `tpu` (which have kernels), `cpu`, or '' for others."""
  if device.platform == 'gpu' and 'cuda' in device.client.platform_version:
    return 'cuda'
  return device.platform if device.platform in ('cpu', 'tpu') else ''
