"""Attention: values by a NumPy loop, gradients by automatic differentiation.

The kernels of GPUs and TPUs run in Pallas's interpreter.
"""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from bam_jax.modeling import attention
from bam_jax.modeling import attention_head
from bam_jax.modeling import dropout
from bam_jax.modeling import family
from bam_jax.modeling import flash_attention
from bam_jax.modeling import xla_attention

SEGMENTS = np.array([[1, 1, 2, 2, 2, 0], [3, 0, 3, 1, 0, 0]], np.int32)
DROPOUT_BITS = jax.random.bits(jax.random.key(7), (2,))


def _numpy_attend(q, k, v, segment_ids):
  """Oracle: one query at a time, in float64."""
  result = np.zeros(v.shape)
  for b, i, h in np.ndindex(*q.shape[:3]):
    if segment_ids[b, i] == 0:
      continue
    seen = segment_ids[b] == segment_ids[b, i]
    logits = k[b, seen, h] @ q[b, i, h] / np.sqrt(q.shape[-1])
    probs = np.exp(logits) / np.exp(logits).sum()
    result[b, i, h] = probs @ v[b, seen, h]
  return result


def _attend(q, k, v, segment_ids=SEGMENTS, rate=0.0):
  qkv = jnp.stack([q, k, v], axis=2)
  return attention.attend(
    qkv, jnp.zeros(qkv.shape[2:]), segment_ids, rate, DROPOUT_BITS
  )


def test_values_match_a_numpy_loop():
  q, k, v = np.random.default_rng(0).normal(size=(3, 2, 6, 2, 5))
  expected = _numpy_attend(q, k, v, SEGMENTS)
  actual = _attend(*(jnp.float32(x) for x in (q, k, v)))
  np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_softmax_is_float32_under_bfloat16():
  """Oracle: float64 on the rounded inputs; only the output is rounded.

  Probabilities near one value: with a softmax in bfloat16 the sum of 256
  terms of 1/256 would stop growing far below one.
  """
  q = jnp.zeros((1, 256, 1, 4), jnp.bfloat16)
  v = jax.random.normal(jax.random.key(0), q.shape, jnp.bfloat16) + 3
  segment_ids = jnp.ones((1, 256), jnp.int32)
  actual = _attend(q, q, v, segment_ids)
  assert actual.dtype == jnp.bfloat16
  expected = np.asarray(v, np.float64).mean(axis=1, keepdims=True)
  np.testing.assert_allclose(
    np.asarray(actual, np.float64),
    np.broadcast_to(expected, v.shape),
    rtol=2**-8,
  )


def test_logits_are_float32_under_bfloat16():
  """Two keys whose logits differ by less than a bfloat16 of their size."""
  q = jnp.full((1, 2, 1, 1), 100.0, jnp.bfloat16)
  k = jnp.bfloat16([1.0, 1.0078125]).reshape(1, 2, 1, 1)  # 100 and 100.78
  v = jnp.bfloat16([0.0, 1.0]).reshape(1, 2, 1, 1)
  actual = _attend(q, k, v, jnp.ones((1, 2), jnp.int32))
  expected = 1 / (1 + np.exp(-0.78125))
  np.testing.assert_allclose(np.float32(actual), expected, rtol=2**-8)


def test_padding_alone_is_finite_in_values_and_gradients():
  q, k, v = np.random.default_rng(1).normal(size=(3, 1, 4, 2, 3))
  segment_ids = np.zeros((1, 4), np.int32)

  def total(q, k, v):
    return (_attend(q, k, v, segment_ids) ** 2).sum()

  arrays = [jnp.float32(x) for x in (q, k, v)]
  value, gradients = jax.jit(jax.value_and_grad(total, (0, 1, 2)))(*arrays)
  assert value == 0
  for gradient in gradients:
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize('size', [1, 2, 32])
def test_scales_above_one_leave_padding_zero(size):
  q = jnp.full((1, 3, 1, size), 9.0)
  actual = _attend(q, q, q, np.array([[1, 1, 0]], np.int32))
  np.testing.assert_allclose(actual[0, :, 0], [[9] * size] * 2 + [[0] * size])


