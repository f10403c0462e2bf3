"""How long rows are, and what the longest length cuts off."""

from collections.abc import Iterator
import dataclasses

import numpy as np

from bam_jax.data import features
from bam_jax.data.doctor import findings
from bam_jax.data.doctor import rows as rows_lib

# Rows that are tokenised, evenly over the split; all of a smaller one.
SAMPLE = 20_000
# Share of the rows; BERT's 128 tokens cut 5% of RTE's.
_MANY_CUT = 0.1
_PERCENTILES = (50, 90, 99, 100)


@dataclasses.dataclass(frozen=True)
class Lengths:
  """Lengths of a split's rows.

  Attributes:
    characters: median, 90th and 99th percentile and longest, both texts.
    tokens: the same, special tokens included; empty without a tokenizer.
    tokenised: rows that were tokenised.
    rows_cut: share of these that are longer than `data.max_length`.
    tokens_cut: share of their tokens that are cut off.
  """

  characters: tuple[int, ...]
  tokens: tuple[int, ...] = ()
  tokenised: int = 0
  rows_cut: float = 0.0
  tokens_cut: float = 0.0


def measure(
  rows: rows_lib.Rows, tokenizer: features.Tokenizer | None, max_length: int
) -> Lengths:
  """Measures the rows of a split.

  Args:
    rows: of the split.
    tokenizer: None where there is none.
    max_length: tokens that a row may have, specials included.
  """
  characters = _sum([[len(t) for t in column] for column in rows.texts])
  if tokenizer is None:
    return Lengths(_percentiles(characters))
  total = len(rows.index)
  sample = np.unique(
    np.linspace(0, total - 1, min(total, SAMPLE)).astype(np.int64)
  )
  tokens = 1 + _sum([
      [len(ids) + 1 for ids in tokenizer.encode([column[i] for i in sample])]
      for column in rows.texts
  ])  # fmt: skip
  over = np.maximum(tokens - max_length, 0)
  return Lengths(
    _percentiles(characters),
    _percentiles(tokens),
    len(sample),
    float((over > 0).mean()),
    float(over.sum() / tokens.sum()),
  )


def _sum(columns: list[list[int]]) -> np.ndarray:
  return np.array(columns).sum(axis=0)


def _percentiles(values: np.ndarray) -> tuple[int, ...]:
  return tuple(
    int(x) for x in np.percentile(values, _PERCENTILES, method='higher')
  )


def check(
  rows: rows_lib.Rows, lengths: Lengths, max_length: int
) -> Iterator[findings.Finding]:
  """Rows that would be cut."""
  if not lengths.rows_cut:
    return
  cut = round(lengths.rows_cut * lengths.tokenised)
  yield findings.Finding(
    'warning' if lengths.rows_cut > _MANY_CUT else 'note',
    rows.task.name,
    rows.split,
    'truncation',
    f'{lengths.rows_cut:.2%} of {lengths.tokenised:,} rows have more than'
    f' {max_length} tokens; {lengths.tokens_cut:.2%} of all tokens are cut',
    'raise config.data.max_length and config.packing.row_length',
    cut,
    (rows.task.tables[rows.split].file,),
  )
