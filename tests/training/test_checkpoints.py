"""Checkpoints: latest and best, resume, and what they refuse."""

import jax
import numpy as np
import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.modeling import bert
from bam_jax.modeling import heads
from bam_jax.tasks import demo
from bam_jax.tasks import task as task_lib
from bam_jax.training import checkpoints
from bam_jax.training import mesh as mesh_lib
from bam_jax.training import programs as programs_lib


def _programs(hidden=8):
  config = config_lib.default_config()
  config.tasks = tuple(demo.TASKS)
  config = config_lib.from_config_dict(config)
  tasks = task_lib.TaskTable(tuple(demo.TASKS.values()))
  model = heads.MultiTaskBert(
    bert.BertConfig(11, hidden, 1, 2, 16, max_positions=16),
    len(tasks),
    tasks.num_outputs,
  )
  mesh = mesh_lib.make_mesh(
    config_lib.MeshConfig(data=2, fsdp=4), jax.devices()
  )
  return programs_lib.Programs(model, tasks, config, mesh)


@pytest.fixture(scope='module')
def programs():
  return _programs()


def _state(programs, step, value):
  params = jax.tree.map(
    lambda leaf: np.full(leaf.shape, value, leaf.dtype),
    programs.abstract_state.params,
  )
  state = programs.init_state(params, seed=value)
  return state.replace(step=state.step + step)


def _assert_equal(one, two):
  jax.tree.map(
    np.testing.assert_array_equal, jax.device_get(one), jax.device_get(two)
  )


def test_the_latest_state_comes_back_whole_and_sharded(tmp_path, programs):
  saved = _state(programs, 7, 3)
  with checkpoints.Checkpoints(tmp_path) as manager:
    manager.save(saved)
  with checkpoints.Checkpoints(tmp_path) as manager:
    assert manager.latest_step == 7
    restored = manager.restore(_state(programs, 0, 0))
  _assert_equal(saved, restored)
  assert jax.tree.map(lambda x: x.sharding, restored) == jax.tree.map(
    lambda x: x.sharding, saved
  )


def test_best_and_latest_are_kept_and_no_other(tmp_path, programs):
  with checkpoints.Checkpoints(tmp_path) as manager:
    for step, score in ((1, 50.0), (2, 70.0), (3, 60.0), (4, None)):
      manager.save(_state(programs, step, step), score)
    manager.wait()
    assert manager.best_step == 2
    assert manager.latest_step == 4
    params = manager.restore_params(programs.abstract_state.params, 2)
    _assert_equal(params, _state(programs, 2, 2).params)
  assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == [
    'step_2',
    'step_4',
  ]


def test_a_finished_run_keeps_parameters_alone(tmp_path, programs):
  with checkpoints.Checkpoints(tmp_path) as manager:
    manager.save(_state(programs, 4, 1))
    manager.save(_state(programs, 5, 2), 10.0, with_optimizer=False)
    manager.drop_optimizer()
  with checkpoints.Checkpoints(tmp_path) as manager:
    restored = manager.restore(_state(programs, 0, 0))
  assert int(restored.step) == 5
  _assert_equal(restored.params, _state(programs, 5, 2).params)
  assert not list(tmp_path.glob('*/train'))


def test_a_checkpoint_of_another_shape_is_refused(tmp_path, programs):
  with checkpoints.Checkpoints(tmp_path) as manager:
    manager.save(_state(programs, 1, 1))
  with (
    checkpoints.Checkpoints(tmp_path) as manager,
    pytest.raises(
      errors.UserError,
      match=r'encoder/embeddings/norm/bias has shape \(8,\) in the'
      r' checkpoint and \(16,\) in the model',
    ),
  ):
    manager.restore(_state(_programs(hidden=16), 0, 0))


def test_no_checkpoint_is_told(tmp_path, programs):
  with (
    checkpoints.Checkpoints(tmp_path) as manager,
    pytest.raises(errors.UserError, match='step_3: no checkpoint; remove'),
  ):
    manager.restore_params(programs.abstract_state.params, 3)
