"""Packs exactly N examples into rows of L tokens.

The number of rows varies from step to step. It is rounded up to one of few
bucket sizes, and each bucket is one compiled program.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
import math
from typing import NamedTuple

import numpy as np

from bam_jax import errors


class Packing(NamedTuple):
  """The places of N examples in packed rows; all arrays are [N] int64."""

  row: np.ndarray
  slot: np.ndarray  # Index among the examples of the row.
  start: np.ndarray  # Position of the first token in the row.
  num_rows: int  # Rows in use; none of them is empty.


def pack(lengths: np.ndarray, row_length: int, slots: int) -> Packing:
  """Packs examples into rows by first-fit decreasing.

  Examples are placed from the longest to the shortest, each in the first row
  with room. This takes O(N + rows * L) steps: if an example is as long as the
  previous one, its search starts at the previous example's row.

  Args:
    lengths: [N] tokens of each example, at least 1.
    row_length: L.
    slots: maximum number of examples per row.

  Raises:
    errors.UserError: an example is longer than a row.
  """
  if len(lengths) == 0:
    return one_per_row(0)
  order = np.argsort(-lengths, kind='stable')
  sorted_lengths = lengths[order].tolist()
  longest, shortest = sorted_lengths[0], sorted_lengths[-1]
  if longest > row_length:
    raise errors.UserError(
      f'config.packing.row_length={row_length}: an example has {longest}'
      ' tokens; raise it or lower config.data.max_length'
    )
  # Plain integers in lists: for a batch this is faster than any NumPy call.
  # The last row is always empty, so any example fits into it.
  room, taken = [row_length], [0]
  first = row = previous = 0
  rows, slot_numbers, starts = [], [], []
  for length in sorted_lengths:
    if length != previous:
      previous = length
      while room[first] < shortest:
        first += 1
      row = first
    while room[row] < length:
      row += 1
    left, slot = room[row], taken[row]
    rows.append(row)
    slot_numbers.append(slot)
    starts.append(row_length - left)
    if slot == 0:
      room.append(row_length)
      taken.append(0)
    taken[row] = slot + 1
    room[row] = left - length if slot + 1 < slots else -1  # -1: slots full
  placed = np.empty((3, len(lengths)), np.int64)
  placed[:, order] = (rows, slot_numbers, starts)
  return Packing(*placed, len(room) - 1)


def one_per_row(count: int) -> Packing:
  """Places each example alone in a row: example i in row i."""
  zeros = np.zeros(count, np.int64)
  return Packing(np.arange(count), zeros, zeros, count)


def most_rows(seen: Sequence[int], steps: float) -> int:
  """Estimates how many rows the largest of `steps` batches fills.

  The estimate is the mean of `seen`, the rows of sampled batches, plus
  sqrt(2 ln steps) + 1 standard deviations, and at least the maximum of `seen`.
  The maximum of n normal numbers approaches sqrt(2 ln n) standard deviations
  (Fisher and Tippett, 1928); the + 1 is for the longer tail of lengths.
  """
  deviations = np.sqrt(2 * np.log(steps)) + 1
  farthest = np.mean(seen) + deviations * np.std(seen)
  return max(*seen, math.ceil(farthest))


def choose_buckets(
  steps: Mapping[int, float],
  largest: int,
  most: int = 6,
  least_saving: float = 0.02,
  multiple: int = 4,
) -> tuple[int, ...]:
  """Chooses a few batch sizes, in rows, that need little padding.

  Each bucket is one program to compile, and a batch is padded with empty rows
  to the next bucket. For each number of buckets, dynamic programming finds the
  multiples of `multiple` that need the least padding.

  >>> choose_buckets({8: 100.0, 29: 50.0, 32: 50.0}, largest=33)
  (8, 32, 36)

  Args:
    steps: number of rows -> number of steps that fill so many rows.
    largest: the last bucket must have at least this number of rows.
    most: maximum number of buckets.
    least_saving: share of the rows that one more bucket must save, 0-1.
    multiple: number of which every bucket is a multiple.
  """
  weights = Counter()
  for rows, count in steps.items():
    weights[-(-rows // multiple) * multiple] += count
  weights[-(-largest // multiple) * multiple] += 0
  sizes = sorted(weights)
  # best[i] is for the batches of the first i sizes: their least number of rows,
  # padding included, and the buckets with which they have it.
  best = [(0.0, ())] + [(math.inf, ())] * len(sizes)
  chosen = None
  for _ in range(most):
    best = [(0.0, ())] + [
      min(
        (
          best[start][0] + size * sum(map(weights.get, sizes[start : end + 1])),
          (*best[start][1], size),
        )
        for start in range(end + 1)
      )
      for end, size in enumerate(sizes)
    ]
    if chosen and best[-1][0] > (1 - least_saving) * chosen[0]:
      break
    chosen = best[-1]
  return chosen[1]


def bucket(num_rows: int, buckets: Sequence[int], multiple: int) -> int:
  """Rounds a number of rows up to a bucket, then to a multiple of `multiple`.

  Multiples of the last bucket are buckets too, so that every number of rows has
  a bucket.
  """
  size = next(
    (size for size in buckets if size >= num_rows),
    -(-num_rows // buckets[-1]) * buckets[-1],
  )
  return -(-size // multiple) * multiple


def assemble(
  packed: Packing,
  shape: tuple[int, int, int],
  tokens: np.ndarray,
  lengths: np.ndarray,
  lengths_a: np.ndarray,
  of_token: Mapping[str, np.ndarray] | None = None,
  **of_example: np.ndarray,
) -> dict[str, np.ndarray]:
  """Builds the arrays of a batch from n packed examples.

  Args:
    packed: the places of the examples.
    shape: (B, L, S): rows, tokens per row, slots per row.
    tokens: the tokens of the examples, one example after another.
    lengths: [n] number of tokens of each example.
    lengths_a: [n] number of tokens of type 0 in each example.
    of_token: further float arrays with one value per token, in the order of
      `tokens`.
    **of_example: further arrays [n, ...] with one value per example, which
      become [B, S, ...].
  """
  num_rows, row_length, slots = shape
  begins = np.cumsum(lengths) - lengths
  position = np.arange(len(tokens)) - np.repeat(begins, lengths)
  first = packed.row * row_length + packed.start
  place = np.repeat(first, lengths) + position
  cell = packed.row * slots + packed.slot

  def by_token(values: np.ndarray, dtype: type = np.int32) -> np.ndarray:
    return scatter(values.astype(dtype), place, (num_rows, row_length))

  of_example['cls_index'] = packed.start.astype(np.int32)
  return {
    'input_ids': by_token(tokens),
    'token_type_ids': by_token(position >= np.repeat(lengths_a, lengths)),
    'positions': by_token(position),
    'segment_ids': by_token(np.repeat(packed.slot + 1, lengths)),
    **{k: by_token(v, np.float32) for k, v in (of_token or {}).items()},
  } | {
    key: scatter(values, cell, (num_rows, slots))
    for key, values in of_example.items()
  }


def scatter(
  values: np.ndarray, places: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
  """Writes values into an array of zeros.

  `shape` is the shape of the result's first two axes. `places` are flat indices
  into these axes.
  """
  result = np.zeros((math.prod(shape), *values.shape[1:]), values.dtype)
  result[places] = values
  return result.reshape(*shape, *values.shape[1:])
