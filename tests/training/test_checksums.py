"""Checksums of arrays; the oracle is a loop over Python's integers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bam_jax.training import checksums


def _oracle(array: np.ndarray) -> int:
  """MurmurHash3's finaliser over bits and place, summed modulo 2^32."""
  unsigned = np.ascontiguousarray(array).view(f'u{array.dtype.itemsize}')
  total = 0
  for place, bits in enumerate(unsigned.ravel().tolist()):
    x = (bits + place * 0x9E3779B1) % 2**32
    x = (x ^ x >> 16) * 0x85EBCA6B % 2**32
    x = (x ^ x >> 13) * 0xC2B2AE35 % 2**32
    total += x ^ x >> 16
  return total % 2**32


def _of(array: np.ndarray) -> int:
  return checksums.checksums(jnp.asarray(array))['']


@pytest.mark.parametrize(
  'dtype', ['float32', 'bfloat16', 'int32', 'uint32', 'int8']
)
@pytest.mark.parametrize('shape', [(), (7,), (3, 5), (2, 3, 4)])
def test_a_checksum_is_that_of_the_loop(dtype, shape):
  values = np.random.default_rng(0).normal(0, 100, shape)
  array = np.asarray(np.abs(values), jnp.dtype(dtype))
  assert _of(array) == _oracle(array)


def test_numbers_that_compare_equal_but_are_not_count():
  plus, minus = np.zeros(3, np.float32), -np.zeros(3, np.float32)
  assert _of(plus) != _of(minus)
  nan = np.array([np.nan], np.float32)
  assert _of(nan) == _of(nan)


def test_every_flipped_bit_and_every_two_signs_change_it():
  array = np.random.default_rng(1).normal(size=8).astype(np.float32)
  seen = {_of(array)}
  bits = array.view(np.uint32)
  for place in range(8):
    for bit in range(32):
      bits[place] ^= np.uint32(1 << bit)
      seen.add(_of(array))
      bits[place] ^= np.uint32(1 << bit)
  for one in range(8):
    for two in range(one):
      array[[one, two]] *= -1
      seen.add(_of(array))
      array[[one, two]] *= -1
  assert len(seen) == 1 + 8 * 32 + 8 * 7 // 2


def test_an_order_counts():
  array = np.arange(6, dtype=np.float32)
  assert _of(array) != _of(array[::-1])


def test_names_and_shardings():
  mesh = jax.make_mesh(
    (2, 4), ('a', 'b'), axis_types=(jax.sharding.AxisType.Auto,) * 2
  )
  array = np.random.default_rng(2).normal(size=(8, 12)).astype(np.float32)
  for spec in (('a', 'b'), ('b', None), (None, 'a'), (None, None)):
    sharding = jax.NamedSharding(mesh, jax.P(*spec))
    tree = {'x': {'y': jax.device_put(array, sharding)}, 'z': jnp.zeros(2)}
    assert checksums.checksums(tree) == {
      'x/y': _oracle(array),
      'z': _oracle(np.zeros(2, np.float32)),
    }
