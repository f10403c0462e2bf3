"""Trains K seeds of the same run at once, in one compiled program.

Each device trains some of the seeds completely, so devices exchange no data.
The first axis of all arrays is the seed, except in the n stacked layers of the
state. Their shape is [n, K, ...], so that one layer of all seeds is contiguous.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from bam_jax.core import paths
from bam_jax.core import step as step_lib
from bam_jax.modeling import layers
from bam_jax.training import compilation
from bam_jax.training import transfer


class Seeds:
  """Trains K seeds in one program, and stacks their states.

  Attributes:
    train: function (states, batch, schedule) -> (states, metrics). It takes
      states from `stack`, a batch from `transfer.stack` and one schedule for
      all seeds.
    sharding: sharding of a batch from `transfer.stack`.
  """

  def __init__(
    self,
    train: Callable,
    like: step_lib.TrainState,
    mesh: Mesh,
    options: Mapping[str, Any],
  ):
    """Chooses the shardings of K seeds; compiles nothing yet.

    Args:
      train: function (state, batch, schedule) -> (state, metrics) that trains
        one seed on one device.
      like: shapes of the state of one seed.
      mesh: devices that share the seeds; their number must divide K.
      options: compiler options for XLA.
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
    self._jitted = jax.jit(
      step,
      in_shardings=(self._shardings, self.sharding, NamedSharding(mesh, P())),
      out_shardings=(self._shardings, self.sharding),
      donate_argnums=0,
      compiler_options=options,
    )
    self.train = compilation.synchronized(self._jitted)
    self._empty = jax.jit(
      lambda count: jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), self._shapes(count)
      ),
      static_argnums=0,
      out_shardings=self._shardings,
    )
    self._put = compilation.synchronized(
      jax.jit(
        lambda states, state, i: jax.tree.map(
          lambda axis, *x: _put(*x, axis, i), self._axes, states, state
        ),
        out_shardings=self._shardings,
        donate_argnums=0,
      )
    )
    self._take = compilation.synchronized(
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
    """Stacks the states of `count` seeds; returns a single state unchanged.

    It takes the states from the iterator one at a time, so memory holds only
    the stack and one single state.
    """
    states = iter(states)
    if count == 1:
      return next(states)
    stacked = self._empty(count)
    for i in range(count):
      # If a variable held this state, it would stay in memory while the next
      # state is made.
      stacked = self._put(stacked, next(states), np.int32(i))
    return stacked

  def take(
    self, states: step_lib.TrainState, index: int
  ) -> step_lib.TrainState:
    """Selects the state of one seed."""
    return self._take(states, np.int32(index))

  def lower(
    self,
    count: int,
    batch: transfer.PackedBatch,
    schedule: jax.ShapeDtypeStruct,
  ) -> jax.stages.Lowered:
    """Traces the step of `count` seeds; `batch` is the batch of one seed."""
    return self._jitted.lower(
      self._shapes(count),
      jax.tree.map(lambda x: _shape(x, 0, count, self.sharding), batch),
      schedule,
    )

  def _shapes(self, count: int) -> step_lib.TrainState:
    return jax.tree.map(
      lambda x, axis, sharding: _shape(x, axis, count, sharding),
      self._like,
      self._axes,
      self._shardings,
    )


def _shape(
  x: jax.ShapeDtypeStruct, axis: int, count: int, sharding: NamedSharding
) -> jax.ShapeDtypeStruct:
  """Returns the shape of `count` arrays like `x`, stacked along an axis."""
  shape = (*x.shape[:axis], count, *x.shape[axis:])
  return jax.ShapeDtypeStruct(shape, x.dtype, sharding=sharding)


def _put(
  states: jax.Array, state: jax.Array, axis: int, i: jax.Array
) -> jax.Array:
  """Writes an array of one seed at index i of the stacked arrays' seed axis."""
  indices = jax.lax.broadcasted_iota(np.int32, states.shape, axis)
  return jnp.where(indices == i, jnp.expand_dims(state, axis), states)
