"""Rows that are nearly equal: an exact join of sets of word pairs.

Rows are sets of their texts' pairs of neighbouring words, in lower case and
without punctuation. Two sets of Jaccard similarity t or more, of sizes n and m,
share one of the first n - ceil(t n) + 1 and m - ceil(t m) + 1 elements, in any
order common to all: with the rarest first, few rows come together that are
unlike (PPJoin: Xiao et al., WWW 2008). Unlike MinHash it misses none.
"""

from array import array
import collections
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import itertools
import re
from typing import NamedTuple

import numpy as np

THRESHOLD = 0.8
# Of each text with its counterpart: another hypothesis to the same long premise
# is another row.
TEXT_THRESHOLD = 0.5
# Shorter rows are nearly equal to too many.
MIN_WORDS = 5
_WORD = re.compile(r'\w+')

# An element is how frequent it is, as a power of two, above a hash.
_HASH_BITS = 37
_ELEMENT_BITS = _HASH_BITS + 5
_COUNT_BITS = 22
_SKETCH_WORDS = 4

_ROWS_A_BLOCK = 1 << 18
_CANDIDATES_A_BLOCK = 1 << 22
_PAIRS_A_BLOCK = 1 << 14
_MAX_CANDIDATES = 200_000_000


class Sets(NamedTuple):
  """Sets of R rows, E elements in all.

  Attributes:
    elements: [E] uint64, ascending within a row: the rarest first.
    offsets: [R + 1] int64, where each row begins.
  """

  elements: np.ndarray
  offsets: np.ndarray

  @property
  def sizes(self) -> np.ndarray:
    return np.diff(self.offsets)


class Pairs(NamedTuple):
  """Nearly equal rows.

  Attributes:
    train: [K] numbers of training rows.
    held: [K] numbers of held-out rows.
    passed_over: elements so frequent that rows which share no rarer one were
      not compared.
  """

  train: np.ndarray
  held: np.ndarray
  passed_over: int


class Shingles:
  """The words of texts, and their pairs of neighbours."""

  def __init__(self, texts: Sequence[str]):
    """Splits the texts into words.

    Args:
      texts: in lower case.
    """
    count = itertools.count(1)
    number: dict[str, int] = collections.defaultdict(count.__next__)
    words, lengths = array('i'), array('i')
    for text in texts:
      found = _WORD.findall(text)
      words.extend(map(number.__getitem__, found))
      lengths.append(len(found))
    self._words = np.frombuffer(words, np.int32)
    self._offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    self._elements = self._make_elements()

  def _make_elements(self) -> np.ndarray:
    """[words] each word with the next one of its text, or with none."""
    following = np.zeros(len(self._words), np.uint64)
    following[:-1] = self._words[1:]
    ends = self._offsets[1:][np.diff(self._offsets) > 0] - 1
    following[ends] = 0
    hashes = _mix(self._words.astype(np.uint64) << 32 | following) >> (
      64 - _HASH_BITS
    )
    cells = hashes >> (_HASH_BITS - _COUNT_BITS)
    counts = np.bincount(cells.astype(np.int64), minlength=1 << _COUNT_BITS)
    rarity = np.log2(np.maximum(counts, 1)).astype(np.uint64)
    return rarity[cells.astype(np.int64)] << _HASH_BITS | hashes

  def sets(self, texts: np.ndarray) -> Sets:
    """The sets of rows, each of one or two texts.

    Args:
      texts: [R, 1 or 2] numbers of the texts.
    """
    elements, sizes = [], []
    for first in range(0, len(texts), _ROWS_A_BLOCK):
      block = texts[first : first + _ROWS_A_BLOCK]
      starts = self._offsets[block]
      counts = self._offsets[block + 1] - starts
      rows = np.repeat(np.arange(len(block)), counts.sum(axis=1))
      values = self._elements[_ranges(starts.ravel(), counts.ravel())]
      keys = np.sort(rows.astype(np.uint64) << _ELEMENT_BITS | values)
      keys = keys[np.diff(keys, prepend=np.uint64((1 << 64) - 1)) != 0]
      elements.append(keys & np.uint64((1 << _ELEMENT_BITS) - 1))
      rows = (keys >> _ELEMENT_BITS).astype(np.int64)
      sizes.append(np.bincount(rows, minlength=len(block)))
    return Sets(
      np.concatenate(elements),
      np.concatenate(([0], np.cumsum(np.concatenate(sizes)))),
    )

  def words(self, text: int) -> int:
    """Number of words of a text."""
    return int(self._offsets[text + 1] - self._offsets[text])

  def jaccard(self, a: int, b: int) -> float:
    """Similarity of two texts; 1 where neither has a word."""
    one, other = (
      set(self._elements[self._offsets[t] : self._offsets[t + 1]].tolist())
      for t in (a, b)
    )
    return len(one & other) / len(one | other) if one or other else 1.0


def _mix(values: np.ndarray) -> np.ndarray:
  """splitmix64's finaliser, which spreads numbers over 64 bits."""
  values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
  values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
  return values ^ values >> np.uint64(31)


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """The numbers from each start on, as many as it counts, one after another."""
  ends = np.cumsum(counts)
  return np.arange(counts.sum()) + np.repeat(starts - ends + counts, counts)


def find(shingles: Shingles, train: np.ndarray, held: np.ndarray) -> Pairs:
  """Training rows that are nearly equal to held-out ones.

  Rows of the same texts, in either order, are no matter of this.

  Args:
    shingles: of all texts.
    train: [R, 1 or 2] texts of training rows.
    held: [Q, 1 or 2] texts of held-out rows, as many a row.
  """
  sets = shingles.sets(train), shingles.sets(held)
  one, other, passed_over = join(*sets, THRESHOLD)
  a, b = np.sort(train[one], axis=1), np.sort(held[other], axis=1)
  keep = (a != b).any(axis=1)
  if train.shape[1] == 2:
    for i in np.flatnonzero(keep):
      keep[i] = _texts_alike(shingles.jaccard, train[one[i]], held[other[i]])
  return Pairs(one[keep], other[keep], passed_over)


