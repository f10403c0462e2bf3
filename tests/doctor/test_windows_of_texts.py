"""What is lost of long texts. Oracle: the rows that training would read."""

import numpy as np
import pytest

from bam_jax.data import features
from bam_jax.doctor import lengths
from bam_jax.doctor import rows as rows_lib
from bam_jax.tasks import demo
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib

_TOKENIZER = features.Tokenizer.from_vocab(demo.vocabulary(), lowercase=True)
_LIMIT = 16


def _task(texts: int, **fields) -> task_lib.Task:
  table = task_lib.Table(text=('a', 'b')[:texts], label='c', file='own.tsv')
  return task_lib.Task(
    name='own',
    kind=kinds.KINDS['classification'],
    labels=('no', 'yes'),
    metrics=('accuracy',),
    paper_metric='accuracy',
    tables={'train': table},
    **fields,
  )


def _featurized(task, columns, limit) -> tuple[float, float, float]:
  """Shares of cut rows and lost tokens, and inputs a row, by `featurize`."""
  cut, total, read, inputs = set(), 0, 0, 0
  for number, texts in enumerate(zip(*columns)):
    example = task_lib.Example(str(number), *(*texts, None)[:2], 0)
    rows = list(
      features.featurize(
        [example], task, _TOKENIZER, limit, on_cut=lambda uid: cut.add(uid)
      )
    )
    (whole,) = features.featurize([example], _task(len(texts)), _TOKENIZER, 999)
    total += len(whole.input_ids)
    inputs += len(rows)
    # No token of a long text occurs twice, so windows have what they read.
    ids = np.concatenate([row.input_ids for row in rows])
    special = [_TOKENIZER.cls_id, _TOKENIZER.sep_id]
    read += len(set(ids.tolist()) - {*special}) + len(texts) + 1
  count = len(columns[0])
  return len(cut) / count, 1 - read / total, inputs / count


@pytest.mark.parametrize('stride', [0, 3])
@pytest.mark.parametrize('texts', [1, 2])
def test_what_each_choice_loses(texts, stride):
  rng = np.random.default_rng(texts)
  words = [
    word for word in demo.vocabulary() if word.isalpha() and len(word) > 1
  ]
  rows = [rng.permutation(words)[:80] for _ in range(40)]
  columns = [
    [' '.join(row[40 * k : 40 * k + rng.integers(1, 20)]) for row in rows]
    for k in range(texts)
  ]
  columns[0][0] = ' '.join(rows[0][:40])
  task = _task(texts, windows='mean', stride=stride)
  split = rows_lib.Rows(
    task, 'train', _TOKENIZER, _LIMIT, 'own.tsv', places=np.arange(40) + 2,
    texts=columns, label=np.zeros(40),
  )  # fmt: skip
  found = list(lengths.check(split))
  # Of 128 tokens nothing is cut.
  assert list(split.lengths.choices) == [_LIMIT, 128]
  for limit, pair in split.lengths.choices.items():
    for loss, own in zip(pair, (_task(texts), task)):
      assert (loss.rows_cut, loss.tokens_cut, loss.inputs) == pytest.approx(
        _featurized(own, columns, limit)
      )
  cut, in_windows = split.lengths.choices[_LIMIT]
  assert cut.rows_cut > in_windows.rows_cut
  assert in_windows.inputs > 1
  assert (in_windows.rows_cut > 0) == (texts == 2)
  assert split.lengths.rows_cut == in_windows.rows_cut
  remarks = [each for each in found if each.check == 'truncation']
  assert len(remarks) == (texts == 2)


def test_windows_are_recommended_with_their_price():
  texts = ['the dog ' * 20, 'the dog']
  split = rows_lib.Rows(
    _task(1), 'train', _TOKENIZER, _LIMIT, 'own.tsv', places=np.arange(2) + 2,
    texts=[texts], label=np.zeros(2),
  )  # fmt: skip
  (found,) = lengths.check(split)
  # 40 tokens, 14 in a window, which begin 7 apart: 5 of them; and 1.
  assert found.what == (
    '50.00% of 2 rows have more than 16 tokens; 56.52% of all tokens are cut'
  )
  assert found.remedy == (
    'raise config.data.max_length, or set config.custom_tasks.own.windows='
    "'mean': 3.00 inputs for each row"
  )
