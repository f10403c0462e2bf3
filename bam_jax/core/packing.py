"""Exactly N examples into rows of L tokens.

The number of rows varies from step to step. It is rounded up to one of few
bucket sizes, each of which is one compiled program.
"""

from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence
import math
from typing import NamedTuple

import numpy as np

from bam_jax import errors


class Packing(NamedTuple):
  """Where each of N examples goes.

  Attributes:
    row: [N] int64, its row.
    slot: [N] int64, its number among the examples of its row, from 0.
    start: [N] int64, its first token in the row.
    num_rows: rows in use; none of them is empty.
  """

  row: np.ndarray
  slot: np.ndarray
  start: np.ndarray
  num_rows: int


def pack(lengths: np.ndarray, row_length: int, slots: int) -> Packing:
  """First-fit-decreasing: longest first, each into the first row with room.

  Depends on the lengths and their order alone. Takes O(N + rows * L) steps:
  examples of one length come in a run, and none of them fits into a row that
  the one before it found too full.

  Args:
    lengths: [N] tokens of each example, at least 1.
    row_length: L, tokens a row.
    slots: examples a row at most.

  Raises:
    errors.UserError: an example is longer than a row.
  """
  if len(lengths) == 0:
    empty = np.empty(0, np.int64)
    return Packing(empty, empty, empty, 0)
  order = np.argsort(-lengths, kind='stable')
  sorted_lengths = lengths[order].tolist()
  longest, shortest = sorted_lengths[0], sorted_lengths[-1]
  if longest > row_length:
    raise errors.UserError(
      f'config.packing.row_length={row_length} is below the length of an'
      f' example, {longest} tokens; raise it or lower config.data.max_length'
    )
  # Plain integers in lists: for a batch this is faster than any NumPy call.
  room = [row_length]  # of each row; the last one is new and always fits
  taken = [0]
  first = row = previous = 0
  rows, numbers, starts = [], [], []
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
    numbers.append(slot)
    starts.append(row_length - left)
    if slot == 0:
      room.append(row_length)
      taken.append(0)
    taken[row] = slot + 1
    room[row] = left - length if slot + 1 < slots else -1  # -1: slots full
  placed = np.empty((3, len(lengths)), np.int64)
  placed[:, order] = (rows, numbers, starts)
  return Packing(*placed, len(room) - 1)


def one_a_row(count: int) -> Packing:
  """The unpacked case: example i alone in row i."""
  zeros = np.zeros(count, np.int64)
  return Packing(np.arange(count), zeros, zeros, count)


def most_rows(seen: Sequence[int], steps: float) -> int:
  """Rows that the fullest of many steps fills, from what some of them fill.

  The mean and sqrt(2 ln n) standard deviations, which the greatest of n normal
  numbers approaches (Fisher and Tippett, 1928), and one more, as lengths have a
  longer tail; never less than what was seen.

  Args:
    seen: the rows of the steps that were looked at.
    steps: n, how many there are in all, 1 at least.
  """
  deviations = np.sqrt(2 * np.log(steps)) + 1
  farthest = np.mean(seen) + deviations * np.std(seen)
  return max(*seen, math.ceil(farthest))


def choose_buckets(
  steps: Mapping[int, float],
  largest: int,
  most: int = 6,
  least_saving: float = 0.02,
) -> tuple[int, ...]:
  """Few numbers of rows between which little is wasted.

  Each is a program to compile, and a batch is padded to the next one. The best
  choice of one, of two, ... is found by dynamic programming over multiples of
  four.

  >>> choose_buckets({8: 100.0, 29: 50.0, 32: 50.0}, largest=33)
  (8, 32, 36)

  Args:
    steps: how many steps fill a number of rows.
    largest: rows for which there is to be a bucket, whoever fills them.
    most: buckets at most.
    least_saving: share of the rows that one more bucket must save.
  """
  weights = Counter()
  for rows, count in steps.items():
    weights[-(-rows // 4) * 4] += count
  weights[-(-largest // 4) * 4] += 0
  sizes = sorted(weights)
  # Fewest rows that the steps of the first i sizes are computed with, and how.
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
  """The number of rows of the device batch.

  Args:
    num_rows: rows in use.
    buckets: allowed numbers, ascending. Above the last one its multiples are
      allowed too, so that a step never fails for want of a bucket.
    multiple: the result is rounded up to a multiple of this, for a mesh.
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
  """The batch of n examples.

  Args:
    packed: the places of the examples.
    shape: B, L, S.
    tokens: the tokens of the examples one after another.
    lengths: [n] tokens of each example.
    lengths_a: [n] tokens of type 0 of each example.
    of_token: more arrays parallel to the tokens, float32, 0 where none is.
    **of_example: [n, ...] arrays to be spread over the slots.
  """
  num_rows, row_length, slots = shape
  begins = np.cumsum(lengths) - lengths
  position = np.arange(len(tokens)) - np.repeat(begins, lengths)
  first = packed.row * row_length + packed.start
  place = np.repeat(first, lengths) + position

  def scatter(values: np.ndarray, dtype: type = np.int32) -> np.ndarray:
    result = np.zeros((num_rows * row_length, *values.shape[1:]), dtype)
    result[place] = values
    return result.reshape(num_rows, row_length, *values.shape[1:])

  of_example['cls_index'] = packed.start.astype(np.int32)
  cell = packed.row * slots + packed.slot
  return {
    'input_ids': scatter(tokens),
    'token_type_ids': scatter(position >= np.repeat(lengths_a, lengths)),
    'positions': scatter(position),
    'segment_ids': scatter(np.repeat(packed.slot + 1, lengths)),
    **{k: scatter(v, np.float32) for k, v in (of_token or {}).items()},
  } | {
    key: spread(cell, values, num_rows, slots)
    for key, values in of_example.items()
  }


def spread(
  cell: np.ndarray, values: np.ndarray, num_rows: int, slots: int
) -> np.ndarray:
  """[n, ...] values of examples to [B, S, ...], 0 in empty slots."""
  result = np.zeros((num_rows * slots, *values.shape[1:]), values.dtype)
  result[cell] = values
  return result.reshape(num_rows, slots, *values.shape[1:])
