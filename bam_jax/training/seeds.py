"""Several seeds of a run as one program.

The seeds never meet: a device computes all of some of them. Arrays have an axis
for the K seeds, at the front but for the state's stacked layers [n, ...]: these
are [n, K, ...], so that one layer of all seeds is a slice without gaps.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from bam_jax.core import paths
from bam_jax.modeling import layers
from bam_jax.training import ahead as ahead_lib
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
    options: Mapping[str, Any],
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
    self.train = ahead_lib.Together(
      jax.jit(
        step,
        in_shardings=(self._shardings, self.sharding, NamedSharding(mesh, P())),
        out_shardings=(self._shardings, self.sharding),
        donate_argnums=0,
        compiler_options=options,
      )
    )
    self._empty = jax.jit(
      lambda count: jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), self._shapes(count)
      ),
      static_argnums=0,
      out_shardings=self._shardings,
    )
    self._put = ahead_lib.Together(
      jax.jit(
        lambda states, state, i: jax.tree.map(
          lambda axis, *x: _put(*x, axis, i), self._axes, states, state
        ),
        out_shardings=self._shardings,
        donate_argnums=0,
      )
    )
    self._take = ahead_lib.Together(
      jax.jit(
        lambda states, i: jax.tree.map(
          lambda axis, x: jnp.take(x, i, axis), self._axes, states
        ),
        out_shardings=jax.tree.map(lambda x: x.sharding, like),
      )
    )

  def stack(
    self, states: Iterable[step_lib.TrainState], count: int
  ) -> step_lib.TrainState:
    """The states of K seeds as one, in which each is put when it is there.

    Args:
      states: one after the other, so that none waits for the others in memory.
      count: K; a single state stays as it is.
    """
    states = iter(states)
    if count == 1:
      return next(states)
    stacked = self._empty(count)
    for i in range(count):
      # Without a name: it would stay beside the next one.
      stacked = self._put(stacked, next(states), np.int32(i))
    return stacked

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
    return self.train.lower(
      self._shapes(count),
      jax.tree.map(lambda x: _shape(x, 0, count, self.sharding), batch),
      schedule,
    )

  def _shapes(self, count: int) -> step_lib.TrainState:
    """Of the states of K seeds, with shardings."""
    return jax.tree.map(
      lambda x, axis, sharding: _shape(x, axis, count, sharding),
      self._like,
      self._axes,
      self._shardings,
    )


def _shape(
  x: jax.ShapeDtypeStruct, axis: int, count: int, sharding: NamedSharding
) -> jax.ShapeDtypeStruct:
  """That of K times `x`, along a new axis."""
  shape = (*x.shape[:axis], count, *x.shape[axis:])
  return jax.ShapeDtypeStruct(shape, x.dtype, sharding=sharding)


def _put(
  states: jax.Array, state: jax.Array, axis: int, i: jax.Array
) -> jax.Array:
  """`state` as the i-th along an axis, which may be spread over devices."""
  indices = jax.lax.broadcasted_iota(np.int32, states.shape, axis)
  return jnp.where(indices == i, jnp.expand_dims(state, axis), states)
