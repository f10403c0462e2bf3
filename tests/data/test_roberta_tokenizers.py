"""Tokenizers without WordPiece, such as RoBERTa's. Oracle: `AutoTokenizer`."""

import json
from pathlib import Path

import numpy as np
import pytest
import transformers

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import features
from bam_jax.modeling import pretrained
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib
from tests.data import roberta_tokenizers
from tests.data import tokenizer_cases

_TEXTS = tokenizer_cases.texts()
_WORDS = [text.split() for text in _TEXTS if text.split()][:300]


@pytest.fixture(
  scope='module', params=roberta_tokenizers.MODEL_TYPES, name='path'
)
def make_path(request, tmp_path_factory) -> Path:
  folder = tmp_path_factory.mktemp('tokenizer')
  return roberta_tokenizers.make(request.param, folder)


@pytest.fixture(scope='module')
def byte_level(tmp_path_factory) -> Path:
  folder = tmp_path_factory.mktemp('tokenizer')
  return roberta_tokenizers.make('roberta', folder)


def _ids(tokenizer: features.Tokenizer) -> list[list[int]]:
  return [
    [tokenizer.cls_id, *ids.tolist(), tokenizer.sep_id]
    for ids in tokenizer.encode(_TEXTS)
  ]


def _word_ids(tokenizer: features.Tokenizer) -> list[list[int]]:
  found = []
  for words in _WORDS:
    ids = np.concatenate(tokenizer.encode_words(words)).tolist()
    found.append([tokenizer.cls_id, *ids, tokenizer.sep_id])
  return found


def _task(kind: str = 'classification', **changes) -> task_lib.Task:
  text = ('question', 'context') if kind == 'qa' else ('a', 'b')
  return task_lib.Task(
    name='t',
    kind=kinds.KINDS[kind],
    labels=() if kind == 'qa' else ('x', 'y'),
    metrics=('accuracy',),
    paper_metric='accuracy',
    tables={'train': task_lib.Table(text=text)},
    **changes,
  )


def test_ids_are_those_of_transformers(path):
  tokenizer = features.Tokenizer.from_dir(path)
  theirs = transformers.AutoTokenizer.from_pretrained(path)
  assert _ids(tokenizer) == theirs(_TEXTS)['input_ids']
  assert tokenizer.pad_id == theirs.pad_token_id
  separators = 1 if theirs.pad_token == '[PAD]' else 2
  assert tokenizer.num_separators == separators


def test_ids_of_words_are_those_of_transformers(path):
  theirs = transformers.AutoTokenizer.from_pretrained(
    path, add_prefix_space=True
  )
  expected = theirs(_WORDS, is_split_into_words=True)['input_ids']
  assert _word_ids(features.Tokenizer.from_dir(path)) == expected


def test_pairs_are_those_of_transformers(path):
  tokenizer = features.Tokenizer.from_dir(path)
  theirs = transformers.AutoTokenizer.from_pretrained(path)
  # transformers takes an empty second text for none.
  texts = [text for text in _TEXTS if text.strip()]
  firsts, seconds = texts[:50], texts[50:100]
  examples = [
    task_lib.Example(f't/train/{i}', *texts, 0)
    for i, texts in enumerate(zip(firsts, seconds))
  ]
  rows = features.featurize(examples, _task(), tokenizer, 2000)
  for row, one, two in zip(rows, firsts, seconds, strict=True):
    assert row.input_ids.tolist() == theirs(one, two)['input_ids']
    alone = len(theirs(one)['input_ids'])
    assert row.length_a == alone + tokenizer.num_separators - 1


def test_pairs_are_cut_to_the_longest_row(byte_level):
  """Oracle: BERT's loop, with four special tokens instead of three."""
  tokenizer = features.Tokenizer.from_dir(byte_level)
  texts = 'q w e r t z u i o p', 'y x c v b n'
  a, b = (ids.tolist() for ids in tokenizer.encode(texts))
  assert min(len(a), len(b)) > 4
  while len(a) + len(b) > 8:
    (a if len(a) > len(b) else b).pop()
  cls, sep = [tokenizer.cls_id], [tokenizer.sep_id]
  example = task_lib.Example('t/train/0', *texts, 0)
  for task, between, length_a in (
    (_task(), sep + sep, len(a) + 3),
    (_task(is_bi_encoder=True), sep + cls, len(a) + 2),
  ):
    (row,) = features.featurize([example], task, tokenizer, 12)
    assert row.input_ids.tolist() == cls + a + between + b + sep
    assert row.length_a == length_a


def test_what_is_saved_gives_the_same_ids(path, tmp_path):
  tokenizer = features.Tokenizer.from_dir(path)
  tokenizer.save(tmp_path, 128, has_token_types=False)
  (tmp_path / 'config.json').write_bytes((path / 'config.json').read_bytes())
  assert not (tmp_path / 'vocab.txt').exists()
  again = features.Tokenizer.from_dir(tmp_path)
  assert again.fingerprint == tokenizer.fingerprint
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  assert theirs(_TEXTS)['input_ids'] == _ids(tokenizer)
  assert 'token_type_ids' not in theirs('a', 'b')


