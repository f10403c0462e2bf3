"""The share of [UNK], counted by hand, and where it becomes a finding."""

import json

import numpy as np
import pytest

from bam_jax.data import features
from bam_jax.doctor import lengths
from bam_jax.doctor import rows as rows_lib
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib

_SPECIAL = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']


def _rows(texts, tokenizer):
  table = task_lib.Table(text=('text',), label='label', file='own.tsv')
  task = task_lib.Task(
    name='own',
    kind=kinds.KINDS['classification'],
    labels=('no', 'yes'),
    scale=(0.0, 1.0),
    metrics=('accuracy',),
    paper_metric='accuracy',
    tables={'train': table},
  )
  count = np.arange(len(texts))
  return rows_lib.Rows(
    task,
    'train',
    tokenizer,
    max_length=64,
    file='own.tsv',
    places=count + 2,
    texts=[texts],
    label=count * 0.0,
  )


def _found(texts, tokenizer):
  rows = _rows(texts, tokenizer)
  found = list(lengths.check(rows))
  return rows.lengths, found


@pytest.mark.parametrize(('known', 'findings'), [(8, 1), (48, 0)])
def test_the_share_decides(known, findings):
  tokenizer = features.Tokenizer.from_vocab([*_SPECIAL, 'cat'], lowercase=True)
  # Four unknown words; [CLS] and [SEP] of each row are tokens too.
  rows = ['cat'] * known + ['cat Dog', 'Dog cat bird', 'Dog']
  measured, found = _found(rows, tokenizer)
  assert measured.unknown == pytest.approx(4 / (3 * known + 4 + 5 + 3))
  assert measured.unknown_words == ('Dog', 'bird')
  assert len(found) == findings
  if found:
    assert found[0].severity == 'warning'
    assert found[0].count == 3
    assert found[0].places[0] == f'own.tsv:{known + 2}'
    assert "'Dog', 'bird'" in found[0].what


def test_a_cased_vocabulary_alone_and_with_what_the_remedy_says(tmp_path):
  words = ['London', 'Paris', 'Is', 'Far']
  (tmp_path / 'vocab.txt').write_text('\n'.join([*_SPECIAL, *words]))
  texts = ['London Is Far', 'Paris Is Far'] * 10
  _, (found,) = _found(texts, features.Tokenizer.from_dir(tmp_path))
  assert (found.severity, found.check) == ('warning', 'unknown words')
  assert '"do_lower_case": false' in found.remedy
  (tmp_path / 'tokenizer_config.json').write_text(
    json.dumps({'do_lower_case': False})
  )
  assert _found(texts, features.Tokenizer.from_dir(tmp_path))[1] == []


def test_a_word_of_many_characters_is_cut():
  tokenizer = features.Tokenizer.from_vocab([*_SPECIAL, 'cat'], lowercase=True)
  _, (found,) = _found(['x' * 5000], tokenizer)
  assert len(found.what) < 200
