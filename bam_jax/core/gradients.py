"""Gradient accumulation: computes a batch in parts to save memory."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp


def gradient(
  loss: Callable[[Any, Mapping, jax.Array], tuple[jax.Array, Any]],
  params: Any,
  batch: Mapping[str, jax.Array],
  key: jax.Array,
  parts: int,
) -> tuple[Any, Any]:
  """Computes the gradient of a loss that is a sum over the rows.

  >>> loss = lambda w, rows, key: (jnp.sum(w * rows['x']), jnp.sum(rows['x']))
  >>> batch = {'x': jnp.array([1.0, 2.0, 3.0, 4.0])}
  >>> result = gradient(loss, jnp.array(0.0), batch, jax.random.key(0), 2)
  >>> [float(x) for x in result]
  [10.0, 10.0]

  Args:
    loss: (params, rows, key) -> (scalar, tree of arrays). The scalar and the
      arrays must be sums over the rows.
    params: tree of float arrays.
    batch: arrays of B rows.
    key: dropout key. If there are several parts, each part derives its own key
      from it.
    parts: number of parts; must divide the number of rows on each device.

  Returns:
    The gradient with respect to the parameters, and the tree of arrays, both
    summed over all rows.
  """
  compute = jax.grad(loss, has_aux=True)
  if parts == 1:
    return compute(params, batch, key)

  def split(x: jax.Array) -> jax.Array:
    # Part i has rows i, i + parts, i + 2 * parts, ... So each device has a
    # share of each part, and no row moves to another device.
    return jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0)

  def add_part(total: Any, item: tuple[jax.Array, Any]) -> tuple[Any, None]:
    index, rows = item
    result = compute(params, rows, jax.random.fold_in(key, index))
    return jax.tree.map(jnp.add, total, result), None

  rows = jax.tree.map(split, dict(batch))
  first = jax.tree.map(lambda x: x[0], rows)
  shapes = jax.eval_shape(compute, params, first, key)
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  return jax.lax.scan(add_part, zeros, (jnp.arange(parts), rows))[0]
