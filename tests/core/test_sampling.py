"""Which examples make a step."""

import collections

import numpy as np
import pytest

from bam_jax.core import sampling

SIZES = (8551, 392702, 7336, 108436, 363869, 67349, 11498, 2490)


def run_through(sampler, num_steps):
  """[num_steps * N] tasks and rows, in order."""
  steps = [sampler(step) for step in range(num_steps)]
  return tuple(np.concatenate(arrays) for arrays in zip(*steps))


def sampled(seed=5, batch_size=32):
  return sampling.ProportionalSampler(
    (7, 20, 300), (14, 20, 300), 0.75, batch_size, seed
  )


def copies(seed=5, batch_size=32):
  return sampling.CopiesSampler((14, 20, 300), 0.75, batch_size, seed)


both = pytest.mark.parametrize('make', [sampled, copies])


@pytest.mark.parametrize(
  ('epochs', 'rows', 'batch', 'want'),
  [(3.0, 100, 32, 9), (0.5, 64, 32, 1), (1.0, 5, 32, 1), (6.0, 64, 128, 3)],
)
def test_number_of_steps_is_rounded_down_but_at_least_one(
  epochs, rows, batch, want
):
  sampler = sampling.ProportionalSampler([rows], [rows], 0.75, batch, 0)
  assert sampler.num_steps(epochs) == want


def test_steps_of_the_released_code_on_all_of_glue():
  """Oracle: by hand, 1,080,322 copies are 8,441 batches of 128, times 6.

  The largest set over each other, to the power 1/4, is rounded to
  3, 1, 3, 1, 1, 2, 2 and 4 copies.
  """
  copied = (
    3 * 8551 + 392702 + 3 * 7336 + 108436 + 363869 + 2 * 67349 + 2 * 11498
    + 4 * 2490
  )  # fmt: skip
  assert copied == 1_080_322
  sampler = sampling.CopiesSampler(SIZES, 0.75, 128, 0)
  assert (sampler.multiples * SIZES).sum() == copied
  assert sampler.num_steps(6.0) == 50_646
  sampler = sampling.ProportionalSampler(SIZES, SIZES, 0.75, 128, 0)
  assert sampler.num_steps(6.0) == 45_104


@pytest.mark.parametrize(
  ('epochs', 'copied', 'want'), [(3.0, 65, 9), (0.5, 65, 1), (0.1, 5, 1)]
)
def test_a_partial_batch_of_copies_is_a_step(epochs, copied, want):
  sampler = sampling.CopiesSampler([copied], 0.75, 32, 0)
  assert sampler.num_steps(epochs) == want


def test_steps_that_pass_over_each_task_by_hand():
  """Shares 8/35 and 27/35 of 35 examples a step: 8 of 16 and 27 of 81 rows."""

  def steps(passes, sizes, rows, batch_size):
    sampler = sampling.ProportionalSampler(sizes, rows, 0.75, batch_size, 0)
    return sampling.steps_for_passes(passes, rows, sampler.shares, batch_size)

  for passes, want in ((1.0, 3), (2.0, 6), (1.1, 4), (0.0, 0)):
    assert steps(passes, (16, 81), (16, 81), 35) == want
  # The first task's swapped copies make it the one that is seen least.
  assert steps(1.0, (16, 81), (32, 81), 35) == 4
  assert steps(1.0, (30, 30, 30), (30, 30, 30), 9) == 10


def test_every_row_is_seen_in_the_steps_of_a_few_passes():
  """With 2 expected passes, draws that err by half a pass leave no row out."""
  sizes = (50, 300)
  sampler = sampling.ProportionalSampler(sizes, sizes, 0.75, 16, 0)
  steps = sampling.steps_for_passes(2.0, sizes, sampler.shares, 16)
  tasks, rows = run_through(sampler, steps)
  assert len({*zip(tasks.tolist(), rows.tolist())}) == 350


