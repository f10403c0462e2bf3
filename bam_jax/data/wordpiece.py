"""WordPiece tokenizers, from a vocabulary or the files of a model directory.

`AutoTokenizer` of transformers combines up to six files of a directory. Version
4 loads tokenizer.json and changes it; version 5 takes the vocabulary from it,
and builds the rest anew. `load` does both. Where the results differ, no ids are
right for both versions, and the directory is refused.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import json
import logging
from pathlib import Path

import tokenizers
from tokenizers import models
from tokenizers import normalizers
from tokenizers import pre_tokenizers

from bam_jax import errors
from bam_jax import files
from bam_jax.data import added_tokens

REQUIRED = ('[PAD]', '[UNK]', '[CLS]', '[SEP]')
SPECIAL = (*REQUIRED, '[MASK]')
_HIGHEST_ID = 2**31 - 1

# Settings of the normalizer: their names here and in a tokenizer_config.json,
# and what a missing one means there.
_CHOICES = (
  ('lowercase', 'do_lower_case', True),
  ('strip_accents', 'strip_accents', None),
  ('handle_chinese_chars', 'tokenize_chinese_chars', True),
)

# Classes that are BERT's tokenizer in both versions.
_BERT = ('BertTokenizer', 'DistilBertTokenizer', 'ElectraTokenizer')
# Classes that take tokenizer.json as it is, without a final "Fast".
_AS_IT_IS = ('PreTrainedTokenizer', 'TokenizersBackend')

# What version 5 removes from the end of a line: Unicode's White_Space.
_BLANKS = (
  '\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006'
  '\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000'
)

# Settings of a tokenizer_config.json that change ids, and that nobody uses.
_REFUSED = ('split_special_tokens', 'init_inputs', 'fast_tokenizer_files')
# Parts of a tokenizer.json that decide ids.
_PARTS = ('normalizer', 'pre_tokenizer', 'model', 'added_tokens')


def read_vocab(file: Path) -> list[str]:
  """The lines of a vocab.txt; their order gives the ids.

  Raises:
    OSError: the file can't be read.
    ValueError: it is too large or not UTF-8.
    errors.UserError: it begins with a byte-order mark.
  """
  # Only newlines end a line: some vocabularies hold a U+2028 or U+0085.
  text = files.load_text(file, newline='')
  if text.startswith('\ufeff'):
    raise errors.UserError(
      f'{file}: begins with a byte-order mark, which would be a part of the'
      ' first token; save it as UTF-8 without the mark'
    )
  lines = text.removesuffix('\n').split('\n')
  return [line.removesuffix('\r') for line in lines]


def from_lines(
  lines: Sequence[str], where: str, lowercase: bool
) -> tokenizers.Tokenizer:
  """BERT's tokenizer over a user's own vocabulary.

  Args:
    lines: the tokens in the order of their ids; a newline at their ends is
      ignored.
    where: the file, for errors.
    lowercase: lower-case the text and strip its accents.

  Raises:
    errors.UserError: a special token is missing, or a token is there twice.
  """
  tokens = [line.rstrip('\n') for line in lines]
  vocabulary = {token: number for number, token in enumerate(tokens)}
  for number, token in enumerate(tokens):
    if vocabulary[token] != number:
      raise errors.UserError(
        f'{where}: {token!r} is in line {number + 1} and in line'
        f' {vocabulary[token] + 1}; write a token that no text has, such as'
        f' [unused_line_{number + 1}], in place of the first, so that all other'
        ' tokens keep their ids'
      )
  _require(vocabulary, where)
  tokenizer = _build(vocabulary, {'lowercase': lowercase})
  tokenizer.add_special_tokens([t for t in SPECIAL if t in vocabulary])
  return tokenizer


def load(path: Path) -> tokenizers.Tokenizer:
  """The tokenizer of a model directory, as `AutoTokenizer` reads it.

  Args:
    path: holds tokenizer.json or vocab.txt; config.json, tokenizer_config.json,
      special_tokens_map.json and added_tokens.json are read if they exist.

  Raises:
    errors.UserError: there is no tokenizer, it is not BERT's, a file is broken,
      or two files or two versions of transformers contradict each other.
  """
  file = path / 'tokenizer.json'
  if not file.is_file() and not (path / 'vocab.txt').is_file():
    raise errors.UserError(
      f'{path}: neither tokenizer.json nor vocab.txt; name a directory that'
      " holds a BERT model's tokenizer"
    )
  written = _from_json(file) if file.is_file() else None
  settings = _read_settings(path)
  before = None
  if _is_bert(path, settings):
    old, new, before = _of_bert(path, written, settings)
    named = dict(added_tokens.NAMES)
    # Without an embedding for it, [MASK] is a word like others.
    size = added_tokens.read_json(path / 'config.json').get('vocab_size')
    if (
      type(size) is int
      and new.token_to_id('[MASK]') is None
      and new.get_vocab_size() >= size
    ):
      del named['mask_token']
  elif written is None:
    raise errors.UserError(
      f'{path}: its tokenizer_class needs a tokenizer.json; get that file too'
    )
  else:
    old, new = written, _from_json(file)
    padding = written.padding
    named = {'pad_token': padding['pad_token']} if padding else {}
  added = added_tokens.read(path, settings, named)
  new.add_tokens(added.tokens(new, 5))
  if old is not None:
    kept = _contents(old)
    old.add_tokens(added.tokens(old, 4))
    # Not every release of `tokenizers` changes the flags of a token it has.
    if any(_contents(old)[content] != kept[content] for content in kept):
      raise added_tokens.disagreement(path, 'added_tokens')
    _check_versions(path, old, new, before)
  result = new if old is None else old
  added.check_ids(path, result)
  # Both versions add BERT's template to a vocabulary by themselves.
  if result is written:
    _check_template(file, written)
  return result


def _read_settings(path: Path) -> dict[str, object]:
  """The tokenizer_config.json."""
  file = path / 'tokenizer_config.json'
  settings = added_tokens.read_json(file)
  for key in _REFUSED:
    if settings.get(key):
      raise errors.UserError(
        f'{file}: {key} is {settings[key]!r}, which is not supported; choose'
        ' another config.model.init'
      )
  return settings


def _is_bert(path: Path, settings: Mapping[str, object]) -> bool:
  """Whether the files' class is BERT's; else it takes tokenizer.json as it is.

  Raises:
    errors.UserError: it is another class.
  """
  name = settings.get('tokenizer_class')
  if name is None:
    name = added_tokens.read_json(path / 'config.json').get('tokenizer_class')
  if name is None:
    return True
  if isinstance(name, str):
    if name.removesuffix('Fast') in _BERT:
      return True
    if name.removesuffix('Fast') in _AS_IT_IS:
      return False
  raise errors.UserError(
    f"{path}: its tokenizer_class is {name!r}, but only BERT's WordPiece"
    ' tokenizers can be loaded; choose another config.model.init'
  )


def _of_bert(
  path: Path,
  written: tokenizers.Tokenizer | None,
  settings: Mapping[str, object],
) -> tuple[
  tokenizers.Tokenizer | None,
  tokenizers.Tokenizer,
  normalizers.Normalizer | None,
]:
  """BERT's tokenizer before tokens are added, as both versions read it.

  Returns:
    That of version 4, None where that version can't load it; that of version 5;
    and the normalizer through which version 4 sees the added tokens, before it
    looks at the settings.
  """
  choices = {}
  for key, name, default in _CHOICES:
    choices[key] = settings.get(name, default)
    if type(choices[key]) not in (bool, type(default)):
      raise errors.UserError(
        f'{path / "tokenizer_config.json"}: {name} is {choices[key]!r}; give'
        ' true or false'
      )
  vocab = path / 'vocab.txt'
  plain = None
  if not settings.get('do_basic_tokenize', True):
    plain = normalizers.BertNormalizer(
      clean_text=True, **{key: False for key in choices}
    )
  if written is None:
    return *_of_vocab(vocab, choices), plain
  new = _build(written.get_vocab(with_added_tokens=False), choices)
  # Version 4 opens the file of that name in place of the directory's own.
  if 'tokenizer_file' in settings:
    is_read = settings['tokenizer_file'] is None and vocab.is_file()
    return _of_vocab(vocab, choices)[0] if is_read else None, new, plain
  before = written.normalizer
  if before is None:
    return None, new, None
  if isinstance(before, normalizers.BertNormalizer):
    written.normalizer = normalizers.BertNormalizer(
      clean_text=before.clean_text, **choices
    )
  return written, new, before


def _of_vocab(
  file: Path, choices: Mapping[str, bool | None]
) -> tuple[tokenizers.Tokenizer, tokenizers.Tokenizer]:
  """`_of_bert` of a vocab.txt alone.

  Of equal lines the last one counts, in both versions and in BERT's own code.
  """
  try:
    lines = read_vocab(file)
  except (OSError, ValueError) as error:
    raise errors.UserError(
      f'{file}: cannot be read ({error}); fetch it again'
    ) from None
  vocabulary = {token: number for number, token in enumerate(lines)}
  _require(vocabulary, str(file))
  trimmed = {}
  for number, line in enumerate(lines):
    # Version 4 takes a lone carriage return for the end of a line.
    if '\r' in line:
      raise errors.UserError(
        f'{file}: line {number + 1} holds a carriage return, which versions 4'
        ' and 5 of transformers read differently; fetch the file again'
      )
    trimmed[line.rstrip(_BLANKS)] = number
    if vocabulary[line] != number and line.strip():
      logging.warning(
        '%s: %r is in line %d and in line %d; its id is that of the last, as in'
        ' transformers',
        file,
        line,
        number + 1,
        vocabulary[line] + 1,
      )
  old, new = _reachable(vocabulary), _reachable(trimmed)
  for token, number in new.items():
    if old.get(token) != number:
      raise errors.UserError(
        f'{file}: line {number + 1} ends in white space, which version 5 of'
        ' transformers removes and version 4 does not; fetch the file again'
      )
  return _build(vocabulary, choices), _build(trimmed, choices)


def _reachable(vocabulary: Mapping[str, int]) -> dict[str, int]:
  """The tokens that a word of a text can have: words hold no white space."""
  return {
    token: number
    for token, number in vocabulary.items()
    if token.removeprefix('##') and not set(token) & set(_BLANKS)
  }


def _require(vocabulary: Mapping[str, int], where: str) -> None:
  """Raises if one of BERT's special tokens is missing."""
  for token in REQUIRED:
    if token not in vocabulary:
      raise errors.UserError(
        f"{where}: no {token}; give a BERT model's vocabulary"
      )