def _texts_alike(
  jaccard: Callable[[int, int], float], one: np.ndarray, other: np.ndarray
) -> bool:
  """Whether each text of a pair resembles one of the other pair."""
  return any(
    all(jaccard(a, b) >= TEXT_THRESHOLD for a, b in zip(one, order))
    for order in (other, other[::-1])
  )


def join(train: Sets, held: Sets, threshold: float) -> Pairs:
  """All pairs of sets whose Jaccard similarity is at least a threshold.

  Sets of fewer than `MIN_WORDS` elements are left out.
  """
  (here, rows_here), (there, rows_there) = (
    _prefixes(sets, threshold) for sets in (train, held)
  )
  order = np.argsort(there)
  there, rows_there = there[order], rows_there[order]
  low = np.searchsorted(there, here, 'left')
  counts = np.searchsorted(there, here, 'right') - low
  used = counts > 0
  here, rows_here = here[used], rows_here[used]
  low, counts = low[used], counts[used]
  ascending = np.sort(counts)
  affordable = np.searchsorted(np.cumsum(ascending), _MAX_CANDIDATES)
  passed_over = 0
  if affordable < len(counts):
    few = counts < ascending[affordable]
    passed_over = len(np.unique(here[~few]))
    rows_here, low, counts = rows_here[few], low[few], counts[few]
  sketches = _sketch(train), _sketch(held)
  found = []
  for block in _blocks(counts):
    one = np.repeat(rows_here[block], counts[block])
    other = rows_there[_ranges(low[block], counts[block])]
    keep = _possible(train, held, one, other, sketches, threshold)
    found.append(np.unique(one[keep] << 31 | other[keep]))
  pairs = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
  one, other = pairs >> 31, pairs & ((1 << 31) - 1)
  keep = _similarities(train, held, one, other) >= threshold
  return Pairs(one[keep], other[keep], passed_over)


def _prefixes(sets: Sets, threshold: float) -> tuple[np.ndarray, np.ndarray]:
  """The elements by which a row is found, and the row of each."""
  sizes = sets.sizes
  counts = sizes - np.ceil(threshold * sizes - 1e-9).astype(np.int64) + 1
  counts[sizes < MIN_WORDS] = 0
  rows = np.repeat(np.arange(len(sizes)), counts)
  return sets.elements[_ranges(sets.offsets[:-1], counts)], rows


def _blocks(counts: np.ndarray) -> Iterator[slice]:
  """Parts whose counts sum up to about as much as memory is spent on."""
  ends = np.cumsum(counts)
  first = 0
  while first < len(counts):
    below = ends[first - 1] if first else 0
    last = int(np.searchsorted(ends, below + _CANDIDATES_A_BLOCK, 'right'))
    last = max(last, first + 1)
    yield slice(first, last)
    first = last


def _sketch(sets: Sets) -> np.ndarray:
  """[R, words] uint64: a bit for the hash of each element."""
  bits = sets.elements & np.uint64(64 * _SKETCH_WORDS - 1)
  result = np.zeros((len(sets.sizes), _SKETCH_WORDS), np.uint64)
  filled = np.flatnonzero(sets.sizes)
  if len(filled):
    for word in range(_SKETCH_WORDS):
      mine = bits >> np.uint64(6) == word
      masks = np.where(mine, np.uint64(1) << (bits & np.uint64(63)), 0)
      result[filled, word] = np.bitwise_or.reduceat(
        masks.astype(np.uint64), sets.offsets[:-1][filled]
      )
  return result


def _possible(
  train: Sets,
  held: Sets,
  one: np.ndarray,
  other: np.ndarray,
  sketches: tuple[np.ndarray, np.ndarray],
  threshold: float,
) -> np.ndarray:
  """[K] bool: False only for pairs below the threshold."""
  n, m = train.sizes[one], held.sizes[other]
  # Elements that only one has, at most, in a pair that is alike.
  most = (1 - threshold) / (1 + threshold) * (n + m) + 1e-9
  keep = np.abs(n - m) <= most
  rest = np.flatnonzero(keep)
  unlike = np.bitwise_count(
    sketches[0][one[rest]] ^ sketches[1][other[rest]]
  ).sum(axis=1)
  keep[rest] = unlike <= most[rest]
  return keep


def _similarities(
  train: Sets, held: Sets, one: np.ndarray, other: np.ndarray
) -> np.ndarray:
  """[K] Jaccard similarity of pairs of sets."""
  result = np.zeros(len(one))
  for first in range(0, len(one), _PAIRS_A_BLOCK):
    block = slice(first, first + _PAIRS_A_BLOCK)
    keys, sizes = [], 0
    for sets, rows in ((train, one[block]), (held, other[block])):
      counts = sets.sizes[rows]
      pair = np.repeat(np.arange(len(rows)), counts).astype(np.uint64)
      values = sets.elements[_ranges(sets.offsets[rows], counts)]
      keys.append(pair << _ELEMENT_BITS | values)
      sizes = sizes + counts
    merged = np.sort(np.concatenate(keys))
    twice = merged[1:][merged[1:] == merged[:-1]] >> _ELEMENT_BITS
    shared = np.bincount(twice.astype(np.int64), minlength=len(sizes))
    result[block] = shared / (sizes - shared)
  return result
