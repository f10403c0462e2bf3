"""Packs the arrays of a batch, or the metrics of a step, into one array.

Passing an array to a device costs the host about the same time whatever its
size; a batch has nine small arrays, and the metrics of a step are three.

B rows, L tokens, S segment slots, W numbers per row, T tasks, K seeds trained
at once.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from bam_jax.tasks import task as task_lib


class PackedBatch(flax.struct.PyTreeNode):
  """All arrays of a batch side by side, float32 ones by their bits.

  Attributes:
    values: [B, W] int32, or [K, B, W].
    shapes: for each array, sorted by name: name, shape without B, whether it
      is float32.
  """

  values: Any
  shapes: tuple[tuple[str, tuple[int, ...], bool], ...] = flax.struct.field(
    pytree_node=False
  )

  def __len__(self) -> int:
    """B; once the batch is on the devices, over all processes."""
    return self.values.shape[-2]


def pack(batch: Mapping[str, np.ndarray]) -> PackedBatch:
  """Host arrays [B, ...] of int32 or float32 -> one [B, W].

  >>> floats, integers = np.ones((2, 3), np.float32), np.int32([[5], [6]])
  >>> packed = pack({'b': floats, 'a': integers})
  >>> packed.values.shape, packed.shapes
  ((2, 4), (('a', (1,), False), ('b', (3,), True)))
  """
  names = sorted(batch)
  return PackedBatch(
    values=np.concatenate(
      [
        batch[name].reshape(len(batch[name]), -1).view(np.int32)
        for name in names
      ],
      axis=1,
    ),
    shapes=tuple(
      (name, batch[name].shape[1:], batch[name].dtype == np.float32)
      for name in names
    ),
  )


def abstract_batch(
  rows: int,
  row_length: int,
  slots: int,
  tasks: task_lib.TaskTable,
  sharding: jax.sharding.Sharding,
) -> PackedBatch:
  """Shape of a packed training batch; see docs/architecture.md, "Batch".

  Args:
    rows: B, over all processes.
    row_length: L.
    slots: S.
    tasks: decide how many outputs a target has.
    sharding: of the batch.
  """

  def empty(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.empty((1, *shape), dtype)

  batch = {
    'target': empty(slots, tasks.num_outputs),
    'teacher': empty(slots, tasks.num_outputs),
    'weight': empty(slots),
  }
  for key in ('input_ids', 'token_type_ids', 'positions', 'segment_ids'):
    batch[key] = empty(row_length, dtype=np.int32)
  for key in ('cls_index', 'task_id'):
    batch[key] = empty(slots, dtype=np.int32)
  if tasks.token_heads:
    batch |= {
      'token_target': empty(row_length, tasks.token_outputs),
      'token_teacher': empty(row_length, tasks.token_outputs),
      'token_share': empty(row_length),
    }
  packed = pack(batch)
  values = jax.ShapeDtypeStruct(
    (rows, packed.values.shape[1]), np.int32, sharding=sharding
  )
  return packed.replace(values=values)


def stack(batches: Sequence[PackedBatch]) -> PackedBatch:
  """Stacks K host batches of one width into [K, B, W].

  Shorter batches are filled up with rows of zeros, which are padding.
  """
  rows = max(len(batch) for batch in batches)
  width = batches[0].values.shape[1]
  values = np.zeros((len(batches), rows, width), np.int32)
  for place, batch in zip(values, batches):
    place[: len(batch)] = batch.values
  return batches[0].replace(values=values)


def unpack(packed: PackedBatch) -> dict[str, jax.Array]:
  """Restores the arrays of a batch, inside a program."""
  batch, start = {}, 0
  for name, shape, is_float in packed.shapes:
    end = start + math.prod(shape)
    value = packed.values[:, start:end].reshape(-1, *shape)
    if is_float:
      value = jax.lax.bitcast_convert_type(value, jnp.float32)
    batch[name], start = value, end
  return batch


def pack_metrics(metrics: Mapping[str, jax.Array]) -> jax.Array:
  """Packs `loss` [T], `count` [T] and `grad_norm` as [2T + 1], in a program."""
  return jnp.concatenate(
    [metrics['loss'], metrics['count'], metrics['grad_norm'][None]]
  )


def unpack_metrics(values: np.ndarray) -> dict[str, np.ndarray]:
  """Restores the metrics of a step, or of several, on the host.

  >>> unpack_metrics(np.arange(5))
  {'loss': array([0, 1]), 'count': array([2, 3]), 'grad_norm': np.int64(4)}

  Args:
    values: [..., 2T + 1].
  """
  loss, count = np.split(values[..., :-1], 2, axis=-1)
  return {'loss': loss, 'count': count, 'grad_norm': values[..., -1]}
