"""Checkpoints: latest and best, resume, and what they refuse."""

import json
import math
import shutil

import jax
from jax.experimental import multihost_utils
import numpy as np
import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.modeling import family
from bam_jax.modeling import heads
from bam_jax.tasks import demo
from bam_jax.tasks import task as task_lib
from bam_jax.training import checkpoint_scores
from bam_jax.training import checkpoints
from bam_jax.training import mesh as mesh_lib
from bam_jax.training import programs as programs_lib


def _programs(hidden=8):
  config = config_lib.default_config()
  config.tasks = tuple(demo.TASKS)
  config = config_lib.from_config_dict(config)
  tasks = task_lib.TaskTable(tuple(demo.TASKS.values()))
  model = heads.MultiTaskModel(
    family.EncoderConfig(11, hidden, 1, 2, 16, max_positions=16),
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


def test_only_the_loop_asks_whether_to_stop(tmp_path, programs, monkeypatch):
  """JAX has processes agree on a number: two counts would mix."""
  asked = []
  monkeypatch.setattr(
    multihost_utils, 'reached_preemption_sync_point', asked.append
  )
  with checkpoints.Checkpoints(tmp_path) as saved:
    saved.save(_state(programs, 4, 1.0), 0.5)
    saved.wait()
  assert asked == []


def test_a_score_that_comes_late_keeps_its_checkpoint(tmp_path, programs):
  """A stop saves a step before its evaluation; its metrics go along."""
  with checkpoints.Checkpoints(tmp_path) as manager:
    manager.save(_state(programs, 1, 1), 50.0)
    manager.save(_state(programs, 2, 2), unlogged=[[0.1, 2.0]])
  with checkpoints.Checkpoints(tmp_path) as manager:
    assert manager.unlogged == [[0.1, 2.0]]
    assert (manager.score(2), manager.best_step) == (None, 1)
    manager.add_score(70.0)
    for step, score in ((3, 60.0), (4, None)):
      manager.save(_state(programs, step, step), score)
  assert checkpoint_scores.kept(tmp_path) == [2, 4]
  with checkpoints.Checkpoints(tmp_path) as manager:
    assert (manager.score(2), manager.best_step) == (70.0, 2)
    assert manager.unlogged == []
    assert not manager.has(1)
    assert not manager.has(3)
  metadata = tmp_path / 'step_4' / checkpoint_scores.SENTINEL
  changed = metadata.read_text().replace('70.0', '10.0')
  metadata.write_text(changed)
  with pytest.raises(errors.UserError, match=r'step_4: is damaged .*digest'):
    checkpoints.Checkpoints(tmp_path)


@pytest.mark.parametrize('score', [None, 50.0], ids=['plain', 'scored'])
def test_a_step_that_was_half_deleted_is_skipped(tmp_path, programs, score):
  """A kill while the step that was replaced is deleted, file by file."""
  with checkpoints.Checkpoints(tmp_path / 'run') as manager:
    manager.save(_state(programs, 2, 2), score)
    manager.wait()
    shutil.copytree(tmp_path / 'run' / 'step_2', tmp_path / 'whole')
    manager.save(_state(programs, 4, 4), 60.0)
  files = sorted(p for p in (tmp_path / 'whole').rglob('*') if p.is_file())
  left = np.random.default_rng(0).permutation(len(files))
  for count in {*range(0, len(files), 1 + len(files) // 8), len(files) - 1}:
    half = tmp_path / 'run' / 'step_2'
    shutil.copytree(tmp_path / 'whole', half)
    for number in left[: count + 1]:
      (half / files[number].relative_to(tmp_path / 'whole')).unlink()
    with checkpoints.Checkpoints(tmp_path / 'run') as manager:
      assert (manager.latest_step, manager.best_step) == (4, 4)
    shutil.rmtree(half)


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
    pytest.raises(
      errors.UserError, match='step_3: the checkpoint is missing; remove'
    ),
  ):
    manager.restore_params(programs.abstract_state.params, 3)


@pytest.mark.parametrize('item', ['params', 'train'])
def test_a_flipped_bit_of_a_number_is_found(tmp_path, item):
  """Found by no layer below: without the checksum it is another number."""
  # Numbers that no compression shortens lie on the disk as they are.
  drawn = np.random.default_rng(0).bytes(4 * 16 * 128)
  numbers = np.frombuffer(drawn, np.float32).reshape(16, 128)

  def filled(tree):
    return jax.tree.map(
      lambda leaf: (
        jax.device_put(numbers, leaf.sharding)
        if leaf.shape == numbers.shape
        else leaf
      ),
      tree,
    )

  # Short arrays lie inside of Orbax's index, which has a checksum.
  programs = _programs(hidden=128)
  state = _state(programs, 3, 1)
  if item == 'params':
    state = state.replace(params=filled(state.params))
  else:
    state = state.replace(opt_state=filled(state.opt_state))
  with checkpoints.Checkpoints(tmp_path) as manager:
    manager.save(state)
  found = 0
  for path in (tmp_path / 'step_3' / item).rglob('d/*'):
    data = path.read_bytes()
    place = data.find(numbers[2, :1].tobytes())
    if place >= 0:
      path.write_bytes(
        data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
      )
      found += 1
  assert found
  with (
    checkpoints.Checkpoints(tmp_path) as manager,
    pytest.raises(
      errors.UserError,
      match=r'step_3: is damaged .*position/embedding fails its checksum',
    ),
  ):
    manager.restore(_state(programs, 0, 0))


def test_another_score_is_found(tmp_path, programs):
  """It would make another checkpoint the best."""
  with checkpoints.Checkpoints(tmp_path) as manager:
    manager.save(_state(programs, 1, 1), 50.0)
    manager.save(_state(programs, 2, 2), 40.0)
  path = tmp_path / 'step_1' / 'metrics' / 'metrics'
  good = path.read_text()
  for text in (good.replace('50', '30'), good.replace('score', 'scorf'), '{'):
    path.write_text(text)
    with pytest.raises(errors.UserError, match=r'is damaged'):
      checkpoints.Checkpoints(tmp_path)
  path.write_text(good)
  with checkpoints.Checkpoints(tmp_path) as manager:
    assert manager.best_step == 1


def test_a_score_that_is_no_number_equals_itself(tmp_path, programs):
  with checkpoints.Checkpoints(tmp_path) as manager:
    manager.save(_state(programs, 1, 1), float('nan'))
  with checkpoints.Checkpoints(tmp_path) as manager:
    assert manager.latest_step == 1


@pytest.mark.parametrize(
  ('scores', 'best'),
  [
    ((math.nan, -5.0, math.nan, math.nan), 2),
    ((math.nan, math.nan, math.nan), 3),
    ((None, math.nan), 2),
  ],
)
def test_an_undefined_score_is_never_preferred(
  tmp_path, programs, scores, best
):
  """Where no step has a defined one, the latest is taken."""
  with checkpoints.Checkpoints(tmp_path) as manager:
    for step, score in enumerate(scores, 1):
      manager.save(_state(programs, step, step), score)
    manager.wait()
    assert manager.best_step == best
    assert manager.has(best) and manager.latest_step == len(scores)
  with checkpoints.Checkpoints(tmp_path) as manager:
    assert manager.best_step == best
  assert checkpoint_scores.kept(tmp_path) == sorted({best, len(scores)})
  for path in tmp_path.rglob('*'):
    if path.name in ('metrics', '_CHECKPOINT_METADATA') and path.is_file():
      assert 'NaN' not in path.read_text()


@pytest.mark.parametrize('patience', [1, 3])
def test_patience_counts_evaluations_without_a_better_score(patience):
  """Oracle: a loop. Equal and undefined scores are no better ones."""
  generator, ends = np.random.default_rng(patience), []
  for _ in range(50):
    curve = generator.choice([*range(8), math.nan], 20)
    best, waited, scores = -math.inf, 0, {}
    for step, score in zip(range(5, 105, 5), curve):
      waited = 0 if score > best else waited + 1
      best = np.fmax(best, score)
      if not math.isnan(score):
        scores[step] = score
      is_over = checkpoint_scores.is_out_of_patience(scores, step, 5 * patience)
      assert is_over == (waited >= patience)
      if is_over:
        break
    ends.append(step)
  assert len(set(ends)) > 3


def test_patience_counts_from_the_best_checkpoint(tmp_path, programs):
  """Of equal scores the first one counts, and its checkpoint is kept."""
  with checkpoints.Checkpoints(tmp_path) as manager:
    for step, score in ((1, 40.0), (2, 50.0), (3, 50.0), (4, 50.0)):
      manager.save(_state(programs, step, step), score)
  with checkpoints.Checkpoints(tmp_path) as manager:
    assert manager.best_step == 2 and not manager.has(1) | manager.has(3)
    assert manager.is_out_of_patience(2) and not manager.is_out_of_patience(3)
  assert checkpoint_scores.kept(tmp_path) == [2, 4]


def test_a_checkpoint_without_checksums_is_damaged(tmp_path, programs):
  with checkpoints.Checkpoints(tmp_path) as manager:
    manager.save(_state(programs, 3, 1))
  path = tmp_path / 'step_3' / '_CHECKPOINT_METADATA'
  metadata = json.loads(path.read_text())
  path.write_text(json.dumps(metadata | {'custom_metadata': {}}))
  with (
    checkpoints.Checkpoints(tmp_path) as manager,
    pytest.raises(errors.UserError, match=r"step_3: is damaged .*'checksums'"),
  ):
    manager.restore_params(programs.abstract_state.params, 3)


def test_the_reason_stands_before_the_details_of_the_library(tmp_path):
  path = f'{tmp_path}/step_2/params'
  error = ValueError(
    f'RESOURCE_EXHAUSTED: Error reading "{path}": Failed to open: [Too many'
    " open files] [source locations='a.cc:1\nb.cc:2'] [tensorstore_spec="
    f"'{{{'x' * 2000}}}'] [os_error_code='24']"
  )
  with (
    pytest.raises(errors.UserError) as caught,
    checkpoints._as_user_error(tmp_path, 'could not be written ({1})'),
  ):
    raise error
  assert str(caught.value) == (
    f'{tmp_path}: could not be written (RESOURCE_EXHAUSTED: Error reading'
    ' "step_2/params": Failed to open: [Too many open files])'
  )
