"""ModernBERT's tokenizer. Oracle: `AutoTokenizer`."""

import numpy as np
import pytest
import transformers

from bam_jax.data import features
from bam_jax.tasks import glue
from bam_jax.tasks import task as task_lib
from tests.data import modernbert_tokenizer
from tests.data import tokenizer_cases

_TEXTS = tokenizer_cases.texts()
_WORDS = [text.split() for text in _TEXTS if text.split()][:300]


@pytest.fixture(scope='module')
def path(tmp_path_factory):
  return modernbert_tokenizer.make(tmp_path_factory.mktemp('tokenizer'))


@pytest.fixture(scope='module')
def tokenizer(path):
  return features.Tokenizer.from_dir(path)


@pytest.fixture(scope='module')
def theirs(path):
  return transformers.AutoTokenizer.from_pretrained(path)


def _ids(tokenizer):
  return [
    [tokenizer.cls_id, *ids.tolist(), tokenizer.sep_id]
    for ids in tokenizer.encode(_TEXTS)
  ]


def test_ids_are_those_of_transformers(tokenizer, theirs):
  assert len(_TEXTS) == 2000
  assert _ids(tokenizer) == theirs(_TEXTS)['input_ids']
  assert tokenizer.num_separators == 1
  assert not tokenizer.is_word_piece


def test_pairs_are_those_of_transformers(tokenizer, theirs):
  # transformers takes an empty second text for none.
  texts = [text for text in _TEXTS if text.strip()]
  firsts, seconds = texts[:50], texts[50:100]
  examples = [
    task_lib.Example(f'rte/train/{i}', *pair, 0)
    for i, pair in enumerate(zip(firsts, seconds))
  ]
  rows = features.featurize(examples, glue.TASKS['rte'], tokenizer, 8192)
  for row, one, two in zip(rows, firsts, seconds, strict=True):
    assert row.input_ids.tolist() == theirs(one, two)['input_ids']
    assert row.length_a == len(theirs(one)['input_ids'])


def test_words_are_those_of_transformers(tokenizer, tmp_path):
  tokenizer.for_words.save(tmp_path, has_token_types=False)
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  found = theirs(_WORDS, is_split_into_words=True)['input_ids']
  for words, ids in zip(_WORDS, found, strict=True):
    own = np.concatenate(tokenizer.encode_words(words)).tolist()
    assert [tokenizer.cls_id, *own, tokenizer.sep_id] == ids


def test_what_is_saved_gives_the_same_ids(tokenizer, tmp_path):
  tokenizer.save(tmp_path, 8192, has_token_types=False)
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  assert theirs(_TEXTS)['input_ids'] == _ids(tokenizer)
  assert 'token_type_ids' not in theirs('a', 'b')
  text = 'the cat  and a caf\u00e9'
  assert theirs.decode(tokenizer.encode([text])[0]) == text
  again = features.Tokenizer.from_dir(tmp_path)
  assert again.fingerprint == tokenizer.fingerprint


def test_spans_of_answers_do_not_begin_with_a_space(tokenizer, theirs):
  text = 'the cat   and a \u72ac\u732b: Caf\u00e9s'
  ((_, spans),) = tokenizer.encode_with_spans([text])
  expected = theirs(text, return_offsets_mapping=True)['offset_mapping'][1:-1]
  assert len(spans) == len(expected)
  for (begin, end), (first, last) in zip(spans, expected):
    assert text[begin:end] == (text[first:last].lstrip() or text[first:last])
    assert end == last
