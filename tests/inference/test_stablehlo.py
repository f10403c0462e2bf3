"""A program that runs where this package is not.

Oracle: the Flax module on the ids of `data.features`, one example a row.
"""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from bam_jax.data import features
from bam_jax.inference import card
from bam_jax.inference import stablehlo
from bam_jax.modeling import family
from bam_jax.modeling import heads
from bam_jax.tasks import demo
from bam_jax.tasks import glue
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib
from tests.inference import snippet
from tests.modeling import models

_MAX_LENGTH = 20
_TAGS = ('O', 'B-PER', 'I-PER')
# The second task is not exported: heads are told apart by their numbers.
TASKS = task_lib.TaskTable(
  (
    glue.TASKS['mnli'],
    glue.TASKS['cola'],
    glue.TASKS['stsb'],
    task_lib.Task(
      name='names',
      kind=kinds.KINDS['tagging'],
      labels=_TAGS,
      metrics=kinds.KINDS['tagging'].default_metrics,
      paper_metric='',
      tables={'train': task_lib.Table(text=(0,))},
    ),
  )
)
TOKENIZER = features.Tokenizer.from_vocab(demo.vocabulary(), lowercase=True)
CONFIG = family.EncoderConfig(TOKENIZER.vocab_size, 16, 2, 2, 32, 64)
FACTS = card.Facts(
  name='test',
  run='single_to_multi-s0',
  variant='single_to_multi',
  teachers=(),
  encoder='random weights',
  note='',
  max_length=_MAX_LENGTH,
  record={
    'versions': 'jax 0',
    'scores': {'stsb': {'dev': {'spearman': 81.25}}},
  },
)
_NUMBERS = {'mnli': 0, 'stsb': 2, 'names': 3}
_WORDS = ' '.join(x.text_a for x in demo.generate('demo_sentiment', 'train'))
# A short one, one that is cut, a pair, and a pair that is cut.
_TEXTS = [
  _WORDS[:40],
  _WORDS[:400],
  (_WORDS[40:60], _WORDS[60:90]),
  (_WORDS[:300], _WORDS[90:110]),
]


@pytest.fixture(scope='module', params=['cls', 'mean'])
def config(request):
  return dataclasses.replace(CONFIG, pooling=request.param)


@pytest.fixture(scope='module')
def params(config):
  model = heads.MultiTaskModel(config, len(TASKS), TASKS.num_outputs)
  return models.draw_params(model, 0.1)


@pytest.fixture(scope='module')
def directory(config, params, tmp_path_factory) -> Path:
  path = tmp_path_factory.mktemp('programs')
  stablehlo.export(path, config, TOKENIZER, params, _NUMBERS, TASKS, FACTS)
  assert [child.name for child in path.iterdir()] == ['all']
  return path / 'all'


def _expected(config, params, texts, task) -> np.ndarray:
  """By the packed model, [c] or [tokens, c]."""
  model = heads.MultiTaskModel(
    config,
    len(TASKS),
    TASKS.num_outputs,
    TASKS.token_heads,
    TASKS.token_outputs,
  )
  pair = isinstance(texts, tuple)
  example = task_lib.Example('0', *(texts if pair else (texts, None)), None)
  of = glue.TASKS['mnli' if pair else 'cola']
  (row,) = features.featurize([example], of, TOKENIZER, _MAX_LENGTH, False)
  ids = np.pad(row.input_ids, (0, _MAX_LENGTH - len(row.input_ids)))
  place = np.arange(_MAX_LENGTH)
  real = place < len(row.input_ids)
  batch = {
    'input_ids': ids,
    'token_type_ids': (place >= row.length_a) & real,
    'positions': place,
    'segment_ids': real,
    'cls_index': np.zeros(1),
    'task_id': np.full(1, TASKS.index[task]),
  }
  batch = {k: np.asarray(v, np.int32)[None] for k, v in batch.items()}
  logits = models.apply(model, params, batch)
  c = TASKS[task].num_outputs
  if TASKS[task].kind.per_token:
    return np.asarray(logits.tokens)[0, real, :c]
  return np.asarray(logits.slots)[0, 0, :c]


def test_the_cards_code_gives_the_models_logits(config, directory, params):
  found = snippet.run(directory, _TEXTS)
  assert found.keys() == _NUMBERS.keys()
  for task, logits in found.items():
    for i, texts in enumerate(_TEXTS):
      wanted = _expected(config, params, texts, task)
      own = logits[i, : len(wanted)] if wanted.ndim == 2 else logits[i]
      assert own.shape == wanted.shape
      np.testing.assert_allclose(own, wanted, rtol=0, atol=1e-5)


def test_the_directory_says_what_its_outputs_are(directory):
  about = json.loads((directory / 'model.json').read_text())
  assert about['max_length'] == _MAX_LENGTH
  assert about['platforms'] == ['cpu', 'cuda', 'tpu']
  tasks = about['tasks']
  assert list(tasks) == list(_NUMBERS)
  assert tasks['mnli']['labels'] == ['entailment', 'neutral', 'contradiction']
  assert tasks['names']['labels'] == list(_TAGS)
  assert tasks['stsb']['scale'] == [0.0, 5.0]
  assert [task['pair'] for task in tasks.values()] == [True, True, False]
  text = (directory / 'README.md').read_text()
  assert '| stsb | dev | spearman | 81.2 |' in text
  assert 'tasks with outputs per token' in text


def test_an_input_beyond_the_positions_is_refused(directory):
  """A lookup beyond a table would silently give its last row."""
  program = jax.export.deserialize(
    (directory / 'program.jax_export').read_bytes()
  )
  with np.load(directory / 'weights.npz') as stored:
    weights = dict(stored)
  ids = np.ones((1, CONFIG.max_positions), np.int32)
  assert program.call(weights, ids, ids, ids)['stsb'].shape == (1, 1)
  ids = np.ones((1, CONFIG.max_positions + 1), np.int32)
  with pytest.raises(ValueError, match='shapes'):
    program.call(weights, ids, ids, ids)


def test_one_task_is_a_directory_of_its_own(config, params, tmp_path):
  stablehlo.export(
    tmp_path, config, TOKENIZER, params, {'cola': 1}, TASKS, FACTS
  )
  (path,) = tmp_path.iterdir()
  assert path.name == 'cola'
  with np.load(path / 'weights.npz') as weights:
    np.testing.assert_array_equal(
      weights['heads/cola/kernel'], params['heads']['kernel'][1, :, :2]
    )
