"""Steps of a real, tiny model on one and on many devices.

Oracles: one device against 8, whole against accumulated, the sums of
test_losses, the released code's scaling by hand, XLA's own compile events.
"""

import dataclasses
import functools
import os
import subprocess
import sys
import threading
from unittest import mock

import jax
import numpy as np
import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.core import step as step_lib
from bam_jax.modeling import family
from bam_jax.modeling import heads
from bam_jax.runtime import joining
from bam_jax.runtime import preemption
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib
from bam_jax.training import mesh as mesh_lib
from bam_jax.training import programs as programs_lib
from bam_jax.training import transfer
from tests import starting

ROWS, TOKENS, SLOTS = 16, 12, 2
SCHEDULE = step_lib.StepSchedule(1e-2, 0.5, 0.9)


def _task(name, kind, labels=()):
  return task_lib.Task(
    name=name,
    kind=kinds.KINDS[kind],
    labels=labels,
    metrics=('accuracy',),
    paper_metric='accuracy',
    tables={},
  )


TASKS = task_lib.TaskTable(
  (
    _task('three', 'classification', ('a', 'b', 'c')),
    _task('score', 'regression'),
    _task('two', 'classification', ('a', 'b')),
  )
)


@functools.cache
def make_programs(
  data, fsdp, dropout=0.1, accumulate=1, reduction='sum', devices=None
):
  """Programs of a one-layer model on data x fsdp devices.

  Adam's ε is 1e-3: at 1e-6 the rounding of a gradient near zero decides a
  whole update, and the runs could not be compared at any tolerance.
  """
  mesh = mesh_lib.make_mesh(
    config_lib.MeshConfig(data=data, fsdp=fsdp), devices
  )
  model = heads.MultiTaskModel(
    family.EncoderConfig(
      32, 16, 1, 2, 32, max_positions=TOKENS,
      dropout_embedding=dropout, dropout_attention=dropout,
      dropout_hidden=dropout, dropout_head=dropout,
    ),
    len(TASKS),
    TASKS.num_outputs,
    compute=family.Compute(mesh=mesh),
  )  # fmt: skip
  config = dataclasses.replace(
    config_lib.Config(),
    train=config_lib.TrainConfig(accumulate=accumulate),
    optimizer=config_lib.OptimizerConfig(eps=1e-3, reduction=reduction),
  )
  return programs_lib.Programs(model, TASKS, config, mesh)


def make_params(programs):
  """Random, with biases and scales away from their usual start."""
  rng = np.random.default_rng(7)
  return jax.tree.map(
    lambda x: rng.normal(0.0, 0.3, x.shape).astype(np.float32),
    programs.abstract_state.params,
  )


def make_batch(seed, rows=ROWS):
  """Two segments a row, then padding; some slots are empty."""
  rng = np.random.default_rng(seed)
  segment = np.array([1] * 5 + [2] * 4 + [0] * 3, np.int32)
  position = np.array([*range(5), *range(4), *range(3)], np.int32)
  task_id = rng.integers(0, 3, (rows, SLOTS)).astype(np.int32)
  one_hot = np.eye(3)[rng.integers(0, 2, (rows, SLOTS))]
  score = rng.uniform(size=(rows, SLOTS, 1)) * [1, 0, 0]
  target = np.where((task_id == 1)[..., None], score, one_hot)
  return {
    'input_ids': rng.integers(0, 32, (rows, TOKENS)).astype(np.int32),
    'token_type_ids': np.zeros((rows, TOKENS), np.int32),
    'positions': np.tile(position, (rows, 1)),
    'segment_ids': np.tile(segment, (rows, 1)),
    'cls_index': np.tile(np.array([0, 5], np.int32), (rows, 1)),
    'task_id': task_id,
    'gold': target.astype(np.float32),
    'teacher': np.where(target > 0, 0.8 * target, 0.0).astype(np.float32),
    'weight': (rng.uniform(size=(rows, SLOTS)) > 0.2).astype(np.float32),
  }


