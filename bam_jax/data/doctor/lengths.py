"""How long rows are, and what the longest length cuts off."""

from collections.abc import Iterator
import dataclasses

import numpy as np

from bam_jax.data import features
from bam_jax.data.doctor import findings
from bam_jax.data.doctor import rows as rows_lib
from bam_jax.tasks import kinds

# Rows that are tokenised, evenly over the split; all of a smaller one.
SAMPLE = 20_000
# Share of the rows; BERT's 128 tokens cut 5% of RTE's.
_MANY_CUT = 0.1
# A row is too long to be one from so many characters on, and so many times the
# 99th percentile.
_LONG_CHARACTERS, _LONG_TIMES = 5000, 10
_PERCENTILES = (50, 90, 99, 100)


@dataclasses.dataclass(frozen=True)
class Lengths:
  """Lengths of a split's rows.

  Attributes:
    characters: median, 90th and 99th percentile and longest, both texts.
    tokens: the same, special tokens included; empty without a tokenizer.
    tokenised: rows that were tokenised.
    rows_cut: share of these that are longer than `data.max_length`; none of
      those that are cut into windows.
    tokens_cut: share of their tokens that are cut off.
  """

  characters: tuple[int, ...]
  tokens: tuple[int, ...] = ()
  tokenised: int = 0
  rows_cut: float = 0.0
  tokens_cut: float = 0.0


def measure(
  rows: rows_lib.Rows, tokenizer: features.Tokenizer | None, max_length: int
) -> tuple[Lengths, np.ndarray]:
  """Measures the rows of a split.

  Args:
    rows: of the split.
    tokenizer: None where there is none.
    max_length: tokens that a row may have, specials included.

  Returns:
    What was measured, and the numbers of the rows found to be too long.
  """
  characters = _characters(rows)
  if tokenizer is None:
    return Lengths(_percentiles(characters)), np.zeros(0, np.int64)
  total = len(rows.index)
  sample = np.unique(
    np.linspace(0, total - 1, min(total, SAMPLE)).astype(np.int64)
  )
  tokens = 1 + _sum([
      [len(ids) + 1 for ids in tokenizer.encode([column[i] for i in sample])]
      for column in rows.texts
  ])  # fmt: skip
  over = np.maximum(tokens - max_length, 0)
  if kinds.of(rows.task).in_windows:
    over[:] = 0
  lengths = Lengths(
    _percentiles(characters),
    _percentiles(tokens),
    len(sample),
    float((over > 0).mean()),
    float(over.sum() / tokens.sum()),
  )
  return lengths, sample[over > 0]


def _characters(rows: rows_lib.Rows) -> np.ndarray:
  """[N] of both texts together."""
  return _sum([[len(text) for text in column] for column in rows.texts])


def _sum(columns: list[list[int]]) -> np.ndarray:
  return np.array(columns).sum(axis=0)


def _percentiles(values: np.ndarray) -> tuple[int, ...]:
  return tuple(
    int(x) for x in np.percentile(values, _PERCENTILES, method='higher')
  )


def check(
  rows: rows_lib.Rows, lengths: Lengths, cut: np.ndarray, max_length: int
) -> Iterator[findings.Finding]:
  """Rows that would be cut, and those so long that they are several.

  Args:
    rows: of the split.
    lengths: as `measure` gives them.
    cut: numbers of rows that are too long, as `measure` gives them.
    max_length: tokens that a row may have.
  """
  if len(cut):
    yield rows.finding(
      cut,
      'warning' if lengths.rows_cut > _MANY_CUT else 'note',
      'truncation',
      f'{lengths.rows_cut:.2%} of {lengths.tokenised:,} rows have more than'
      f' {max_length} tokens; {lengths.tokens_cut:.2%} of all tokens are cut',
      'raise config.data.max_length and config.packing.row_length',
    )
  longest = max(_LONG_CHARACTERS, _LONG_TIMES * lengths.characters[2])
  # Most splits have none, and need no second look.
  if lengths.characters[-1] > longest:
    yield rows.finding(
      np.flatnonzero(_characters(rows) > longest),
      'warning',
      'long row',
      f'rows of more than {longest:,} characters, the longest of'
      f' {lengths.characters[-1]:,}, where 99% have at most'
      f' {lengths.characters[2]:,}',
      'look at them: a reader with quoting may have made one row of many',
    )
