"""Exports with mean pooling: their files, and a plan that starts from one."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from bam_jax import config as config_lib
from bam_jax.inference import export
from bam_jax.modeling import bert
from bam_jax.modeling import huggingface
from bam_jax.modeling import pretrained
from tests.inference import test_export_kinds as others
from tests.modeling import models

TASKS, TOKENIZER = others.TASKS, others.TOKENIZER
CONFIG = dataclasses.replace(others.CONFIG, pooling='mean')
MODEL = others.MODEL.clone(config=CONFIG)


@pytest.fixture(scope='module')
def params():
  return models.draw_params(MODEL, 0.05)


@pytest.fixture(scope='module')
def directory(params, tmp_path_factory):
  path = tmp_path_factory.mktemp('exports')
  facts = others.FACTS
  export.export(path, CONFIG, TOKENIZER, params, TASKS.index, TASKS, facts)
  return path


def test_files_of_each_directory(directory):
  both = {
    'README.md', '1_Pooling', 'config.json', 'model.safetensors',
    'modules.json', 'tokenizer.json', 'tokenizer_config.json', 'vocab.txt',
  }  # fmt: skip
  more = {'multilabel': {'2_Dense'}, 'all': {'tasks.json'}}
  for name in (*TASKS.names, export.ALL):
    files = {path.name for path in (directory / name).iterdir()}
    assert files == both | more.get(name, set())
    modules = json.loads((directory / name / 'modules.json').read_text())
    paths = ['', '1_Pooling', '2_Dense'][: 2 + (name == 'multilabel')]
    assert [module['path'] for module in modules] == paths


def test_the_files_give_the_logits(directory, params):
  """Oracle: the model itself. The mean and the head are NumPy's."""
  path, task = directory / 'multilabel', TASKS['multilabel']
  rng = np.random.default_rng(1)
  ids = rng.integers(5, CONFIG.vocab_size, (1, 9))
  types, positions = np.array([[0] * 4 + [1] * 5]), np.arange(9)[None]
  mask = np.array([[1] * 7 + [0] * 2])
  batch = {
    'input_ids': ids,
    'token_type_ids': types,
    'positions': positions,
    'segment_ids': mask,
    'cls_index': np.zeros((1, 1), np.int32),
    'task_id': np.full((1, 1), TASKS.index[task.name]),
  }
  logits = models.apply(MODEL, params, batch)
  encoder = huggingface.load_params(path, CONFIG)['encoder']
  hidden = models.apply(
    bert.BertEncoder(CONFIG), encoder, ids, types, positions, mask
  )
  head = safetensors.numpy.load_file(path / '2_Dense' / 'model.safetensors')
  pooled = np.asarray(hidden, np.float64)[0, :7].mean(axis=0)
  found = head['linear.weight'] @ pooled + head['linear.bias']
  np.testing.assert_allclose(found, logits.slots[0, 0, :3], rtol=0, atol=1e-5)
  config = json.loads((path / 'config.json').read_text())
  # No class of transformers computes this head.
  assert config['architectures'] == ['BertModel']
  assert tuple(config['id2label'].values()) == task.labels


@pytest.mark.parametrize('name', [*TASKS.names, export.ALL])
def test_a_plan_starts_from_the_bit_equal_encoder(directory, params, name):
  config = config_lib.default_config()
  config.tasks = ('demo_sentiment',)
  config.data.max_length = 32
  config.model.init = str(directory / name)
  config.model.pooling = 'auto'
  encoder = pretrained.load_encoder(config_lib.from_config_dict(config))
  assert encoder.config == CONFIG
  back = encoder.load_params(())
  assert back.keys() == {'encoder'}
  jax.tree.map(
    np.testing.assert_array_equal, back['encoder'], params['encoder']
  )


def test_cards_say_how_the_vector_is_pooled(directory):
  text = (directory / 'multilabel' / 'README.md').read_text()
  assert text.startswith('---\nlibrary_name: sentence-transformers\n')
  assert "head = load_file('2_Dense/model.safetensors')" in text
  text = (directory / export.ALL / 'README.md').read_text()
  assert '  vector = hidden.mean(1)\n' in text
  text = (directory / 'tagging' / 'README.md').read_text()
  assert 'AutoModelForTokenClassification.from_pretrained' in text
