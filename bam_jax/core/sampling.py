"""Which examples make step s: pure functions of (seed, s).

N examples a step, T tasks. A mix is called with a step and answers with the
task and the row of each of the N examples. It keeps no position: any step can
be asked for at any time, which is what lets a run resume from its step alone.

Everything is drawn from the raw 64-bit output of PCG64, whose stream NumPy
promises to keep, rather than from `Generator` methods, whose streams it may
change: a run can be repeated with another NumPy.
"""

from collections.abc import Sequence
import math

import numpy as np

# First words of the random keys, so that no two purposes share a stream.
_TASKS, _PERMUTATION, _COPIES, FOLDS = 1, 2, 3, 4

# Draws made at a time. Large enough that a step costs a slice, small enough
# that making them (under a millisecond) never holds up the device.
_CHUNK_DRAWS = 8192

# Shares are compared on this integer grid: powers may differ in their last
# bit between processors, and a draw must not.
_SHARE_BITS = 40


def num_steps(epochs: float, total_rows: int, batch_size: int) -> int:
  """Steps of a run: floor(epochs * total_rows / batch_size), at least 1.

  Args:
    epochs: passes over the rows, may be a fraction.
    total_rows: training rows of all tasks, swapped copies included.
    batch_size: examples a step.
  """
  return max(1, math.floor(epochs * total_rows / batch_size))


def _bits(count: int, purpose: int, a: int, b: int, seed: int) -> np.ndarray:
  """[count] uint64 random bits of one key."""
  # The seed comes last: it alone may take more than one 32-bit word.
  sequence = np.random.SeedSequence((purpose, a, b, seed))
  return np.random.PCG64(sequence).random_raw(count)


def permutation(
  count: int, purpose: int, a: int, b: int, seed: int
) -> np.ndarray:
  """[count] int32, a random order of range(count)."""
  # The index in the low bits makes the keys distinct: any sorting algorithm
  # gives the same order, and sorting is twice as fast as argsorting.
  width = np.uint64(count.bit_length())
  bits = _bits(count, purpose, a, b, seed) >> width << width
  keys = np.sort(bits | np.arange(count, dtype=np.uint64))
  return (keys & ((np.uint64(1) << width) - np.uint64(1))).astype(np.int32)


