"""Makes the device mesh, and shards arrays over its devices."""

from collections.abc import Callable, Sequence
import functools
import math
from typing import Any

import jax
from jax.sharding import AxisType
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.core import paths
from bam_jax.training import compilation

AXES = ('data', 'fsdp')

# Pattern of a parameter's path -> specs. The first spec that fits the shape is
# used. Patterns match the end of the path, so that Adam's moments are sharded
# like the parameter that they belong to. For embeddings, the first spec shards
# the hidden size, because the number of devices usually divides the hidden
# size, but not the vocabulary.
PARAM_RULES: tuple[tuple[str, tuple[P, ...]], ...] = (
  (r'embeddings/\w+/embedding$', (P(None, 'fsdp'), P('fsdp', None), P())),
  (r'heads/(pair_)?kernel$', (P(None, 'fsdp', None), P())),
  (r'layers/.*/kernel$', (P(None, 'fsdp', None), P(None, None, 'fsdp'), P())),
  (r'heads/bias$', (P(),)),
  (r'/kernel$', (P('fsdp', None), P(None, 'fsdp'), P())),
  (r'/(bias|scale)$', (P(),)),
  (r'(^|/)(step|dropout_key|count|learning_rate|layer_decay)$', (P(),)),
)


def make_mesh(
  config: config_lib.MeshConfig, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Makes the mesh with axes ('data', 'fsdp').

  Args:
    config: size of each axis; one size may be -1 for all remaining devices. If
      both sizes are given, a run with a single process may use fewer devices
      than there are.
    devices: devices to use; by default all devices of all processes.

  Raises:
    errors.UserError: the sizes do not fit the devices.
  """
  devices = jax.devices() if devices is None else devices
  sizes = [config.data, config.fsdp]
  named = f'config.mesh: data={config.data}, fsdp={config.fsdp}'
  if 0 in sizes or sizes == [-1, -1]:
    raise errors.UserError(
      f'{named} is not allowed; give positive sizes, one of which may be -1'
    )
  if -1 in sizes:
    sizes[sizes.index(-1)] = max(len(devices) // -math.prod(sizes), 1)
  count = math.prod(sizes)
  whole = jax.process_count() > 1 or -1 in (config.data, config.fsdp)
  if count > len(devices) or (whole and count != len(devices)):
    raise errors.UserError(
      f'{named} does not fit {len(devices)} devices; give sizes whose product'
      f' is {len(devices)}'
    )
  return jax.make_mesh(
    tuple(sizes),
    AXES,
    axis_types=(AxisType.Auto,) * len(AXES),
    devices=devices[:count],
  )


def param_spec(path: str, shape: Sequence[int], fsdp: int) -> P:
  """Chooses the partition spec of an array by its path and shape.

  Raises:
    ValueError: no rule of `PARAM_RULES` matches the path, or no spec of the
      rule fits the shape.
  """
  specs = paths.lookup(PARAM_RULES, path)
  for spec in specs:
    if len(spec) <= len(shape) and all(
      axis is None or size % fsdp == 0 for axis, size in zip(spec, shape)
    ):
      return spec
  raise ValueError(f'no spec of {specs} fits {path!r} of shape {shape}')


def state_shardings(mesh: Mesh, abstract_state: Any) -> Any:
  """Chooses the sharding of each array of a train state, or of parameters.

  Raises:
    ValueError: no rule of `PARAM_RULES` matches an array, or no spec fits.
  """
  return paths.map_paths(
    lambda path, leaf: NamedSharding(
      mesh, param_spec(path, leaf.shape, mesh.shape['fsdp'])
    ),
    abstract_state,
  )


def gathered(params: Any, shardings: Any) -> Any:
  """All-gathers sharded parameters before use, and shards their gradients.

  Without this function, XLA's partitioner would split activations along the
  shards of the parameters. That would move more bytes between devices.
  """
  return jax.tree.map(_gather, params, shardings)


def _gather(param: jax.Array, sharding: NamedSharding) -> jax.Array:
  constrain = jax.lax.with_sharding_constraint

  @jax.custom_vjp
  def gather(x):
    return constrain(x, replicated(sharding.mesh))

  gather.defvjp(
    lambda x: (gather(x), None),
    lambda _, gradient: (constrain(gradient, sharding),),
  )
  return gather(param)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that splits the rows of a batch over all devices."""
  return NamedSharding(mesh, P(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of arrays that every device holds whole."""
  return NamedSharding(mesh, P())


def own_rows(mesh: Mesh, rows: int) -> np.ndarray:
  """Returns the indices of the batch rows on this process's devices, ascending.

  The indices may have gaps, because a mesh orders devices by their
  interconnect.
  """
  places = batch_sharding(mesh).addressable_devices_indices_map((rows,))
  held = [np.arange(rows)[place] for (place,) in places.values()]
  return np.sort(np.concatenate(held))


def place(tree: Any, sharding: NamedSharding) -> Any:
  """Copies host arrays to the devices; every process passes whole arrays.

  The result never shares memory with the host arrays: the training step donates
  its state, so shared host arrays could be overwritten before they are used
  again.
  """
  if jax.process_count() == 1:
    # One call for the whole tree takes a fifth of the host time of one call per
    # array.
    return jax.device_put(tree, sharding, may_alias=False)

  def place_one(value: np.ndarray) -> jax.Array:
    # `jax.device_put` with a global sharding would compare the values between
    # processes.
    places = sharding.addressable_devices_indices_map(value.shape)
    shards = [
      jax.device_put(value[index], device, may_alias=False)
      for device, index in places.items()
    ]
    return jax.make_array_from_single_device_arrays(
      value.shape, sharding, shards
    )

  return jax.tree.map(place_one, tree)


def has_replicas_on_gpus(mesh: Mesh) -> bool:
  """Returns whether several GPUs each hold all parameters."""
  platform = mesh.devices.flat[0].platform
  return platform == 'gpu' and mesh.size > 1 and mesh.shape['fsdp'] == 1


def fetch(tree: Any) -> Any:
  """Copies whole arrays to the host; every process must call this function."""
  if jax.process_count() == 1:
    return jax.device_get(tree)

  def fetch_one(x: jax.Array | np.ndarray) -> np.ndarray:
    if isinstance(x, jax.Array) and not x.is_fully_replicated:
      x = _gather_whole(x.sharding)(x)
    return np.asarray(x)

  return jax.tree.map(fetch_one, tree)


@functools.cache
def _gather_whole(sharding: NamedSharding) -> Callable[..., jax.Array]:
  whole = replicated(sharding.mesh)
  return compilation.synchronized(jax.jit(lambda x: x, out_shardings=whole))
