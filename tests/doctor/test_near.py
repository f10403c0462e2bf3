"""The join of nearly equal rows, against Python's sets of all pairs."""

import itertools

import numpy as np
import pytest

from bam_jax.doctor import near


def _pairs_of_words(text: str) -> set[tuple[str, str]]:
  """The neighbours in a text, the last word with none."""
  words = text.split()
  return set(itertools.pairwise([*words, ''])) if words else set()


def _jaccard(a: set, b: set) -> float:
  return len(a & b) / len(a | b) if a or b else 1.0


def _alike(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
  """The definition, word by word, for rows of one text or two."""
  a, b = (
    set().union(*(_pairs_of_words(text) for text in row))
    for row in (one, other)
  )
  if min(len(a), len(b)) < near.MIN_WORDS or sorted(one) == sorted(other):
    return False
  if _jaccard(a, b) < near.THRESHOLD:
    return False
  return len(one) == 1 or any(
    all(
      _jaccard(_pairs_of_words(x), _pairs_of_words(y)) >= near.TEXT_THRESHOLD
      for x, y in zip(one, order, strict=True)
    )
    for order in (other, other[::-1])
  )


def _rows(
  generator: np.random.Generator, texts: int, longest: int
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
  """Training rows, and held-out rows that are such rows with words changed."""
  words = [f'w{i}' for i in range(40)]

  def text() -> list[str]:
    size = generator.integers(longest)
    return [words[i] for i in generator.integers(len(words), size=size)]

  train = [[text() for _ in range(texts)] for _ in range(120)]
  held = []
  for row in train:
    changed = [[*words] for words in row]
    for _ in range(generator.integers(4)):
      column = changed[generator.integers(texts)]
      if column:
        column[generator.integers(len(column))] = words[generator.integers(40)]
    if generator.integers(2):
      changed.reverse()
    held.append(changed)
  return tuple(
    [tuple(' '.join(text) for text in row) for row in rows]
    for rows in (train, held)
  )


@pytest.mark.parametrize('texts', [1, 2], ids=['single', 'pair'])
@pytest.mark.parametrize('longest', [25, 150], ids=str)
def test_finds_all_pairs_and_no_other(texts, longest):
  generator = np.random.default_rng(longest)
  train, held = _rows(generator, texts, longest)
  number = {}
  for row in (*train, *held):
    for text in row:
      number.setdefault(text, len(number))
  one, other, skipped = near.find(
    near.word_pairs(list(number)),
    *(np.array([[number[t] for t in row] for row in r]) for r in (train, held)),
  )
  wanted = {
    (i, j)
    for i, one in enumerate(train)
    for j, other in enumerate(held)
    if _alike(one, other)
  }
  assert len(wanted) >= 5
  assert set(zip(one, other, strict=True)) == wanted
  assert skipped == 0


def test_blocks_of_any_size_find_the_same(monkeypatch):
  generator = np.random.default_rng(0)
  rows, held = _rows(generator, 1, 30)
  texts = [row[0] for row in (*rows, *held)]
  sets = near.word_pairs(texts)
  train, other = np.split(np.arange(len(texts))[:, None], 2)
  whole = near.find(sets, train, other)
  assert len(whole[0]) > 10
  for name in ('_PRODUCTS_A_BLOCK', '_PAIRS_A_BLOCK'):
    monkeypatch.setattr(near, name, 7)
  parts = near.find(sets, train, other)
  np.testing.assert_array_equal(parts[0], whole[0])
  np.testing.assert_array_equal(parts[1], whole[1])


def test_says_what_was_too_frequent_to_compare(monkeypatch):
  """Ten rows begin alike, and are not alike; two more share rare words."""
  texts = [f'a b c d e f g h i {n}' for n in 'klmnopqrst']
  rare = ' '.join(f'rare{i}' for i in range(15))
  texts += [rare, f'{rare} one']
  train = np.array([[0], [1], [2], [3], [4], [10]])
  held = np.array([[5], [6], [7], [8], [9], [11]])
  monkeypatch.setattr(near, '_MAX_PRODUCTS', 8)
  one, other, skipped = near.find(near.word_pairs(texts), train, held)
  assert skipped > 0
  assert list(zip(one, other, strict=True)) == [(5, 5)]


def test_words_are_what_is_neither_blank_nor_mark():
  sets = near.word_pairs(["it's  a cat , no ?", 'it s a cat no', '...', ''])
  found = near.jaccard(sets, np.array([0, 2, 0]), sets, np.array([1, 3, 3]))
  assert found.tolist() == [1.0, 1.0, 0.0]
