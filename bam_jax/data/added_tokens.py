"""The tokens that the files of a model directory add to its vocabulary."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from pathlib import Path

import tokenizers

from bam_jax import errors
from bam_jax import files

# Special tokens, in the order in which missing ones get their ids.
_NAMED = (
  'bos_token',
  'eos_token',
  'unk_token',
  'sep_token',
  'pad_token',
  'cls_token',
  'mask_token',
)
# Those of BERT's tokenizer where no file names them.
NAMES = {
  'unk_token': '[UNK]',
  'sep_token': '[SEP]',
  'pad_token': '[PAD]',
  'cls_token': '[CLS]',
  'mask_token': '[MASK]',
}
# Keys of lists of special tokens without a name.
_EXTRA = ('additional_special_tokens', 'extra_special_tokens')

# Those that the code and its exports know by one name.
_FIXED = {name: NAMES[name] for name in NAMES if name != 'mask_token'}

SAVE_AGAIN = (
  'to keep what one version reads, run with that version `python -c "import'
  ' transformers as t; d={0!r}; t.AutoModel.from_pretrained(d).save_pretrained('
  "'NEW'); t.PreTrainedTokenizerFast(tokenizer_object=t.AutoTokenizer."
  "from_pretrained(d).backend_tokenizer).save_pretrained('NEW')\"`, and set"
  ' config.model.init=NEW'
)


def read_json(file: Path) -> dict[str, object]:
  """A JSON object; empty if there is no such file."""
  try:
    return files.load_json(file)
  except FileNotFoundError:
    return {}
  except (OSError, ValueError) as error:
    raise errors.UserError(
      f'{file}: cannot be read ({error}); fetch it again'
    ) from None


def disagreement(path: Path, part: str) -> errors.UserError:
  """The error for files that the versions of transformers read differently."""
  return errors.UserError(
    f'{path}: versions 4 and 5 of transformers read the {part} of its tokenizer'
    f' differently; {SAVE_AGAIN.format(str(path))}'
  )


@dataclasses.dataclass(frozen=True)
class Added:
  """The tokens that a directory's files add to its vocabulary.

  Attributes:
    declared: file, id and token, in the order in which they were read.
    named: the special tokens that have one of `_NAMED`.
    others: special tokens of other names, which only version 5 adds.
    extra: special tokens without a name.
  """

  declared: Sequence[tuple[str, int, tokenizers.AddedToken]]
  named: Mapping[str, tokenizers.AddedToken]
  others: Sequence[tokenizers.AddedToken]
  extra: Sequence[tokenizers.AddedToken]

  def tokens(
    self, tokenizer: tokenizers.Tokenizer, version: int
  ) -> list[tokenizers.AddedToken]:
    """What a version adds to a tokenizer, in the order in which it does so."""
    special = [self.named[name] for name in _NAMED if name in self.named]
    if version == 5:
      special += self.others
    of_name = {t.content for t in special + [*self.extra] * (version == 4)}
    special += self.extra
    by_id = {number: token for _, number, token in self.declared}
    result = [by_id[number] for number in sorted(by_id)]
    for token in result:
      token.special = token.special or token.content in of_name
    known = {token.content for token in result}
    known |= {t.content for t in tokenizer.get_added_tokens_decoder().values()}
    return result + [token for token in special if token.content not in known]

  def check_ids(self, path: Path, tokenizer: tokenizers.Tokenizer) -> None:
    """Raises if a token has another id than its file says, or one of another.

    `AutoTokenizer` ignores the ids in the files: it numbers new tokens itself.
    """
    for file, number, token in self.declared:
      actual = tokenizer.token_to_id(token.content)
      if actual != number:
        raise errors.UserError(
          f'{path / file}: {token.content!r} has the id {number} there, but'
          f' AutoTokenizer gives it {actual}; {SAVE_AGAIN.format(str(path))}'
        )
    ids = tokenizer.get_vocab(with_added_tokens=True)
    owners = {number: token for token, number in ids.items()}
    for token, number in ids.items():
      if owners[number] != token:
        raise errors.UserError(
          f'{path}: {token!r} and {owners[number]!r} both have the id {number};'
          ' choose another config.model.init'
        )


def read(
  path: Path, settings: Mapping[str, object], named: Mapping[str, str]
) -> Added:
  """Reads all files that name added or special tokens.

  Args:
    path: the directory.
    settings: its tokenizer_config.json.
    named: special tokens of `_NAMED` that no file needs to name.
  """
  try:
    values = dict(named) | dict(settings)
    of_map = {}
    declared = []
    if 'added_tokens_decoder' in settings:
      for number, token in settings['added_tokens_decoder'].items():
        declared.append(
          ('tokenizer_config.json', int(number), _added_token(token, False))
        )
    else:
      of_map = read_json(path / 'special_tokens_map.json')
      values |= of_map
    tokens = {
      key: _added_token(value, True)
      for key, value in values.items()
      if key.endswith('_token') and isinstance(value, str | dict)
    }
    extra, late = _extra(path, settings, of_map)
    late |= {token.content for k, token in tokens.items() if k not in _NAMED}
    if 'added_tokens_decoder' not in settings:
      special = {token.content for token in [*tokens.values(), *extra]}
      entries = read_json(path / 'added_tokens.json')
      for content, number in entries.items():
        if content in late:
          raise disagreement(path, 'added_tokens')
        token = tokenizers.AddedToken(
          content,
          normalized=content not in special,
          special=content in special,
        )
        declared.append(('added_tokens.json', number, token))
      entries = read_json(path / 'tokenizer.json').get('added_tokens', [])
      for entry in entries:
        number = entry.pop('id')
        declared.append(('tokenizer.json', number, _added_token(entry, False)))
    if not all(type(number) is int for _, number, _ in declared):
      raise TypeError('an id that is not a whole number')
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise errors.UserError(
      f'{path}: the added and special tokens in its JSON files cannot be read'
      f' ({error}); fetch the files again'
    ) from None
  for name, token in _FIXED.items():
    found = tokens[name].content if name in tokens else values.get(name, token)
    if found != token:
      raise errors.UserError(
        f'{path}: its {name} is {found!r}, but only {token} is supported;'
        ' choose another config.model.init'
      )
  return Added(
    declared=declared,
    named={key: token for key, token in tokens.items() if key in _NAMED},
    others=[token for key, token in tokens.items() if key not in _NAMED],
    extra=extra,
  )


def _added_token(value: object, is_special: bool) -> tokenizers.AddedToken:
  """An added token from JSON: its content, or an object with that and flags.

  Raises:
    TypeError: it is neither.
  """
  if isinstance(value, str):
    return tokenizers.AddedToken(value, special=is_special)
  flags = {key: flag for key, flag in value.items() if key != '__type'}
  if is_special:
    flags['special'] = True
  return tokenizers.AddedToken(**flags)


def _extra(
  path: Path, settings: Mapping[str, object], of_map: Mapping[str, object]
) -> tuple[list[tokenizers.AddedToken], set[str]]:
  """The special tokens without a name, which two files may list.

  Returns:
    The tokens, and the contents of those that version 5 knows to be special
    only after it has read added_tokens.json.

  Raises:
    errors.UserError: two lists differ; the versions take different ones.
  """
  found = []
  for group in (settings, of_map):
    for key in _EXTRA:
      items = group.get(key) or ()
      values = items.values() if isinstance(items, dict) else items
      found.append([_added_token(value, True) for value in values])
  contents = [[token.content for token in tokens] for tokens in found]
  given = [index for index, tokens in enumerate(found) if tokens]
  if not given:
    return [], set()
  first = given[0]
  if any(contents[index] != contents[first] for index in given):
    raise errors.UserError(
      f'{path}: tokenizer_config.json and special_tokens_map.json list'
      f' different {_EXTRA[0]}; {SAVE_AGAIN.format(str(path))}'
    )
  is_late = first == 2 or isinstance(settings.get(_EXTRA[first % 2]), dict)
  return found[first], set(contents[first] if is_late else ())
