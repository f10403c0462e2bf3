"""Finds pairs of nearly equal rows with sparse matrix products.

Each row is represented by a set: the word bigrams of its texts, in lower case
and without punctuation. If two sets of sizes n and m have a Jaccard similarity
of t or more, the n - ceil(t n) + k rarest elements of the first set and the
m - ceil(t m) + k rarest elements of the second set have at least k elements in
common. So a sparse matrix product of the rarest elements finds all candidate
pairs (prefix filtering: Wang et al., SIGMOD 2012). Then the complete sets of
each candidate pair are compared. Unlike MinHash, this method misses no pair,
unless some elements are too frequent (see `_MAX_PRODUCTS`).
"""

from array import array
from collections.abc import Sequence
import itertools
import re

import numpy as np
from scipy import sparse

THRESHOLD = 0.8
# If rows have two texts, each text must also be at least this similar to its
# counterpart, since a long premise with another hypothesis is a different row.
TEXT_THRESHOLD = 0.5
# Rows with fewer bigrams are not compared: they would be similar to too many
# other rows.
MIN_WORDS = 5
_WORD = re.compile(r'\w+')

# Number of rare elements that a candidate pair must share; k in the module's
# docstring. 3 is not faster.
_SHARED = 2
# Number of shared elements counted per block, and of pairs compared per block.
_PRODUCTS_A_BLOCK = 1 << 23
_PAIRS_A_BLOCK = 1 << 16
# Most shared elements that are counted in total; so many take some tens of
# seconds. If there are more, the most frequent elements are ignored.
_MAX_PRODUCTS = 1_000_000_000


