"""Measures row lengths, truncation, and words unknown to the tokenizer."""

import collections
from collections.abc import Iterator, Sequence

import numpy as np

from bam_jax import errors
from bam_jax.data import prepare
from bam_jax.doctor import findings
from bam_jax.doctor import rows as rows_lib

# Rows that are tokenised, evenly over the split; all of a smaller one.
SAMPLE = 20_000
# A row is probably several rows if it has this many characters, and this many
# times the 99th percentile.
_LONG_CHARACTERS, _LONG_TIMES = 5000, 10
# Share of [UNK] among the tokens. A vocabulary of the texts' language and case
# has up to 0.03% in GLUE's files; the letters and words of the demo, 1% to 4%.
_MANY_UNKNOWN = 0.05
# Rows whose unknown words are counted, and words that are shown.
_UNKNOWN_ROWS, _UNKNOWN_WORDS = 1000, 5


def check(rows: rows_lib.Rows) -> Iterator[findings.Finding]:
  """Measures row lengths; reports unknown words and too long rows."""
  characters = sum(
    np.array([len(text) for text in column]) for column in rows.texts
  )
  rows.lengths = findings.Lengths(_percentiles(characters))
  if rows.tokenizer is not None:
    yield from _check_tokens(rows)
  usual, longest = rows.lengths.characters[-2:]
  limit = max(_LONG_CHARACTERS, _LONG_TIMES * usual)
  if longest > limit:
    long = np.flatnonzero(characters > limit)
    what = (
      f'rows of more than {limit:,} characters, the longest of {longest:,},'
      f' where 99% have at most {usual:,}'
    )
    remedy = 'check them: a CSV reader may have joined many rows into one'
    places = rows.place_names(long)
    yield rows.find('warning', 'long row', what, remedy, len(long), places)


def _check_tokens(rows: rows_lib.Rows) -> Iterator[findings.Finding]:
  """Counts tokens; reports unknown words and rows longer than the limit."""
  tokenizer = rows.tokenizer
  sample = np.unique(
    np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).astype(np.int64)
  )
  tokens = np.ones(len(sample), np.int64)
  unknown = np.zeros_like(tokens)
  for column in rows.texts:
    encoded = tokenizer.encode([column[i] for i in sample])
    tokens += [len(ids) + 1 for ids in encoded]
    unknown += [np.count_nonzero(ids == tokenizer.unk_id) for ids in encoded]
  if len(rows.texts) == 2:
    tokens += tokenizer.num_separators - 1
  over = np.maximum(tokens - rows.max_length, 0)
  if rows.task.kind.per_token:
    over[:] = 0
  has_unknown, is_cut = sample[unknown > 0], sample[over > 0]
  words = _unknown_words(rows, has_unknown[:_UNKNOWN_ROWS])
  rows.lengths = lengths = findings.Lengths(
    rows.lengths.characters,
    _percentiles(tokens),
    len(sample),
    float((over > 0).mean()),
    float(over.sum() / tokens.sum()),
    float(unknown.sum() / tokens.sum()),
    words,
  )
  if lengths.unknown > _MANY_UNKNOWN:
    yield rows.find(
      'warning',
      'unknown words',
      f'{lengths.unknown:.2%} of the tokens of {len(sample):,} rows are'
      f' [UNK], first of all {errors.some(repr(word[:40]) for word in words)}',
      'use a vocabulary of the language and case of these texts; for a cased'
      ' one write "do_lower_case": false into the tokenizer_config.json of'
      ' config.model.init',
      len(has_unknown),
      rows.place_names(has_unknown),
    )
  if len(is_cut):
    yield rows.find(
      'warning' if lengths.rows_cut > prepare.MANY_CUT else 'note',
      'truncation',
      f'{lengths.rows_cut:.2%} of {len(sample):,} rows have more than'
      f' {rows.max_length} tokens; {lengths.tokens_cut:.2%} of all tokens are'
      ' cut',
      'raise config.data.max_length',
      len(is_cut),
      rows.place_names(is_cut),
    )


def _unknown_words(
  rows: rows_lib.Rows, numbers: Sequence[int]
) -> tuple[str, ...]:
  """Returns the most frequent words that the tokenizer maps to [UNK]."""
  counts: collections.Counter[str] = collections.Counter()
  for column in rows.texts:
    texts = [column[i] for i in numbers]
    encoded = rows.tokenizer.encode_with_spans(texts)
    for text, (ids, spans) in zip(texts, encoded, strict=True):
      unknown = spans[ids == rows.tokenizer.unk_id].tolist()
      counts.update(text[begin:end] for begin, end in unknown)
  return tuple(word for word, _ in counts.most_common(_UNKNOWN_WORDS))


def _percentiles(values: np.ndarray) -> tuple[int, ...]:
  """Returns the median, the 90th and 99th percentile and the maximum."""
  values = np.percentile(values, (50, 90, 99, 100), method='higher')
  return tuple(map(int, values))
