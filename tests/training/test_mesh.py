"""The mesh and the sharding table. Oracle: shapes counted by hand."""

import math
from types import SimpleNamespace

import jax
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.core import optimizer as optimizer_lib
from bam_jax.core import step as step_lib
from bam_jax.modeling import families
from bam_jax.modeling import family
from bam_jax.modeling import heads
from bam_jax.training import mesh as mesh_lib


def _mesh(data, fsdp, devices=None):
  return mesh_lib.make_mesh(
    config_lib.MeshConfig(data=data, fsdp=fsdp), devices
  )


@pytest.mark.parametrize(
  ('data', 'fsdp', 'expected'),
  [
    (-1, 1, (8, 1)),
    (1, -1, (1, 8)),
    (-1, 4, (2, 4)),
    (2, 4, (2, 4)),
    (1, 1, (1, 1)),
    (3, 2, (3, 2)),
  ],
)
def test_sizes(data, fsdp, expected):
  mesh = _mesh(data, fsdp)
  assert mesh.axis_names == ('data', 'fsdp')
  assert mesh.devices.shape == expected
  assert mesh.size == math.prod(expected)
  assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


@pytest.mark.parametrize(
  ('data', 'fsdp'), [(0, 1), (-1, -1), (-1, 3), (4, 4), (-1, 16), (9, 1)]
)
def test_sizes_that_do_not_fit(data, fsdp):
  with pytest.raises(errors.UserError, match=f'data={data}, fsdp={fsdp}'):
    _mesh(data, fsdp)


def test_a_batch_is_split_by_rows_over_all_devices():
  x = jax.device_put(
    np.arange(48).reshape(16, 3), mesh_lib.batch_sharding(_mesh(2, 4))
  )
  assert {s.data.shape for s in x.addressable_shards} == {(2, 3)}
  assert len({str(s.index) for s in x.addressable_shards}) == 8


@pytest.mark.parametrize(
  ('path', 'shape', 'fsdp', 'expected'),
  [
    ('encoder/layer_0/output/kernel', (8, 6), 4, P('fsdp', None)),
    (
      'opt_state/1/mu/encoder/layer_0/output/kernel',
      (6, 8),
      4,
      P(None, 'fsdp'),
    ),
    ('encoder/layer_0/output/kernel', (6, 6), 4, P()),
    ('encoder/layers/output/kernel', (4, 8, 6), 4, P(None, 'fsdp', None)),
    ('encoder/layers/output/kernel', (4, 6, 8), 4, P(None, None, 'fsdp')),
    ('encoder/layers/output/kernel', (4, 6, 6), 4, P()),
    ('encoder/embeddings/word/embedding', (30522, 8), 8, P(None, 'fsdp')),
    ('encoder/embeddings/word/embedding', (16, 6), 8, P('fsdp', None)),
    ('heads/kernel', (8, 8, 8), 8, P(None, 'fsdp', None)),
    ('heads/bias', (8, 8), 8, P()),
    ('encoder/layer_3/output_norm/scale', (8,), 8, P()),
    ('opt_state/hyperparams/learning_rate', (), 8, P()),
    ('dropout_key', (2,), 2, P()),
  ],
)
def test_spec(path, shape, fsdp, expected):
  assert mesh_lib.param_spec(path, shape, fsdp) == expected


def test_a_leaf_without_a_row_raises():
  tree = {'adapter': {'gate': np.zeros(8)}}
  with pytest.raises(ValueError, match='adapter/gate'):
    mesh_lib.state_shardings(_mesh(1, 8), tree)


def test_bert_large_is_shared_by_the_fsdp_axis():
  """Parameters and moments: each of 8 devices holds about an eighth."""
  config = family.EncoderConfig(30522, **families.presets()['bert-large'])
  model = heads.MultiTaskModel(config, 9, 3)
  params = heads.abstract_params(model)
  optimizer = optimizer_lib.make_optimizer(
    config_lib.OptimizerConfig(), config.num_layers
  )
  state = jax.eval_shape(
    lambda p: step_lib.create_state(optimizer, p, 0), params
  )
  shardings = mesh_lib.state_shardings(_mesh(1, 8), state)

  total = sum(leaf.size for leaf in jax.tree.leaves(params))
  assert total == pytest.approx(335.2e6, rel=1e-3)  # BERT-Large, with pooler
  for tree, specs in (
    (state.params, shardings.params),
    (state.opt_state, shardings.opt_state),
  ):
    whole = shared = 0
    for leaf, sharding in zip(
      jax.tree.leaves(tree), jax.tree.leaves(specs), strict=True
    ):
      size = leaf.size * leaf.dtype.itemsize
      whole += size
      if math.prod(sharding.shard_shape(leaf.shape)) * 8 == leaf.size:
        shared += size
    assert shared > 0.99 * whole
  moments = state.opt_state.inner_state[1]
  assert jax.tree.structure(moments.mu) == jax.tree.structure(params)
  specs = shardings.opt_state.inner_state[1]
  assert specs.mu == specs.nu == shardings.params


def test_a_single_process_has_all_rows():
  np.testing.assert_array_equal(
    mesh_lib.own_rows(_mesh(2, 4), 16), np.arange(16)
  )


@pytest.mark.parametrize(
  ('platform', 'data', 'fsdp', 'expected'),
  [
    ('gpu', 2, 1, True),
    ('gpu', 1, 1, False),
    ('gpu', 2, 2, False),
    ('tpu', 8, 1, False),
  ],
)
def test_replicas_on_gpus_are_told_from_other_meshes(
  platform, data, fsdp, expected
):
  devices = np.array([[SimpleNamespace(platform=platform)] * fsdp] * data)
  mesh = SimpleNamespace(
    size=devices.size, devices=devices, shape={'data': data, 'fsdp': fsdp}
  )
  assert mesh_lib.has_replicas_on_gpus(mesh) is expected
  assert not mesh_lib.has_replicas_on_gpus(_mesh(8, 1))
