"""Dropout masks: the right share, no pattern, a function of key and place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from bam_jax.modeling import dropout


def _bits(seed):
  return jax.random.bits(jax.random.key(seed), (2,))


def _python_mask(dropout_bits, rate, shape):
  """MurmurHash3's finaliser over the flat index, with Python integers."""
  first, second = (int(word) for word in dropout_bits)

  def mix(x):
    x = (x ^ (x >> 16)) * 0x85EBCA6B % 2**32
    x = (x ^ (x >> 13)) * 0xC2B2AE35 % 2**32
    return x ^ (x >> 16)

  hashed = [
    mix((i * 0x9E3779B1 + first) % 2**32) * (second | 1) % 2**32
    for i in range(int(np.prod(shape)))
  ]
  return (np.array(hashed) >= round(rate * 2**32)).reshape(shape)


def test_mask_equals_a_python_loop():
  dropout_bits = _bits(3)
  np.testing.assert_array_equal(
    dropout.keep_mask(dropout_bits, 0.3, (3, 5, 7)),
    _python_mask(dropout_bits, 0.3, (3, 5, 7)),
  )


def test_first_rows_of_a_larger_batch_have_the_same_mask():
  small = dropout.keep_mask(_bits(0), 0.1, (4, 8, 16))
  large = dropout.keep_mask(_bits(0), 0.1, (9, 8, 16))
  np.testing.assert_array_equal(small, large[:4])


def test_vmap_over_bits_equals_a_loop():
  dropout_bits = jax.random.bits(jax.random.key(1), (3, 2))
  mapped = jax.vmap(lambda pair: dropout.keep_mask(pair, 0.2, (5, 11)))(
    dropout_bits
  )
  for pair, mask in zip(dropout_bits, mapped):
    np.testing.assert_array_equal(mask, dropout.keep_mask(pair, 0.2, (5, 11)))


@pytest.mark.parametrize('rate', [0.1, 0.5])
def test_share_and_independence(rate):
  # Oracle: the binomial distribution, by site, by row, between neighbours
  # between two sites, and between two that share their first word; each bound
  # is passed by chance all but once in 1e6.
  shape = (64, 128, 128)
  one = np.asarray(dropout.keep_mask(_bits(5), rate, shape))
  two = np.asarray(dropout.keep_mask(_bits(6), rate, shape))

  def check(kept, probability):
    deviation = np.sqrt(probability * (1 - probability) / kept.size)
    assert abs(kept.mean() - probability) < 4.9 * deviation

  keep = 1 - rate
  check(one, keep)
  check(one & two, keep**2)
  shared = jnp.stack([_bits(5)[0], _bits(6)[1]])
  check(one & np.asarray(dropout.keep_mask(shared, rate, shape)), keep**2)
  for axis in range(3):
    check(one & np.roll(one, 1, axis), keep**2)
  # Counts a row of 128 are binomial: a chi-square test over all rows.
  counts = one.sum(axis=-1).ravel()
  expected = scipy.stats.binom(128, keep)
  edges = expected.ppf([0, 0.1, 0.3, 0.5, 0.7, 0.9, 1])
  shares = np.diff(expected.cdf(edges))
  observed = np.histogram(counts, np.r_[-1, edges[1:]] + 0.5)[0]
  statistic = scipy.stats.chisquare(
    observed, shares / shares.sum() * counts.size
  )
  assert statistic.pvalue > 1e-6


def test_dropout_keeps_the_mean_and_the_type():
  x = jnp.ones((256, 256), jnp.bfloat16)
  y = dropout.dropout(x, 0.25, _bits(0))
  assert y.dtype == x.dtype
  assert set(np.unique(np.asarray(y, np.float32))) == {0.0, np.float32(
    jnp.bfloat16(4 / 3)
  )}  # fmt: skip