def test_proportional_sampler_equals_a_plain_loop():
  """Oracle: one draw at a time from the same keys, in plain Python."""
  sizes, rows, batch_size, steps, seed = (7, 20), (14, 20), 1024, 19, 3

  def bits(count, *key):
    return np.random.PCG64(np.random.SeedSequence(key)).random_raw(count)

  def order(task, number):
    width = rows[task].bit_length()
    keys = bits(rows[task], 2, task, number, seed).tolist()
    high = [key >> width for key in keys]
    return sorted(range(rows[task]), key=lambda row: (high[row], row))

  share = 7**0.75 / (7**0.75 + 20**0.75)
  drawn, used = [], [0, 0]
  for chunk, count in enumerate((8192, 8192, 3072)):
    for draw in bits(count, 1, chunk, 0, seed).tolist():
      task = int(draw >= share * 2**64)
      number, offset = divmod(used[task], rows[task])
      drawn.append((task, number, offset))
      used[task] += 1
  orders = {key: order(*key) for key in {(t, n) for t, n, _ in drawn}}
  sampler = sampling.ProportionalSampler(sizes, rows, 0.75, batch_size, seed)
  tasks, got = run_through(sampler, steps)
  assert tasks.dtype == np.int32 and got.dtype == np.int64
  assert tasks.tolist() == [task for task, _, _ in drawn]
  assert got.tolist() == [orders[t, n][offset] for t, n, offset in drawn]


def test_the_stream_is_the_one_recorded():
  """Oracle: recorded values; another NumPy must draw the same examples."""
  tasks, rows = sampled(batch_size=6)(0)
  assert tasks.tolist() == [1, 2, 2, 2, 2, 2]
  assert rows.tolist() == [10, 194, 125, 268, 164, 293]
  tasks, rows = copies(batch_size=6)(0)
  assert tasks.tolist() == [2, 2, 2, 1, 2, 2]
  assert rows.tolist() == [288, 51, 262, 7, 94, 224]


@pytest.mark.parametrize('exponent', [0.0, 0.75, 1.0])
def test_tasks_are_drawn_by_size_to_the_exponent(exponent):
  """Oracle: the binomial distribution, within five standard deviations."""
  sampler = sampling.ProportionalSampler(SIZES, SIZES, exponent, 128, 0)
  counts = np.bincount(run_through(sampler, 1000)[0], minlength=8)
  share = np.array([size**exponent for size in SIZES])
  share = share / share.sum()
  deviation = np.sqrt(128000 * share * (1 - share))
  assert np.all(np.abs(counts - 128000 * share) < 5 * deviation)


def test_shares_follow_the_sizes_before_swapping():
  sampler = sampling.ProportionalSampler((100, 100), (200, 100), 1.0, 100, 0)
  tasks, rows = run_through(sampler, 100)
  assert abs(np.mean(tasks == 0) - 0.5) < 0.025  # five deviations
  assert set(rows[tasks == 0]) == set(range(200))


