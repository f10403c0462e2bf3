"""Directories whose only vocabulary is a SentencePiece model.

Oracle: `AutoTokenizer`. Models are trained where sentencepiece is installed.
"""

import importlib.util
import io
import json
from pathlib import Path

import numpy as np
import pytest
import transformers

from bam_jax import errors
from bam_jax.data import features
from tests.data import tokenizer_cases

_TEXTS = tokenizer_cases.texts()


def _train(path: Path, model_type: str) -> Path:
  """Writes what the hub has of DeBERTa-v3 and of XLM-R, but for weights."""
  sentencepiece = pytest.importorskip('sentencepiece')
  name, options = 'sentencepiece.bpe.model', {'bos_id': 1, 'eos_id': 2}
  if model_type == 'deberta-v2':
    name, options = 'spm.model', {
      'pad_id': 0, 'bos_id': 1, 'eos_id': 2, 'unk_id': 3, 'pad_piece': '[PAD]',
      'bos_piece': '[CLS]', 'eos_piece': '[SEP]', 'unk_piece': '[UNK]',
    }  # fmt: skip
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=(text.replace('\x00', '') for text in _TEXTS),
    model_writer=model,
    vocab_size=1500,
    hard_vocab_limit=False,
    character_coverage=0.98,
    minloglevel=2,
    **options,
  )
  (path / name).write_bytes(model.getvalue())
  (path / 'config.json').write_text(json.dumps({'model_type': model_type}))
  if model_type == 'deberta-v2':
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    added = {'[MASK]': trained.get_piece_size()}
    (path / 'added_tokens.json').write_text(json.dumps(added))
  return path


@pytest.mark.parametrize('model_type', ['deberta-v2', 'xlm-roberta'])
def test_ids_are_those_of_transformers(tmp_path, model_type):
  path = _train(tmp_path, model_type)
  tokenizer = features.Tokenizer.from_dir(path)
  theirs = transformers.AutoTokenizer.from_pretrained(path)
  found = [
    [tokenizer.cls_id, *ids.tolist(), tokenizer.sep_id]
    for ids in tokenizer.encode(_TEXTS)
  ]
  assert found == theirs(_TEXTS)['input_ids']
  words = [text.split() for text in _TEXTS if text.split()][:300]
  for split, ids in zip(
    words, theirs(words, is_split_into_words=True)['input_ids'], strict=True
  ):
    own = np.concatenate(tokenizer.encode_words(split)).tolist()
    assert [tokenizer.cls_id, *own, tokenizer.sep_id] == ids
  tokenizer.save(tmp_path / 'saved', has_token_types=False)
  saved = transformers.AutoTokenizer.from_pretrained(tmp_path / 'saved')
  assert saved(_TEXTS)['input_ids'] == found
  text = 'the cat'
  assert saved.decode(saved(text, add_special_tokens=False)['input_ids']) == (
    text
  )


def test_the_package_that_reads_it_is_named(tmp_path, monkeypatch):
  (tmp_path / 'spm.model').write_bytes(b'')
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(errors.UserError) as caught:
    features.Tokenizer.from_dir(tmp_path)
  assert str(caught.value) == (
    f'{tmp_path}/spm.model: AutoTokenizer reads it with the package'
    ' sentencepiece; run `pip install sentencepiece`'
  )


def test_a_model_of_another_family_is_refused(tmp_path):
  path = _train(tmp_path, 'xlm-roberta')
  (path / 'config.json').write_text('{"model_type": "deberta-v2"}')
  (path / 'sentencepiece.bpe.model').rename(path / 'spm.model')
  with pytest.raises(errors.UserError, match=r'spm\.model: lacks \[PAD\]'):
    features.Tokenizer.from_dir(path)
