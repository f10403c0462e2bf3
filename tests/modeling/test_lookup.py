"""Rows of a table: their gradient against a loop, on one and on all devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bam_jax import config as config_lib
from bam_jax.modeling import family
from bam_jax.modeling import lookup
from bam_jax.training import mesh as mesh_lib

_ROWS, _WIDTH = 7, 4


@pytest.mark.parametrize('devices', [1, 8])
@pytest.mark.parametrize(
  ('dtype', 'tolerance'), [(jnp.float32, 1e-6), (jnp.bfloat16, 2**-7)]
)
def test_gradient_is_the_sum_over_all_tokens(devices, dtype, tolerance):
  mesh = mesh_lib.make_mesh(config_lib.MeshConfig(devices, 1))
  rng = np.random.default_rng(0)
  table = rng.normal(size=(_ROWS, _WIDTH)).astype(np.float32)
  ids = rng.integers(_ROWS, size=(8, 5))
  weights = rng.uniform(1, 2, size=(8, 5, _WIDTH)).astype(np.float32)

  @jax.jit
  def value_and_gradient(table):
    def total(table):
      rows = lookup.lookup(table, ids, family.Compute(dtype, mesh=mesh))
      return jnp.sum(rows * weights), rows

    return jax.value_and_grad(total, has_aux=True)(table)

  (_, rows), gradient = value_and_gradient(table)
  np.testing.assert_array_equal(rows, table[ids])
  expected = np.zeros_like(table)
  for row, number in np.ndindex(ids.shape):
    expected[ids[row, number]] += weights[row, number]
  np.testing.assert_allclose(gradient, expected, rtol=tolerance)


def test_a_frequent_row_loses_no_terms():
  # In bfloat16 a sum of ones would stay at 256.
  mesh = mesh_lib.make_mesh(config_lib.MeshConfig(2, 1))
  ids = np.zeros((2, 1000), np.int32)

  def total(table):
    return jnp.sum(
      lookup.lookup(table, ids, family.Compute(jnp.bfloat16, mesh=mesh))
    )

  gradient = jax.jit(jax.grad(total))(np.zeros((3, 1), np.float32))
  np.testing.assert_allclose(gradient, [[2000], [0], [0]], rtol=2**-7)


@pytest.mark.parametrize('devices', [1, 2])
def test_a_number_out_of_range_is_told(devices):
  mesh = mesh_lib.make_mesh(config_lib.MeshConfig(devices, 1))
  ids = np.array([[0, 1], [2, 3]])
  rows = lookup.lookup(jnp.ones((3, 1)), ids, family.Compute(mesh=mesh))
  np.testing.assert_array_equal(np.isnan(rows[..., 0]), ids == 3)
