"""From texts to token ids: WordPiece and BERT's truncation of pairs."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import hashlib
import itertools
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tokenizers
from tokenizers import decoders
from tokenizers import models
from tokenizers import normalizers
from tokenizers import pre_tokenizers
from tokenizers import processors

from bam_jax import errors
from bam_jax import files
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib

_REQUIRED = ('[PAD]', '[UNK]', '[CLS]', '[SEP]')
_SPECIAL = (*_REQUIRED, '[MASK]')
_HIGHEST_ID = 2**31 - 1

# Of a tokenizer_config.json: its name here and there, and what an absent one
# means to Hugging Face's BertTokenizer.
_CHOICES = (
  ('lowercase', 'do_lower_case', True),
  ('strip_accents', 'strip_accents', None),
  ('handle_chinese_chars', 'tokenize_chinese_chars', True),
)

# Texts handed to the tokenizer at once: enough to keep all cores busy, few
# enough to keep memory small.
_BATCH = 4096

# Called with the uid of each example whose texts are not read to their ends.
OnCut = Callable[[str], None]


class Features(NamedTuple):
  """An example as token ids.

  Attributes:
    uid: of the example; a swapped copy's ends in `task.SWAP_SUFFIX`.
    input_ids: [tokens] int32, `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`.
    length_a: tokens of type 0, those up to and including the first `[SEP]`.
    label: class index, score scaled to 0-1, 0 or 1 for each label, or as the
      kind has it of tokens; nan if there is none.
  """

  uid: str
  input_ids: np.ndarray
  length_a: int
  label: float | np.ndarray


class Tokenizer:
  """BERT's tokenizer: same ids as Hugging Face's, without truncation."""

  def __init__(self, tokenizer: tokenizers.Tokenizer):
    """Takes over a WordPiece tokenizer and makes it canonical.

    Truncation and padding, which a tokenizer.json may carry, are switched off.
    The template that adds special tokens and the decoder are made anew: they
    do not change ids here, so they must not change the fingerprint.
    """
    tokenizer.no_truncation()
    tokenizer.no_padding()
    self.cls_id = tokenizer.token_to_id('[CLS]')
    self.pad_id = tokenizer.token_to_id('[PAD]')
    self.sep_id = tokenizer.token_to_id('[SEP]')
    self.unk_id = tokenizer.token_to_id('[UNK]')
    tokenizer.post_processor = processors.BertProcessing(
      ('[SEP]', self.sep_id), ('[CLS]', self.cls_id)
    )
    tokenizer.decoder = decoders.WordPiece()
    self._tokenizer = tokenizer

  @classmethod
  def from_vocab(cls, lines: Sequence[str], lowercase: bool) -> 'Tokenizer':
    """A tokenizer from the lines of a vocab.txt, whose order gives the ids.

    Args:
      lines: the tokens; a newline at their ends is ignored.
      lowercase: lower-case the text and strip its accents (uncased BERT).

    Raises:
      errors.UserError: a special token is missing or a token stands twice.
    """
    return cls(_word_piece(lines, 'the vocabulary', lowercase=lowercase))

  @classmethod
  def from_dir(cls, path: str | os.PathLike[str]) -> 'Tokenizer':
    """The tokenizer of a model directory.

    Args:
      path: holds tokenizer.json, or vocab.txt with tokenizer_config.json where
        the model is not an uncased one.

    Raises:
      errors.UserError: neither is there, or what is there is no WordPiece
        tokenizer with BERT's special tokens.
    """
    path = Path(path)
    file = path / 'tokenizer.json'
    if file.is_file():
      return cls(_load_json(file))
    file = path / 'vocab.txt'
    if not file.is_file():
      raise errors.UserError(
        f'{path}: neither tokenizer.json nor vocab.txt; name a directory that'
        " holds a BERT model's tokenizer"
      )
    settings = path / 'tokenizer_config.json'
    try:
      lines = read_vocab(file)
      config = files.load_json(settings) if settings.is_file() else {}
    except (OSError, ValueError) as error:
      raise errors.UserError(
        f'{path}: vocab.txt or tokenizer_config.json is broken ({error});'
        ' fetch them again'
      ) from None
    choices = {}
    for key, name, default in _CHOICES:
      choices[key] = config.get(name, default)
      if type(choices[key]) not in (bool, type(default)):
        raise errors.UserError(
          f'{settings}: {name} is {choices[key]!r}; give true or false'
        )
    return cls(_word_piece(lines, str(file), **choices))

  @property
  def vocab_size(self) -> int:
    """Number of ids, those between the first and the last without a token too.

    A tokenizer.json may give a token any id.
    """
    vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
    return max(vocabulary.values()) + 1

  @property
  def fingerprint(self) -> str:
    """sha256 of everything that decides the ids, hexadecimal."""
    text = json.dumps(json.loads(self._tokenizer.to_str()), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()

  def save(self, directory: str | os.PathLike[str]) -> None:
    """Writes tokenizer.json and vocab.txt, the latter in the order of ids."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    self._tokenizer.save(str(directory / 'tokenizer.json'))
    vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    (directory / 'vocab.txt').write_text(
      ''.join(f'{token}\n' for token in tokens), encoding='utf-8'
    )

  def with_vocab(self, lines: Sequence[str]) -> 'Tokenizer':
    """A tokenizer of other tokens that cuts a text into the same words.

    Args:
      lines: the tokens, as for `from_vocab`.

    Raises:
      errors.UserError: as `from_vocab`.
    """
    other = _word_piece(lines, 'the vocabulary', lowercase=False)
    other.normalizer = self._tokenizer.normalizer
    other.pre_tokenizer = self._tokenizer.pre_tokenizer
    return type(self)(other)

  def pieces(self, other: 'Tokenizer') -> list[np.ndarray]:
    """What the tokens of another vocabulary are in this one.

    Returns:
      For each of its ids, ids of this one, [1 or more] int32: those of the same
      token, or of its text; that of `[UNK]` where there is none.
    """
    own = self._tokenizer.get_vocab(with_added_tokens=True)
    result = [np.array([self.unk_id], np.int32)] * other.vocab_size
    theirs = other._tokenizer.get_vocab(with_added_tokens=True)
    texts = self.encode([token.removeprefix('##') for token in theirs])
    for (token, number), ids in zip(theirs.items(), texts, strict=True):
      if token in own:
        result[number] = np.array([own[token]], np.int32)
      elif token not in _SPECIAL and len(ids):
        result[number] = ids
    return result

  def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Ids of each text, [tokens] int32, without special tokens, uncut."""
    encodings = self._tokenizer.encode_batch_fast(
      texts, add_special_tokens=False
    )
    return [np.array(encoding.ids, np.int32) for encoding in encodings]

  def encode_with_spans(
    self, texts: Sequence[str]
  ) -> list[tuple[np.ndarray, np.ndarray]]:
    """As `encode`, and [tokens, 2] where a token's characters begin and end."""
    found = self._tokenizer.encode_batch(texts, add_special_tokens=False)
    spans = [np.array(each.offsets, np.int32).reshape(-1, 2) for each in found]
    ids = [np.array(each.ids, np.int32) for each in found]
    return list(zip(ids, spans, strict=True))


