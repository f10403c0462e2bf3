"""Converts texts to token ids, with BERT's truncation of pairs."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import functools
import hashlib
import itertools
import json
import os
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders
from tokenizers import models
from tokenizers import processors

from bam_jax.data import tokenizer_files
from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import task as task_lib
from bam_jax.tasks import windows

# Number of texts that the tokenizer gets at once: enough to keep all cores
# busy, and few enough to keep memory use small.
_BATCH = 4096
# Number of examples that are cut into windows at once.
_WINDOWS_BATCH = 1024

# Callback that gets the uid of each example that loses tokens to truncation.
OnCut = Callable[[str], None]


class Tokenizer:
  """Wraps a Hugging Face tokenizer and returns token ids as NumPy arrays.

  `num_separators` is the number of [SEP] tokens between the two texts of a
  pair: 1 as in BERT, or 2 as in RoBERTa.
  """

  def __init__(
    self,
    tokenizer: tokenizers.Tokenizer,
    special: Mapping[str, str] = tokenizer_files.BERT_TOKENS,
    num_separators: int = 1,
  ):
    """Wraps a tokenizer and modifies it: truncation and padding are disabled.

    BERT's template and decoder are replaced by a standard form. They can be
    written in several ways that give the same ids here but would give different
    fingerprints.
    """
    tokenizer.no_truncation()
    tokenizer.no_padding()
    self.cls_id = tokenizer.token_to_id(special['cls_token'])
    self.pad_id = tokenizer.token_to_id(special['pad_token'])
    self.sep_id = tokenizer.token_to_id(special['sep_token'])
    self.unk_id = tokenizer.token_to_id(special['unk_token'])
    if num_separators == 1:
      tokenizer.post_processor = processors.BertProcessing(
        (special['sep_token'], self.sep_id), (special['cls_token'], self.cls_id)
      )
      if isinstance(tokenizer.model, models.WordPiece):
        tokenizer.decoder = decoders.WordPiece()
    self.num_separators = num_separators
    self._tokenizer = tokenizer
    self._special = dict(special)

  @classmethod
  def from_vocab(cls, lines: Sequence[str], lowercase: bool) -> 'Tokenizer':
    """Makes BERT's tokenizer from the lines of a vocab.txt."""
    return cls(tokenizer_files.from_lines(lines, lowercase))

  @classmethod
  def from_dir(cls, path: str | os.PathLike[str]) -> 'Tokenizer':
    """Loads the tokenizer of a Hugging Face model directory."""
    return cls(*tokenizer_files.load(Path(path)))

  @property
  def is_word_piece(self) -> bool:
    """Whether the model is WordPiece, so that vocab.txt can be written."""
    return isinstance(self._tokenizer.model, models.WordPiece)

  @functools.cached_property
  def vocab_size(self) -> int:
    """The highest id plus 1; some ids may have no token."""
    vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
    return max(vocabulary.values()) + 1

  @functools.cached_property
  def fingerprint(self) -> str:
    """Hexadecimal sha256 of the vocabulary and the settings."""
    values = tokenizer_files.as_json(self._tokenizer)
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()

  def save(
    self,
    directory: str | os.PathLike[str],
    max_length: int | None = None,
    has_token_types: bool = True,
  ) -> None:
    """Writes files from which `AutoTokenizer` can load this tokenizer.

    tokenizer.json holds the whole tokenizer, and tokenizer_config.json names
    the class that loads it unchanged. A WordPiece tokenizer also gets a
    vocab.txt. Line n (from 0) of vocab.txt is the token with id n. If id n has
    no token, or its token has a line break or outer whitespace, line n is
    `[unused_id_n]`.

    Args:
      directory: folder to write into; created if missing.
      max_length: maximum number of tokens per input, which is written to
        tokenizer_config.json; None: it is not written.
      has_token_types: whether the model takes token types.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    self._tokenizer.save(str(directory / 'tokenizer.json'))
    if self.is_word_piece:
      self._save_vocab(directory / 'vocab.txt')
    added = self._tokenizer.get_added_tokens_decoder().values()
    special = {token.content for token in added if token.special}
    settings = {'tokenizer_class': 'PreTrainedTokenizerFast'}
    if max_length is not None:
      settings['model_max_length'] = max_length
    settings |= {
      n: token for n, token in self._special.items() if token in special
    }
    types = ['token_type_ids'] if has_token_types else []
    settings['model_input_names'] = ['input_ids', *types, 'attention_mask']
    text = json.dumps(settings, indent=2)
    (directory / 'tokenizer_config.json').write_text(text + '\n')

  def _save_vocab(self, file: Path) -> None:
    vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
    lines = {
      number: token
      for token, number in vocabulary.items()
      if token.strip() == token and len(token.splitlines()) == 1
    }
    text = ''.join(
      f'{lines.get(number, f"[unused_id_{number}]")}\n'
      for number in range(self.vocab_size)
    )
    file.write_text(text, encoding='utf-8', newline='\n')

  @functools.cached_property
  def for_words(self) -> 'Tokenizer':
    """Tokenizer that gives a single word the same ids as inside a text.

    It differs from this tokenizer only if the ids of a word depend on a space
    before the word, as in byte-level BPE.
    """

    def add_space(part: dict[str, object]) -> dict[str, object]:
      # This is also called for the vocabulary. A token `add_prefix_space` is
      # not changed, because its value is a number, not False.
      if part.get('add_prefix_space') is False:
        return part | {'add_prefix_space': True}
      return part

    text = self._tokenizer.to_str()
    parts = json.loads(text, object_hook=add_space)
    if parts == json.loads(text):
      return self
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(parts))
    return type(self)(tokenizer, self._special, self.num_separators)

  def with_vocab(self, lines: Sequence[str]) -> 'Tokenizer':
    """Returns a tokenizer with a new vocabulary and the same text splitting.

    Args:
      lines: the tokens. See `tokenizer_files.from_lines` for the format and for
        the errors raised.
    """
    other = tokenizer_files.from_lines(lines, lowercase=False)
    other.normalizer = self._tokenizer.normalizer
    other.pre_tokenizer = self._tokenizer.pre_tokenizer
    return type(self)(other)

  def pieces(self, other: 'Tokenizer') -> list[np.ndarray]:
    """Maps each token id of another tokenizer to ids of this tokenizer.

    Returns:
      For each id of `other`, an array [1 or more] int32. It holds the id that
      the same token has here. If this tokenizer lacks the token, the array
      holds the ids of the token's text. If the token is a special token, or its
      text has no ids, the array holds the id of the unknown token.
    """
    own = self._tokenizer.get_vocab(with_added_tokens=True)
    result = [np.array([self.unk_id], np.int32)] * other.vocab_size
    theirs = other._tokenizer.get_vocab(with_added_tokens=True)
    texts = self.encode([token.removeprefix('##') for token in theirs])
    for (token, number), ids in zip(theirs.items(), texts, strict=True):
      if token in own:
        result[number] = np.array([own[token]], np.int32)
      elif token not in self._special.values() and len(ids):
        result[number] = ids
    return result

  def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Returns each text's token ids, [tokens] int32, without special tokens."""
    encodings = self._tokenizer.encode_batch_fast(
      texts, add_special_tokens=False
    )
    return [np.array(encoding.ids, np.int32) for encoding in encodings]

  def encode_words(self, words: Sequence[str]) -> list[np.ndarray]:
    """Returns the token ids that each word has in a text, [tokens] int32."""
    return self.for_words.encode(words)

  def encode_with_spans(
    self, texts: Sequence[str]
  ) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the token ids and the character spans of each text.

    Returns:
      For each text, the ids, [tokens] int32, and the spans, [tokens, 2] int32.
      Token i is `text[begin:end]` with `begin, end = spans[i]`. The space
      before a word is not part of the span.
    """
    encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False)
    result = []
    for text, each in zip(texts, encodings, strict=True):
      spans = []
      for begin, end in each.offsets:
        # The first token of a word may include the space before the word.
        word = text[begin:end].lstrip()
        spans.append((end - len(word) if word else begin, end))
      spans = np.array(spans, np.int32).reshape(-1, 2)
      result.append((np.array(each.ids, np.int32), spans))
    return result


def truncated_lengths(
  length_a: int, length_b: int, budget: int
) -> tuple[int, int]:
  """Returns the lengths of a pair after BERT's longest-first truncation.

  BERT (run_classifier.py, `_truncate_seq_pair`) removes one token at a time
  from the end of the longer text, or of the second text if both are equally
  long, until the pair has at most `budget` tokens. This function computes the
  result of that loop in closed form:

  >>> truncated_lengths(9, 3, 8)
  (5, 3)
  """
  if length_a + length_b <= budget:
    return length_a, length_b
  half_a, half_b = (budget + 1) // 2, budget // 2
  if length_a <= half_a:
    return length_a, budget - length_a
  if length_b <= half_b:
    return budget - length_b, length_b
  return half_a, half_b


def featurize(
  examples: Iterable[task_lib.Example],
  task: task_lib.Task,
  tokenizer: Tokenizer,
  max_length: int,
  swap: bool = False,
  on_cut: OnCut = lambda uid: None,
) -> Iterator[kind_lib.Features]:
  """Converts examples to rows of at most `max_length` token ids.

  A longer example becomes several rows if the task has outputs per token or has
  `Task.windows`; otherwise it is truncated.

  Args:
    examples: the examples, read only once, as a stream.
    task: the task of all examples.
    tokenizer: makes the ids.
    max_length: maximum number of tokens per row, including special tokens; at
      least 4.
    swap: whether to also yield a copy of each pair with its texts swapped;
      copies follow after all originals. This keeps all ids in memory.
    on_cut: called with the uid of each example that loses tokens, before the
      first row of that example is yielded.

  Raises:
    errors.UserError: `Task.stride` is so large that windows would skip tokens.
  """
  cls, sep = [tokenizer.cls_id], [tokenizer.sep_id]
  num_separators = 1 if task.is_bi_encoder else tokenizer.num_separators
  between = sep * num_separators + (cls if task.is_bi_encoder else [])

  def join(
    uid: str, a: np.ndarray, b: np.ndarray | None, label: float | np.ndarray
  ) -> kind_lib.Features:
    """Truncates the token ids of the texts and adds special tokens."""
    if b is None:
      length = len(a) + 2
      parts = (cls, a[: max_length - 2], sep)
      length_a = len(parts[1]) + 2
    else:
      extra = 2 + len(between)
      length = len(a) + len(b) + extra
      kept_a, kept_b = truncated_lengths(len(a), len(b), max_length - extra)
      parts = (cls, a[:kept_a], between, b[:kept_b], sep)
      length_a = 1 + kept_a + num_separators
    if length > max_length:
      on_cut(uid)
    input_ids = np.concatenate(parts, dtype=np.int32)
    return kind_lib.Features(uid, input_ids, length_a, label)

  def join_windows(
    uid: str, a: np.ndarray, b: np.ndarray | None, label: float | np.ndarray
  ) -> Iterator[kind_lib.Features]:
    """Makes one row per window of the longer text, each with the other text."""
    budget = max_length - 2 - (0 if b is None else len(between))
    is_second = b is not None and len(b) > len(a)
    long, other = (b, a) if is_second else (a, b)
    if other is not None and len(a) + len(b) > budget:
      if len(other) > budget // 2:
        on_cut(uid)
      other = other[: budget // 2]
    room = budget - (0 if other is None else len(other))
    for number, begin in enumerate(
      windows.begins(len(long), room, task.stride)
    ):
      part = long[begin : begin + room]
      texts = (other, part) if is_second else (part, other)
      yield join(task_lib.window_uid(uid, number), *texts, label)

  windows.check_stride(task, tokenizer.num_separators, max_length)
  swapped = []
  stream = iter(examples)
  size = _WINDOWS_BATCH if task.kind.per_token else _BATCH
  while batch := list(itertools.islice(stream, size)):
    if task.kind.per_token:
      yield from task.kind.windows(task, batch, tokenizer, max_length, on_cut)
      continue
    first = tokenizer.encode([example.text_a for example in batch])
    second = [None] * len(batch)
    if task.is_pair:
      second = tokenizer.encode([example.text_b for example in batch])
    for example, a, b in zip(batch, first, second, strict=True):
      label = task.kind.encode_label(task, example.label)
      if swap:
        swapped.append((f'{example.uid}{task_lib.SWAP_SUFFIX}', b, a, label))
      if task.windows:
        yield from join_windows(example.uid, a, b, label)
      else:
        yield join(example.uid, a, b, label)
  yield from itertools.starmap(join, swapped)