def _build(
  vocabulary: Mapping[str, int], choices: Mapping[str, bool | None]
) -> tokenizers.Tokenizer:
  """BERT's normalisation and WordPiece over a vocabulary, as in version 5."""
  tokenizer = tokenizers.Tokenizer(
    models.WordPiece(
      dict(vocabulary), unk_token='[UNK]', max_input_chars_per_word=100
    )
  )
  tokenizer.normalizer = normalizers.BertNormalizer(clean_text=True, **choices)
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  return tokenizer


def _from_json(file: Path) -> tokenizers.Tokenizer:
  """A WordPiece tokenizer.json with BERT's special tokens, unchanged."""
  try:
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
  except Exception as error:  # The library raises nothing more special.
    raise errors.UserError(
      f'{file}: cannot be loaded ({error}); fetch it again'
    ) from None
  missing = [t for t in REQUIRED if tokenizer.token_to_id(t) is None]
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
  if unknown != '[UNK]':
    raise errors.UserError(
      f'{file}: model.unk_token is {unknown!r}, but only [UNK] is supported;'
      ' choose another config.model.init'
    )
  highest = max(tokenizer.get_vocab().values())
  if highest > _HIGHEST_ID:
    raise errors.UserError(
      f'{file}: gives a token the id {highest}; fetch it again'
    )
  return tokenizer


