"""Model directories whose files contradict or complete each other, and texts.

Their vocabularies are synthetic. `READ` names the directories that are read,
`REFUSED` those that `AutoTokenizer` can't load, that it reads otherwise than
their files say, or whose tokenizer this package cannot use.
"""

from collections.abc import Callable, Sequence
import hashlib
import json
from pathlib import Path
import random

import tokenizers
from tokenizers import models
from tokenizers import normalizers
from tokenizers import pre_tokenizers
from tokenizers import processors

SPECIAL = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')
ADDED = ('[E1]', '<New>')

# Both forms of what has two: no Unicode table of this Python is asked.
_WORDS = (
  'the', 'The', 'THE', 'cat', 'Cats', 'Caf\u00e9', 'cafe\u0301', 'CAF\u00c9',
  'na\u00efve', '\u00dcn\u00efc\u00f6d\u00e9', 'Stra\u00dfe', '\u0130stanbul',
  '\ufb01ne', 'A\u030angstr\u00f6m', '\u212bngstr\u00f6m', 'e\u0301\u0327',
  '\u0301', "don't", 'C++', 'a_b', '#tag', '@user', '3.14', '1,000', '\u00b2',
  '\u00bd', '\u0663\u0664', 'https://www.Example.com/Path?q=1&b=%20',
  'user@mail.org', '\u0645\u0631\u062d\u0628\u0627',
  '\u0645\u064f\u062d\u064e\u0645\u0651\u062f', '\u043f\u0440\u0438\u0432',
  '\u041f\u0420\u0418\u0412\u0415\u0422', '\u0401\u043b\u043a\u0430',
  '\u0439\u043e\u0434', '\u0418\u0306\u043e\u0434', '\u732b', '\u72ac\u732b',
  '\u65e5\u672c\u8a9e', '\u4e2d\u6587\u53e5\u5b50', '\u3072\u3089\u304c\u306a',
  '\u30ab\u3099', '\u30ac', '\uff86\uff81', '\uff26\uff35\uff2c\uff2c',
  '\ud55c\uad6d\uc5b4', '\u1112\u1161\u11ab', '\u0928\u092e\u0938\u094d',
  '\u0e44\u0e17\u0e22', '\U0001f600', '\U0001f469\u200d\U0001f467',
  '\U0001f1e9\U0001f1ea', '\u200b', 'a\u200bb', 'a\u00a0b', 'co\u00adop',
  '\ufeff', '\x00', '\x07', '\x7f', '\x85', '\u2028', '\ufffd', '\t', '\n',
  '\r\n', '[SEP]', '[CLS]', '[MASK]', '[UNK]', '[PAD]', '[mask]', '##s', '[',
  '\u2014', '\u2026', '\u201cq\u201d', '`', '^', '~', '$', '\u20ac',
  '\U0001d518', '\U00020000', '\U0002f800', 'a' * 101, 'un##able', '\u03a3',
  '\u03c2', '[E1]', 'x[E1]y', '[e1]', '<New>', '<new>', 'pre<New>post', '<NEW>',
)  # fmt: skip
_RANGES = (
  (0x21, 0x7E), (0xA1, 0x24F), (0x300, 0x36F), (0x391, 0x3A1), (0x410, 0x44F),
  (0x5D0, 0x5EA), (0x621, 0x652), (0x904, 0x939), (0x3041, 0x3096),
  (0x4E00, 0x4FFF), (0xAC00, 0xAD00), (0x1F600, 0x1F64F), (0x20000, 0x200FF),
)  # fmt: skip
_JOINTS = (' ', ' ', ' ', '', '', '  ', '\u00a0', '\t', '\u3000')


def texts(count: int = 2000) -> list[str]:
  """Sentences of many scripts, cases, marks and strange characters."""
  rng = random.Random(0)
  result = []
  for _ in range(count):
    parts = []
    for _ in range(rng.randint(0, 14)):
      if rng.random() < 0.3:
        low, high = rng.choice(_RANGES)
        parts += [chr(rng.randint(low, high)) for _ in range(rng.randint(1, 4))]
      else:
        parts.append(rng.choice(_WORDS))
      parts.append(rng.choice(_JOINTS))
    result.append(''.join(parts))
  return result


def digest(ids: Sequence[Sequence[int]]) -> str:
  """sha256 of the ids of some texts."""
  return hashlib.sha256(json.dumps(ids).encode()).hexdigest()


