"""Measures how long rows are, what is cut off, and which words are unknown."""

import collections
from collections.abc import Iterator

import numpy as np

from bam_jax import errors
from bam_jax.data import features
from bam_jax.doctor import findings
from bam_jax.doctor import rows as rows_lib

# Rows that are tokenised, evenly over the split; all of a smaller one.
SAMPLE = 20_000
# Share of the rows; BERT's 128 tokens cut 5% of RTE's.
_MANY_CUT = 0.1
# A row is probably several rows if it has this many characters, and this many
# times the 99th percentile.
_LONG_CHARACTERS, _LONG_TIMES = 5000, 10
# Share of [UNK] among the tokens. A vocabulary of the texts' language and case
# has up to 0.03% in GLUE's files; the letters and words of the demo, 1% to 4%.
_MANY_UNKNOWN = 0.05
# Rows whose unknown words are counted, and words that are shown.
_UNKNOWN_ROWS, _UNKNOWN_WORDS = 1000, 5
_PERCENTILES = (50, 90, 99, 100)


def measure(
  rows: rows_lib.Rows, tokenizer: features.Tokenizer | None, max_length: int
) -> None:
  """Sets `lengths`, `max_length`, `cut` and `unknown` of some rows.

  Args:
    rows: of a split.
    tokenizer: None: tokens are not counted.
    max_length: tokens that a row may have, special ones included.
  """
  rows.max_length = max_length
  characters = _percentiles(_characters(rows))
  rows.lengths = findings.Lengths(characters)
  if tokenizer is None:
    return
  sample = np.unique(
    np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).astype(np.int64)
  )
  encoded = [
    tokenizer.encode([column[i] for i in sample]) for column in rows.texts
  ]
  tokens = 1 + _sum([[len(ids) + 1 for ids in column] for column in encoded])
  unknown = _sum([
      [np.count_nonzero(ids == tokenizer.unk_id) for ids in column]
      for column in encoded
  ])  # fmt: skip
  over = np.maximum(tokens - max_length, 0)
  if rows.task.kind.in_windows:
    over[:] = 0
  rows.cut, rows.unknown = sample[over > 0], sample[unknown > 0]
  rows.lengths = findings.Lengths(
    characters,
    _percentiles(tokens),
    len(sample),
    float((over > 0).mean()),
    float(over.sum() / tokens.sum()),
    float(unknown.sum() / tokens.sum()),
    _unknown_words(rows, tokenizer),
  )


def _unknown_words(
  rows: rows_lib.Rows, tokenizer: features.Tokenizer
) -> tuple[str, ...]:
  """The words of some rows that most often become [UNK]."""
  counts: collections.Counter[str] = collections.Counter()
  for column in rows.texts:
    texts = [column[i] for i in rows.unknown[:_UNKNOWN_ROWS]]
    encoded = tokenizer.encode_with_spans(texts)
    for text, (ids, spans) in zip(texts, encoded, strict=True):
      for begin, end in spans[ids == tokenizer.unk_id].tolist():
        counts[text[begin:end]] += 1
  return tuple(word for word, _ in counts.most_common(_UNKNOWN_WORDS))


def _characters(rows: rows_lib.Rows) -> np.ndarray:
  """[N] characters of both texts together."""
  return _sum([[len(text) for text in column] for column in rows.texts])


def _sum(columns: list[list[int]]) -> np.ndarray:
  return np.array(columns).sum(axis=0)


def _percentiles(values: np.ndarray) -> tuple[int, ...]:
  return tuple(
    int(x) for x in np.percentile(values, _PERCENTILES, method='higher')
  )


def check(rows: rows_lib.Rows) -> Iterator[findings.Finding]:
  """Finds unknown words, rows that are cut, and rows that are several rows."""
  lengths = rows.lengths
  if lengths.unknown > _MANY_UNKNOWN:
    words = errors.some(repr(word[:40]) for word in lengths.unknown_words)
    yield rows.find_in(
      rows.unknown,
      'warning',
      'unknown words',
      f'{lengths.unknown:.2%} of the tokens of {lengths.tokenised:,} rows are'
      f' [UNK], first of all {words}',
      'use a vocabulary of the language and case of these texts; for a cased'
      ' one write "do_lower_case": false into the tokenizer_config.json of'
      ' config.model.init',
    )
  if len(rows.cut):
    yield rows.find_in(
      rows.cut,
      'warning' if lengths.rows_cut > _MANY_CUT else 'note',
      'truncation',
      f'{lengths.rows_cut:.2%} of {lengths.tokenised:,} rows have more than'
      f' {rows.max_length} tokens; {lengths.tokens_cut:.2%} of all tokens are'
      ' cut',
      'raise config.data.max_length and config.packing.row_length',
    )
  longest = max(_LONG_CHARACTERS, _LONG_TIMES * lengths.characters[2])
  # Most splits have none, and need no second look.
  if lengths.characters[-1] > longest:
    yield rows.find_in(
      np.flatnonzero(_characters(rows) > longest),
      'warning',
      'long row',
      f'rows of more than {longest:,} characters, the longest of'
      f' {lengths.characters[-1]:,}, where 99% have at most'
      f' {lengths.characters[2]:,}',
      'look at them: a reader with quoting may have made one row of many',
    )
