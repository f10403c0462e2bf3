"""Packs the arrays of a batch, or the metrics of a step, into one array.

A copy to or from a device costs the host a fixed time per array, and a batch
has nine or more small arrays.

Dimensions: B rows of W numbers, T tasks, K seeds trained at once.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from bam_jax.tasks import task as task_lib


class PackedBatch(flax.struct.PyTreeNode):
  """All arrays of a batch in one int32 array; floats are stored as bits."""

  values: Any  # [B, W] or [K, B, W] int32.
  # For each array, sorted by name: (its name, its shape without B, whether its
  # dtype is float32).
  shapes: tuple[tuple[str, tuple[int, ...], bool], ...] = flax.struct.field(
    pytree_node=False
  )

  def __len__(self) -> int:
    """Returns the number of rows per seed.

    These are the rows of this process if the batch is on the host, and the rows
    of all processes if it is on the devices.
    """
    return self.values.shape[-2]


def pack(batch: Mapping[str, np.ndarray]) -> PackedBatch:
  """Packs host arrays [B, ...] of int32 or float32 into one array.

  >>> floats, integers = np.ones((2, 3), np.float32), np.int32([[5], [6]])
  >>> packed = pack({'b': floats, 'a': integers})
  >>> packed.values.shape, packed.shapes
  ((2, 4), (('a', (1,), False), ('b', (3,), True)))
  """
  arrays = sorted(batch.items())
  return PackedBatch(
    values=np.concatenate(
      [x.reshape(len(x), -1).view(np.int32) for _, x in arrays], axis=1
    ),
    shapes=tuple((k, x.shape[1:], x.dtype == np.float32) for k, x in arrays),
  )


def abstract_batch(
  rows: int,
  row_length: int,
  slots: int,
  tasks: task_lib.TaskTable,
  sharding: jax.sharding.Sharding,
) -> PackedBatch:
  """Returns the shape of a packed training batch.

  `rows` is B, the number of rows of all processes. docs/architecture.md lists
  the arrays of a batch under "Contracts".
  """

  def arrays(keys: str, dtype: type, *shape: int) -> dict[str, np.ndarray]:
    return {key: np.empty((1, *shape), dtype) for key in keys.split()}

  batch = {
    **arrays('input_ids token_type_ids', np.int32, row_length),
    **arrays('positions segment_ids', np.int32, row_length),
    **arrays('cls_index task_id', np.int32, slots),
    **arrays('gold teacher', np.float32, slots, tasks.num_outputs),
    **arrays('weight', np.float32, slots),
  }
  if tasks.has_totals:
    batch |= arrays('gold_total', np.float32, slots, tasks.num_outputs)
  if tasks.token_heads:
    shape = (row_length, tasks.token_outputs)
    batch |= arrays('token_gold token_teacher', np.float32, *shape)
    batch |= arrays('token_share', np.float32, row_length)
  packed = pack(batch)
  values = jax.ShapeDtypeStruct(
    (rows, packed.values.shape[1]), np.int32, sharding=sharding
  )
  return packed.replace(values=values)


def stack(batches: Sequence[PackedBatch]) -> PackedBatch:
  """Stacks K host batches of equal width into [K, B, W].

  Batches with fewer rows are padded with rows of zeros.
  """
  rows = max(len(batch) for batch in batches)
  width = batches[0].values.shape[1]
  values = np.zeros((len(batches), rows, width), np.int32)
  for place, batch in zip(values, batches):
    place[: len(batch)] = batch.values
  return batches[0].replace(values=values)


def unpack(packed: PackedBatch) -> dict[str, jax.Array]:
  """Unpacks a batch [B, W] inside a jitted function."""
  batch, start = {}, 0
  for name, shape, is_float in packed.shapes:
    end = start + math.prod(shape)
    value = packed.values[:, start:end].reshape(-1, *shape)
    if is_float:
      value = jax.lax.bitcast_convert_type(value, jnp.float32)
    batch[name], start = value, end
  return batch


def pack_metrics(metrics: Mapping[str, jax.Array]) -> jax.Array:
  """Packs the metrics of a step into [2T + 1] inside a jitted function."""
  return jnp.concatenate(
    [metrics['loss'], metrics['count'], metrics['grad_norm'][None]]
  )


def unpack_metrics(values: np.ndarray) -> dict[str, np.ndarray]:
  """Unpacks metrics [..., 2T + 1] of one or several steps on the host.

  >>> unpack_metrics(np.arange(5))
  {'loss': array([0, 1]), 'count': array([2, 3]), 'grad_norm': np.int64(4)}
  """
  loss, count = np.split(values[..., :-1], 2, axis=-1)
  return {'loss': loss, 'count': count, 'grad_norm': values[..., -1]}