def vocabulary() -> list[str]:
  """Special tokens, most characters of the texts, cased words and pieces."""
  rng = random.Random(1)
  blank = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
  characters = [chr(c) for low, high in _RANGES for c in range(low, high + 1)]
  characters += [c for word in _WORDS for c in word]
  characters = [
    c for c in dict.fromkeys(characters) if blank.normalize_str(c).strip() == c
  ]
  kept = [c for c in characters if rng.random() < 0.85]
  pieces = [f'##{c}' for c in characters if rng.random() < 0.7]
  words = [
    'the', 'The', 'THE', 'cat', 'Cat', '##s', '##at', 'un', '##able',
    'Caf\u00e9', 'caf\u00e9', 'cafe', 'Stra\u00dfe', 'stra\u00dfe',
    '\u72ac\u732b', '##\u732b', '\u4e2d\u6587', 'istanbul', 'naive', 'e1',
    'New', 'new',
  ]  # fmt: skip
  return list(dict.fromkeys([*SPECIAL, *kept, *pieces, *words]))


WORDS = vocabulary()
_Maker = Callable[[Path], None]


def _write(path: Path, name: str, value: object) -> None:
  (path / name).write_text(json.dumps(value), encoding='utf-8')


def _vocab(
  path: Path, words: Sequence[str] = tuple(WORDS), end: str = '\n'
) -> None:
  (path / 'vocab.txt').write_bytes(''.join(w + end for w in words).encode())


def _json(
  path: Path,
  *,
  lowercase: bool,
  words: Sequence[str] = tuple(WORDS),
  added: Sequence[tokenizers.AddedToken] = (),
  normalizer: normalizers.Normalizer | None = None,
  most: int = 100,
  template: str = '[CLS]:0 $A:0 [SEP]:0',
  change: Callable[[tokenizers.Tokenizer], None] = lambda tokenizer: None,
) -> None:
  tokenizer = tokenizers.Tokenizer(
    models.WordPiece(
      {word: i for i, word in enumerate(words)},
      unk_token='[UNK]',
      max_input_chars_per_word=most,
    )
  )
  tokenizer.normalizer = normalizer or normalizers.BertNormalizer(
    lowercase=lowercase
  )
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  tokenizer.add_special_tokens([word for word in SPECIAL if word in words])
  tokenizer.add_tokens(list(added))
  tokenizer.post_processor = processors.TemplateProcessing(
    single=template,
    pair=f'{template} $B:1 [SEP]:1',
    special_tokens=[(t, words.index(t)) for t in ('[CLS]', '[SEP]')],
  )
  change(tokenizer)
  tokenizer.save(str(path / 'tokenizer.json'))


def _config(path: Path, **settings: object) -> None:
  _write(path, 'tokenizer_config.json', settings)


def _entry(content: str, **flags: bool) -> dict[str, object]:
  return {
    'content': content,
    'lstrip': False,
    'normalized': False,
    'rstrip': False,
    'single_word': False,
    'special': False,
  } | flags


def _ids() -> dict[str, int]:
  return {token: len(WORDS) + i for i, token in enumerate(ADDED)}


def _decoder(**flags: bool) -> dict[str, object]:
  special = {
    str(WORDS.index(token)): _entry(token, special=True) for token in SPECIAL
  }
  added = {str(i): _entry(token, **flags) for token, i in _ids().items()}
  return special | added


def _lower_json_cased_config(path: Path) -> None:
  _json(path, lowercase=True)
  _config(path, tokenizer_class='BertTokenizer', do_lower_case=False)


def _cased_json_lower_config(path: Path) -> None:
  _json(path, lowercase=False)
  _config(path, tokenizer_class='BertTokenizerFast', do_lower_case=True)


def _cased_json_alone(path: Path) -> None:
  _json(path, lowercase=False)


def _accents_kept(path: Path) -> None:
  _json(path, lowercase=True)
  _config(path, strip_accents=False, never_split=['[E1]'], init_inputs=[])


def _cased_accents_stripped(path: Path) -> None:
  _vocab(path)
  _config(path, do_lower_case=False, strip_accents=True)


def _as_it_is(path: Path) -> None:
  """This class ignores what its settings say of case."""
  _json(path, lowercase=False, normalizer=normalizers.NFD())
  _config(path, tokenizer_class='PreTrainedTokenizerFast', do_lower_case=True)


def _class_of_the_model(path: Path) -> None:
  _json(path, lowercase=False)
  _write(
    path,
    'config.json',
    {'model_type': 'bert', 'tokenizer_class': 'PreTrainedTokenizerFast'},
  )


