"""A sequence of uids that are decoded lazily."""

from collections.abc import Iterator
from collections.abc import Sequence
import itertools

import numpy as np

_CHUNK_ROWS = 1024


class Uids(Sequence[str]):
  """Strings over memory-mapped UTF-8, decoded when they are read."""

  def __init__(self, values: np.ndarray, offsets: np.ndarray):
    self._values = values
    self._offsets = offsets

  def __len__(self) -> int:
    return len(self._offsets) - 1

  def __getitem__(self, index: int | slice) -> str | list[str]:
    rows = range(len(self))[index]
    if isinstance(index, slice):
      return [self[row] for row in rows]
    start, end = self._offsets[rows : rows + 2]
    return _text(bytes(self._values[start:end]))

  def __iter__(self) -> Iterator[str]:
    for first in range(0, len(self), _CHUNK_ROWS):
      ends = self._offsets[first : first + _CHUNK_ROWS + 1].tolist()
      block = bytes(self._values[ends[0] : ends[-1]])
      for start, end in itertools.pairwise(ends):
        yield _text(block[start - ends[0] : end - ends[0]])


def _text(data: bytes) -> str:
  """Decodes a uid; damaged bytes give a name that no row has."""
  return data.decode(errors='replace')
