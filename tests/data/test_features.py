"""WordPiece ids, truncation of pairs, swapped copies.

Oracles: `tokenizers.BertWordPieceTokenizer` for ids, a transcription of BERT's
truncation loop for lengths, and numbers worked out by hand.
"""

import json
import math

import numpy as np
import pytest
import tokenizers

from bam_jax import errors
from bam_jax.data import features
from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib

_VOCABULARY = (
  '[PAD] [unused0] [UNK] [CLS] [SEP] [MASK] the cat sat on mat ##s ##ting un'
  " ##believ ##able a b c d e f g h , . ! ' caf\u00e9 cafe na\u00efve"
  ' \u732b \u72ac The Cat ##a 1 2 ##3'
)
_WORDS = _VOCABULARY.split()
_PAD, _UNK, _CLS, _SEP = 0, 2, 3, 4
_TEXTS = (
  'The cat sat on the mats.',
  'unbelievable, UNBELIEVABLE!',
  'caf\u00e9 Caf\u00c9 cafe\u0301 na\u00efve',
  'cat\u732b\u72accat',
  " the\tcat\u00a0's\u200b\x00 mat\n",
  '',
  'zebra \U0001f600 123 [SEP] [MASK]',
  'a' * 100,
  'a' * 101,
  'abcdefgh' * 12,
)


def _task(pair: bool, kind: str = 'classification') -> task_lib.Task:
  table = task_lib.Table(text=('a', 'b') if pair else ('a',), label='label')
  return task_lib.Task(
    name='t',
    kind=kinds.KINDS[kind],
    labels=('x', 'y', 'z') if kind == 'classification' else (),
    scale=(1.0, 5.0),
    metrics=('accuracy',),
    paper_metric='accuracy',
    tables={'train': table},
  )


def _tokenizer(lowercase: bool = True) -> features.Tokenizer:
  return features.Tokenizer.from_vocab(_WORDS, lowercase)


def _one(text_a: str, text_b: str | None, max_length: int) -> kind_lib.Features:
  example = task_lib.Example('t/train/0', text_a, text_b, 1)
  task = _task(text_b is not None)
  (row,) = features.featurize([example], task, _tokenizer(), max_length, False)
  return row


def _oracle(lowercase: bool) -> tokenizers.BertWordPieceTokenizer:
  vocabulary = {word: i for i, word in enumerate(_WORDS)}
  return tokenizers.BertWordPieceTokenizer(vocabulary, lowercase=lowercase)


@pytest.mark.parametrize('lowercase', [True, False], ids=['uncased', 'cased'])
@pytest.mark.parametrize('text', _TEXTS, ids=range(len(_TEXTS)))
def test_ids_are_those_of_the_reference(text, lowercase):
  expected = _oracle(lowercase).encode(text, add_special_tokens=False).ids
  (ids,) = _tokenizer(lowercase).encode([text])
  assert ids.dtype == np.int32
  assert ids.tolist() == expected


@pytest.mark.parametrize(
  'max_length', [8, 9, 12, 40], ids=lambda n: f'{n}-tokens'
)
def test_pairs_are_those_of_the_reference(max_length):
  oracle = _oracle(True)
  oracle.no_truncation()
  for text_a in _TEXTS:
    for text_b in _TEXTS:
      row = _one(text_a, text_b, max_length)
      whole = oracle.encode(text_a, text_b)
      if len(whole.ids) <= max_length:
        assert row.input_ids.tolist() == whole.ids
        assert row.length_a == whole.type_ids.index(1)
      else:
        assert len(row.input_ids) == max_length


# run_classifier.py's _truncate_seq_pair, on lengths.
def _loop(length_a: int, length_b: int, budget: int) -> tuple[int, int]:
  while length_a + length_b > budget:
    if length_a > length_b:
      length_a -= 1
    else:
      length_b -= 1
  return length_a, length_b


@pytest.mark.parametrize('budget', [0, 1, 2, 5, 6, 13])
def test_truncation_is_that_of_the_loop(budget):
  for a in range(12):
    for b in range(12):
      assert features.truncated_lengths(a, b, budget) == _loop(a, b, budget)


def test_the_longer_text_loses_tokens_from_its_end():
  a, b, c, d, e, f, g, h = (_WORDS.index(letter) for letter in 'abcdefgh')
  row = _one('a b c d e f', 'g h', 8)
  assert row.input_ids.tolist() == [_CLS, a, b, c, _SEP, g, h, _SEP]
  assert row.length_a == 5
  # Equally long: the second loses one first.
  row = _one('a b c d', 'e f g h', 10)
  assert row.input_ids.tolist() == [_CLS, a, b, c, d, _SEP, e, f, g, _SEP]
  assert row.length_a == 6


def test_single_texts():
  row = _one('a b c d e f g h', None, 8)
  assert row.input_ids.tolist() == [
    _CLS, *(_WORDS.index(letter) for letter in 'abcdef'), _SEP
  ]  # fmt: skip
  assert row.input_ids.dtype == np.int32
  assert row.length_a == 8
  row = _one('', None, 8)
  assert row.input_ids.tolist() == [_CLS, _SEP]
  assert row.length_a == 2