class SampledMix:
  """Tasks drawn with P(task) ∝ size**exponent (BAM, arXiv 1907.04829, 3.2).

  Each task is walked through by a fresh permutation a pass, so that over any
  number of steps two rows of a task are used equally often, give or take one.

  Attributes:
    batch_size: N.
    shares: [T] float64, the probability of each task.
    weights: [T] float32, the loss weight of each task: all 1.
  """

  def __init__(
    self,
    sizes: Sequence[int],
    rows: Sequence[int],
    exponent: float,
    batch_size: int,
    num_steps: int,
    seed: int,
  ):
    """Counts how often each task is drawn, which places every step.

    Args:
      sizes: T numbers of rows that decide the probabilities: before swapping.
      rows: T numbers of rows to walk through: after swapping.
      exponent: 0 for equal shares, 1 for shares by size.
      batch_size: N, examples a step.
      num_steps: steps that may be asked for.
      seed: not negative.
    """
    self.batch_size = batch_size
    self.weights = np.ones(len(rows), np.float32)
    self._rows = [int(count) for count in rows]
    self._num_steps = num_steps
    self._seed = seed
    shares = np.asarray(sizes, np.float64) ** exponent
    self.shares = shares / shares.sum()
    limits = np.cumsum(self.shares)[:-1]
    self._limits = np.round(limits * 2**_SHARE_BITS).astype(np.uint64)
    self._chunk_steps = max(1, _CHUNK_DRAWS // batch_size)
    num_chunks = -(-num_steps // self._chunk_steps)
    self._before = np.zeros((num_chunks, len(rows)), np.int64)
    for chunk in range(num_chunks - 1):
      drawn = np.bincount(self._draw_tasks(chunk), minlength=len(rows))
      self._before[chunk + 1] = self._before[chunk] + drawn
    # The latest chunk, and the latest permutation of each task.
    self._chunk = (-1, np.empty(0, np.int32), np.empty(0, np.int64))
    self._orders = {task: (-1, np.empty(0)) for task in range(len(rows))}

  def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Task [N] int32 and row [N] int64 of the examples of a step.

    Raises:
      IndexError: the step is not below `num_steps`.
    """
    if not 0 <= step < self._num_steps:
      raise IndexError(f'step {step} of a run of {self._num_steps}')
    chunk, within = divmod(step, self._chunk_steps)
    latest = self._chunk
    if latest[0] != chunk:
      latest = self._chunk = (chunk, *self._make_chunk(chunk))
    examples = slice(within * self.batch_size, (within + 1) * self.batch_size)
    return latest[1][examples], latest[2][examples]

  def _draw_tasks(self, chunk: int) -> np.ndarray:
    """Tasks of all examples of a chunk, in order."""
    left = self._num_steps - chunk * self._chunk_steps
    count = min(left, self._chunk_steps) * self.batch_size
    bits = _bits(count, _TASKS, chunk, 0, self._seed)
    draws = bits >> np.uint64(64 - _SHARE_BITS)
    return np.searchsorted(self._limits, draws, side='right')

  def _make_chunk(self, chunk: int) -> tuple[np.ndarray, np.ndarray]:
    """Tasks and rows of all examples of a chunk, in order."""
    tasks = self._draw_tasks(chunk)
    rows = np.empty(len(tasks), np.int64)
    for task in range(len(self._rows)):
      places = np.flatnonzero(tasks == task)
      begin = int(self._before[chunk, task])
      rows[places] = self._walk(task, begin, len(places))
    return tasks.astype(np.int32), rows

  def _walk(self, task: int, begin: int, count: int) -> np.ndarray:
    """[count] rows of a task from its draw number `begin` on."""
    parts = [np.empty(0, np.int32)]
    while count > 0:
      number, offset = divmod(begin, self._rows[task])
      latest = self._orders[task]
      if latest[0] != number:
        order = permutation(
          self._rows[task], _PERMUTATION, task, number, self._seed
        )
        latest = self._orders[task] = (number, order)
      parts.append(latest[1][offset : offset + count])
      begin += len(parts[-1])
      count -= len(parts[-1])
    return np.concatenate(parts)


class CopiesMix:
  """Small sets copied and a loss weight a task, as BAM's released code does.

  A task's wanted size is rows_max * (rows / rows_max)**exponent. Its rows are
  copied round(wanted / rows) times, and its weight makes up for the rounding.
  All copies are put one after another, shuffled once, and repeated. The
  released code does this with a fixed table of eight sizes; here the sizes
  come from the data, and weights average over the tasks that are trained.

  Attributes:
    batch_size: N.
    multiples: [T] int64, copies of each task.
    shares: [T] float64, the share of each task in the copies.
    weights: [T] float32, the loss weight of each task, mean 1.
  """

  def __init__(
    self,
    rows: Sequence[int],
    exponent: float,
    batch_size: int,
    num_steps: int,
    seed: int,
  ):
    """Shuffles the copies.

    Args:
      rows: T numbers of rows, swapped copies included.
      exponent: 0 for equal influence of the tasks, 1 for influence by size.
      batch_size: N, examples a step.
      num_steps: steps that may be asked for.
      seed: not negative.
    """
    self.batch_size = batch_size
    self._num_steps = num_steps
    self._rows = np.asarray(rows, np.int64)
    shares = self._rows**exponent / np.sum(self._rows**exponent)
    largest = np.argmax(self._rows)
    wanted = shares * self._rows[largest] / shares[largest]
    copies = np.round((wanted + 0.01) / self._rows)
    self.multiples = copies.astype(np.int64)
    copied = self._rows * self.multiples
    self.shares = copied / copied.sum()
    weights = shares / copied
    self.weights = (len(rows) * weights / weights.sum()).astype(np.float32)
    self._ends = np.cumsum(copied)
    self._begins = self._ends - copied
    self._order = permutation(int(self._ends[-1]), _COPIES, 0, 0, seed)

  def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Task [N] int32 and row [N] int64 of the examples of a step.

    Raises:
      IndexError: the step is not below `num_steps`.
    """
    if not 0 <= step < self._num_steps:
      raise IndexError(f'step {step} of a run of {self._num_steps}')
    first = step * self.batch_size
    places = np.arange(first, first + self.batch_size) % len(self._order)
    copy = self._order[places]
    task = np.searchsorted(self._ends, copy, side='right')
    row = (copy - self._begins[task]) % self._rows[task]
    return task.astype(np.int32), row


class PartMix:
  """A mix over part of the rows of each task.

  Attributes:
    batch_size: N.
    shares: [T] float64, as those of the mix.
    weights: [T] float32, the loss weight of each task.
  """

  def __init__(self, mix: SampledMix | CopiesMix, rows: Sequence[np.ndarray]):
    """Joins the rows.

    Args:
      mix: of as many rows of each task as `rows` has.
      rows: for each task the rows that there are, int64.
    """
    self.batch_size = mix.batch_size
    self.shares, self.weights = mix.shares, mix.weights
    self._mix = mix
    self._rows = np.concatenate(rows)
    self._begins = np.cumsum([0, *map(len, rows[:-1])])

  def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Task [N] int32 and row [N] int64 of the examples of a step.

    Raises:
      IndexError: the step is not below `num_steps`.
    """
    task, place = self._mix(step)
    return task, self._rows[self._begins[task] + place]


Mix = SampledMix | CopiesMix | PartMix