def run(programs, steps=3, batches=make_batch, schedule=SCHEDULE):
  """The start, the end, the first moments and the metrics of some steps."""
  start = make_params(programs)
  with jax.transfer_guard_device_to_host('disallow'):
    state = programs.init_state(start, seed=5)
    metrics = []
    for i in range(steps):
      state, values = programs.train_step(state, batches(i), schedule)
      metrics.append(values)
    moments = state.opt_state.inner_state[1].mu
    fetched = jax.device_get(metrics)
    metrics = [transfer.unpack_metrics(values) for values in fetched]
    return start, *jax.device_get((state.params, moments)), metrics


def assert_same_run(one, other):
  """Losses to 1e-6 relative; per leaf, updates to 1e-5 of the largest.

  The first moments are a sum of the gradients of all steps, so they are held
  to the tolerance of gradients.
  """
  for a, b in zip(one[3], other[3], strict=True):
    np.testing.assert_array_equal(a['count'], b['count'])
    np.testing.assert_allclose(a['loss'], b['loss'], rtol=1e-6)
    np.testing.assert_allclose(a['grad_norm'], b['grad_norm'], rtol=1e-5)

  def close(path, start, one, other, moment, other_moment):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    if name.endswith('key/bias'):  # its gradient is zero in theory
      np.testing.assert_allclose(moment, other_moment, rtol=0, atol=1e-6)
      return
    np.testing.assert_allclose(
      other_moment, moment, rtol=0, atol=1e-5 * np.abs(moment).max(),
      err_msg=name,
    )  # fmt: skip
    largest = np.abs(one - start).max()
    assert largest > 1e-3, name
    # The sum of parameter and update was rounded once in each run.
    rounding = np.finfo(np.float32).eps * np.abs(start).max()
    np.testing.assert_allclose(
      other, one, rtol=0, atol=1e-5 * largest + rounding, err_msg=name
    )

  jax.tree_util.tree_map_with_path(
    close, one[0], one[1], other[1], one[2], other[2]
  )


@pytest.fixture(scope='module')
def on_one():
  return run(make_programs(1, 1))


