"""Words to windows. Oracle: the tokenizer on the whole sentence; by hand."""

import itertools

import numpy as np
import pytest

from bam_jax.data import features
from bam_jax.tasks import demo
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib

_TOKENIZER = features.Tokenizer.from_vocab(demo.vocabulary(), lowercase=True)
_TASK = task_lib.Task(
  name='names',
  kind=kinds.KINDS['tagging'],
  labels=('O', 'B-PER', 'I-PER'),
  metrics=(),
  paper_metric='',
  tables={'train': task_lib.Table(text=(0,), label=-1)},
)


def _example(number, *words):
  """Tags go round; a label is known by its word's place."""
  label = tuple(i % 3 for i in range(len(words)))
  return task_lib.Example(f'names/train/{number}', ' '.join(words), None, label)


def _rows(*examples, max_length=12):
  return list(features.featurize(examples, _TASK, _TOKENIZER, max_length))


def test_first_pieces_have_the_tags():
  (row,) = _rows(_example(0, 'the', 'zoe', 'house'))
  (zoe,) = _TOKENIZER.encode(['zoe'])
  assert len(zoe) == 3
  assert row.label.tolist() == [-1, 0, 1, -1, -1, 2, -1]
  assert row.label.dtype == np.float32
  assert row.length_a == len(row.input_ids) == 7
  np.testing.assert_array_equal(row.input_ids[2:5], zoe)


@pytest.mark.parametrize('count', [1, 9, 10, 11, 50])
def test_windows_hold_every_piece_once(count):
  rng = np.random.default_rng(count)
  words = rng.choice(['the', 'zoe', 'house', 'smith', 'a'], count).tolist()
  rows = _rows(_example(4, *words), _example(5, 'soup'))
  own, (last,) = rows[:-1], rows[-1:]
  assert last.uid == 'names/train/5'
  assert [row.uid for row in own] == [
    'names/train/4', *(f'names/train/4~{i}' for i in range(1, len(own)))
  ]  # fmt: skip
  assert all(len(row.input_ids) <= 12 for row in own)
  for row in own:
    assert row.input_ids[0] == _TOKENIZER.cls_id
    assert row.input_ids[-1] == _TOKENIZER.sep_id
    assert len(row.label) == len(row.input_ids)
    assert row.label[1] >= 0  # A window begins with a word.
  (whole,) = _TOKENIZER.encode([' '.join(words)])
  np.testing.assert_array_equal(
    np.concatenate([row.input_ids[1:-1] for row in own]), whole
  )
  tags = np.concatenate([row.label for row in own])
  assert tags[tags >= 0].tolist() == [i % 3 for i in range(count)]
  # None is there without need: the next word would not have fitted.
  for one, other in itertools.pairwise(own):
    begins = np.append(np.flatnonzero(other.label >= 0), len(other.label) - 1)
    assert len(one.input_ids) + begins[1] - begins[0] > 12


def test_a_word_without_pieces_is_unknown():
  (row,) = _rows(_example(0, 'the', '\u200b', 'house'))
  assert row.input_ids[2] == _TOKENIZER.unk_id
  assert row.label.tolist() == [-1, 0, 1, 2, -1]


def test_of_a_word_too_long_the_first_pieces_are_kept():
  first, second = _rows(_example(0, 'x' * 30, 'house'))
  assert first.label.tolist() == [-1, 0, *[-1] * 10]
  assert second.label.tolist() == [-1, 1, -1]


def test_words_without_tags_are_still_told_apart():
  example = task_lib.Example('names/test/0', 'the zoe', None, None)
  (row,) = _rows(example)
  np.testing.assert_array_equal(row.label, [-1, np.nan, np.nan, -1, -1, -1])
