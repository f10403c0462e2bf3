"""What the functions with a kernel of their own on some platform share.

Such a function is written once, for a tile of its arrays. XLA applies it to the
whole arrays, a Triton or Mosaic kernel to one tile after the other. Pallas's
Triton backend is deprecated as of jax 0.11; without it the XLA way remains.
"""

from collections.abc import Callable
from collections.abc import Sequence

import jax
from jax.experimental.pallas import triton as pltriton
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P


def triton(warps: int = 4) -> pltriton.CompilerParams:
  """For a kernel whose blocks have so many warps of 32 threads."""
  return pltriton.CompilerParams(num_warps=warps, num_stages=1)


def over_devices(
  function: Callable,
  mesh: Mesh | None,
  by_row: Sequence[jax.Array],
  whole: Sequence[jax.Array],
) -> jax.Array:
  """Calls a function of rows on each device with the rows that lie there.

  The compiler cannot divide a kernel among devices by itself.

  Args:
    function: (first, *by_row, *whole) -> an array of as many rows; first [1]
      uint32 is the number of the device's first row in the whole batch, by
      which dropout's mask goes.
    mesh: the rows lie spread over all its axes; None: on one device.
    by_row: arrays of B rows.
    whole: arrays that every device has; their gradients are added up.
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


def of_device(device: jax.Device) -> str:
  """The platform as the functions of this folder know it.

  Returns:
    `cuda` or `tpu`, which have kernels of their own; `cpu`, where products of
    bfloat16 arrays are avoided; or empty: XLA does everything.
  """
  if device.platform == 'gpu' and 'cuda' in device.client.platform_version:
    return 'cuda'
  return device.platform if device.platform in ('cpu', 'tpu') else ''


def divisor(number: int, limit: int) -> int:
  """The largest power of two that divides a number, at most `limit`."""
  return min(number & -number, limit)
