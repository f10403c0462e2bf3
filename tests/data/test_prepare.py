"""Features that were cut, and a stranger's that are not of these rows."""

import dataclasses
import logging

import numpy as np
import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import features
from bam_jax.data import prepare
from bam_jax.data import shards
from bam_jax.tasks import demo
from bam_jax.tasks import task as task_lib

_TASK = demo.TASKS['demo_sentiment']
_DATA = config_lib.DataConfig(max_length=16)


def _prepare(directory):
  tokenizer = features.Tokenizer.from_vocab(demo.vocabulary(), True)
  return prepare.prepare(_TASK, 'dev', _DATA, tokenizer, directory)


@pytest.mark.parametrize(
  'change',
  [
    {'input_ids': np.array([1, -1, 2])},
    {'input_ids': np.array([1, 2**31 - 1, 2])},
    {'input_ids': np.arange(17)},
    {'input_ids': np.zeros(0, int), 'length_a': 0},
    {'length_a': 4},
    {'length_a': 0},
  ],
  ids=['negative', 'unknown', 'long', 'empty', 'first', 'no first'],
)
def test_rows_that_no_tokenizer_makes_are_refused(tmp_path, change):
  columns = _prepare(tmp_path / 'good')
  row = {
    'uid': 'demo_sentiment/dev/0',
    'input_ids': np.array([1, 2, 3]),
    'length_a': 3,
    'label': 0.0,
  }
  shards.write(
    tmp_path / 'set',
    shards.feature_fields(),
    [row, row | change],
    columns.fingerprint,
    columns.metadata,
  )
  with pytest.raises(errors.UserError, match=r'set: a row is not 1 to'):
    _prepare(tmp_path / 'set')


@pytest.mark.parametrize(
  ('cut', 'swap'), [(41, False), (41, True), (10, False)]
)
def test_many_cut_rows_are_warned_of_once(tmp_path, caplog, cut, swap):
  labels = _TASK.labels
  lines = [
    f'{"good " * (20 if i < cut else 2)}\tsmall\t{labels[i % 2]}'
    for i in range(100)
  ]
  (tmp_path / 'train.tsv').write_text('\n'.join(['a\tb\tlabel', *lines]) + '\n')
  table = task_lib.Table('train.tsv', text=('a', 'b'), label='label')
  task = dataclasses.replace(_TASK, name='pairs', tables={'train': table})
  data = config_lib.DataConfig(
    dir=str(tmp_path), max_length=16, swap=('pairs',) if swap else ()
  )
  tokenizer = features.Tokenizer.from_vocab(demo.vocabulary(), True)
  for _ in range(2):  # The second call finds the features.
    prepare.prepare(task, 'train', data, tokenizer, tmp_path / 'features')
  warnings = [
    r.getMessage() for r in caplog.records if r.levelno > logging.INFO
  ]
  expected = (
    'pairs: 41% of 100 training rows are cut at config.data.max_length=16;'
    ' raise it if the encoder has more positions, or, for a custom task of'
    ' whole texts, set its windows'
  )
  assert warnings == ([expected] if cut > 10 else [])