def test_each_pass_of_a_task_covers_every_row_in_a_fresh_order():
  tasks, rows = run_through(sampled(), 300)
  for task, count in enumerate((14, 20, 300)):
    walked = rows[tasks == task]
    passes = walked[: len(walked) // count * count].reshape(-1, count)
    assert len(passes) > 5
    assert np.array_equal(np.sort(passes), [range(count)] * len(passes))
    assert len(np.unique(passes, axis=0)) == len(passes)
    assert len(set(walked[len(passes) * count :])) == len(walked) % count


@both
def test_a_step_is_a_pure_function_of_seed_and_step(make):
  """Oracle: the same run from its start, in order."""
  tasks, rows = run_through(make(), 300)
  sampler = make()
  for step in (299, 0, 256, 255, 7, 299):
    for again in (sampler, make()):
      got = again(step)
      assert np.array_equal(got[0], tasks[32 * step : 32 * (step + 1)])
      assert np.array_equal(got[1], rows[32 * step : 32 * (step + 1)])


@both
def test_the_seed_alone_decides_the_order(make):
  """The released code never sets a seed."""
  first = run_through(make(seed=1), 20)
  assert np.array_equal(first, run_through(make(seed=1), 20))
  assert not np.array_equal(first, run_through(make(seed=2), 20))


def test_copies_and_weights_of_the_published_sizes():
  """Oracle: by hand; the ratio to the largest set is (392702 / n)**0.25.

  It is 2.603, 1, 2.705, 1.379, 1.019, 1.554, 2.417 and 3.544, the copies are
  these rounded, and the weights are 8 * normalise(n**-0.25 / copies).
  """
  sampler = sampling.CopiesSampler(SIZES, 0.75, 128, 0)
  assert sampler.multiples.tolist() == [3, 1, 3, 1, 1, 2, 2, 4]
  want = [
      0.86344924, 0.99505369, 0.89717302, 1.37267878,
      1.01420566, 0.77312463, 1.20275375, 0.88156119,
  ]  # fmt: skip
  np.testing.assert_allclose(sampler.weights, want, rtol=1e-6)


def test_weights_average_over_the_tasks_that_are_trained():
  """The released code normalises over eight tasks whatever is trained.

  By hand: copies round(250.01 / 100) = 3 and 1, so weights are as 1/300 to
  1/250, and their mean is 1.
  """
  sampler = sampling.CopiesSampler((100, 250), 0.0, 32, 0)
  assert sampler.multiples.tolist() == [3, 1]
  np.testing.assert_allclose(sampler.weights, [10 / 11, 12 / 11], rtol=1e-6)


def test_one_task_alone_is_neither_copied_nor_weighted():
  sampler = sampling.CopiesSampler((17,), 0.75, 4, 0)
  assert sampler.multiples.tolist() == [1]
  assert sampler.weights.tolist() == [1.0]


def test_all_copies_are_used_before_the_same_order_repeats():
  sampler = copies()
  total = int(np.sum(sampler.multiples * (14, 20, 300)))
  drawn = list(zip(*(a.tolist() for a in run_through(sampler, 300))))
  counts = collections.Counter(drawn[:total])
  assert counts == {
    (task, row): copied
    for task, copied in enumerate(sampler.multiples)
    for row in range((14, 20, 300)[task])
  }
  assert drawn[total : 2 * total] == drawn[:total]
  assert drawn[:total] != sorted(drawn[:total])


def test_sampled_tasks_weigh_the_same():
  assert sampled().weights.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize('make', [sampled, copies])
def test_shares_are_what_is_drawn(make):
  """Against counts; a share of 9,600 draws errs by 0.005 in one deviation."""
  sampler = make()
  tasks, _ = run_through(sampler, 300)
  drawn = np.bincount(tasks, minlength=3) / len(tasks)
  np.testing.assert_allclose(sampler.shares, drawn, atol=0.02)
  np.testing.assert_allclose(sampler.shares.sum(), 1.0, rtol=1e-12)


def test_sampled_shares_by_hand():
  sampler = sampling.ProportionalSampler((16, 81), (32, 81), 0.75, 32, 0)
  np.testing.assert_allclose(sampler.shares, [8 / 35, 27 / 35], rtol=1e-12)


@both
def test_a_part_of_the_rows_is_sampled_as_if_there_were_no_others(make):
  """Oracle: the sampler of 14, 20 and 300 rows, with rows looked up singly."""
  kept = [np.arange(0, 28, 2), np.arange(5, 25), np.arange(300)[::-1]]
  whole, part = make(), sampling.SubsetSampler(make(), kept)
  assert part.batch_size == 32
  np.testing.assert_array_equal(part.weights, whole.weights)
  for step in (0, 7, 299):
    tasks, rows = whole(step)
    found = part(step)
    np.testing.assert_array_equal(found[0], tasks)
    assert found[1].tolist() == [
      kept[task][row] for task, row in zip(tasks, rows)
    ]
