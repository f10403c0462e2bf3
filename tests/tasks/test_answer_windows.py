"""Questions to windows. Oracles: the context's characters, counts by hand."""

import itertools
import json

import numpy as np
import pytest

from bam_jax import errors
from bam_jax.data import features
from bam_jax.tasks import demo
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib

_TOKENIZER = features.Tokenizer.from_vocab(demo.vocabulary(), lowercase=True)
_CONTEXT = 'The Doctor bought  a car, Zoe an éclair and the lawyer a boat .'


def _task(stride=0, unanswerable=True):
  return task_lib.Task(
    name='things',
    kind=kinds.KINDS['qa'],
    metrics=(),
    paper_metric='',
    tables={'train': task_lib.Table(text=('question', 'context'))},
    stride=stride,
    unanswerable=unanswerable,
  )


def _windows(*answers, question='who ?', max_length=16, stride=0, known=True):
  """Windows of one example; the answers stand where they first do."""
  label = tuple((text, _CONTEXT.index(text)) for text in answers)
  example = task_lib.Example(
    'things/train/7', question, _CONTEXT, label if known else None
  )
  return list(
    features.featurize([example], _task(stride), _TOKENIZER, max_length)
  )


def _characters(window, start, end):
  """What stands in the context from one token to another."""
  spans = window.spans.reshape(-1, 2)
  return _CONTEXT[spans[start, 0] : spans[end, 1]]


@pytest.mark.parametrize(
  'answer', ['Doctor', 'a car', 'Zoe', 'éclair', 'the lawyer a boat .', 'The']
)
def test_the_answer_is_where_a_window_holds_all_of_it(answer):
  rows = _windows(answer, max_length=24)
  assert len(rows) > 1
  held = [row for row in rows if row.label.any()]
  assert held
  for row in rows:
    start, end = row.label.astype(int)
    if start:
      assert _characters(row, start, end) == answer
    else:
      # All of it is nowhere in this window.
      spans = row.spans.reshape(-1, 2)[row.length_a : -1]
      begin = _CONTEXT.index(answer)
      inside = (spans[:, 1] > begin) & (spans[:, 0] < begin + len(answer))
      whole = inside.any() and (
        spans[0, 0] <= begin and spans[-1, 1] >= begin + len(answer)
      )
      assert not whole and end == 0


@pytest.mark.parametrize('stride', [0, 3, 6])
def test_windows_cover_the_context(stride):
  rows = _windows('car', max_length=16, stride=stride)
  (whole,) = _TOKENIZER.encode([_CONTEXT])
  (question,) = _TOKENIZER.encode(['who ?'])
  room = 13 - len(question)
  step = stride or room // 2
  for number, row in enumerate(rows):
    part = whole[number * step : number * step + room]
    np.testing.assert_array_equal(
      row.input_ids,
      [_TOKENIZER.cls_id, *question, _TOKENIZER.sep_id, *part,
       _TOKENIZER.sep_id],
    )  # fmt: skip
    assert row.length_a == len(question) + 2
    assert len(row.spans) == 2 * len(row.input_ids)
    assert (row.spans[: 2 * row.length_a] == -1).all()
  # The last one reaches the end, and the one before it does not.
  assert (len(rows) - 1) * step + room >= len(whole)
  assert (len(rows) - 2) * step + room < len(whole)
  assert [row.uid for row in rows[:2]] == [
    'things/train/7', 'things/train/7~1',
  ]  # fmt: skip


def test_the_first_window_has_what_scores_are_of():
  rows = _windows('a car', 'car')
  assert rows[0].context == _CONTEXT
  assert json.loads(rows[0].answers) == ['a car', 'car']
  assert {(row.context, row.answers) for row in rows[1:]} == {('', '')}


def test_without_an_answer_and_without_a_label():
  assert {tuple(row.label) for row in _windows()} == {(0, 0)}
  assert all(np.isnan(row.label).all() for row in _windows(known=False))


def test_a_long_question_has_half_of_a_window():
  rows = _windows('car', question='the ' * 40, max_length=16)
  for row in rows:
    assert row.length_a == 6 + 2
    assert len(row.input_ids) <= 16


def test_a_stride_that_leaves_tokens_out_is_told():
  with pytest.raises(errors.UserError) as told:
    _windows('car', stride=8)
  assert str(told.value) == (
    'config.custom_tasks.things.stride=8: windows of config.data.max_length=16'
    ' hold 7 tokens of context beside a long question, so that windows would'
    ' skip context; lower the stride or raise max_length'
  )


def test_examples_keep_their_order():
  """Contexts are tokenised once, whoever asks about them."""
  examples = [
    task_lib.Example(f'things/train/{i}', f'who {word} ?', context, ())
    for i, (word, context) in enumerate(
      itertools.product(('car', 'boat'), (_CONTEXT, 'a house .'))
    )
  ]
  rows = list(features.featurize(examples, _task(), _TOKENIZER, 64))
  assert [row.uid for row in rows] == [example.uid for example in examples]
  assert [row.context for row in rows] == [e.text_b for e in examples]
  for row, example in zip(rows, examples):
    (ids,) = _TOKENIZER.encode([example.text_b])
    np.testing.assert_array_equal(row.input_ids[row.length_a : -1], ids)
