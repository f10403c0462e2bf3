"""Examples into rows."""

import itertools

import numpy as np
import pytest

from bam_jax import errors
from bam_jax.core import packing


def lengths_like_glue(count, seed):
  draws = np.random.default_rng(seed).lognormal(np.log(29), 0.55, count)
  return np.clip(np.round(draws), 4, 128).astype(np.int64)


def first_fit_decreasing(lengths, row_length, slots):
  """The textbook: every row is tried, in order, for every example."""
  rows, places = [], [None] * len(lengths)
  for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
    number = 0
    while number < len(rows) and (
      len(rows[number]) == slots or sum(rows[number]) + lengths[i] > row_length
    ):
      number += 1
    if number == len(rows):
      rows.append([])
    places[i] = (number, len(rows[number]), sum(rows[number]))
    rows[number].append(lengths[i])
  return places, len(rows)


def places(packed):
  return list(zip(*(array.tolist() for array in packed[:3])))


@pytest.mark.parametrize('slots', [1, 2, 4, 16])
@pytest.mark.parametrize('count', [1, 2, 32, 128, 700])
def test_packing_equals_the_textbook(count, slots):
  """Oracle: first_fit_decreasing above."""
  for seed in range(4):
    lengths = lengths_like_glue(count, seed)
    packed = packing.pack(lengths, 128, slots)
    want, num_rows = first_fit_decreasing(lengths.tolist(), 128, slots)
    assert places(packed) == want
    assert packed.num_rows == num_rows
    assert all(array.dtype == np.int64 for array in packed[:3])


def test_packing_by_hand():
  """7 3 | 6 4 | 4 2 2 1 | 1: row 2 has room for the last, but no slot."""
  packed = packing.pack(np.array([2, 4, 1, 6, 7, 4, 2, 3, 1]), 10, 4)
  assert places(packed) == [
      (2, 1, 4), (1, 1, 6), (2, 3, 8), (1, 0, 0), (0, 0, 0),
      (2, 0, 0), (2, 2, 6), (0, 1, 7), (3, 0, 0),
  ]  # fmt: skip
  assert packed.num_rows == 4


@pytest.mark.parametrize('slots', [3, 16])
def test_no_row_overflows_and_no_tokens_overlap(slots):
  lengths = lengths_like_glue(500, 1)
  packed = packing.pack(lengths, 128, slots)
  used = np.zeros((packed.num_rows, 128), int)
  for row, start, length in zip(packed.row, packed.start, lengths):
    assert start + length <= 128
    used[row, start : start + length] += 1
  assert used.max() == 1 and used.sum() == lengths.sum()
  assert used[:, 0].min() == 1  # no empty row
  assert packed.slot.max() < slots
  cells = set(zip(packed.row.tolist(), packed.slot.tolist()))
  assert len(cells) == len(lengths)


def test_128_examples_of_glue_fill_30_to_40_rows():
  for seed in range(20):
    lengths = lengths_like_glue(128, seed)
    num_rows = packing.pack(lengths, 128, 16).num_rows
    assert num_rows <= -(-lengths.sum() // 128) + 1
    assert 28 <= num_rows <= 42


def test_an_example_longer_than_a_row_is_an_error():
  with pytest.raises(errors.UserError, match=r'row_length=128: .* 129 tokens'):
    packing.pack(np.array([5, 129, 7]), 128, 16)


def test_no_examples_make_no_rows():
  packed = packing.pack(np.empty(0, np.int64), 128, 16)
  assert packed.num_rows == 0 and len(packed.row) == 0


@pytest.mark.parametrize(
  ('num_rows', 'buckets', 'multiple', 'want'),
  [
    (1, (4, 8), 1, 4),
    (4, (4, 8), 1, 4),
    (5, (4, 8), 1, 8),
    (5, (4, 6, 8), 4, 8),
    (9, (4, 8), 1, 16),
    (17, (4, 8), 1, 24),
    (33, (32, 36, 40), 8, 40),
    (6, (1,), 1, 6),
    (6, (1,), 4, 8),
  ],
)
def test_bucket(num_rows, buckets, multiple, want):
  assert packing.bucket(num_rows, buckets, multiple) == want


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('most', [1, 2, 3])
def test_chosen_buckets_waste_least(seed, most):
  """Oracle: all sets of buckets tried; the numbers are multiples of 4."""
  rng = np.random.default_rng(seed)
  counts = 4 * np.sort(rng.choice(np.arange(1, 15), 6, replace=False))
  steps = dict(zip(counts.tolist(), rng.uniform(1, 9, 6).tolist()))

  def computed(buckets):
    return sum(
      weight * min(size for size in buckets if size >= count)
      for count, weight in steps.items()
    )

  last = int(counts[-1]) + 4
  expected = min(
    computed((*lower, last))
    for lower in itertools.combinations(counts.tolist(), most - 1)
  )
  chosen = packing.choose_buckets(steps, last - 3, most, least_saving=0.0)
  assert chosen[-1] == last
  np.testing.assert_allclose(computed(chosen), expected)


def test_a_bucket_that_saves_little_is_not_chosen():
  # 8 rows instead of 40 once in 104 steps is under 1% of the rows.
  assert packing.choose_buckets({40: 100.0, 39: 3.0, 8: 1.0}, 42) == (40, 44)
  assert packing.choose_buckets({40: 100.0, 8: 100.0}, 42) == (8, 40, 44)


@pytest.mark.parametrize(
  ('multiple', 'chosen'), [(1, (2, 5)), (2, (2, 6)), (4, (4, 8))]
)
def test_buckets_are_multiples(multiple, chosen):
  steps = {2: 50.0, 5: 50.0}
  assert packing.choose_buckets(steps, 5, multiple=multiple) == chosen


def test_the_fullest_step_is_foreseen():
  """Oracle: what 64 of 5,000 steps say of the fullest, over 200 trials."""
  rng = np.random.default_rng(0)
  rows = rng.gamma(40, 0.5, (200, 5000)).round().astype(int)
  foreseen = [packing.most_rows(trial[:64].tolist(), 5000) for trial in rows]
  assert np.mean(foreseen >= rows.max(axis=1)) > 0.9
  assert np.mean(foreseen - rows.max(axis=1)) < 2 * rows.std()
  assert packing.most_rows([7, 7], 1000) == 7
  assert packing.most_rows([8, 20], 1) == 20
