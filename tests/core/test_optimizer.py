"""BERT's Adam.

Oracles: a NumPy loop written after the released code's `optimization.py`,
optax.adamw and optax's schedules.
"""

import dataclasses
import doctest

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bam_jax import config as config_lib
from bam_jax.core import optimizer

LAYERS = 2

# path -> (shape, depth, decayed), by hand from the released code's tables; the
# layers are stacked, and have a depth each.
PARAMETERS = {
  'encoder/embeddings/word/embedding': ((5, 4), 0, True),
  'encoder/embeddings/norm/scale': ((4,), 0, False),
  'encoder/embeddings/norm/bias': ((4,), 0, False),
  'encoder/layers/attention/query/kernel': ((2, 4, 4), (1, 2), True),
  'encoder/layers/attention/query/bias': ((2, 4), (1, 2), False),
  'encoder/layers/attention_norm/scale': ((2, 4), (1, 2), False),
  'encoder/layers/output/kernel': ((2, 4, 4), (1, 2), True),
  'encoder/layers/output_norm/bias': ((2, 4), (1, 2), False),
  'pooler/kernel': ((4, 4), 3, True),
  'pooler/bias': ((4,), 3, False),
  'heads/kernel': ((2, 4, 3), 4, True),
  'heads/bias': ((2, 3), 4, False),
}


def _tree(flat):
  result = {}
  for path, value in flat.items():
    *parents, last = path.split('/')
    node = result
    for key in parents:
      node = node.setdefault(key, {})
    node[last] = value
  return result


def _random(seed, scale=1.0):
  rng = np.random.default_rng(seed)
  return {
    path: (scale * rng.normal(size=shape)).astype(np.float32)
    for path, (shape, _, _) in PARAMETERS.items()
  }


def _optimizer(rate, decay, **changes):
  """The optimizer with its rates in the state from the start."""
  settings = config_lib.OptimizerConfig(
    b1=0.9, b2=0.999, eps=1e-6, weight_decay=0.01, clip_norm=1.0
  )
  made = optimizer.make_optimizer(
    dataclasses.replace(settings, **changes), LAYERS
  )
  rates = {
    'learning_rate': jnp.float32(rate),
    'layer_decay': jnp.float32(decay),
  }
  return optax.GradientTransformation(
    lambda params: made.init(params)._replace(hyperparams=rates), made.update
  )


def _run(transform, params, gradients):
  state = transform.init(params)
  update = jax.jit(transform.update)
  for gradient in gradients:
    updates, state = update(gradient, state, params)
    params = optax.apply_updates(params, updates)
  return params


@pytest.mark.parametrize('decay', [1.0, 0.9, 0.5])
@pytest.mark.parametrize('scale', [1.0, 1e-3], ids=['clipped', 'unclipped'])
def test_three_steps_equal_the_released_code(decay, scale):
  rate = 0.1
  start = _random(0)
  gradients = [_random(1 + i, scale) for i in range(3)]

  expected = {path: p.astype(np.float64) for path, p in start.items()}
  m = {path: np.zeros(p.shape) for path, p in start.items()}
  v = {path: np.zeros(p.shape) for path, p in start.items()}
  for step_gradients in gradients:
    norm = np.sqrt(
      sum(np.sum(g.astype(np.float64) ** 2) for g in step_gradients.values())
    )
    assert (norm > 1.0) == (scale == 1.0)
    for path, (_, depth, decayed) in PARAMETERS.items():
      g = step_gradients[path] * (1.0 / max(norm, 1.0))
      m[path] = 0.9 * m[path] + 0.1 * g
      v[path] = 0.999 * v[path] + 0.001 * g**2
      update = m[path] / (np.sqrt(v[path]) + 1e-6)
      if decayed:
        update = update + 0.01 * expected[path]
      factor = decay ** (LAYERS + 2 - np.float64(depth))
      factor = factor.reshape(factor.shape + (1,) * (g.ndim - factor.ndim))
      expected[path] -= rate * factor * update

  result = _run(
    _optimizer(rate, decay),
    _tree(start),
    [_tree(g) for g in gradients],
  )
  for path, before in start.items():
    after = result
    for key in path.split('/'):
      after = after[key]
    change = expected[path] - before
    np.testing.assert_allclose(
      after - before,
      change,
      rtol=0,
      atol=1e-5 * np.abs(change).max() + 2e-7,
      err_msg=path,
    )