def test_a_saved_tokenizer_of_words_takes_words(path, tmp_path):
  tokenizer = features.Tokenizer.from_dir(path)
  tokenizer.for_words.save(tmp_path, has_token_types=False)
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  found = theirs(_WORDS, is_split_into_words=True)['input_ids']
  assert found == _word_ids(tokenizer)


def test_slow_files_give_the_same_ids(byte_level, tmp_path):
  model = json.loads((byte_level / 'tokenizer.json').read_text())['model']
  (tmp_path / 'vocab.json').write_text(json.dumps(model['vocab']))
  (tmp_path / 'merges.txt').write_text(
    '#version: 0.2\n' + '\n'.join(map(' '.join, model['merges']))
  )
  (tmp_path / 'config.json').write_text('{"model_type": "roberta"}')
  found = _ids(features.Tokenizer.from_dir(tmp_path))
  assert found == _ids(features.Tokenizer.from_dir(byte_level))
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  assert found == theirs(_TEXTS)['input_ids']


def test_spans_of_answers_do_not_begin_with_a_space(path):
  tokenizer = features.Tokenizer.from_dir(path)
  text = 'the cat  and a \u72ac\u732b: Caf\u00e9s'
  ((ids, spans),) = tokenizer.encode_with_spans([text])
  theirs = transformers.AutoTokenizer.from_pretrained(path)
  expected = theirs(text, return_offsets_mapping=True)
  assert ids.tolist() == expected['input_ids'][1:-1]
  for (begin, end), offsets in zip(
    spans, expected['offset_mapping'][1:-1], strict=True
  ):
    assert text[begin:end] == text[slice(*offsets)].strip()
    assert offsets[0] <= begin <= end == offsets[1]


def test_windows_of_contexts(path):
  """Oracle: `AutoTokenizer` on question and context."""
  tokenizer = features.Tokenizer.from_dir(path)
  question, context = 'the cat?', 'a cat and the cats'
  start = context.index('the')
  example = task_lib.Example('t/train/0', question, context, (('the', start),))
  (row,) = features.featurize([example], _task('qa'), tokenizer, 200)
  theirs = transformers.AutoTokenizer.from_pretrained(path)
  ids = theirs(question, context)['input_ids']
  assert row.input_ids.tolist() == ids
  alone = len(theirs(question)['input_ids'])
  assert row.length_a == alone + tokenizer.num_separators - 1
  spans = row.spans.reshape(-1, 2)
  first, last = row.label.astype(int)
  assert context[spans[first][0] : spans[last][1]] == 'the'
  (cut, *_) = features.featurize([example], _task('qa'), tokenizer, 16)
  assert len(cut.input_ids) <= 16


def _load(path: Path, **changes: object) -> pretrained.Encoder:
  config = config_lib.default_config()
  config.tasks = ('demo_sentiment',)
  config.model.init = str(path)
  config.model.update(changes)
  return pretrained.load_encoder(config_lib.from_config_dict(config))


@pytest.fixture
def weights(byte_level, tmp_path) -> Path:
  """A directory whose weights are not read before the tokenizer is checked."""
  for file in byte_level.iterdir():
    (tmp_path / file.name).write_bytes(file.read_bytes())
  sizes = {
    'vocab_size': 600, 'hidden_size': 8, 'num_hidden_layers': 1,
    'num_attention_heads': 2, 'intermediate_size': 8,
    'max_position_embeddings': 514, 'type_vocab_size': 1,
  }  # fmt: skip
  config = {'model_type': 'roberta'} | sizes
  (tmp_path / 'config.json').write_text(json.dumps(config))
  (tmp_path / 'model.safetensors').write_bytes(b'')
  return tmp_path


def test_a_vocabulary_is_replaced_in_word_piece_alone(weights, tmp_path):
  vocabulary = tmp_path / 'words.txt'
  vocabulary.write_text('\n'.join(tokenizer_cases.WORDS))
  with pytest.raises(errors.UserError, match='replaces vocabularies of Word'):
    _load(weights, init_vocab=str(vocabulary))


def test_a_bert_with_this_tokenizer_is_refused(weights):
  file = weights / 'config.json'
  config = json.loads(file.read_text()) | {'model_type': 'bert'}
  settings = {'tokenizer_class': 'PreTrainedTokenizerFast'} | {
    'cls_token': '<s>', 'sep_token': '</s>', 'unk_token': '<unk>',
    'pad_token': '<pad>',
  }  # fmt: skip
  (weights / 'tokenizer_config.json').write_text(json.dumps(settings))
  file.write_text(json.dumps(config | {'type_vocab_size': 2}))
  with pytest.raises(errors.UserError, match='which no bert encoder reads'):
    _ = _load(weights).tokenizer


def test_a_tokenizer_that_pads_otherwise_is_refused(weights):
  (weights / 'tokenizer.json').unlink()
  words = '\n'.join(tokenizer_cases.WORDS)
  (weights / 'vocab.txt').write_text(words)
  settings = {'tokenizer_class': 'BertTokenizer'}
  (weights / 'tokenizer_config.json').write_text(json.dumps(settings))
  file = weights / 'config.json'
  size = {'vocab_size': len(tokenizer_cases.WORDS)}
  file.write_text(json.dumps(json.loads(file.read_text()) | size))
  with pytest.raises(errors.UserError, match='pads with the id 0, and roberta'):
    _ = _load(weights).tokenizer
