"""Task samplers, which choose the examples of each step.

There are N examples per step and T tasks. The choice depends only on the seed
and the number of the step. A sampler has no current position: it can compute
any step at any time, so a run needs only its step number to resume.

All random numbers come from the raw 64-bit output of PCG64. NumPy guarantees
that stream, but not the streams of `Generator` methods, so a run can be
repeated with another version of NumPy.
"""

from collections.abc import Sequence
import functools
import math

import numpy as np

# First words of the random keys, so that no two purposes share a stream.
_TASKS, _PERMUTATION, _COPIES, FOLDS, HELD_OUT, DEVELOPMENT = range(1, 7)

# Draws per chunk: so many that most steps only slice a chunk, and so few that
# drawing a chunk takes under a millisecond and never holds up the device.
_CHUNK_DRAWS = 8192

# Cumulative shares are rounded to this many bits: `size**exponent` may differ
# in its last bit between processors, but the draws must not.
_SHARE_BITS = 40


def steps_for_passes(
  passes: float, rows: Sequence[int], shares: np.ndarray, batch_size: int
) -> int:
  """Returns the steps needed for an expected number of passes over each task.

  In each step, batch_size * share examples of a task are expected. So the
  result is the maximum of ceil(passes * rows / (batch_size * share)) over the
  tasks.

  Args:
    passes: least number of passes over each task; may be a fraction.
    rows: [T] training rows of each task, swapped copies included.
    shares: [T] float64, the share of each task in the examples.
    batch_size: examples per step.
  """
  needed = passes * np.asarray(rows) / (batch_size * shares)
  # A power may differ in its last bit between processors, but the number of
  # steps must not.
  return math.ceil(round(float(needed.max()), 6))


def permutation(
  count: int, purpose: int, a: int, b: int, seed: int
) -> np.ndarray:
  """Returns a random order of range(count), [count] int32.

  `purpose`, `a`, `b` and `seed` together are the random key.
  """
  # The index in the low bits makes the keys distinct, so that any sorting
  # algorithm gives the same order. Sorting is twice as fast as argsorting.
  width = np.uint64(count.bit_length())
  bits = _random_bits(count, purpose, a, b, seed) >> width << width
  keys = np.sort(bits | np.arange(count, dtype=np.uint64))
  return (keys & ((np.uint64(1) << width) - np.uint64(1))).astype(np.int32)


def _random_bits(
  count: int, purpose: int, a: int, b: int, seed: int
) -> np.ndarray:
  # The seed comes last, because only the seed may need more than one 32-bit
  # word.
  sequence = np.random.SeedSequence((purpose, a, b, seed))
  return np.random.PCG64(sequence).random_raw(count)


def _proportional_shares(sizes: Sequence[int], exponent: float) -> np.ndarray:
  powers = np.asarray(sizes, np.float64) ** exponent
  return powers / powers.sum()


