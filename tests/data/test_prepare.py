"""Features of a stranger's that say they are of these rows and are not."""

import numpy as np
import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import features
from bam_jax.data import prepare
from bam_jax.data import shards
from bam_jax.tasks import demo

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
