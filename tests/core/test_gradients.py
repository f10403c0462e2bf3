"""Gradients in parts. Oracle: the closed form of a least-squares gradient."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bam_jax.core import gradients


@pytest.mark.parametrize('parts', [1, 2, 4, 8])
def test_parts_add_up_to_the_whole(parts):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(8, 3)).astype(np.float32)
  y = rng.normal(size=8).astype(np.float32)
  w = rng.normal(size=3).astype(np.float32)

  def loss(w, rows, key):
    del key
    error = rows['x'] @ w - rows['y']
    return jnp.sum(error**2), {'error': jnp.sum(error)}

  gradient, sums = gradients.gradient(
    loss, jnp.asarray(w), {'x': x, 'y': y}, jax.random.key(0), parts
  )
  np.testing.assert_allclose(gradient, 2 * x.T @ (x @ w - y), rtol=1e-5)
  np.testing.assert_allclose(sums['error'], np.sum(x @ w - y), rtol=1e-5)


def test_each_part_draws_with_its_own_key():
  def loss(w, rows, key):
    return w * jnp.sum(rows['x']), jax.random.uniform(key)

  key = jax.random.key(3)
  _, total = gradients.gradient(
    loss, jnp.array(1.0), {'x': jnp.ones(4)}, key, 2
  )
  draws = [jax.random.uniform(jax.random.fold_in(key, i)) for i in range(2)]
  np.testing.assert_allclose(total, sum(draws), rtol=1e-6)


def test_examples_in_docstrings():
  result = doctest.testmod(gradients)
  assert result.attempted > 0
  assert result.failed == 0


@pytest.mark.parametrize('parts', [2, 4])
def test_parts_take_rows_from_where_they_lie(parts):
  """Rows over 8 devices: XLA's program adds up, and moves no row."""
  mesh = jax.make_mesh(
    (8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,)
  )
  by_rows, whole = (
    jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
    for axes in (('data',), ())
  )

  def loss(w, rows, key):
    del key
    return jnp.sum((rows['x'] @ w) ** 2), {}

  def gradient(w, batch, key):
    return gradients.gradient(loss, w, batch, key, parts)[0]

  program = jax.jit(
    gradient, in_shardings=(whole, by_rows, whole), out_shardings=whole
  )
  batch = {'x': jax.ShapeDtypeStruct((32, 3), jnp.float32)}
  text = (
    program.lower(jnp.ones(3), batch, jax.random.key(0)).compile().as_text()
  )
  assert 'all-reduce' in text
  for movement in ('all-gather', 'all-to-all', 'collective-permute'):
    assert movement not in text
