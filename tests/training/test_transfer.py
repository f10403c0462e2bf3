"""A batch there and back as one array: the same bits."""

import jax
import numpy as np

from bam_jax.training import transfer


def test_a_batch_comes_back_bit_by_bit():
  rng = np.random.default_rng(0)
  batch = {
    'input_ids': rng.integers(-(2**31), 2**31, (4, 6), np.int32),
    'gold': rng.normal(size=(4, 2, 3)).astype(np.float32),
    'weight': np.float32([[0.0, -0.0], [1e-45, 3e38], [1.0, 0.1], [2, 3]]),
  }
  actual = jax.jit(transfer.unpack)(transfer.pack(batch))
  assert actual.keys() == batch.keys()
  for name, value in batch.items():
    assert actual[name].dtype == value.dtype
    np.testing.assert_array_equal(
      np.asarray(actual[name]).view(np.int32), value.view(np.int32)
    )


def test_batches_of_one_width_and_other_shapes_are_told_apart():
  """Else one program would be taken for the other's batch."""
  one = transfer.pack(
    {'a': np.zeros((1, 2), np.int32), 'b': np.zeros((1, 4), np.int32)}
  )
  two = transfer.pack(
    {'a': np.zeros((1, 4), np.int32), 'b': np.zeros((1, 2), np.int32)}
  )
  assert one.values.shape == two.values.shape
  assert jax.tree.structure(one) != jax.tree.structure(two)


def test_stacked_batches_are_filled_up_with_padding():
  one, two = np.full((2, 3), 7, np.int32), np.full((4, 3), 8, np.int32)
  stacked = transfer.stack(
    [transfer.pack({'a': one}), transfer.pack({'a': two})]
  )
  actual = jax.vmap(transfer.unpack)(stacked)['a']
  np.testing.assert_array_equal(actual[0, :2], one)
  np.testing.assert_array_equal(actual[0, 2:], 0)
  np.testing.assert_array_equal(actual[1], two)