@pytest.mark.parametrize(
  ('kind', 'label', 'expected'),
  [('classification', 2, 2.0), ('regression', 2.0, 0.25)],
  ids=['class', 'score-scaled'],
)
def test_labels(kind, label, expected):
  examples = [
    task_lib.Example('t/train/0', 'a', None, label),
    task_lib.Example('t/train/1', 'a', None, None),
  ]
  first, second = features.featurize(
    examples, _task(False, kind), _tokenizer(), 8, False
  )
  assert first.label == expected
  assert math.isnan(second.label)


def test_swapped_copies_follow_all_originals():
  examples = (
    task_lib.Example(f't/train/{i}', 'a b c', 'd' + ' e' * i, i)
    for i in range(3)
  )
  rows = list(features.featurize(examples, _task(True), _tokenizer(), 8, True))
  assert [row.uid for row in rows] == [
    't/train/0', 't/train/1', 't/train/2',
    't/train/0~swap', 't/train/1~swap', 't/train/2~swap',
  ]  # fmt: skip
  a, b, c, d, e = (_WORDS.index(letter) for letter in 'abcde')
  # Cut after swapping, so that the tie is broken against the new second text.
  assert rows[2].input_ids.tolist() == [_CLS, a, b, c, _SEP, d, e, _SEP]
  assert rows[5].input_ids.tolist() == [_CLS, d, e, e, _SEP, a, b, _SEP]
  assert [row.length_a for row in rows] == [5, 5, 5, 3, 4, 5]
  assert [row.label for row in rows] == [0, 1, 2, 0, 1, 2]


def test_batches_do_not_show(monkeypatch):
  examples = [
    task_lib.Example(f't/train/{i}', text, _TEXTS[-i], 0)
    for i, text in enumerate(_TEXTS)
  ]

  def rows():
    return [
      (row.uid, row.input_ids.tolist(), row.length_a)
      for row in features.featurize(
        iter(examples), _task(True), _tokenizer(), 16, True
      )
    ]

  whole = rows()
  monkeypatch.setattr(features, '_BATCH', 2)
  assert rows() == whole
  assert len(whole) == 2 * len(examples)


def test_truncation_and_padding_of_a_file_are_switched_off(tmp_path):
  _tokenizer().save(tmp_path)
  file = tmp_path / 'tokenizer.json'
  tokenizer = tokenizers.Tokenizer.from_file(str(file))
  tokenizer.enable_truncation(4)
  tokenizer.enable_padding(length=6, pad_id=_PAD)
  tokenizer.save(str(file))
  assert json.loads(file.read_text())['truncation']['max_length'] == 4
  loaded = features.Tokenizer.from_dir(tmp_path)
  assert loaded.encode(['a b c d e f g h'])[0].size == 8
  assert loaded.encode(['a'])[0].size == 1
  assert loaded.fingerprint == _tokenizer().fingerprint


def test_saved_and_loaded(tmp_path):
  tokenizer = _tokenizer(lowercase=False)
  tokenizer.save(tmp_path)
  assert (tmp_path / 'vocab.txt').read_text().splitlines() == _WORDS
  loaded = features.Tokenizer.from_dir(tmp_path)
  assert loaded.vocab_size == tokenizer.vocab_size == len(_WORDS)
  assert loaded.fingerprint == tokenizer.fingerprint
  # A tokenizer.json serves other programs, which have it add the special
  # tokens.
  other = tokenizers.Tokenizer.from_file(str(tmp_path / 'tokenizer.json'))
  expected = _oracle(False).encode(_TEXTS[0], _TEXTS[1])
  assert other.encode(_TEXTS[0], _TEXTS[1]).ids == expected.ids
  assert other.encode(_TEXTS[0], _TEXTS[1]).type_ids == expected.type_ids


@pytest.mark.parametrize(
  ('settings', 'lowercase'),
  [(None, True), ({'do_lower_case': False}, False), ({}, True)],
  ids=['no-settings', 'cased', 'uncased-by-default'],
)
def test_a_directory_with_a_vocabulary_alone(tmp_path, settings, lowercase):
  (tmp_path / 'vocab.txt').write_text('\n'.join(_WORDS) + '\n')
  if settings is not None:
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps(settings))
  tokenizer = features.Tokenizer.from_dir(tmp_path)
  assert tokenizer.fingerprint == _tokenizer(lowercase).fingerprint


def test_strip_accents_of_a_directory_is_heeded(tmp_path):
  (tmp_path / 'vocab.txt').write_text('\n'.join(_WORDS))
  (tmp_path / 'tokenizer_config.json').write_text('{"strip_accents": false}')
  (ids,) = features.Tokenizer.from_dir(tmp_path).encode(['Caf\u00c9'])
  assert ids.tolist() == [_WORDS.index('caf\u00e9')]


def test_tokens_may_hold_characters_that_end_lines_elsewhere(tmp_path):
  words = [*_WORDS[:6], '\u2028', '\x85', 'cat']
  (tmp_path / 'vocab.txt').write_text('\n'.join(words) + '\n')
  tokenizer = features.Tokenizer.from_dir(tmp_path)
  assert tokenizer.encode(['cat'])[0].tolist() == [8]