def read_vocab(file: Path) -> list[str]:
  """The tokens of a vocab.txt; their order gives the ids.

  Raises:
    OSError: the file can't be read.
    ValueError: it is too large or no UTF-8.
  """
  # Split at newlines alone: some vocabularies hold a U+2028 or U+0085.
  return files.load_text(file).removesuffix('\n').split('\n')


def _word_piece(
  lines: Sequence[str],
  where: str,
  *,
  lowercase: bool,
  strip_accents: bool | None = None,
  handle_chinese_chars: bool = True,
) -> tokenizers.Tokenizer:
  """BERT's normalisation and WordPiece over a vocabulary.

  Args:
    lines: the tokens in the order of their ids.
    where: the file, for errors.
    lowercase: lower-case the text.
    strip_accents: None: if `lowercase`.
    handle_chinese_chars: each CJK character is a word.
  """
  tokens = [line.rstrip('\n') for line in lines]
  vocabulary = {token: i for i, token in enumerate(tokens)}
  if len(vocabulary) < len(tokens):
    double = next(t for i, t in enumerate(tokens) if vocabulary[t] != i)
    raise errors.UserError(
      f'{where}: line {tokens.index(double) + 1}: {double!r} stands there'
      ' twice; give each token once'
    )
  for token in _REQUIRED:
    if token not in vocabulary:
      raise errors.UserError(
        f"{where}: no {token}; give a BERT model's vocabulary"
      )
  tokenizer = tokenizers.Tokenizer(
    models.WordPiece(
      vocabulary, unk_token='[UNK]', max_input_chars_per_word=100
    )
  )
  tokenizer.add_special_tokens([t for t in _SPECIAL if t in vocabulary])
  tokenizer.normalizer = normalizers.BertNormalizer(
    clean_text=True,
    handle_chinese_chars=handle_chinese_chars,
    strip_accents=strip_accents,
    lowercase=lowercase,
  )
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  return tokenizer


