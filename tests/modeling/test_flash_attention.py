"""Attention in tiles, in Pallas's interpreter; the oracle is XLA's attention.

`test_attention.py` compares that with automatic differentiation.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bam_jax.modeling import attention
from bam_jax.modeling import attention_head
from bam_jax.modeling import family
from bam_jax.modeling import flash_attention
from bam_jax.modeling import xla_attention

DROPOUT_BITS = jax.random.bits(jax.random.key(7), (2,))


def _across_tiles(length):
  """Segments that end inside of tiles, with padding between and after them."""
  row = np.zeros(length, np.int32)
  row[:40], row[50:190], row[190:250] = 1, 2, 3
  return row


def _many(length):
  """Short segments; they ascend but for the first, which comes back."""
  row = np.arange(length) // 9 + 1
  row[-5:] = 1
  return row


PACKINGS = {
  'across': _across_tiles,
  'whole': lambda length: np.full(length, 5),
  'empty': np.zeros,
  'many': _many,
  'descending': lambda length: 9 - np.arange(length) // 70,
}


def _arrays(packings, length, heads=2, size=32, seed=0):
  rng = np.random.default_rng(seed)
  shape = (len(packings), length, 3, heads, size)
  segment_ids = np.stack([PACKINGS[name](length) for name in packings])
  return flash_attention.Arrays(
    jnp.uint32([3]),
    jnp.float32(rng.normal(size=shape)),
    jnp.int32(segment_ids),
    jnp.float32(rng.normal(size=shape[2:])),
    DROPOUT_BITS,
  )


# The emitters of a user's CPU: `conftest` asks for older ones.
_jit = functools.partial(
  jax.jit,
  static_argnums=(0, 1),
  compiler_options={'xla_cpu_use_fusion_emitters': True},
)


def _by_xla(rate, window, arrays, gradient):
  first, qkv, segment_ids, bias, dropout_bits = arrays
  rest = segment_ids, first, bias, dropout_bits, window
  (contexts,) = xla_attention.apply_to_rows(
    attention_head.forward, rate, (qkv,), *rest
  )
  of_qkv, sums = xla_attention.apply_to_rows(
    attention_head.backward, rate, (qkv, gradient), *rest
  )
  return contexts, of_qkv, sums.sum(axis=0)


def _by_tiles(rate, window, arrays, gradient):
  results = flash_attention.forward(rate, arrays, window, interpret=True)
  of_qkv, sums = flash_attention.backward(
    rate, arrays, *results, gradient, window, interpret=True
  )
  return results[0], of_qkv, sums.sum(axis=(0, 1))


def _check(rate, arrays, window=None):
  shape = arrays.qkv[:, :, 0].shape
  gradient = jax.random.normal(jax.random.key(1), shape)
  rest = rate, window, arrays, gradient
  contexts, of_qkv, sums = _jit(_by_xla)(*rest)
  actual = _jit(_by_tiles)(*rest)
  # Of contexts up to 4, either is some 3e-6 from float64 on an AVX2 machine.
  np.testing.assert_allclose(actual[0], contexts, atol=5e-6)
  np.testing.assert_allclose(actual[1], of_qkv, atol=5e-6)
  # Sums of up to 2,560 terms.
  np.testing.assert_allclose(actual[2], sums, atol=2e-6 * np.abs(sums).max())
  return actual


@pytest.mark.parametrize(('length', 'rate'), [(256, 0.0), (512, 0.3)])
def test_rows_match_xla(length, rate):
  _check(rate, _arrays(PACKINGS, length))


@pytest.mark.parametrize(('length', 'size'), [(128, 96), (192, 16)])
def test_head_sizes_and_row_lengths_match_xla(length, size):
  _check(0.3, _arrays(['whole', 'many'], length, size=size))


def test_a_window_matches_xla():
  _check(0.3, _arrays(['across', 'whole', 'many'], 256), 20)


def test_padding_has_context_and_gradient_zero():
  contexts, of_qkv, _ = _check(0.3, _arrays(['across', 'empty'], 256))
  padding = np.stack([_across_tiles(256) == 0, np.ones(256, bool)])
  np.testing.assert_array_equal(np.asarray(contexts)[padding], 0)
  np.testing.assert_array_equal(np.asarray(of_qkv)[padding], 0)


def test_ranges_hold_every_tile_with_a_shared_segment():
  """By a loop over pairs of tokens; exact where segments ascend."""
  length, tile = 512, flash_attention.TILE
  segment_ids = np.stack([make(length) for make in PACKINGS.values()])
  ranges = np.asarray(flash_attention.tile_ranges(jnp.int32(segment_ids)))
  for name, row, found in zip(PACKINGS, segment_ids, ranges):
    tiles = row.reshape(-1, tile)
    for own, (first, last) in zip(tiles, found):
      shared = [n for n, t in enumerate(tiles) if set(own) & set(t) - {0}]
      assert all(first <= n < last for n in shared), name
      if name not in ('many', 'descending'):
        assert last - first == len(shared) or (not shared and last <= first)


def test_tiles_without_a_shared_segment_are_skipped():
  """No number there is read: it may be nan, which no mask would stop."""
  arrays = _arrays(['whole'], 256)
  segment_ids = jnp.repeat(jnp.int32([[1, 2]]), 128, axis=1)
  qkv = arrays.qkv.at[:, 128:].set(jnp.nan)
  contexts, _ = jax.jit(
    functools.partial(flash_attention.forward, 0.3, interpret=True)
  )(arrays._replace(segment_ids=segment_ids, qkv=qkv))
  assert np.isfinite(contexts[:, :128]).all()
  assert np.isnan(contexts[:, 128:]).all()


def test_tiles_outside_of_the_window_are_skipped():
  """Oracle: a loop over pairs of tokens."""
  length, tile = 512, flash_attention.TILE
  row = jnp.ones((1, length), jnp.int32)
  for window in (0, 1, 63, 64, 65, 200):
    (ranges,) = flash_attention.tile_ranges(row, window)
    for own, (first, last) in enumerate(ranges):
      seen = [
        token // tile
        for token in range(length)
        if token + window >= own * tile and token - window < own * tile + tile
      ]
      assert (first, last) == (seen[0], seen[-1] + 1)


def test_bfloat16_is_about_as_near_to_float32_as_xla():
  """Gradients are less near: they are computed from rounded contexts."""
  arrays = _arrays(['across', 'many'], 256, size=64)
  gradient = jax.random.normal(jax.random.key(1), arrays.qkv[:, :, 0].shape)
  exact = _by_xla(0.3, None, arrays, gradient)
  half = arrays._replace(
    qkv=arrays.qkv.astype(jnp.bfloat16), bias=arrays.bias.astype(jnp.bfloat16)
  )
  errors = []
  for way in (_by_xla, _by_tiles):
    found = way(0.3, None, half, gradient.astype(jnp.bfloat16))
    errors.append(
      [
        np.abs(np.float32(x) - np.float32(y)).mean()
        for x, y in zip(found, exact)
      ]
    )
  assert errors[0][0] > 0
  bounds = np.array([1.1, 1.25, 1.5]) * errors[0]
  np.testing.assert_array_less(errors[1], bounds)


def test_under_vmap_equals_a_loop():
  """Several seeds at once: arrays, segments and dropout_bits differ."""
  several = [
    _arrays(['across'], 128, seed=0),
    _arrays(['many'], 128, seed=1)._replace(dropout_bits=jnp.uint32([3, 4])),
  ]
  function = jax.jit(
    functools.partial(flash_attention.forward, 0.3, interpret=True)
  )
  stacked = jax.tree.map(lambda *x: np.stack(x), *several)
  mapped, _ = jax.jit(jax.vmap(function))(stacked)
  for i, arrays in enumerate(several):
    np.testing.assert_allclose(mapped[i], function(arrays)[0], atol=1e-6)


def test_attend_goes_through_the_kernels(monkeypatch):
  """Values and gradients of the public function, on a fake GPU."""
  for name in ('forward', 'backward'):
    function = getattr(flash_attention, name)
    monkeypatch.setattr(
      flash_attention, name, functools.partial(function, interpret=True)
    )
  arrays = _arrays(['across'], 256)

  def total(qkv, bias, platform):
    contexts = attention.attend(
      qkv,
      bias,
      arrays.segment_ids,
      0.3,
      DROPOUT_BITS,
      family.Compute(platform=platform),
    )
    return jnp.sum(jnp.sin(contexts))

  gradient = jax.jit(jax.value_and_grad(total, (0, 1)), static_argnums=2)
  found, expected = (
    gradient(arrays.qkv, arrays.bias, platform) for platform in ('cuda', '')
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=3e-5),
    found,
    expected,
  )
