"""Heads against a NumPy loop, and packed rows against single ones."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bam_jax.modeling import families
from bam_jax.modeling import family
from bam_jax.modeling import heads
from tests.modeling import models

CONFIG = family.EncoderConfig(
  vocab_size=30,
  hidden_size=16,
  num_layers=1,
  num_heads=2,
  intermediate_size=32,
  max_positions=16,
)
LENGTHS = (5, 3, 9, 2, 7, 4, 12, 3)
MODEL = heads.MultiTaskModel(CONFIG, num_tasks=3, num_outputs=4)
# 'apart': mean pooling, and two of three heads are of bi-encoders.
POOLINGS = 'cls', 'mean', 'apart'
_BI_ENCODERS = 0, 2
_TOKEN_INPUTS = 'input_ids', 'token_type_ids', 'positions', 'segment_ids'


def _examples(seed: int) -> list[dict[str, np.ndarray]]:
  rng = np.random.default_rng(seed)
  return [
    {
      'input_ids': rng.integers(0, 30, length),
      'token_type_ids': np.sort(rng.integers(0, 2, length)),
      'task_id': rng.integers(0, 3),
    }
    for length in LENGTHS
  ]


def _lay_out(examples, places, rows: int, length: int, slots: int):
  """A batch with example n at places[n] = (row, slot, first token)."""
  batch = {key: np.zeros((rows, length), np.int32) for key in _TOKEN_INPUTS}
  batch |= {
    key: np.zeros((rows, slots), np.int32) for key in ('cls_index', 'task_id')
  }
  for example, (row, slot, start) in zip(examples, places, strict=True):
    size = len(example['input_ids'])
    tokens = slice(start, start + size)
    batch['input_ids'][row, tokens] = example['input_ids']
    batch['token_type_ids'][row, tokens] = example['token_type_ids']
    batch['positions'][row, tokens] = np.arange(size)
    batch['segment_ids'][row, tokens] = slot + 1
    batch['cls_index'][row, slot] = start
    batch['task_id'][row, slot] = example['task_id']
  return batch


def _pack(seed: int):
  """Random packing: random order, gaps of padding, and an empty row."""
  rng = np.random.default_rng(seed)
  used, slots, places = [0] * 5, [0] * 5, {}
  for n in rng.permutation(len(LENGTHS)):
    fits = [r for r in range(5) if used[r] + LENGTHS[n] + 1 <= 16]
    row = rng.choice(fits)
    start = used[row] + rng.integers(0, 2)
    places[n] = (row, slots[row], start)
    used[row], slots[row] = start + LENGTHS[n], slots[row] + 1
  return [places[n] for n in range(len(LENGTHS))]


def _model(pooling: str) -> heads.MultiTaskModel:
  if pooling == 'apart':
    return _model('mean').clone(bi_encoder_heads=_BI_ENCODERS)
  return MODEL.clone(config=dataclasses.replace(CONFIG, pooling=pooling))


@functools.cache
def _params(pooling: str = 'cls'):
  batch = _lay_out(_examples(0), _pack(0), 6, 16, 8)
  init = functools.partial(_model(pooling).init, deterministic=True)
  params = jax.jit(init)(jax.random.key(0), batch)['params']
  # Larger than BERT's first weights, so that every path matters.
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: np.asarray(x) + np.float32(0.2 * rng.normal(size=x.shape)),
    params,
  )


@functools.partial(jax.jit, static_argnums=0)
def _gradient(model, params, batch, places, weights):
  """Gradient of a weighted sum of logits, and the logits [N, C]."""

  def total(params):
    logits = model.apply({'params': params}, batch, True).slots
    logits = logits[places[:, 0], places[:, 1]]
    return (logits * weights).sum(), logits

  return jax.grad(total, has_aux=True)(params)


@pytest.mark.parametrize('pooling', POOLINGS)
@pytest.mark.parametrize('seed', range(3))
def test_packing_changes_neither_logits_nor_gradients(seed, pooling):
  """Oracle: one example a row, as BERT was always run."""
  examples, packed = _examples(seed), _pack(seed)
  alone = [(n, 0, 0) for n in range(len(LENGTHS))]
  weights = np.random.default_rng(seed).normal(size=(len(LENGTHS), 4))
  results = []
  for places, shape in ((packed, (6, 16, 8)), (alone, (8, 12, 1))):
    batch = _lay_out(examples, places, *shape)
    results.append(
      _gradient(
        _model(pooling),
        _params(pooling),
        batch,
        np.array(places),
        jnp.float32(weights),
      )
    )
  (actual_grad, actual), (expected_grad, expected) = results
  np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)
  for (path, got), want in zip(
    jax.tree.leaves_with_path(actual_grad),
    jax.tree.leaves(expected_grad),
    strict=True,
  ):
    name = jax.tree_util.keystr(path)
    is_key_bias = "['key']['bias']" in name
    limit = 1e-6 if is_key_bias else 1e-5 * np.abs(want).max()
    np.testing.assert_allclose(got, want, rtol=0, atol=limit, err_msg=name)


def test_each_segment_gets_its_own_tasks_head():
  """Oracle: a NumPy loop over segments, in float64."""
  rng = np.random.default_rng(0)
  pooled = rng.normal(size=(3, 4, 8)).astype(np.float32)
  task_id = rng.integers(0, 5, (3, 4))
  params = {
    'kernel': rng.normal(size=(5, 8, 2)).astype(np.float32),
    'bias': rng.normal(size=(5, 2)).astype(np.float32),
  }
  actual = (
    heads.TaskHeads(5, 2).apply({'params': params}, pooled, task_id).slots
  )
  assert actual.shape == (3, 4, 2)
  for b, s in np.ndindex(3, 4):
    task = task_id[b, s]
    expected = pooled[b, s].astype(np.float64) @ params['kernel'][task]
    np.testing.assert_allclose(
      actual[b, s], expected + params['bias'][task], rtol=0, atol=1e-5
    )


def test_each_token_gets_the_head_of_its_segment():
  """Oracle: a NumPy loop over tokens, in float64; heads 1 and 3 of tokens."""
  rng = np.random.default_rng(0)
  task_id = np.array([[1, 3, 0], [3, 3, 1]])
  segment_ids = np.array([[1, 1, 2, 2, 3, 0, 0], [3, 3, 3, 2, 1, 1, 0]])
  pooled = rng.normal(size=(2, 3, 8)).astype(np.float32)
  tokens = rng.normal(size=(2, 7, 8)).astype(np.float32)
  params = {
    'kernel': rng.normal(size=(4, 8, 5)).astype(np.float32),
    'bias': rng.normal(size=(4, 5)).astype(np.float32),
  }
  module = heads.TaskHeads(4, 5, token_heads=(1, 3), token_outputs=2)
  actual = module.apply(
    {'params': params}, pooled, task_id, tokens, segment_ids
  )
  assert actual.tokens.shape == (2, 7, 2)
  for b, t in np.ndindex(2, 7):
    task = task_id[b, segment_ids[b, t] - 1]
    expected = np.zeros(2)
    if segment_ids[b, t] and task in (1, 3):
      expected = tokens[b, t].astype(np.float64) @ params['kernel'][task, :, :2]
      expected += params['bias'][task, :2]
    np.testing.assert_allclose(actual.tokens[b, t], expected, atol=1e-5)


def test_a_head_learns_from_its_own_segments_alone():
  pooled = jnp.ones((1, 2, 3))
  model = heads.TaskHeads(3, 2)
  task_id = jnp.array([[0, 2]])
  params = model.init(jax.random.key(0), pooled, task_id)

  def total(params):
    return model.apply(params, pooled, task_id).slots.sum()

  gradient = jax.grad(total)(params)['params']
  np.testing.assert_array_equal(gradient['kernel'][1], 0)
  np.testing.assert_array_equal(gradient['kernel'][::2], 1)
  np.testing.assert_array_equal(gradient['bias'][:, 0], [1, 0, 1])


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_averages_of_segments(dtype):
  """Oracle: a NumPy loop in float64, also for the gradient."""
  rng = np.random.default_rng(0)
  # An empty slot, padding between segments, and a row of padding.
  segment_ids = np.array(
    [[1, 1, 1, 0, 3, 3, 0], [2, 2, 0, 0, 1, 1, 1], [0] * 7]
  )
  hidden = jnp.asarray(rng.normal(size=(3, 7, 5)), dtype)
  weights = rng.normal(size=(3, 3, 5)).astype(np.float32)
  actual, pullback = jax.vjp(
    lambda x: heads.average_segments(x, segment_ids, 3), hidden
  )
  (gradient,) = pullback(jnp.asarray(weights))
  assert actual.dtype == jnp.float32
  expected, expected_gradient = np.zeros((3, 3, 5)), np.zeros((3, 7, 5))
  for b, s in np.ndindex(3, 3):
    own = segment_ids[b] == s + 1
    if own.any():
      expected[b, s] = np.asarray(hidden, np.float64)[b, own].mean(axis=0)
      expected_gradient[b, own] = weights[b, s] / own.sum()
  np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)
  np.testing.assert_allclose(
    np.asarray(gradient, np.float64),
    expected_gradient,
    rtol=float(jnp.finfo(dtype).eps),
    atol=1e-7,
  )


@pytest.mark.parametrize('pooling', POOLINGS)
def test_logits_are_float32_and_finite_where_nothing_is(pooling):
  """Empty slots and a row of padding, computed in bfloat16."""
  batch = _lay_out(_examples(0), _pack(0), 6, 16, 8)
  model = _model(pooling).clone(compute=family.Compute(jnp.bfloat16))
  logits = models.apply(model, _params(pooling), batch).slots
  assert logits.shape == (6, 8, 4)
  assert logits.dtype == jnp.float32
  assert np.isfinite(logits).all()


def test_head_dropout_acts_on_the_pooled_vector():
  """The encoder's own rates are zero, so nothing else can differ."""
  batch = _lay_out(_examples(0), _pack(0), 6, 16, 8)
  config = dataclasses.replace(
    CONFIG,
    dropout_embedding=0.0,
    dropout_attention=0.0,
    dropout_hidden=0.0,
    dropout_head=0.5,
  )
  apply = jax.jit(MODEL.clone(config=config).apply, static_argnums=2)
  plain, noisy = (
    apply({'params': _params()}, batch, deterministic, rngs=rngs).slots
    for deterministic, rngs in (
      (True, None),
      (False, {'dropout': jax.random.key(0)}),
    )
  )
  assert np.abs(noisy - plain).max() > 0.1