def test_a_query_that_is_no_number_is_told():
  q = jnp.ones((1, 2, 1, 4))
  actual = _attend(q.at[0, 0].set(jnp.nan), q, q, jnp.ones((1, 2), jnp.int32))
  assert np.isnan(actual[0, 0]).all()
  assert not np.isnan(actual[0, 1]).any()


@pytest.mark.parametrize('rate', [0.0, 0.4])
def test_some_queries_of_each_row(rate):
  """Oracle: all of them; with dropout its mask, as an array."""
  rng = np.random.default_rng(3)
  segments = np.concatenate([SEGMENTS, np.zeros((1, 6), np.int32)])
  qkv = rng.normal(size=(3, 6, 3, 2, 4)).astype(np.float32)
  bias = rng.normal(size=(3, 2, 4)).astype(np.float32)
  weights = rng.normal(size=(3, 2, 2, 4)).astype(np.float32)
  read = np.array([[0, 2], [3, 2], [0, 0]])
  rows = np.arange(3)[:, None]

  def from_some(qkv, bias):
    return attention.attend_from(
      *(qkv[rows, read, 0], qkv[:, :, 1:], bias),
      *((segments[rows, read], segments), rate, DROPOUT_BITS),
    )

  # Equal logits and the identity as values show which keys are kept.
  identity = np.zeros((3, 6, 3, 2, 6), np.float32)
  identity[:, :, 2] = np.eye(6)[:, None]
  probs = from_some(identity, np.zeros((3, 2, 6), np.float32))
  kept = np.moveaxis(probs, 2, 1) > 0  # [B, H, S, L]
  seen = segments[rows, read][:, :, None] == segments[:, None]
  seen &= segments[:, None] > 0
  assert (kept.sum() == 2 * seen.sum()) == (rate == 0)
  assert kept.any() and not (kept & ~seen[:, None]).any()

  def by_hand(qkv, bias):
    q, k, v = jnp.moveaxis(qkv + bias[None, None], 2, 0)
    logits = jnp.einsum('bshd,blhd->bhsl', q[rows, read], k) / 2
    logits = jnp.where(seen[:, None], logits, -1e9)
    probs = jax.nn.softmax(logits) * seen[:, None]
    probs = jnp.where(kept, probs / (1 - rate), 0)
    return jnp.einsum('bhsl,blhd->bshd', probs, v)

  for function in (from_some, by_hand):
    values, pullback = jax.vjp(function, qkv, bias)
    results = values, *pullback(weights)
    if function is from_some:
      actual = results
  assert all(np.isfinite(x).all() for x in actual)
  for x, expected in zip(actual, results, strict=True):
    np.testing.assert_allclose(x, expected, atol=2e-6)


@pytest.mark.parametrize('rate', [0.1, 0.5])
def test_dropout_zeroes_a_share_and_scales_the_rest(rate):
  """With equal logits and the identity as values, contexts are probs."""
  size = 64
  q = jnp.zeros((2, size, 1, size))
  v = jnp.broadcast_to(jnp.eye(size)[None, :, None], q.shape)
  segment_ids = jnp.ones((2, size), jnp.int32)
  probs = np.asarray(_attend(q, q, v, segment_ids, rate))
  kept = probs[probs != 0]
  np.testing.assert_allclose(kept, 1 / size / (1 - rate), rtol=1e-6)
  share = 1 - kept.size / probs.size
  # Five deviations of a binomial share of 8192 draws.
  assert abs(share - rate) < 5 * np.sqrt(rate * (1 - rate) / probs.size)


def _plain(qkv, bias, segment_ids, kept, rate, window=None):
  """Oracle: all heads at once, differentiated by JAX."""
  qkv = qkv + bias[None, None]
  q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
  mask = segment_ids[:, :, None] == segment_ids[:, None]
  mask = (mask & (segment_ids != 0)[:, :, None])[:, None]
  if window is not None:
    tokens = np.arange(qkv.shape[1])
    mask &= (abs(tokens[:, None] - tokens) <= window)[None, None]
  logits = jnp.einsum('bqhd,bkhd->bhqk', q, k) / np.sqrt(q.shape[-1])
  probs = jax.nn.softmax(jnp.where(mask, logits, -1e30))
  probs = jnp.where(mask & kept, probs / (1 - rate), 0)
  return jnp.einsum('bhqk,bkhd->bqhd', probs, v)