def _added_json(path: Path) -> None:
  _vocab(path)
  _write(path, 'added_tokens.json', _ids())


def _added_json_beside_tokenizer_json(path: Path) -> None:
  _json(path, lowercase=True)
  _write(path, 'added_tokens.json', _ids())
  _config(path, do_lower_case=True)


def _added_decoder(path: Path) -> None:
  _vocab(path)
  _config(path, do_lower_case=False, added_tokens_decoder=_decoder())


def _added_decoder_single_words(path: Path) -> None:
  """The decoder hides the two other files."""
  _vocab(path)
  _write(path, 'added_tokens.json', {'cat': 7})
  _write(path, 'special_tokens_map.json', {'cls_token': 'cat'})
  decoder = _decoder(normalized=True, single_word=True)
  _config(path, added_tokens_decoder=decoder)


def _added_map(path: Path) -> None:
  _vocab(path)
  _write(
    path, 'special_tokens_map.json', {'additional_special_tokens': [*ADDED]}
  )


def _added_everywhere(path: Path) -> None:
  tokens = [tokenizers.AddedToken(t, special=True) for t in ADDED]
  _json(path, lowercase=False, added=tokens)
  _vocab(path)
  _write(path, 'added_tokens.json', _ids())
  _write(path, 'special_tokens_map.json', {'mask_token': '[MASK]'})
  _config(
    path,
    do_lower_case=False,
    additional_special_tokens=[*ADDED],
    added_tokens_decoder=_decoder(special=True),
  )


def _known_word_added(path: Path) -> None:
  _vocab(path)
  _write(path, 'added_tokens.json', {'cat': WORDS.index('cat')})


def _chinese(path: Path) -> None:
  _vocab(path)
  _config(path, do_lower_case=False, tokenize_chinese_chars=True)


def _chinese_words(path: Path) -> None:
  _json(path, lowercase=False)
  _config(path, do_lower_case=False, tokenize_chinese_chars=False)


def _multilingual_cased(path: Path) -> None:
  _vocab(path)
  _config(
    path, do_lower_case=False, model_max_length=512, do_basic_tokenize=True
  )


def _other_vocab_beside(path: Path) -> None:
  """vocab.txt counts for nothing beside a tokenizer.json."""
  _json(path, lowercase=True)
  _vocab(path, [*SPECIAL, 'other'])


def _cut_and_padded(path: Path) -> None:
  def change(tokenizer: tokenizers.Tokenizer) -> None:
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9, pad_id=WORDS.index('[PAD]'))

  _json(path, lowercase=True, change=change)
  _config(path, model_max_length=1 << 20)


def _windows_lines(path: Path) -> None:
  _vocab(path, end='\r\n')


def _blank_lines(path: Path) -> None:
  _vocab(path, [*WORDS, '\u2028', '\x85', '##\u3000', '', ''])


def _repeated_lines(path: Path) -> None:
  _vocab(path, [*WORDS[:9], 'cat', 'the', 'the', *WORDS[9:]])


def _path_of_the_author(path: Path) -> None:
  """Version 4 opens no other file for None, and 5 the one that is there."""
  _json(path, lowercase=True)
  _vocab(path)
  _config(path, tokenizer_file=None)


def _token_written_before_the_case_changed(path: Path) -> None:
  _json(path, lowercase=False, added=[tokenizers.AddedToken('<New>')])
  _config(path, do_lower_case=True)


def _token_special_in_the_map_alone(path: Path) -> None:
  _added_json(path)
  _added_map(path)


def _two_lists(path: Path) -> None:
  _added_map(path)
  _config(path, additional_special_tokens=['<New>'])


def _other_cls(path: Path) -> None:
  _vocab(path)
  _config(path, cls_token='the')


def _no_pad(path: Path) -> None:
  _vocab(path)
  _config(path, pad_token=None)


def _token_of_an_unknown_name(path: Path) -> None:
  _vocab(path)
  _config(path, image_token='[E1]')


def _carriage_return(path: Path) -> None:
  _vocab(path, [*WORDS, 'a\rb'])


def _blank_at_the_end(path: Path) -> None:
  _vocab(path, [*WORDS, 'zebra '])