@pytest.mark.parametrize(
  ('data', 'fsdp'), [(8, 1), (2, 4)], ids=['data', 'both']
)
def test_eight_devices_do_as_one_with_dropout_on(on_one, data, fsdp):
  programs = make_programs(data, fsdp)
  assert_same_run(on_one, run(programs))
  state = programs.init_state(make_params(programs), 5)
  kernel = state.params['encoder']['layers']['output']['kernel']
  moment = state.opt_state.inner_state[1].mu['encoder']['layers']['output']
  for x in (kernel, moment['kernel']):
    assert {s.data.size for s in x.addressable_shards} == {x.size // fsdp}


def test_dropout_follows_the_seed_and_the_step(on_one):
  programs = make_programs(1, 1)
  losses = {}
  still = SCHEDULE._replace(learning_rate=0.0)
  for seed in (5, 6):
    state = programs.init_state(make_params(programs), seed)
    for step in range(2):
      state, metrics = programs.train_step(state, make_batch(0), still)
      losses[seed, step] = float(
        transfer.unpack_metrics(np.asarray(metrics))['loss'].sum()
      )
  assert len(set(losses.values())) == 4
  assert losses[5, 0] == pytest.approx(on_one[3][0]['loss'].sum(), rel=1e-6)


def test_accumulated_equals_whole():
  whole = run(make_programs(1, 1, dropout=0.0), 2)
  in_parts = make_programs(2, 2, dropout=0.0, accumulate=4)
  assert_same_run(whole, run(in_parts, 2))


def test_sums_hidden_as_on_gpus_change_nothing(monkeypatch):
  """The options are the GPU compiler's: here they are parsed, no more."""
  monkeypatch.setattr(mesh_lib, 'has_replicas_on_gpus', lambda mesh: True)
  programs = make_programs.__wrapped__(8, 1)
  program = programs.lower(ROWS, TOKENS, SLOTS).as_text()
  assert_same_run(run(programs), run(make_programs(8, 1)))
  monkeypatch.undo()
  plain = make_programs(8, 1).lower(ROWS, TOKENS, SLOTS).as_text()
  barrier = 'stablehlo.optimization_barrier'
  assert program.count(barrier) == plain.count(barrier) + 1


def test_mean_divides_the_gradient_by_the_examples():
  """In parts too: by the examples of the batch, not of a part."""
  whole = run(make_programs(1, 1, dropout=0.0), 1)[3][0]
  mean = make_programs(1, 1, dropout=0.0, accumulate=2, reduction='mean')
  mean = run(mean, 1)[3][0]
  count = np.sum(make_batch(0)['weight'] > 0)
  assert mean['count'].sum() == whole['count'].sum() == count
  np.testing.assert_allclose(mean['loss'], whole['loss'], rtol=1e-6)
  np.testing.assert_allclose(
    mean['grad_norm'], whole['grad_norm'] / count, rtol=1e-5
  )


def test_compiled_ahead_is_the_same_step(monkeypatch):
  """A step waits for its own program alone."""
  programs = make_programs.__wrapped__(8, 1)
  packing = config_lib.PackingConfig(
    row_length=TOKENS, slots=SLOTS, row_buckets=(5, ROWS)
  )
  lower, gate = programs.lower, threading.Event()

  def lower_late(rows, *shape):
    if rows == 8:  # 5 rows are 8 on 8 devices.
      assert gate.wait(600)
    return lower(rows, *shape)

  monkeypatch.setattr(programs, 'lower', lower_late)
  programs.compile_ahead(packing)
  try:
    ahead = run(programs)  # With ROWS, while 8 rows are not there.
  finally:
    gate.set()
  jax.tree.map(np.testing.assert_array_equal, ahead, run(make_programs(8, 1)))
  assert sorted(programs.compiled()) == [(1, 8), (1, ROWS)]
  assert programs.compilations == 3  # The third is the state's.
  programs.train_step(
    programs.init_state(make_params(programs), 0),
    make_batch(0, rows=8),
    SCHEDULE,
  )
  assert programs.compilations == 3


def test_the_program_of_the_first_step_is_traced_first(monkeypatch):
  programs, traced = make_programs.__wrapped__(1, 1), []
  packing = config_lib.PackingConfig(
    row_length=TOKENS, slots=SLOTS, row_buckets=(5, ROWS, 2 * ROWS)
  )
  monkeypatch.setattr(
    programs,
    'lower',
    lambda rows, *_: traced.append(rows) or mock.Mock(),
  )
  programs.compile_ahead(packing, first=(1, ROWS))
  programs.compiled()
  assert traced == [ROWS, *{5, ROWS, 2 * ROWS} - {ROWS}]


def test_one_program_a_shape_serves_everything():
  """Counted by XLA's compile events as well as by our own counter."""
  programs = make_programs.__wrapped__(1, 1, dropout=0.0)
  params = make_params(programs)
  compiled = []

  def listen(event, duration, **kwargs):
    del duration, kwargs
    if event == '/jax/core/compile/backend_compile_duration':
      compiled.append(event)

  def only(task):
    def batch(seed):
      result = make_batch(seed)
      return result | {'task_id': np.full_like(result['task_id'], task)}

    return batch

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    for seed, rate, gold, decay in (
      (0, 1e-4, 0.0, 0.9), (1, 5e-5, 1.0, 1.0), (2**31, 0.0, 0.5, 0.8),
    ):  # fmt: skip
      state = programs.init_state(params, seed)
      for i, batches in enumerate((make_batch, only(0), only(1))):
        state, _ = programs.train_step(
          state, batches(i), step_lib.StepSchedule(rate, gold * i, decay)
        )
        programs.predict(programs.split_layers(state.params), batches(i))
    assert programs.compilations == len(compiled) == 4
    state, _ = programs.train_step(state, make_batch(0, rows=4), SCHEDULE)
    assert programs.compilations == len(compiled) == 5
  finally:
    jax.monitoring.clear_event_listeners()


def test_host_parameters_survive_the_donated_state():
  programs = make_programs(1, 1)
  params = make_params(programs)
  before = jax.tree.map(np.copy, params)
  state = programs.init_state(params, 0)
  first, _ = programs.train_step(state, make_batch(0), SCHEDULE)
  jax.tree.map(np.testing.assert_array_equal, params, before)
  assert state.params['pooler']['bias'].is_deleted()
  assert int(first.step) == 1


def test_the_schedule_reaches_the_update():
  """The rate doubles all updates, α halves them at each depth (n = 1)."""
  programs = make_programs(1, 1)

  def updates(rate, decay):
    schedule = step_lib.StepSchedule(rate, 0.5, decay)
    start, end, _, _ = run(programs, 1, schedule=schedule)
    return jax.tree.map(np.subtract, end, start)

  plain, scaled = updates(1e-2, 1.0), updates(2e-2, 0.5)
  for key, factor in (('heads', 2), ('pooler', 1)):
    np.testing.assert_allclose(
      scaled[key]['kernel'], factor * plain[key]['kernel'], atol=2e-7
    )
  words, scaled_words = (
    tree['encoder']['embeddings']['word']['embedding']
    for tree in (plain, scaled)
  )
  assert np.abs(words).max() > 1e-3
  np.testing.assert_allclose(scaled_words, words * 2 / 2**3, atol=2e-7)


def test_predict_needs_no_dropout_and_keeps_the_rows():
  programs = make_programs(2, 4)
  state = programs.init_state(make_params(programs), 0)
  batch = make_batch(0)
  params = programs.split_layers(state.params)
  logits = np.asarray(programs.predict(params, batch).slots)
  assert logits.shape == (ROWS, SLOTS, TASKS.num_outputs)
  flipped = {key: value[::-1] for key, value in batch.items()}
  np.testing.assert_allclose(
    programs.predict(params, flipped).slots[::-1],
    logits,
    rtol=1e-5,
    atol=1e-6,
  )


def test_a_nan_is_told_by_its_task():
  """A target of one task is broken; the other entries stay finite."""
  batch = make_batch(0)
  batch['weight'][:] = 1.0
  batch['gold'][batch['task_id'] == 1] = np.nan
  metrics = run(make_programs(1, 1), 1, lambda i: batch)[3][0]
  np.testing.assert_array_equal(np.isnan(metrics['loss']), [False, True, False])
  assert np.isnan(metrics['grad_norm'])


def test_a_bucket_that_the_parts_cannot_share():
  assert make_programs(2, 1, accumulate=4).rows_multiple == 8
  programs = make_programs(1, 1)
  config = dataclasses.replace(
    config_lib.Config(),
    train=config_lib.TrainConfig(accumulate=3),
    packing=config_lib.PackingConfig(row_buckets=(6, 8)),
  )
  with pytest.raises(errors.UserError, match=r'config\.train\.accumulate=3'):
    programs_lib.Programs(None, TASKS, config, programs.mesh)


def test_parameters_of_another_shape_are_refused():
  programs = make_programs(1, 1)
  params = make_params(programs)
  params['pooler']['bias'] = np.zeros(17, np.float32)
  with pytest.raises(ValueError, match=r'\(17,\)'):
    programs.init_state(params, 0)


def _process(data, fsdp, path):
  """One of two processes: its rows of each batch, then all of one."""
  me, preemption_signal = int(os.environ['PROCESS']), preemption.Signal()
  joining.join(os.environ['ADDRESS'], 2, me, 60, preemption_signal)
  # A mesh follows the wires: a process's rows need not be consecutive.
  devices = np.array(jax.devices()).reshape(2, -1).T.reshape(-1)
  programs = make_programs(data, fsdp, devices=tuple(devices))
  own = mesh_lib.own_rows(programs.mesh, ROWS)

  def share(seed):
    return {key: value[own] for key, value in make_batch(seed).items()}

  placed = programs.put(share(0)).values
  whole = transfer.pack(make_batch(0)).values
  for shard in placed.addressable_shards:
    np.testing.assert_array_equal(shard.data, whole[shard.index])
  state = programs.init_state(make_params(programs), 5)
  losses = []
  for i in range(3):
    state, metrics = programs.train_step(state, share(i), SCHEDULE)
    losses.append(transfer.unpack_metrics(np.asarray(metrics))['loss'])
  params = programs.split_layers(state.params)
  logits = np.asarray(programs.predict(params, make_batch(0)).slots)
  if jax.process_index() == 0:
    np.savez(path, losses=losses, logits=logits)


def test_two_processes_do_as_one(tmp_path):
  """Two processes of four CPU devices each, over gloo."""
  address = starting.free_address()
  path = tmp_path / 'result.npz'
  started = [
    subprocess.Popen(
      [sys.executable, __file__, '2', '4', str(path)],
      env=os.environ
      | {
        'PYTHONPATH': str(starting.ROOT),
        'JAX_NUM_CPU_DEVICES': '4',
        'ADDRESS': address,
        'PROCESS': str(i),
      },
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(2)
  ]
  for process in started:
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
  result = np.load(path)

  programs = make_programs(1, 1)
  state = programs.init_state(make_params(programs), 5)
  for i in range(3):
    state, metrics = programs.train_step(state, make_batch(i), SCHEDULE)
    loss = transfer.unpack_metrics(np.asarray(metrics))['loss']
    np.testing.assert_allclose(result['losses'][i], loss, rtol=1e-6)
  np.testing.assert_allclose(
    result['logits'],
    programs.predict(programs.split_layers(state.params), make_batch(0)).slots,
    rtol=0,
    atol=1e-5,
  )


if __name__ == '__main__':
  _process(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])


@pytest.mark.parametrize('devices', [1, 4])
def test_seeds_at_once_do_as_each_alone(devices):
  """Their parameters, batches and dropout differ, and their numbers of rows."""
  alone, seeds = make_programs(1, 1), range(4)
  together = make_programs(devices, 1)

  def params(seed):
    return jax.tree.map(lambda x: x + seed / 8, make_params(alone))

  def batch(seed, step):
    return make_batch(100 * seed + step, rows=16 if seed == step else 8)

  states = [together.init_state(params(seed), seed) for seed in seeds]
  state, losses = together.seeds.stack(states, len(states)), []
  for step in seeds:
    batches = together.put_seeds([batch(seed, step) for seed in seeds])
    state, metrics = together.train_step(state, batches, SCHEDULE)
    losses.append(transfer.unpack_metrics(np.asarray(metrics))['loss'])
  for seed in seeds:
    expected = alone.init_state(params(seed), seed)
    for step in seeds:
      expected, metrics = alone.train_step(
        expected, batch(seed, step), SCHEDULE
      )
      loss = transfer.unpack_metrics(np.asarray(metrics))['loss']
      np.testing.assert_allclose(losses[step][seed], loss, rtol=1e-5, atol=1e-6)
    actual = together.seeds.take(state, seed)
    assert int(actual.step) == len(seeds)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
      jax.device_get(actual.params),
      jax.device_get(expected.params),
    )


def test_seeds_that_the_devices_cannot_share_are_told():
  programs = make_programs(8, 1)
  config = dataclasses.replace(
    config_lib.Config(), train=config_lib.TrainConfig(seeds_at_once=4)
  )
  with pytest.raises(errors.UserError, match=r'seeds_at_once=4: 8 devices'):
    programs_lib.Programs(
      heads.MultiTaskModel(family.EncoderConfig(32, 16, 1, 2, 32), 3, 3),
      TASKS,
      config,
      programs.mesh,
    )
