"""Measures row lengths, truncation, and words unknown to the tokenizer."""

import collections
from collections.abc import Iterator, Sequence

import numpy as np

from bam_jax import errors
from bam_jax.data import prepare
from bam_jax.doctor import findings
from bam_jax.doctor import rows as rows_lib
from bam_jax.tasks import windows

# Most rows that are tokenised per split, evenly spread over it.
SAMPLE = 20_000
# A row is probably several joined rows if it has more than _LONG_CHARACTERS
# characters, and more than _LONG_TIMES times the 99th percentile.
_LONG_CHARACTERS, _LONG_TIMES = 5000, 10
# A warning is reported if the share of [UNK] among the tokens is above this. On
# GLUE's files, the share is up to 0.03% for a vocabulary of the texts' language
# and case, and 1% to 4% for the demo's vocabulary of letters and a few words.
_MANY_UNKNOWN = 0.05
# Most rows in which unknown words are counted, and most unknown words shown.
_UNKNOWN_ROWS, _UNKNOWN_WORDS = 1000, 5
# Token limits that are compared, in addition to `config.data.max_length`.
_LIMITS = (128, 256, 512)


def check(rows: rows_lib.Rows) -> Iterator[findings.Finding]:
  """Measures row lengths; reports unknown words and rows that are too long."""
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
  sizes, unknown = [], np.zeros(len(sample), np.int64)
  for column in rows.texts:
    encoded = tokenizer.encode([column[i] for i in sample])
    sizes.append(np.array([len(ids) for ids in encoded], np.int64))
    unknown += [np.count_nonzero(ids == tokenizer.unk_id) for ids in encoded]
  special = 2 if len(sizes) == 1 else 2 + tokenizer.num_separators
  tokens = sum(sizes) + special
  has_windows = bool(rows.task.windows)
  losses, choices = {}, {}
  for limit in sorted({rows.max_length, *_LIMITS}):
    if limit >= rows.max_length and not rows.task.kind.per_token:
      losses[limit] = [
        _lost(sizes, limit - special, rows.task.stride, has)
        for has in (False, True)
      ]
  over = np.zeros_like(tokens)
  if losses:
    over, _ = losses[rows.max_length][has_windows]
    if (tokens > rows.max_length).any():
      for limit, pair in losses.items():
        choices[limit] = tuple(_loss(*found, tokens) for found in pair)
        if not choices[limit][False].rows_cut:
          break  # Higher limits lose nothing either.
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
    choices,
  )
  if lengths.unknown > _MANY_UNKNOWN:
    yield rows.find(
      'warning',
      'unknown words',
      f'{lengths.unknown:.2%} of the tokens of {len(sample):,} rows are'
      f' [UNK], first of all {errors.some(repr(word[:40]) for word in words)}',
      rows.vocabulary,
      len(has_unknown),
      rows.place_names(has_unknown),
    )
  if len(is_cut):
    remedy = 'raise config.data.max_length'
    what = f'have more than {rows.max_length} tokens'
    table = rows.task.tables[rows.task.train_split]
    if has_windows:
      what = 'are of two texts that are both too long for a window'
    elif table.file and not table.tfds and rows.task.kind.joins_windows:
      inputs = choices[rows.max_length][True].inputs
      remedy += (
        f", or set config.custom_tasks.{rows.task.name}.windows='mean':"
        f' {inputs:.2f} inputs for each row'
      )
    yield rows.find(
      'warning' if lengths.rows_cut > prepare.MANY_CUT else 'note',
      'truncation',
      f'{lengths.rows_cut:.2%} of {len(sample):,} rows {what};'
      f' {lengths.tokens_cut:.2%} of all tokens are cut',
      remedy,
      len(is_cut),
      rows.place_names(is_cut),
    )


def _lost(
  sizes: Sequence[np.ndarray], budget: int, stride: int, has_windows: bool
) -> tuple[np.ndarray, np.ndarray]:
  """Counts the tokens of each row that are not read, and its model inputs.

  The counts are those that result from `featurize`.

  Args:
    sizes: [N] numbers of tokens of the first texts; for pairs, also [N] numbers
      of tokens of the second texts.
    budget: number of tokens per input, without special tokens.
    stride: tokens between window starts; see `windows.begins`.
    has_windows: whether long rows are read in windows; otherwise they are
      truncated.

  Returns:
    [N] numbers of tokens that are not read, and [N] numbers of model inputs.
  """
  over = np.maximum(sum(sizes) - budget, 0)
  inputs = np.ones_like(over)
  if not has_windows:
    return over, inputs
  long, other = np.maximum.reduce(sizes), np.minimum.reduce(sizes)
  if len(sizes) == 1:
    other = np.zeros_like(long)
  kept = np.minimum(other, budget // 2)
  for row in np.flatnonzero(over):
    begins = windows.begins(int(long[row]), int(budget - kept[row]), stride)
    inputs[row] = len(begins)
  return np.where(over > 0, other - kept, 0), inputs


def _loss(
  over: np.ndarray, inputs: np.ndarray, tokens: np.ndarray
) -> findings.Loss:
  return findings.Loss(
    float((over > 0).mean()),
    float(over.sum() / tokens.sum()),
    float(inputs.mean()),
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
