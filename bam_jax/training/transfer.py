"""What travels between host and devices, as one array each way.

To hand over an array costs the host about as long whatever its size; a batch
has nine small ones, the metrics of a step three.

B rows, W numbers a row, T tasks, K seeds trained at once.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import itertools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


class PackedBatch(flax.struct.PyTreeNode):
  """All of a batch side by side, float32 by their bits.

  Attributes:
    values: [B, W] int32, or [K, B, W].
    shapes: name of each array -> its shape without B, and whether it is float;
      in the order of their names.
  """

  values: Any
  shapes: tuple[tuple[str, tuple[int, ...], bool], ...] = flax.struct.field(
    pytree_node=False
  )

  def __len__(self) -> int:
    """B, over all processes once the batch is on the devices."""
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


def stack(batches: Sequence[PackedBatch]) -> PackedBatch:
  """K batches of one width on the host -> one [K, B, W].

  A shorter one is filled up with rows of zeros, which are padding.
  """
  rows = max(len(batch) for batch in batches)
  width = batches[0].values.shape[1]
  values = np.zeros((len(batches), rows, width), np.int32)
  for place, batch in zip(values, batches):
    place[: len(batch)] = batch.values
  return batches[0].replace(values=values)


def unpack(packed: PackedBatch) -> dict[str, jax.Array]:
  """The batch again, in a program."""
  ends = list(
    itertools.accumulate(int(np.prod(s)) for _, s, _ in packed.shapes)
  )
  batch = {}
  for (name, shape, is_float), start, end in zip(
    packed.shapes, [0, *ends], ends
  ):
    value = packed.values[:, start:end].reshape(-1, *shape)
    if is_float:
      value = jax.lax.bitcast_convert_type(value, jnp.float32)
    batch[name] = value
  return batch


def pack_metrics(metrics: Mapping[str, jax.Array]) -> jax.Array:
  """`loss` [T], `count` [T] and `grad_norm`, in a program -> [2T + 1]."""
  return jnp.concatenate(
    [metrics['loss'], metrics['count'], metrics['grad_norm'][None]]
  )


def unpack_metrics(values: np.ndarray) -> dict[str, np.ndarray]:
  """The metrics again, on the host.

  >>> unpack_metrics(np.arange(5))
  {'loss': array([0, 1]), 'count': array([2, 3]), 'grad_norm': np.int64(4)}

  Args:
    values: [..., 2T + 1].
  """
  loss, count = np.split(values[..., :-1], 2, axis=-1)
  return {'loss': loss, 'count': count, 'grad_norm': values[..., -1]}