def test_fingerprint_covers_the_vocabulary_and_the_case():
  prints = {
    _tokenizer(True).fingerprint,
    _tokenizer(False).fingerprint,
    features.Tokenizer.from_vocab([*_WORDS, 'dog'], True).fingerprint,
    features.Tokenizer.from_vocab([*_WORDS[:-2], '##3', '2'], True).fingerprint,
  }
  assert len(prints) == 4
  assert _tokenizer().fingerprint == _tokenizer().fingerprint


@pytest.mark.parametrize(
  ('lines', 'message'),
  [
    pytest.param(
      ['[PAD]', '[UNK]', '[SEP]', 'a'],
      "the vocabulary: lacks [CLS]; give the model's own vocabulary",
      id='no-cls',
    ),
    pytest.param(
      [*_WORDS, 'cat'],
      "the vocabulary: 'cat' is in line 8 and again in line 40; replace the"
      ' first by a token that no text has, such as [unused_line_8], and keep'
      ' the line, because the number of a line is the id of its token',
      id='token-twice',
    ),
  ],
)
def test_broken_vocabularies(lines, message):
  with pytest.raises(errors.UserError) as caught:
    features.Tokenizer.from_vocab(lines, True)
  assert str(caught.value) == message


@pytest.mark.parametrize(
  ('files', 'message'),
  [
    pytest.param(
      {},
      'model: holds neither tokenizer.json, vocab.txt, vocab.json, spm.model'
      " nor sentencepiece.bpe.model; name a directory that holds a model's"
      ' tokenizer',
      id='nothing-there',
    ),
    pytest.param(
      {'tokenizer.json': '{'},
      'model/tokenizer.json: cannot be read (EOF while parsing an object at'
      ' line 1 column 1); fetch it again',
      id='broken-json',
    ),
    pytest.param(
      {'vocab.txt': '[PAD]\n'},
      "model/vocab.txt: lacks [UNK]; give the model's own vocabulary",
      id='incomplete-vocabulary',
    ),
    pytest.param(
      {'vocab.txt': '\n'.join(_WORDS), 'tokenizer_config.json': '{'},
      'model/tokenizer_config.json: cannot be read (Expecting property name'
      ' enclosed in double quotes: line 1 column 2 (char 1)); fetch it again',
      id='broken-settings',
    ),
    pytest.param(
      {
        'vocab.txt': '\n'.join(_WORDS),
        'tokenizer_config.json': '{"do_lower_case": "yes"}',
      },
      "model/tokenizer_config.json: do_lower_case is 'yes'; give true or false",
      id='settings-of-another-type',
    ),
  ],
)
def test_broken_directories(tmp_path, monkeypatch, files, message):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'model').mkdir()
  for name, content in files.items():
    (tmp_path / 'model' / name).write_text(content)
  with pytest.raises(errors.UserError) as caught:
    features.Tokenizer.from_dir('model')
  assert str(caught.value) == message


@pytest.mark.parametrize('last', [1000, 2**31])
def test_ids_with_gaps_count_to_the_last(tmp_path, last):
  """What is compared with the size of the embeddings."""
  words = {word: i for i, word in enumerate(_WORDS)} | {'far': 1000}
  model = tokenizers.models.WordPiece(words, unk_token='[UNK]')
  file = tmp_path / 'tokenizer.json'
  tokenizers.Tokenizer(model).save(str(file))
  file.write_text(file.read_text().replace('"far": 1000', f'"far": {last}'))
  if last == 1000:
    assert features.Tokenizer.from_dir(tmp_path).vocab_size == 1001
  else:
    with pytest.raises(errors.UserError, match='gives a token the id 21474836'):
      features.Tokenizer.from_dir(tmp_path)


def test_a_tokenizer_of_another_kind(tmp_path):
  model = tokenizers.models.WordLevel(
    {word: i for i, word in enumerate(_WORDS)}, '[UNK]'
  )
  file = tmp_path / 'tokenizer.json'
  tokenizers.Tokenizer(model).save(str(file))
  with pytest.raises(errors.UserError) as caught:
    features.Tokenizer.from_dir(tmp_path)
  assert str(caught.value).startswith(
    f'{tmp_path}: AutoTokenizer replaces the model of tokenizer.json; to keep'
  )


def test_an_unknown_token_that_the_model_does_not_have(tmp_path):
  words = {word: i for i, word in enumerate(_WORDS) if word != '[UNK]'}
  tokenizer = tokenizers.Tokenizer(
    tokenizers.models.WordPiece(words, unk_token='[UNK]')
  )
  tokenizer.add_special_tokens(['[UNK]'])
  file = tmp_path / 'tokenizer.json'
  tokenizer.save(str(file))
  with pytest.raises(errors.UserError) as caught:
    features.Tokenizer.from_dir(tmp_path)
  assert str(caught.value) == (
    f"{file}: model.vocab lacks '[UNK]', the token for unknown words; fetch it"
    ' again'
  )