def test_mean_pooling_goes_from_hidden_states_to_heads():
  """Oracle: the encoder alone, then the mean and the head in NumPy."""
  examples, places = _examples(0), _pack(0)
  batch = _lay_out(examples, places, 6, 16, 8)
  model, params = _model('mean'), _params('mean')
  assert sorted(params) == ['encoder', 'heads']
  actual = models.apply(model, params, batch).slots
  encoder = families.FAMILIES[CONFIG.family].encoder(CONFIG, family.Compute())
  inputs = (batch[x] for x in _TOKEN_INPUTS)
  hidden = models.apply(encoder, params['encoder'], *inputs)
  for example, (row, slot, start) in zip(examples, places, strict=True):
    own = hidden[row, start : start + len(example['input_ids'])]
    kernel, bias = (
      params['heads'][x][example['task_id']] for x in ('kernel', 'bias')
    )
    expected = np.asarray(own, np.float64).mean(axis=0) @ kernel + bias
    np.testing.assert_allclose(actual[row, slot], expected, atol=1e-5)


def test_a_bi_encoder_reads_each_text_as_if_it_were_alone():
  """Oracle: the encoder on one text a row; normalised, compared in NumPy."""
  examples, places = _examples(1), _pack(1)
  batch = _lay_out(examples, places, 6, 16, 8)
  model, params = _model('apart'), _params('apart')
  actual = models.apply(model, params, batch).slots
  encoder = families.FAMILIES[CONFIG.family].encoder(CONFIG, family.Compute())

  def unit(ids: np.ndarray) -> np.ndarray:
    (row, zeros, places), real = np.zeros((3, 1, 16), np.int32), len(ids)
    row[0, :real], places[0, :real] = ids, np.arange(real)
    segments = np.int32(np.arange(16) < real)[None]
    hidden = models.apply(
      encoder, params['encoder'], row, zeros, places, segments
    )
    mean = np.asarray(hidden[0, :real], np.float64).mean(axis=0)
    return mean / np.sqrt(mean @ mean)

  checked = 0
  for example, (row, slot, _) in zip(examples, places, strict=True):
    task, second = example['task_id'], example['token_type_ids'] > 0
    if task not in _BI_ENCODERS or second.all() or not second.any():
      continue
    u, v = (unit(example['input_ids'][own]) for own in (~second, second))
    table = params['heads']
    expected = u @ table['kernel'][task] + table['bias'][task]
    expected += (
      np.concatenate([v, abs(u - v), u * v])
      @ table['pair_kernel'][_BI_ENCODERS.index(task)]
    )
    np.testing.assert_allclose(actual[row, slot], expected, atol=1e-5)
    checked += 1
  assert checked >= 3


def test_parameter_tree():
  params = _params()
  assert sorted(params) == ['encoder', 'heads', 'pooler']
  shapes = jax.tree.map(jnp.shape, dict(params['heads']))
  assert shapes == {'kernel': (3, 16, 4), 'bias': (3, 4)}
  assert jnp.shape(params['pooler']['kernel']) == (16, 16)
  params = _params('apart')
  assert sorted(params) == ['encoder', 'heads']
  shapes = jax.tree.map(jnp.shape, dict(params['heads']))
  assert shapes == {
    'kernel': (3, 16, 4), 'bias': (3, 4), 'pair_kernel': (2, 48, 4)
  }  # fmt: skip
