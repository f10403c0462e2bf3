"""RoBERTa's files: positions, the pooler that is part of a head, refusals.

Values and gradients against torch are in test_bert.py.
"""

import dataclasses
import json
from pathlib import Path
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from bam_jax import errors
from bam_jax.modeling import families
from bam_jax.modeling import family
from bam_jax.modeling import heads
from bam_jax.modeling import huggingface
from tests.modeling import models

GOLDEN = Path(__file__).parent / 'golden'
SIZES = {'roberta': 24, 'xlm-roberta': 15}  # Positions of texts.


@pytest.fixture
def weights(tmp_path):
  for name in ('config.json', 'model.safetensors'):
    shutil.copy(GOLDEN / 'roberta' / name, tmp_path)
  return tmp_path


def _config(path):
  return family.EncoderConfig(**huggingface.load_config(path))


def _stored(path=GOLDEN / 'roberta'):
  return safetensors.numpy.load_file(path / 'model.safetensors')


def _change_config(path, **values):
  file = path / 'config.json'
  file.write_text(json.dumps(json.loads(file.read_text()) | values))


def _refusal(path):
  with pytest.raises(errors.UserError) as caught:
    huggingface.load_config(path)
  message = str(caught.value)
  assert '\n' not in message
  return message


@pytest.mark.parametrize('name', SIZES)
def test_two_first_positions_are_dropped_and_written_as_zeros(name):
  config, original = _config(GOLDEN / name), _stored(GOLDEN / name)
  assert config.max_positions == SIZES[name]
  returned = huggingface.save_params(
    huggingface.load_params(GOLDEN / name, config), families.FAMILIES[name]
  )
  key = 'embeddings.position_embeddings.weight'
  original[key][:2] = 0
  assert returned.keys() == original.keys()
  for tensor, value in original.items():
    np.testing.assert_array_equal(returned[tensor], value, err_msg=tensor)
  written = huggingface.save_config(config, pad_id=1)
  assert written['max_position_embeddings'] == SIZES[name] + 2
  assert written['pad_token_id'] == 1
  assert written['architectures'] == [
    f'{families.FAMILIES[name].class_prefix}Model'
  ]


@pytest.mark.parametrize('name', ['roberta', 'xlm-roberta', 'camembert'])
def test_config_round_trip(weights, name):
  _change_config(weights, model_type=name)
  config = _config(weights)
  assert config.family == name
  written = huggingface.save_config(config, pad_id=1)
  (weights / 'config.json').write_text(json.dumps(written))
  assert _config(weights) == config


def test_other_padding_and_too_few_positions_are_refused(weights):
  _change_config(weights, max_position_embeddings=2)
  assert 'no number from 3 to' in _refusal(weights)
  _change_config(weights, pad_token_id=0)
  assert 'only encoders with pad_token_id 1' in _refusal(weights)


def test_pooler_of_a_sequence_classifier_is_loaded(weights):
  """It is `classifier.dense`, also beside a pooler that nothing trained."""
  stored = {f'roberta.{name}': x for name, x in _stored().items()}
  trained = {
    'classifier.dense.weight': np.arange(256, dtype=np.float32).reshape(16, 16),
    'classifier.dense.bias': np.ones(16, np.float32),
  }
  rest = {
    'classifier.out_proj.weight': np.ones((3, 16), np.float32),
    'lm_head.bias': np.ones(40, np.float32),
    'roberta.embeddings.position_ids': np.arange(26)[None],
  }
  alone = {k: x for k, x in stored.items() if 'pooler' not in k}
  for tensors in (stored, alone):
    safetensors.numpy.save_file(
      tensors | trained | rest, weights / 'model.safetensors'
    )
    pooler = huggingface.load_params(weights, _config(weights))['pooler']
    np.testing.assert_array_equal(
      pooler['kernel'], trained['classifier.dense.weight'].T
    )
    np.testing.assert_array_equal(pooler['bias'], 1)


def test_head_of_tokens_has_no_pooler(weights):
  tensors = {
    f'roberta.{k}': x for k, x in _stored().items() if 'pooler' not in k
  } | {'classifier.weight': np.ones((3, 16), np.float32)}
  safetensors.numpy.save_file(tensors, weights / 'model.safetensors')
  assert 'pooler' not in huggingface.load_params(weights, _config(weights))


def test_packed_rows_are_those_alone_and_have_no_token_types():
  """Oracle: each text alone in a row, of token type 0."""
  config = _config(GOLDEN / 'roberta')
  model = heads.MultiTaskModel(config, 1, 3)
  params = models.init_params(model, jax.random.key(0))
  params = params | huggingface.load_params(GOLDEN / 'roberta', config)
  ids = np.random.default_rng(0).integers(2, 40, 9)
  lengths = (5, 4)
  zeros = np.zeros((1, 2), np.int32)
  packed = models.apply(
    model,
    params,
    {
      'input_ids': ids[None],
      'token_type_ids': np.array([[0, 0, 1, 1, 1, 0, 1, 1, 1]]),
      'positions': np.concatenate([np.arange(n) for n in lengths])[None],
      'segment_ids': np.repeat([1, 2], lengths)[None],
      'cls_index': np.array([[0, 5]]),
      'task_id': zeros,
    },
  ).slots[0]
  for slot, own in enumerate(np.split(ids, [5])):
    row = np.zeros_like(own)[None]
    alone = models.apply(
      model,
      params,
      {
        'input_ids': own[None],
        'token_type_ids': row,
        'positions': np.arange(len(own))[None],
        'segment_ids': row + 1,
        'cls_index': zeros[:, :1],
        'task_id': zeros[:, :1],
      },
    ).slots[0, 0]
    np.testing.assert_allclose(packed[slot], alone, rtol=0, atol=1e-5)


def test_parameters_have_berts_names():
  """Learning rates, stacking, sharding and dropout go by these names."""
  config = _config(GOLDEN / 'roberta')
  shapes = [
    heads.abstract_params(heads.MultiTaskModel(each, 1, 3))
    for each in (config, dataclasses.replace(config, family='bert'))
  ]
  assert jax.tree.map(lambda x: x.shape, shapes[0]) == jax.tree.map(
    lambda x: x.shape, shapes[1]
  )