def _example(length=32, heads=2, size=16):
  rng = np.random.default_rng(2)
  qkv = jnp.float32(rng.normal(size=(3, length, 3, heads, size)))
  gradient = jnp.float32(rng.normal(size=(3, length, heads, size)))
  segment_ids = np.zeros((3, length), np.int32)
  segment_ids[0] = 1
  segment_ids[1, :10], segment_ids[1, 10:25] = 1, 2
  bias = jnp.float32(rng.normal(size=qkv.shape[2:]))
  return qkv, gradient, jnp.asarray(segment_ids), bias


def _jit(way, method, rate, window=None):
  """A function of arrays, segments, first row, bias and dropout_bits."""
  if way in ('_run_triton', '_run_mosaic'):
    function = functools.partial(getattr(attention, way), interpret=True)
  else:
    function = getattr(xla_attention, way)
  return jax.jit(functools.partial(function, method, rate, window=window))


@pytest.mark.parametrize(
  ('way', 'length', 'rate', 'window'),
  [
    ('apply_to_rows', 32, 0.0, None),
    ('apply_to_rows', 32, 0.3, 3),
    ('apply_to_blocks', 32, 0.0, None),
    ('apply_to_blocks', 32, 0.3, 3),
    ('_run_triton', 32, 0.0, 3),
    ('_run_triton', 128, 0.3, None),
    ('_run_mosaic', 32, 0.0, None),
    ('_run_mosaic', 32, 0.3, 3),
  ],
)
def test_each_way_matches_automatic_differentiation(
  monkeypatch, way, length, rate, window
):
  # The last block is partly padding.
  monkeypatch.setattr(xla_attention, '_QUERIES', 12)
  qkv, gradient, segment_ids, bias = _example(length)
  size, length, _, heads, _ = qkv.shape
  kept = jnp.ones((size, heads, length, length), bool)
  if rate:
    kept = dropout.keep_mask(DROPOUT_BITS, rate, kept.shape)

  @jax.jit
  def differentiate(qkv, bias):
    result, pull = jax.vjp(
      lambda qkv, bias: _plain(qkv, bias, segment_ids, kept, rate, window),
      *(qkv, bias),
    )
    return result, *pull(gradient)

  expected, of_qkv, of_bias = differentiate(qkv, bias)
  rest = segment_ids, jnp.zeros(1, jnp.uint32), bias, DROPOUT_BITS
  (actual,) = _jit(way, attention_head.forward, rate, window)((qkv,), *rest)
  np.testing.assert_allclose(actual, expected, atol=2e-6)
  backward = _jit(way, attention_head.backward, rate, window)
  actual, sums = backward((qkv, gradient), *rest)
  np.testing.assert_allclose(actual, of_qkv, atol=5e-6)
  np.testing.assert_allclose(sums.sum(axis=0), of_bias, atol=3e-5)


def test_mosaic_in_blocks_of_queries_equals_xla():
  qkv, _, segment_ids, bias = _example(512)
  arrays = (qkv,), segment_ids, jnp.zeros(1, jnp.uint32), bias, DROPOUT_BITS
  forward = attention_head.forward
  (expected,) = _jit('apply_to_rows', forward, 0.3)(*arrays)
  (actual,) = _jit('_run_mosaic', forward, 0.3)(*arrays)
  np.testing.assert_allclose(actual, expected, atol=2e-6)


@pytest.mark.parametrize('way', ['_run_triton', '_run_mosaic'])
def test_kernels_under_vmap_equal_a_loop(way):
  """Several seeds at once: arrays and dropout_bits differ, segments do too."""
  qkv, _, segment_ids, bias = _example()
  function = _jit(way, attention_head.forward, 0.3)
  dropout_bits = jnp.uint32([[1, 2], [3, 4]])
  first = jnp.uint32([5])
  arrays = jnp.stack([qkv, -2 * qkv])
  segments = jnp.stack([segment_ids, segment_ids[::-1]])
  (mapped,) = jax.jit(
    jax.vmap(lambda a, s, w: function((a,), s, first, bias, w))
  )(arrays, segments, dropout_bits)
  for i in range(2):
    (alone,) = function((arrays[i],), segments[i], first, bias, dropout_bits[i])
    np.testing.assert_allclose(mapped[i], alone, atol=1e-6)