READ: dict[str, _Maker] = {
  maker.__name__.strip('_'): maker
  for maker in (
    _lower_json_cased_config,
    _cased_json_lower_config,
    _cased_json_alone,
    _accents_kept,
    _cased_accents_stripped,
    _as_it_is,
    _class_of_the_model,
    _added_json,
    _added_json_beside_tokenizer_json,
    _added_decoder,
    _added_decoder_single_words,
    _added_map,
    _added_everywhere,
    _known_word_added,
    _chinese,
    _chinese_words,
    _multilingual_cased,
    _other_vocab_beside,
    _cut_and_padded,
    _windows_lines,
    _blank_lines,
    _repeated_lines,
    _path_of_the_author,
    _token_written_before_the_case_changed,
    _token_special_in_the_map_alone,
    _two_lists,
    _other_cls,
    _no_pad,
    _token_of_an_unknown_name,
    _carriage_return,
    _blank_at_the_end,
  )
}


def _other_normalizer(path: Path) -> None:
  both = [normalizers.NFC(), normalizers.BertNormalizer(lowercase=True)]
  _json(path, lowercase=True, normalizer=normalizers.Sequence(both))


def _other_pre_tokenizer(path: Path) -> None:
  def change(tokenizer: tokenizers.Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()

  _json(path, lowercase=True, change=change)


def _control_characters_kept(path: Path) -> None:
  normalizer = normalizers.BertNormalizer(clean_text=False)
  _json(path, lowercase=True, normalizer=normalizer)


def _shorter_words(path: Path) -> None:
  _json(path, lowercase=True, most=20)


def _no_cls(path: Path) -> None:
  _json(path, lowercase=True, template='$A:0 [SEP]:0')


def _token_of_tokenizer_json_alone(path: Path) -> None:
  token = tokenizers.AddedToken('[E1]', special=True)
  _json(path, lowercase=True, added=[token])
  decoder = _decoder()
  _config(path, added_tokens_decoder={k: decoder[k] for k in list(decoder)[:5]})


def _another_id(path: Path) -> None:
  _vocab(path)
  _write(path, 'added_tokens.json', {'[E1]': len(WORDS) + 3})


def _one_id_twice(path: Path) -> None:
  _vocab(path, [*WORDS[:9], 'cat', *WORDS[9:]])
  _write(path, 'special_tokens_map.json', {'bos_token': '[E1]'})


def _special_tokens_split(path: Path) -> None:
  _vocab(path)
  _config(path, split_special_tokens=True)


def _japanese(path: Path) -> None:
  _vocab(path)
  _config(path, tokenizer_class='BertJapaneseTokenizer')


def _class_without_its_file(path: Path) -> None:
  _vocab(path)
  _config(path, tokenizer_class='PreTrainedTokenizerFast')


def _byte_order_mark(path: Path) -> None:
  _vocab(path, ['\ufeff[PAD]', *WORDS[1:]])


def _damaged_tokens(path: Path) -> None:
  _vocab(path)
  _config(path, added_tokens_decoder={'five': _entry('[E1]')})


_REPLACES = 'AutoTokenizer replaces the {} of tokenizer.json; to keep'
_UNLOADED = 'AutoTokenizer cannot load the tokenizer'
REFUSED: dict[str, tuple[_Maker, str]] = {
  maker.__name__.strip('_'): (maker, message)
  for maker, message in (
    (_other_normalizer, _REPLACES.format('normalizer')),
    (_other_pre_tokenizer, _REPLACES.format('pre_tokenizer')),
    (_control_characters_kept, _REPLACES.format('normalizer')),
    (_shorter_words, _REPLACES.format('model')),
    (_no_cls, 'its tokenizer does not make [CLS] A [SEP] B [SEP] of two'),
    (
      _token_of_tokenizer_json_alone,
      f"tokenizer.json: '[E1]' has the id {len(WORDS)} there, but",
    ),
    (_another_id, f"'[E1]' has the id {len(WORDS) + 3} there, but"),
    (_one_id_twice, f'both have the id {len(WORDS)}; choose another'),
    (_special_tokens_split, 'split_special_tokens is True, which is not'),
    (_japanese, 'its tokenizer_class, BertJapaneseTokenizer, is not based on'),
    (_class_without_its_file, _UNLOADED),
    (_byte_order_mark, 'vocab.txt: begins with a byte-order mark'),
    (_damaged_tokens, f'{_UNLOADED} (invalid literal for int()'),
  )
}


def make(maker: _Maker, path: Path) -> Path:
  """Writes a directory, whose config.json is that of a BERT model."""
  path.mkdir(parents=True, exist_ok=True)
  _write(path, 'config.json', {'model_type': 'bert'})
  maker(path)
  return path
