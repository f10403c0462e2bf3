"""The device mesh, and the sharding of each parameter on it."""

from collections.abc import Callable
from collections.abc import Sequence
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

# Path -> specs; the first spec that divides the shape is used. Patterns match
# the end of the path, so that Adam's moments are sharded like their parameter.
# The hidden size usually divides by the devices, the vocabulary size does not.
PARAM_RULES: tuple[tuple[str, tuple[P, ...]], ...] = (
  (
    r'embeddings/\w+/embedding$',
    (P(None, 'fsdp'), P('fsdp', None), P()),
  ),
  (r'heads/kernel$', (P(None, 'fsdp', None), P())),
  (
    r'layers/.*/kernel$',
    (P(None, 'fsdp', None), P(None, None, 'fsdp'), P()),
  ),
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
    config: size of each axis; one may be -1 for all remaining devices. If the
      sizes need fewer devices than there are, the others stay idle.
    devices: by default all devices of all processes.

  Raises:
    errors.UserError: the sizes do not fit the devices.
  """
  devices = jax.devices() if devices is None else devices
  sizes = [config.data, config.fsdp]
  named = f'config.mesh: data={config.data}, fsdp={config.fsdp}'
  if 0 in sizes or sizes == [-1, -1]:
    raise errors.UserError(
      f'{named}; give positive sizes, of which one may be -1'
    )
  if -1 in sizes:
    sizes[sizes.index(-1)] = max(len(devices) // -math.prod(sizes), 1)
  count = math.prod(sizes)
  whole = jax.process_count() > 1 or -1 in (config.data, config.fsdp)
  if count > len(devices) or (whole and count != len(devices)):
    raise errors.UserError(
      f'{named} does not fit {len(devices)} devices; make the product of'
      ' both their number'
    )
  return jax.make_mesh(
    tuple(sizes),
    AXES,
    axis_types=(AxisType.Auto,) * len(AXES),
    devices=devices[:count],
  )


def param_spec(path: str, shape: Sequence[int], fsdp: int) -> P:
  """The spec of one leaf of the state.

  Args:
    path: keys joined by `/`.
    shape: of the leaf.
    fsdp: size of the axis.

  Raises:
    ValueError: no row of `PARAM_RULES` matches, or none of a row's specs fits.
  """
  specs = paths.lookup(PARAM_RULES, path)
  for spec in specs:
    if len(spec) > len(shape):
      continue
    if all(a is None or size % fsdp == 0 for a, size in zip(spec, shape)):
      return spec
  raise ValueError(f'no spec of {specs} fits {path!r} of shape {shape}')


def state_shardings(mesh: Mesh, abstract_state: Any) -> Any:
  """The tree of shardings of a train state, or of parameters alone.

  Args:
    mesh: as `make_mesh` returns.
    abstract_state: tree of arrays or of `jax.ShapeDtypeStruct`.

  Raises:
    ValueError: a leaf that no row of `PARAM_RULES` matches.
  """
  return paths.map_paths(
    lambda path, leaf: NamedSharding(
      mesh, param_spec(path, leaf.shape, mesh.shape['fsdp'])
    ),
    abstract_state,
  )


def gathered(params: Any, shardings: Any) -> Any:
  """All-gathers sharded parameters for use; their gradients are scattered.

  Without this, XLA's partitioner splits activations along the shards of the
  parameters, which moves more bytes.

  Args:
    params: traced tree.
    shardings: tree of shardings of the parameters and their gradients.
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
  """The sharding of every batch array: rows over all devices."""
  return NamedSharding(mesh, P(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
  """The sharding of arrays that every device holds whole."""
  return NamedSharding(mesh, P())


def own_rows(mesh: Mesh, rows: int) -> np.ndarray:
  """Indices of the batch rows on the devices of this process, ascending.

  They may have gaps, because a mesh orders devices by their interconnect.

  Args:
    mesh: from `make_mesh`.
    rows: B.
  """
  places = batch_sharding(mesh).addressable_devices_indices_map((rows,))
  held = [np.arange(rows)[place] for (place,) in places.values()]
  return np.sort(np.concatenate(held))


def place(tree: Any, sharding: NamedSharding) -> Any:
  """Copies host arrays to the devices; each process holds them whole.

  It always copies, because the state is donated and the host arrays must
  survive.

  Args:
    tree: host arrays.
    sharding: of each array.
  """
  if jax.process_count() == 1:
    # One call for the whole tree takes a fifth of the host time.
    return jax.device_put(tree, sharding, may_alias=False)

  def place_one(value: np.ndarray) -> jax.Array:
    # `jax.device_put` with a global sharding would compare the values between
    # processes.
    shards = [
      jax.device_put(value[index], device, may_alias=False)
      for device, index in sharding.addressable_devices_indices_map(
        value.shape
      ).items()
    ]
    return jax.make_array_from_single_device_arrays(
      value.shape, sharding, shards
    )

  return jax.tree.map(place_one, tree)


def has_replicas_on_gpus(mesh: Mesh) -> bool:
  """Whether there are several GPUs and each holds all parameters."""
  platform = mesh.devices.flat[0].platform
  return platform == 'gpu' and mesh.size > 1 and mesh.shape['fsdp'] == 1


def fetch(tree: Any) -> Any:
  """Copies arrays, whole, to the host of every process; all must call it.

  Args:
    tree: arrays on a mesh, also of several processes, or on the host.
  """
  if jax.process_count() == 1:
    return jax.device_get(tree)
  return jax.tree.map(
    lambda x: (
      np.asarray(x)
      if not isinstance(x, jax.Array) or x.is_fully_replicated
      else np.asarray(_gather_whole(x.sharding)(x))
    ),
    tree,
  )


@functools.cache
def _gather_whole(sharding: NamedSharding) -> Callable[..., jax.Array]:
  """Program that copies arrays of a sharding, whole, to every device."""
  whole = replicated(sharding.mesh)
  return compilation.synchronized(jax.jit(lambda x: x, out_shardings=whole))