@pytest.mark.parametrize(
  ('length', 'size', 'platforms'),
  [
    (128, 64, {'cuda', 'tpu'}),
    (48, 32, {'tpu'}),  # 48 is no power of two, which Triton needs
    (128, 8, {'tpu'}),
    (128, 96, {'cuda', 'tpu'}),  # in tiles, by padding heads to 128
    (512, 64, {'cuda', 'tpu'}),  # in tiles
    (640, 64, {'cuda'}),
    (264, 64, set()),
    (96, 64, {'tpu'}),  # 96 tokens fill no tiles of 64
    (520, 64, set()),
  ],
)
def test_which_shapes_have_a_kernel(monkeypatch, length, size, platforms):
  qkv = jax.ShapeDtypeStruct((2, length, 3, 2, size), jnp.bfloat16)
  segment_ids = jax.ShapeDtypeStruct((2, length), jnp.int32)
  called = set()
  for platform, module, name in (
    ('cuda', attention, '_run_triton'),
    ('cuda', flash_attention, 'forward'),
    ('tpu', attention, '_run_mosaic'),
  ):
    original = getattr(module, name)

    def spy(*args, platform=platform, original=original):
      called.add(platform)
      return original(*args)

    monkeypatch.setattr(module, name, spy)
  bias = jax.ShapeDtypeStruct(qkv.shape[2:], jnp.bfloat16)
  for platform in ('cuda', 'tpu', ''):
    called.clear()
    jax.eval_shape(
      functools.partial(
        attention.attend,
        rate=0.0,
        dropout_bits=DROPOUT_BITS,
        compute=family.Compute(platform=platform),
      ),
      qkv,
      bias,
      segment_ids,
    )
    assert called == platforms & {platform}


def test_rows_over_devices_do_as_one():
  """The mask goes by the row's number in the batch, wherever the row lies."""
  qkv, _, segment_ids, bias = _example()
  qkv = jnp.concatenate([qkv, qkv, qkv[:2]])
  segment_ids = jnp.concatenate([segment_ids, segment_ids, segment_ids[:2]])
  mesh = jax.make_mesh(
    (4, 2), ('data', 'fsdp'), axis_types=(jax.sharding.AxisType.Auto,) * 2
  )

  def run(mesh):
    def total(qkv, bias):
      contexts = attention.attend(
        qkv, bias, segment_ids, 0.3, DROPOUT_BITS, family.Compute(mesh=mesh)
      )
      return jnp.sum(contexts**2)

    return jax.jit(jax.value_and_grad(total, (0, 1)))(qkv, bias)

  # Sums of terms up to 100; the gradient of the keys' bias is zero but for
  # their rounding.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4),
    run(mesh),
    run(None),
  )


@pytest.mark.parametrize('window', [None, 64])
def test_exported_programs_compute_long_rows_by_blocks(window):
  """Oracle: all queries at once, whose memory is that of [L, L] arrays."""
  heads, size = 2, 8
  bias = jnp.zeros((3, heads, size))

  def attend(qkv, segment_ids):
    return attention.attend(
      qkv, bias, segment_ids, 0.0, DROPOUT_BITS, window=window
    )

  rows, length = jax.export.symbolic_shape('b, l', constraints=('l <= 4096',))
  program = jax.export.export(jax.jit(attend))(
    jax.ShapeDtypeStruct((rows, length, 3, heads, size), jnp.float32),
    jax.ShapeDtypeStruct((rows, length), jnp.int32),
  )
  length = 700
  qkv = jax.random.normal(jax.random.key(0), (1, length, 3, heads, size))
  segment_ids = jnp.where(jnp.arange(length) < length - 7, 1, 0)[None]
  (expected,) = xla_attention.apply_to_rows(
    attention_head.forward,
    *(0.0, (qkv,), segment_ids, jnp.zeros(1, jnp.uint32), bias, DROPOUT_BITS),
    window,
  )
  compiled = jax.jit(program.call).lower(qkv, segment_ids).compile()
  np.testing.assert_allclose(compiled(qkv, segment_ids), expected, atol=1e-5)
  # float32 logits alone would be more.
  most = heads * length**2 * 4
  assert compiled.memory_analysis().temp_size_in_bytes < most