def test_with_bias_correction_it_is_adamw():
  params = _tree(_random(0))
  gradients = [_tree(_random(1 + i)) for i in range(4)]
  ours = _optimizer(0.1, 1.0, bias_correction=True, clip_norm=0.0)
  adamw = optax.adamw(
    0.1, eps=1e-6, weight_decay=0.01, mask=optimizer.decay_mask(params)
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    _run(ours, params, gradients),
    _run(adamw, params, gradients),
  )


def test_rate_and_decay_are_data():
  """One trace for several rates, and the update follows them."""
  params = _tree(_random(0))
  gradient = _tree(_random(1))
  traces = []

  @jax.jit
  def update(rate, decay):
    traces.append(rate)
    transform = _optimizer(rate, decay)
    return transform.update(gradient, transform.init(params), params)[0]

  one = update(jnp.float32(0.1), jnp.float32(0.9))
  other = update(jnp.float32(0.2), jnp.float32(0.45))
  assert len(traces) == 1
  np.testing.assert_allclose(
    other['heads']['kernel'], 2 * one['heads']['kernel'], rtol=1e-6
  )
  # The word embeddings are 4 levels below the heads: 2 / 2**4.
  np.testing.assert_allclose(
    other['encoder']['embeddings']['word']['embedding'],
    one['encoder']['embeddings']['word']['embedding'] / 8,
    rtol=1e-5,
  )


def test_depths_and_decays_of_every_path():
  params = _tree(_random(0))
  depths = jax.tree.map(np.asarray, optimizer.layer_depths(params, LAYERS))
  expected = {path: np.asarray(p[1]) for path, p in PARAMETERS.items()}
  jax.tree.map(np.testing.assert_array_equal, depths, _tree(expected))
  expected = {path: decayed for path, (_, _, decayed) in PARAMETERS.items()}
  assert optimizer.decay_mask(params) == _tree(expected)


@pytest.mark.parametrize('table', ['depths', 'decay'])
def test_a_parameter_without_a_row_raises(table):
  params = {'adapter': {'gate': np.zeros(2)}}
  with pytest.raises(ValueError, match='adapter/gate'):
    if table == 'depths':
      optimizer.layer_depths(params, LAYERS)
    else:
      optimizer.decay_mask(params)


@pytest.mark.parametrize('total', [10, 37, 100])
@pytest.mark.parametrize('share', [0.0, 0.1, 0.25])
def test_warmup_linear_equals_the_schedule_of_optax(total, share):
  warmup = int(total * share)
  schedule = optax.join_schedules(
    [
      optax.linear_schedule(0.0, 2e-5, warmup),
      optax.linear_schedule(2e-5, 0.0, total - warmup),
    ],
    [warmup],
  )
  for step in range(total + 1):
    ours = optimizer.learning_rate(step, total, 2e-5, share, 'warmup_linear')
    np.testing.assert_allclose(ours, schedule(step), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize('share', [0.0, 0.1, 0.25])
def test_bert_schedule_equals_the_released_code(share):
  """polynomial_decay of power 1 without cycling, then the warm-up's mask."""
  total, peak = 40, 1e-4
  decay = optax.polynomial_schedule(peak, 0.0, 1, total)
  warmup = int(total * share)
  for step in range(total + 3):
    expected = float(decay(step))
    if warmup:
      is_warmup = float(step < warmup)
      expected = (1 - is_warmup) * expected + is_warmup * peak * step / warmup
    ours = optimizer.learning_rate(step, total, peak, share, 'bert')
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-12)


def test_the_rate_jumps_where_the_warm_up_of_bert_ends():
  rates = [
    optimizer.learning_rate(s, 100, 1.0, 0.1, 'bert') for s in (0, 9, 10)
  ]
  assert rates == [0.0, 0.9, 0.9]
  assert optimizer.learning_rate(10, 100, 1.0, 0.1, 'warmup_linear') == 1.0


def test_unknown_schedule_raises():
  with pytest.raises(ValueError, match='sawtooth'):
    optimizer.learning_rate(0, 10, 1.0, 0.0, 'sawtooth')


def test_examples_in_docstrings():
  result = doctest.testmod(optimizer)
  assert result.attempted > 0
  assert result.failed == 0