def find(
  sets: sparse.csr_array, train: np.ndarray, held: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
  """Finds training rows that are similar, but not equal, to held-out rows.

  Pairs of rows with equal texts, in either order, are left out.

  Args:
    sets: [texts, elements] bool, the elements of each text; see `word_pairs`.
    train: [R, 1 or 2] indices of the texts of the training rows.
    held: [Q, 1 or 2] indices of the texts of the held-out rows; the number of
      texts per row is the same as in `train`.

  Returns:
    For K pairs of similar rows, [K] indices of the training rows and [K]
    indices of the held-out rows; and the number of elements that were ignored
    because they are too frequent.
  """
  ours, theirs = _union(sets, train), _union(sets, held)
  one, other, skipped = _candidates(ours, theirs)
  keep = (np.sort(train[one], axis=1) != np.sort(held[other], axis=1)).any(1)
  one, other = one[keep], other[keep]
  keep = jaccard(ours, one, theirs, other) >= THRESHOLD
  one, other = one[keep], other[keep]
  if train.shape[1] == 2 and len(one):
    a, b = train[one], held[other]
    in_order, crossed = (
      np.minimum(
        jaccard(sets, a[:, 0], sets, b[:, first]),
        jaccard(sets, a[:, 1], sets, b[:, 1 - first]),
      )
      for first in (0, 1)
    )
    keep = np.maximum(in_order, crossed) >= TEXT_THRESHOLD
    one, other = one[keep], other[keep]
  order = np.lexsort((other, one))
  return one[order], other[order], skipped


def word_pairs(texts: Sequence[str]) -> sparse.csr_array:
  """Collects the word bigrams of each text; the texts must be in lower case.

  The last word of a text also counts as an element, without a second word.

  Returns:
    [texts, elements] bool. Elements are numbered from the rarest to the most
    frequent one. The column indices of each row are sorted.
  """
  number: dict[str, int] = {}
  numbers, ends = array('q'), array('q', [0])
  for text in texts:
    for word in _WORD.findall(text):
      numbers.append(number.setdefault(word, len(number) + 1))
    ends.append(len(numbers))
  words, ends = (np.frombuffer(x, np.int64) for x in (numbers, ends))
  following = np.zeros_like(words)
  following[:-1] = words[1:]
  following[ends[1:][np.diff(ends) > 0] - 1] = 0
  _, pairs, counts = np.unique(
    words << 32 | following, return_inverse=True, return_counts=True
  )
  rarity = np.empty(len(counts), np.int32)
  rarity[np.argsort(counts, kind='stable')] = np.arange(len(counts))
  result = sparse.csr_array(
    (np.ones(len(pairs), bool), rarity[pairs], ends), (len(texts), len(counts))
  )
  result.sum_duplicates()
  return result


def _union(sets: sparse.csr_array, rows: np.ndarray) -> sparse.csr_array:
  """Returns for each row the elements that occur in any of its texts."""
  first, *rest = (sets[column] for column in rows.T)
  return first + rest[0] if rest else first


def jaccard(
  ours: sparse.csr_array,
  one: np.ndarray,
  theirs: sparse.csr_array,
  other: np.ndarray,
) -> np.ndarray:
  """Returns the [K] Jaccard similarities of `ours[one]` and `theirs[other]`.

  The similarity of two empty rows is 1.
  """
  result = np.ones(len(one))
  for start in range(0, len(one), _PAIRS_A_BLOCK):
    block = slice(start, start + _PAIRS_A_BLOCK)
    a, b = ours[one[block]], theirs[other[block]]
    shared = (a * b).sum(axis=1)
    both = np.diff(a.indptr) + np.diff(b.indptr) - shared
    np.divide(shared, both, out=result[block], where=both > 0)
  return result


def _candidates(
  ours: sparse.csr_array, theirs: sparse.csr_array
) -> tuple[np.ndarray, np.ndarray, int]:
  """Finds pairs of rows that share at least `_SHARED` of their rarest elements.

  Returns:
    For each pair, the row's index in `ours`; the row's index in `theirs`; and
    the number of elements that were ignored because they are too frequent.
  """
  ours, theirs = _rarest(ours), _rarest(theirs)
  frequency = np.bincount(theirs.indices, minlength=theirs.shape[1])
  products = np.sort(frequency[ours.indices])
  affordable = np.searchsorted(np.cumsum(products), _MAX_PRODUCTS)
  skipped = 0
  if affordable < len(products):
    is_frequent = frequency >= products[affordable]
    skipped = len(np.unique(ours.indices[is_frequent[ours.indices]]))
    frequency[is_frequent] = 0
    ours.data[is_frequent[ours.indices]] = 0
    ours.eliminate_zeros()
  columns = theirs.T.tocsr()
  one, other = [], []
  # Rows are multiplied in blocks, so that each product fits into memory.
  block = np.cumsum(ours @ frequency) // _PRODUCTS_A_BLOCK
  starts = np.flatnonzero(np.diff(block, prepend=-1)).tolist()
  for first, last in itertools.pairwise([*starts, ours.shape[0]]):
    shared = (ours[first:last] @ columns).tocoo()
    keep = shared.data >= _SHARED
    one.append(shared.row[keep] + first)
    other.append(shared.col[keep])
  return np.concatenate(one), np.concatenate(other), skipped


def _rarest(sets: sparse.csr_array) -> sparse.csr_array:
  """Keeps only the rarest elements of each row, for `_candidates`.

  Rows with fewer than `MIN_WORDS` elements keep none.
  """
  sizes = np.diff(sets.indptr)
  counts = sizes - np.ceil(THRESHOLD * sizes - 1e-9).astype(np.int64) + _SHARED
  counts = np.where(sizes < MIN_WORDS, 0, np.minimum(counts, sizes))
  place = np.arange(sets.nnz) - np.repeat(sets.indptr[:-1], sizes)
  indices = sets.indices[place < np.repeat(counts, sizes)]
  ends = np.concatenate([[0], np.cumsum(counts)])
  return sparse.csr_array(
    (np.ones(len(indices), np.int32), indices, ends), sets.shape
  )