def _load_json(file: Path) -> tokenizers.Tokenizer:
  try:
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
  except Exception as error:  # The library raises nothing more special.
    raise errors.UserError(
      f'{file}: cannot be loaded ({error}); fetch it again'
    ) from None
  missing = [t for t in _REQUIRED if tokenizer.token_to_id(t) is None]
  if missing or not isinstance(tokenizer.model, models.WordPiece):
    what = f'no {missing[0]}' if missing else 'no WordPiece model'
    raise errors.UserError(f"{file}: {what}; give a BERT model's tokenizer")
  # An added token of that name is none of the model's.
  unknown = tokenizer.model.unk_token
  if tokenizer.model.token_to_id(unknown) is None:
    raise errors.UserError(
      f'{file}: model.vocab lacks {unknown!r}, the token for words that it does'
      ' not know; fetch it again'
    )
  highest = max(tokenizer.get_vocab().values())
  if highest > _HIGHEST_ID:
    raise errors.UserError(
      f'{file}: gives a token the id {highest}; fetch it again'
    )
  return tokenizer


def truncated_lengths(
  length_a: int, length_b: int, budget: int
) -> tuple[int, int]:
  """Lengths of a pair after BERT's longest-first truncation.

  BERT (run_classifier.py, `_truncate_seq_pair`) takes a token from the end of
  the longer text, or of the second if they are equal, until the pair fits.
  The loop's result in closed form:

  >>> truncated_lengths(9, 3, 8)
  (5, 3)

  Args:
    length_a: tokens of the first text.
    length_b: tokens of the second text.
    budget: tokens that both may have together, at least 0.
  """
  if length_a + length_b <= budget:
    return length_a, length_b
  half_a, half_b = (budget + 1) // 2, budget // 2
  if length_a <= half_a:
    return length_a, budget - length_a
  if length_b <= half_b:
    return budget - length_b, length_b
  return half_a, half_b


class _Ids(NamedTuple):
  """An example with uncut ids."""

  uid: str
  a: np.ndarray
  b: np.ndarray | None
  label: float | np.ndarray


def featurize(
  examples: Iterable[task_lib.Example],
  task: task_lib.Task,
  tokenizer: Tokenizer,
  max_length: int,
  swap: bool,
  on_cut: OnCut = lambda uid: None,
) -> Iterator[Features]:
  """Turns examples into token ids, in their order.

  Args:
    examples: read once, as a stream.
    task: of all the examples.
    tokenizer: makes the ids.
    max_length: tokens an example has at most, specials included; at least 3.
    swap: give a copy of each example with its texts in the other order, after
      all of the originals; holds the ids of all examples in memory.
    on_cut: called before an example that is cut off is returned.

  Raises:
    ValueError: `swap` for a task without pairs.
  """
  if swap and not task.is_pair:
    raise ValueError(f'task {task.name!r} has no pairs to swap')
  kept = []
  for ids in _encode(examples, task, tokenizer):
    yield _features(ids, tokenizer, max_length, on_cut)
    if swap:
      kept.append(ids)
  for ids in kept:
    swapped = _Ids(f'{ids.uid}{task_lib.SWAP_SUFFIX}', ids.b, ids.a, ids.label)
    yield _features(swapped, tokenizer, max_length, on_cut)


def _encode(
  examples: Iterable[task_lib.Example],
  task: task_lib.Task,
  tokenizer: Tokenizer,
) -> Iterator[_Ids]:
  stream = iter(examples)
  while batch := list(itertools.islice(stream, _BATCH)):
    first = tokenizer.encode([example.text_a for example in batch])
    second = [None] * len(batch)
    if task.is_pair:
      second = tokenizer.encode([example.text_b for example in batch])
    for example, a, b in zip(batch, first, second, strict=True):
      label = kinds.of(task).target(task, example.label)
      yield _Ids(example.uid, a, b, label)


def _features(
  ids: _Ids, tokenizer: Tokenizer, max_length: int, on_cut: OnCut
) -> Features:
  """Cuts the texts and adds the special tokens."""
  cls, sep = tokenizer.cls_id, tokenizer.sep_id
  if ids.b is None:
    parts = ([cls], ids.a[: max_length - 2], [sep])
    length_a = min(len(ids.a) + 2, max_length)
  else:
    a, b = truncated_lengths(len(ids.a), len(ids.b), max_length - 3)
    parts = ([cls], ids.a[:a], [sep], ids.b[:b], [sep])
    length_a = a + 2
  uncut = sum(len(x) + 1 for x in (ids.a, ids.b) if x is not None) + 1
  if uncut > max_length:
    on_cut(ids.uid)
  input_ids = np.concatenate(parts, dtype=np.int32)
  return Features(ids.uid, input_ids, length_a, ids.label)