def _contents(tokenizer: tokenizers.Tokenizer) -> dict[str, str]:
  """Content and flags of the added tokens of a tokenizer."""
  tokens = tokenizer.get_added_tokens_decoder().values()
  return {token.content: repr(token) for token in tokens}


def _check_versions(
  path: Path,
  old: tokenizers.Tokenizer,
  new: tokenizers.Tokenizer,
  before: normalizers.Normalizer | None,
) -> None:
  """Raises if the tokenizers of versions 4 and 5 can give different ids.

  Args:
    path: the directory, for errors.
    old: that of version 4.
    new: that of version 5.
    before: the normalizer that `old` had when tokens were added; None: its own.
      Added tokens are looked for as that normalizer wrote them.
  """
  one, two = json.loads(old.to_str()), json.loads(new.to_str())
  for each in (one, two):
    each['model']['vocab'] = _reachable(each['model']['vocab'])
  unlike = [part for part in _PARTS if one[part] != two[part]]
  if before is not None and any(
    before.normalize_str(token.content)
    != new.normalizer.normalize_str(token.content)
    for token in old.get_added_tokens_decoder().values()
    if token.normalized
  ):
    unlike.append('added_tokens')
  if unlike:
    raise added_tokens.disagreement(path, unlike[0])


def _check_template(file: Path, tokenizer: tokenizers.Tokenizer) -> None:
  """Raises if a tokenizer.json does not put special tokens where BERT does."""
  tokenizer.no_truncation()
  tokenizer.no_padding()
  cls, sep = tokenizer.token_to_id('[CLS]'), tokenizer.token_to_id('[SEP]')
  one, two = tokenizer.encode(''), tokenizer.encode('', '')
  if (one.ids, two.ids, two.type_ids) != (
    [cls, sep],
    [cls, sep, sep],
    [0, 0, 1],
  ):
    raise errors.UserError(
      f'{file}: its post_processor does not make [CLS] A [SEP] B [SEP] of two'
      ' texts; choose another config.model.init'
    )
