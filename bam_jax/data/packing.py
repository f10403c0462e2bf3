"""Exactly N examples into rows of L tokens.

The number of rows varies from step to step. It is rounded up to one of few
bucket sizes, each of which is one compiled program.
"""

from collections.abc import Sequence
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


def default_buckets(max_rows: int) -> tuple[int, ...]:
  """A ladder of numbers of rows that ends at or just above `max_rows`.

  4, 8, 12, 16, 24, 32, 36, 40, 48, 64, 96, 128, 192, 256, ...: coarse, since
  each bucket that occurs costs one compilation. 36 is there for BAM's batch:
  128 examples of mean length 34 fill 30 to 40 rows of 128, and without it 7%
  more rows would be computed.
  """
  ladder = [4, 8, 12, 16, 24, 32, 36, 40, 48, 64]
  while ladder[-1] < max_rows:
    ladder += [ladder[-1] * 3 // 2, ladder[-1] * 2]
  return tuple(ladder[: sum(size < max_rows for size in ladder) + 1])


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
  **of_example: np.ndarray,
) -> dict[str, np.ndarray]:
  """The batch of n examples.

  Args:
    packed: the places of the examples.
    shape: B, L, S.
    tokens: the tokens of the examples one after another.
    lengths: [n] tokens of each example.
    lengths_a: [n] tokens of type 0 of each example.
    **of_example: [n, ...] arrays to be spread over the slots.
  """
  num_rows, row_length, slots = shape
  begins = np.cumsum(lengths) - lengths
  position = np.arange(len(tokens)) - np.repeat(begins, lengths)
  first = packed.row * row_length + packed.start
  place = np.repeat(first, lengths) + position

  def scatter(values: np.ndarray) -> np.ndarray:
    result = np.zeros(num_rows * row_length, np.int32)
    result[place] = values
    return result.reshape(num_rows, row_length)

  of_example['cls_index'] = packed.start.astype(np.int32)
  cell = packed.row * slots + packed.slot
  return {
    'input_ids': scatter(tokens),
    'token_type_ids': scatter(position >= np.repeat(lengths_a, lengths)),
    'positions': scatter(position),
    'segment_ids': scatter(np.repeat(packed.slot + 1, lengths)),
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
