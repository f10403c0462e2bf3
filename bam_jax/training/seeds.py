"""Several seeds of a run as one program.

The seeds never meet: a device computes all of some of them. Arrays have an axis
for the K seeds, at the front but for the state's stacked layers [n, ...]: these
are [n, K, ...], so that one layer of all seeds is a slice without gaps.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from bam_jax.modeling import layers
from bam_jax.training import paths
from bam_jax.training import step as step_lib
from bam_jax.training import transfer


class Seeds:
  """The training step of K seeds, and their states as one.

  Attributes:
    train: as the step of one seed, of states that `stack` returned, a batch of
      `transfer.stack` and the numbers of the step, the same for all; compiled
      anew for each K.
    sharding: of the batch, [K, B, W].
  """

  def __init__(
    self,
    train: Callable,
    like: step_lib.TrainState,
    mesh: Mesh,
    options: Mapping[str, Any] | None,
  ):
    """Decides where the arrays lie; compiles nothing yet.

    Args:
      train: (state, batch, schedule) -> (state, metrics), for one device.
      like: shapes and shardings of the state of one seed.
      mesh: K is spread over all its axes, and a multiple of its size.
      options: the compiler's.
    """
    self._like = like
    self._axes = paths.map_paths(
      lambda path, leaf: int(layers.is_stacked(path)), like
    )

    def spread(axis: int) -> P:
      return P(*(None,) * axis, mesh.axis_names)

    specs = jax.tree.map(spread, self._axes)
    step = jax.vmap(
      train, in_axes=(self._axes, 0, None), out_axes=(self._axes, 0)
    )
    if mesh.size > 1:
      step = jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(specs, spread(0), P()),
        out_specs=(specs, spread(0)),
        check_vma=False,
      )
    self.sharding = NamedSharding(mesh, spread(0))
    self._shardings = jax.tree.map(
      lambda axis: NamedSharding(mesh, spread(axis)), self._axes
    )
    self.train = jax.jit(
      step,
      in_shardings=(self._shardings, self.sharding, NamedSharding(mesh, P())),
      out_shardings=(self._shardings, self.sharding),
      donate_argnums=0,
      compiler_options=options,
    )
    self._stack = jax.jit(
      lambda states: jax.tree.map(
        lambda axis, *x: jnp.stack(x, axis), self._axes, *states
      ),
      out_shardings=self._shardings,
    )
    self._take = jax.jit(
      lambda states, i: jax.tree.map(
        lambda axis, x: jnp.take(x, i, axis), self._axes, states
      ),
      out_shardings=jax.tree.map(lambda x: x.sharding, like),
    )

  def stack(self, states: Sequence[step_lib.TrainState]) -> step_lib.TrainState:
    """The states of K seeds as one."""
    return self._stack(list(states))

  def take(
    self, states: step_lib.TrainState, index: int
  ) -> step_lib.TrainState:
    """The state of one of the seeds, as it is alone."""
    return self._take(states, np.int32(index))

  def lower(
    self,
    count: int,
    batch: transfer.PackedBatch,
    schedule: jax.ShapeDtypeStruct,
  ) -> jax.stages.Lowered:
    """The step traced and not yet compiled.

    Args:
      count: K.
      batch: shapes of one seed's.
      schedule: shape of the numbers of the step.
    """

    def shape(x, axis, sharding):
      return jax.ShapeDtypeStruct(
        (*x.shape[:axis], count, *x.shape[axis:]), x.dtype, sharding=sharding
      )

    return self.train.lower(
      jax.tree.map(shape, self._like, self._axes, self._shardings),
      jax.tree.map(lambda x: shape(x, 0, self.sharding), batch),
      schedule,
    )
