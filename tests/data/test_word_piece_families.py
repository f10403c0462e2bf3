"""Tokenizers of families that have BERT's. Oracle: `AutoTokenizer`."""

import json
from pathlib import Path

import pytest
import transformers

from bam_jax.data import features
from tests.data import tokenizer_cases

_TEXTS = tokenizer_cases.texts()


def _write(path: Path, model_type: str, words: list[str], **settings) -> Path:
  (path / 'vocab.txt').write_text('\n'.join(words) + '\n', 'utf-8')
  config = {'model_type': model_type, 'vocab_size': len(words)}
  (path / 'config.json').write_text(json.dumps(config))
  (path / 'tokenizer_config.json').write_text(json.dumps(settings))
  return path


@pytest.mark.parametrize('is_cased', [True, False], ids=['cased', 'uncased'])
@pytest.mark.parametrize('model_type', ['electra', 'distilbert', 'ernie'])
def test_ids_are_those_of_transformers(model_type, is_cased, tmp_path):
  words = [
    word
    for word in tokenizer_cases.WORDS
    if is_cased or word == word.lower() or word in tokenizer_cases.SPECIAL
  ]
  path = _write(tmp_path, model_type, words, do_lower_case=not is_cased)
  tokenizer = features.Tokenizer.from_dir(path)
  theirs = transformers.AutoTokenizer.from_pretrained(path)
  ids = [
    [tokenizer.cls_id, *ids.tolist(), tokenizer.sep_id]
    for ids in tokenizer.encode(_TEXTS)
  ]
  assert len(ids) == 2000
  assert ids == theirs(_TEXTS)['input_ids']
  assert theirs(_TEXTS[3], _TEXTS[4])['input_ids'] == [*ids[3], *ids[4][1:]]
  upper, lower = (ids.tolist() for ids in tokenizer.encode(['THE', 'the']))
  assert (upper != lower) == is_cased


@pytest.mark.parametrize('model_type', ['electra', 'distilbert', 'ernie'])
def test_no_token_is_added_that_has_no_embedding(model_type, tmp_path):
  words = [word for word in tokenizer_cases.WORDS if word != '[MASK]']
  path = _write(tmp_path, model_type, words)
  assert features.Tokenizer.from_dir(path).vocab_size == len(words)
