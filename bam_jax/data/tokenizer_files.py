"""Loads the tokenizer of a model directory or of a vocabulary file.

A directory is loaded with transformers' `AutoTokenizer`, so that token ids are
the same as in transformers. For some files, `AutoTokenizer` silently builds a
tokenizer that differs from what they describe; `load` then raises an error.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import importlib.util
import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models
from tokenizers import normalizers
from tokenizers import pre_tokenizers

from bam_jax import errors
from bam_jax import escape
from bam_jax import files

# Special tokens of BERT, by the names that transformers gives them.
BERT_TOKENS = {
  'unk_token': '[UNK]',
  'sep_token': '[SEP]',
  'pad_token': '[PAD]',
  'cls_token': '[CLS]',
  'mask_token': '[MASK]',
}
_REQUIRED = ('pad_token', 'unk_token', 'cls_token', 'sep_token')
_HIGHEST_ID = 2**31 - 1  # Ids are stored as int32.
# SentencePiece files: spm.model of DeBERTa, the other of XLM-R and CamemBERT.
SENTENCE_PIECE = ('spm.model', 'sentencepiece.bpe.model')

# Parts of a tokenizer.json that decide the ids, apart from its added tokens.
_PARTS = ('model', 'pre_tokenizer', 'normalizer')
# Settings of BERT's normalizer that tokenizer_config.json decides: name in
# tokenizer.json -> name in tokenizer_config.json.
_NORMALIZER_SETTINGS = {
  'lowercase': 'do_lower_case',
  'strip_accents': 'strip_accents',
  'handle_chinese_chars': 'tokenize_chinese_chars',
}
# A vocabulary counts as cased if more than this share of its words have capital
# letters. Cased vocabularies have thousands of such words, others hardly any.
_CASED_SHARE = 0.01

_SAVE_AGAIN = (
  'to keep what AutoTokenizer reads, run `python -c "import transformers as t;'
  " d={0!r}; t.AutoModel.from_pretrained(d).save_pretrained('NEW');"
  ' t.PreTrainedTokenizerFast(tokenizer_object=t.AutoTokenizer.from_pretrained('
  "d).backend_tokenizer).save_pretrained('NEW')\"` and set"
  ' config.model.init=NEW'
)
_OTHER_MODEL = 'choose another config.model.init'


def _unusable(
  where: Path | str, what: str, remedy: str = 'fetch it again'
) -> errors.UserError:
  return errors.UserError(f'{where}: {what}; {remedy}')


def read_vocab(file: Path) -> list[str]:
  """Returns the lines of a vocab.txt; the id of a token is its line number.

  Raises:
    OSError: the file can't be read.
    ValueError: the file is too large or not UTF-8.
    errors.UserError: the file begins with a byte-order mark.
  """
  # Not `splitlines`, because some vocabularies contain U+2028 or U+0085.
  text = files.load_text(file)
  if text.startswith('\ufeff'):
    what = 'begins with a byte-order mark, which would be part of a token'
    raise _unusable(file, what, 'save it as UTF-8 without the mark')
  lines = text.removesuffix('\n').split('\n')
  return [line.removesuffix('\r') for line in lines]


def from_lines(lines: Sequence[str], lowercase: bool) -> tokenizers.Tokenizer:
  """Makes BERT's WordPiece tokenizer from the lines of a vocab.txt.

  Args:
    lines: the tokens; a newline at the end of a token is ignored.
    lowercase: whether to lower-case texts and strip accents (uncased BERT).

  Raises:
    errors.UserError: a special token is missing, or a token occurs twice.
  """
  tokens = [line.rstrip('\n') for line in lines]
  vocabulary = {token: number for number, token in enumerate(tokens)}
  for number, token in enumerate(tokens):
    if vocabulary[token] != number:
      raise errors.UserError(
        f'the vocabulary: {token!r} is in line {number + 1} and again in line'
        f' {vocabulary[token] + 1}; replace the first by a token that no text'
        f' has, such as [unused_line_{number + 1}], and keep the line, because'
        ' the number of a line is the id of its token'
      )
  _check_special(vocabulary, BERT_TOKENS, 'the vocabulary')
  tokenizer = tokenizers.Tokenizer(
    models.WordPiece(
      vocabulary, unk_token='[UNK]', max_input_chars_per_word=100
    )
  )
  tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  special = [BERT_TOKENS[name] for name in (*_REQUIRED, 'mask_token')]
  tokenizer.add_special_tokens([t for t in special if t in vocabulary])
  return tokenizer


def as_json(tokenizer: tokenizers.Tokenizer) -> dict[str, Any]:
  """Returns the content of tokenizer.json, with token scores in float32.

  The package tokenizers may get the last digit of a float64 wrong, so
  comparisons must not depend on that digit.
  """
  return json.loads(
    tokenizer.to_str(), parse_float=lambda text: float(np.float32(text))
  )


def load(path: Path) -> tuple[tokenizers.Tokenizer, dict[str, str], int]:
  """Loads the tokenizer of a model directory with `AutoTokenizer`.

  Args:
    path: directory with tokenizer.json, vocab.txt, vocab.json or a
      SentencePiece model, and other files that AutoTokenizer reads. Nothing is
      downloaded, and no code in the directory is run.

  Returns:
    The tokenizer, its special tokens by name, as in `BERT_TOKENS`, and the
    number of [SEP] between the two texts of a pair.

  Raises:
    errors.UserError: there is no tokenizer; AutoTokenizer can't load it, or
      builds one that differs from the files; or a pair of texts becomes neither
      `[CLS] A [SEP] B [SEP]` nor `[CLS] A [SEP] [SEP] B [SEP]`.
  """
  file, vocab = path / 'tokenizer.json', path / 'vocab.txt'
  byte_level = path / 'vocab.json'
  settings = _read_settings(path / 'tokenizer_config.json')
  written = _from_json(file) if file.is_file() else None
  if written:
    known = written.get_vocab(with_added_tokens=True)
  elif vocab.is_file():
    known = _read_model_vocab(vocab)
  elif byte_level.is_file():
    vocab, known = byte_level, _read_json(byte_level)
  elif pieces := [name for name in SENTENCE_PIECE if (path / name).is_file()]:
    # The ids are taken from AutoTokenizer, which may change those of the file.
    vocab, known = path / pieces[0], {}
    if not importlib.util.find_spec('sentencepiece'):
      what = 'AutoTokenizer reads it with the package sentencepiece'
      raise _unusable(vocab, what, 'run `pip install sentencepiece`')
  else:
    remedy = "name a directory that holds a model's tokenizer"
    what = (
      'holds neither tokenizer.json, vocab.txt, vocab.json,'
      f' {" nor ".join(SENTENCE_PIECE)}'
    )
    raise _unusable(path, what, remedy)
  if not all(type(number) is int for number in known.values()):
    raise _unusable(vocab, 'gives a token an id that is not a number')
  # The libraries allocate lists as long as the highest id.
  if (highest := max(known.values(), default=0)) > _HIGHEST_ID:
    raise _unusable(path, f'gives a token the id {highest}')
  auto = _auto_tokenizer(path, settings, known)
  tokenizer = auto.backend_tokenizer
  known = known or tokenizer.get_vocab(with_added_tokens=False)
  # A tokenizer class that only loads tokenizer.json may not know the names of
  # its special tokens.
  special = {n: getattr(auto, n) or token for n, token in BERT_TOKENS.items()}
  _check_special(known, special, str(file if written else vocab))
  if written:
    _check_parts(path, written, tokenizer)
  _check_declared_ids(path, settings, written, tokenizer)
  _check_ids(path, tokenizer)
  num_separators = _count_separators(path, tokenizer, special)
  if (
    written
    and written.post_processor
    and _count_separators(path, written, special) != num_separators
  ):
    raise _replaced(path, 'post_processor')
  _warn_of_case(path, tokenizer)
  return tokenizer, special, num_separators


@contextlib.contextmanager
def _read_errors(
  where: Path, what: str = 'cannot be read', remedy: str = 'fetch it again'
) -> Iterator[None]:
  """Context manager that turns any exception into a `UserError`."""
  try:
    yield
  except errors.UserError:
    raise
  except Exception as error:
    reason = escape.one_line(error)
    raise _unusable(where, f'{what} ({reason})', remedy) from None


def _read_json(file: Path) -> dict[str, object]:
  """Reads a JSON object; returns an empty one if the file is missing."""
  with _read_errors(file):
    try:
      return files.parse_json(files.load_text(file))
    except FileNotFoundError:
      return {}


def _read_settings(file: Path) -> dict[str, object]:
  """Reads a tokenizer_config.json; raises if a setting is not supported."""
  settings = _read_json(file)
  for name in _NORMALIZER_SETTINGS.values():
    if not isinstance(settings.get(name), bool | None):
      what = f'{name} is {settings[name]!r}'
      raise _unusable(file, what, 'give true or false')
  if settings.get('split_special_tokens'):
    what = 'split_special_tokens is True, which is not supported'
    raise _unusable(file, what, _OTHER_MODEL)
  return settings


def _read_model_vocab(file: Path) -> dict[str, int]:
  """Reads a vocab.txt as token -> id; warns if a token is repeated."""
  with _read_errors(file):
    lines = read_vocab(file)
  vocabulary = {line: number for number, line in enumerate(lines)}
  repeated = [
    f'{line!r} in line {number + 1} and in line {vocabulary[line] + 1}'
    for number, line in enumerate(lines)
    if vocabulary[line] != number and line.strip()
  ]
  if repeated:
    logging.warning(
      '%s: repeated tokens: %s; the id is that of the last line, as in'
      ' transformers',
      file,
      errors.some(repeated),
    )
  return vocabulary


def _from_json(file: Path) -> tokenizers.Tokenizer:
  """Reads a tokenizer.json without `AutoTokenizer`."""
  with _read_errors(file):
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
  unknown = getattr(tokenizer.model, 'unk_token', None)
  # The vocabulary of the model must have this token; adding it is not enough.
  if unknown and tokenizer.model.token_to_id(unknown) is None:
    what = f'model.vocab lacks {unknown!r}, the token for unknown words'
    raise _unusable(file, what)
  return tokenizer


def _auto_tokenizer(
  path: Path, settings: Mapping[str, object], known: Mapping[str, int]
) -> Any:
  """Calls `AutoTokenizer`; assumes BERT if the files name no model type."""
  # transformers would recommend to install PyTorch, which is not needed.
  os.environ.setdefault('TRANSFORMERS_NO_ADVISORY_WARNINGS', '1')
  import transformers  # Here, because this import takes a second.

  config = _read_json(path / 'config.json')
  options = {}
  if 'tokenizer_class' not in {**settings, **config}:
    options['tokenizer_type'] = config.get('model_type', 'bert')
  size = config.get('vocab_size')
  if (
    '[CLS]' in known
    and '[MASK]' not in known
    and isinstance(size, int)
    and size <= len(known)
  ):
    # AutoTokenizer would add a [MASK] token, which has no embedding.
    options['mask_token'] = None
  remedy = f'fetch its files again or {_OTHER_MODEL}'
  with _read_errors(path, 'AutoTokenizer cannot load the tokenizer', remedy):
    result = transformers.AutoTokenizer.from_pretrained(
      str(path), local_files_only=True, trust_remote_code=False, **options
    )
  if not isinstance(result, transformers.PreTrainedTokenizerFast):
    what = (
      f'its tokenizer_class, {type(result).__name__}, is not based on the'
      ' package tokenizers'
    )
    raise _unusable(path, what, _OTHER_MODEL)
  return result


def _check_special(
  known: Mapping[str, int], special: Mapping[str, str], where: str
) -> None:
  """Raises if the vocabulary lacks a special token, such as [CLS]."""
  for name in _REQUIRED:
    if special[name] not in known:
      what = f'lacks {special[name]}'
      raise _unusable(where, what, "give the model's own vocabulary")


def _check_parts(
  path: Path, written: tokenizers.Tokenizer, read: tokenizers.Tokenizer
) -> None:
  """Raises if what AutoTokenizer loaded differs from tokenizer.json.

  For BERT, AutoTokenizer takes only the vocabulary from the file and builds the
  other parts itself. The parts that it builds must be the same as in the file,
  except for the settings in `_NORMALIZER_SETTINGS`.
  """
  one, two = as_json(written), as_json(read)
  for part in _PARTS:
    first, second = one[part], two[part]
    if first and first['type'] == 'BertNormalizer':
      first = {**first, **{n: second.get(n) for n in _NORMALIZER_SETTINGS}}
    if first and first != second:
      raise _replaced(path, part)


def _replaced(path: Path, part: str) -> errors.UserError:
  return _unusable(
    path,
    f'AutoTokenizer replaces the {part} of tokenizer.json; to keep that of the'
    ' file, set "tokenizer_class": "PreTrainedTokenizerFast" in'
    ' tokenizer_config.json',
    _SAVE_AGAIN.format(str(path)),
  )


def _check_declared_ids(
  path: Path,
  settings: Mapping[str, object],
  written: tokenizers.Tokenizer | None,
  tokenizer: tokenizers.Tokenizer,
) -> None:
  """Raises if the loaded id of an added token differs from the id in the file.

  `AutoTokenizer` ignores the ids of added tokens and numbers them itself.
  """
  declared = {}
  if decoder := settings.get('added_tokens_decoder'):
    declared['tokenizer_config.json'] = {
      token['content']: int(number) for number, token in decoder.items()
    }
  else:
    declared['added_tokens.json'] = _read_json(path / 'added_tokens.json')
  if written:
    declared['tokenizer.json'] = {
      token.content: number
      for number, token in written.get_added_tokens_decoder().items()
    }
  ids = tokenizer.get_vocab(with_added_tokens=True)
  for name, tokens in declared.items():
    for token, number in tokens.items():
      if ids.get(token) != number:
        what = (
          f'{token!r} has the id {number} there, but AutoTokenizer gives it'
          f' {ids.get(token)}'
        )
        raise _unusable(path / name, what, _SAVE_AGAIN.format(str(path)))


def _check_ids(path: Path, tokenizer: tokenizers.Tokenizer) -> None:
  """Raises if two tokens have the same id."""
  ids = tokenizer.get_vocab(with_added_tokens=True)
  owners = {number: token for token, number in ids.items()}
  for token, number in ids.items():
    if owners[number] != token:
      what = f'{token!r} and {owners[number]!r} both have the id {number}'
      raise _unusable(path, what, _OTHER_MODEL)


def _count_separators(
  path: Path, tokenizer: tokenizers.Tokenizer, special: Mapping[str, str]
) -> int:
  """Returns the number of [SEP] that the tokenizer puts between two texts.

  BERT has one, RoBERTa has two. Raises an error if the tokenizer places [CLS]
  and [SEP] neither as in BERT nor as in RoBERTa.
  """
  tokenizer.no_truncation()
  tokenizer.no_padding()
  cls = tokenizer.token_to_id(special['cls_token'])
  sep = tokenizer.token_to_id(special['sep_token'])
  one, two = tokenizer.encode(''), tokenizer.encode('', '')
  if one.ids == [cls, sep]:
    if (two.ids, two.type_ids) == ([cls, sep, sep], [0, 0, 1]):
      return 1
    # Token types may differ: encoders with this template don't read them.
    if two.ids == [cls, sep, sep, sep]:
      return 2
  what = (
    'its tokenizer does not make [CLS] A [SEP] B [SEP] of two texts, nor what'
    " RoBERTa's makes, [CLS] A [SEP] [SEP] B [SEP]"
  )
  raise _unusable(path, what, _OTHER_MODEL)


def _warn_of_case(path: Path, tokenizer: tokenizers.Tokenizer) -> None:
  """Logs a warning if texts are lower-cased but the vocabulary is cased."""
  if not getattr(tokenizer.normalizer, 'lowercase', False):
    return
  added = {t.content for t in tokenizer.get_added_tokens_decoder().values()}
  words = tokenizer.get_vocab().keys() - added
  cased = sum(word != word.lower() for word in words)
  if cased > _CASED_SHARE * len(words):
    logging.warning(
      '%s: texts are lower-cased, but %d of %d words of the vocabulary have'
      ' capital letters; if the model is cased, write {"do_lower_case": false}'
      ' to tokenizer_config.json',
      path,
      cased,
      len(words),
    )