class ProportionalSampler:
  """Draws tasks with P(task) ∝ size**exponent (BAM, arXiv 1907.04829, 3.2).

  Each pass over a task uses a new permutation of its rows. So after any number
  of steps, the use counts of two rows of a task differ by at most one.

  Attributes:
    batch_size: N.
    shares: [T] float64, the probability of each task.
    weights: [T] float32, the loss weight of each task, always 1.
  """

  def __init__(
    self,
    sizes: Sequence[int],
    rows: Sequence[int],
    exponent: float,
    batch_size: int,
    seed: int,
  ):
    """Computes the share of each task; draws nothing yet.

    Args:
      sizes: [T] number of rows of each task without swapped copies, for the
        probabilities.
      rows: [T] number of rows of each task with swapped copies; all of these
        rows are drawn.
      exponent: 0 for equal shares, 1 for shares by size.
      batch_size: N.
      seed: at least 0.
    """
    self.batch_size = batch_size
    self.shares = _proportional_shares(sizes, exponent)
    self.weights = np.ones(len(rows), np.float32)
    self._rows = [int(count) for count in rows]
    self._seed = seed
    limits = np.cumsum(self.shares)[:-1]
    self._limits = np.round(limits * 2**_SHARE_BITS).astype(np.uint64)
    self._chunk_steps = max(1, _CHUNK_DRAWS // batch_size)
    # Element c: how often each task is drawn before chunk c. The list grows.
    self._before = [np.zeros(len(rows), np.int64)]
    # Caches of the latest chunk, and of the latest permutation of each task.
    self._chunk = functools.lru_cache(1)(self._make_chunk)
    self._orders = [
      functools.lru_cache(1)(functools.partial(self._make_order, task))
      for task in range(len(rows))
    ]

  def num_steps(self, epochs: float) -> int:
    """Returns the number of steps: floor(epochs * rows / N), at least 1."""
    return max(1, math.floor(epochs * sum(self._rows) / self.batch_size))

  def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns each example's task, [N] int32, and its row, [N] int64."""
    chunk, within = divmod(step, self._chunk_steps)
    tasks, rows = self._chunk(chunk)
    examples = slice(within * self.batch_size, (within + 1) * self.batch_size)
    return tasks[examples], rows[examples]

  def _draw_tasks(self, chunk: int) -> np.ndarray:
    count = self._chunk_steps * self.batch_size
    bits = _random_bits(count, _TASKS, chunk, 0, self._seed)
    draws = bits >> np.uint64(64 - _SHARE_BITS)
    return np.searchsorted(self._limits, draws, side='right')

  def _make_chunk(self, chunk: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the tasks and rows of all examples of a chunk."""
    for earlier in range(len(self._before) - 1, chunk):
      drawn = np.bincount(self._draw_tasks(earlier), minlength=len(self._rows))
      self._before.append(self._before[-1] + drawn)
    tasks = self._draw_tasks(chunk)
    rows = np.empty(len(tasks), np.int64)
    for task, before in enumerate(self._before[chunk].tolist()):
      places = np.flatnonzero(tasks == task)
      rows[places] = self._next_rows(task, before, len(places))
    return tasks.astype(np.int32), rows

  def _next_rows(self, task: int, begin: int, count: int) -> np.ndarray:
    parts = [np.empty(0, np.int32)]
    while count > 0:
      number, offset = divmod(begin, self._rows[task])
      parts.append(self._orders[task](number)[offset : offset + count])
      begin += len(parts[-1])
      count -= len(parts[-1])
    return np.concatenate(parts)

  def _make_order(self, task: int, number: int) -> np.ndarray:
    return permutation(self._rows[task], _PERMUTATION, task, number, self._seed)


class CopiesSampler:
  """Copies the rows of small tasks and weights losses, as BAM's code does.

  The wanted size of a task is rows_max * (rows / rows_max)**exponent. Its rows
  are copied round(wanted / rows) times, and its loss weight makes up for the
  rounding. The copies of all tasks are shuffled once, and that order repeats.
  BAM's code has a fixed table of eight task sizes. Here the sizes come from the
  data, and the weights have mean 1 over the trained tasks.

  Attributes:
    batch_size: N.
    multiples: [T] int64, number of copies of each row of a task.
    shares: [T] float64, the share of each task in the copies.
    weights: [T] float32, the loss weight of each task, mean 1.
  """

  def __init__(
    self, rows: Sequence[int], exponent: float, batch_size: int, seed: int
  ):
    """Counts the copies; for the arguments see `ProportionalSampler`."""
    self.batch_size = batch_size
    self._rows = np.asarray(rows, np.int64)
    self._seed = seed
    wanted = _proportional_shares(rows, exponent)
    largest = np.argmax(rows)
    sizes = wanted * rows[largest] / wanted[largest]
    self.multiples = np.round((sizes + 0.01) / rows).astype(np.int64)
    copied = self._rows * self.multiples
    self.shares = copied / copied.sum()
    weights = wanted / copied
    self.weights = (len(rows) * weights / weights.sum()).astype(np.float32)
    self._ends = np.cumsum(copied)

  @functools.cached_property
  def _order(self) -> np.ndarray:
    return permutation(int(self._ends[-1]), _COPIES, 0, 0, self._seed)

  def num_steps(self, epochs: float) -> int:
    """Returns floor(epochs * ceil(copies / N)), at least 1, like BAM's code."""
    steps = -(-int(self._ends[-1]) // self.batch_size)
    return max(1, math.floor(epochs * steps))

  def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns each example's task, [N] int32, and its row, [N] int64."""
    first = step * self.batch_size
    places = np.arange(first, first + self.batch_size) % len(self._order)
    copy = self._order[places]
    task = np.searchsorted(self._ends, copy, side='right')
    # Each task has a whole number of copies of its rows, so the remainder of
    # this negative number is the row.
    row = (copy - self._ends[task]) % self._rows[task]
    return task.astype(np.int32), row


class SubsetSampler:
  """Samples from a subset of each task's rows."""

  def __init__(
    self,
    sampler: ProportionalSampler | CopiesSampler,
    rows: Sequence[np.ndarray],
  ):
    """Wraps a sampler of the subset.

    Args:
      sampler: a sampler that numbers the rows of each subset from 0.
      rows: for each task, int64 array of the rows in the subset.
    """
    self.batch_size = sampler.batch_size
    self.shares, self.weights = sampler.shares, sampler.weights
    self._sampler = sampler
    self._rows = np.concatenate(rows)
    self._begins = np.cumsum([0, *map(len, rows[:-1])])

  def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns each example's task, [N] int32, and its row, [N] int64."""
    task, place = self._sampler(step)
    return task, self._rows[self._begins[task] + place]


Sampler = ProportionalSampler | CopiesSampler | SubsetSampler
