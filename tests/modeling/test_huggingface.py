"""Import and export of Hugging Face's files; every refusal in one line."""

import dataclasses
import json
from pathlib import Path
import shutil

import flax.traverse_util
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from bam_jax import errors
from bam_jax.modeling import family
from bam_jax.modeling import heads
from bam_jax.modeling import huggingface

GOLDEN = Path(__file__).parent / 'golden'


@pytest.fixture
def weights(tmp_path):
  """A copy of the checkpoint `deep`, as `transformers` saved it."""
  for name in ('config.json', 'model.safetensors'):
    shutil.copy(GOLDEN / 'deep' / name, tmp_path)
  return tmp_path


def _config(path):
  return family.EncoderConfig(**huggingface.load_config(path))


def _load(path, **changes):
  return huggingface.load_params(
    path, dataclasses.replace(_config(path), **changes)
  )


def _stored(path=GOLDEN / 'deep'):
  return safetensors.numpy.load_file(path / 'model.safetensors')


def _store(path, tensors):
  safetensors.numpy.save_file(tensors, path / 'model.safetensors')


def _fails(call, *parts):
  with pytest.raises(errors.UserError) as caught:
    call()
  message = str(caught.value)
  assert '\n' not in message
  for part in parts:
    assert part in message


def _legacy(name):
  """The names of the first BERT checkpoints."""
  if 'LayerNorm' in name:
    name = name.replace('.weight', '.gamma').replace('.bias', '.beta')
  return name


RENAMED = {
  'plain': lambda name: name,
  'prefix': lambda name: f'bert.{name}',
  'gamma and beta': _legacy,
  'prefixed gamma and beta': lambda name: f'bert.{_legacy(name)}',
}


@pytest.mark.parametrize('renamed', RENAMED.values(), ids=RENAMED)
def test_round_trip_is_bit_equal(weights, renamed):
  original = _stored()
  _store(weights, {renamed(name): x for name, x in original.items()})
  returned = huggingface.save_params(_load(weights))
  assert returned.keys() == original.keys()
  for name, x in original.items():
    assert returned[name].dtype == np.float32
    np.testing.assert_array_equal(returned[name], x, err_msg=name)


@pytest.mark.parametrize('name', ['wide', 'deep', 'roberta'])
def test_tree_and_shapes_are_the_models(name):
  """Oracle: the model's own initialisation."""
  config = _config(GOLDEN / name)
  model = heads.MultiTaskModel(config, 2, 3)
  batch = dict.fromkeys(
    ('input_ids', 'token_type_ids', 'positions', 'segment_ids'),
    np.zeros((1, 4), np.int32),
  ) | dict.fromkeys(('cls_index', 'task_id'), np.zeros((1, 1), np.int32))
  shapes = jax.eval_shape(
    lambda key: model.init(key, batch, True), jax.random.key(0)
  )['params']
  wanted = {
    path: x.shape
    for path, x in flax.traverse_util.flatten_dict(shapes).items()
    if path[0] != 'heads'
  }
  params = flax.traverse_util.flatten_dict(_load(GOLDEN / name))
  assert {path: x.shape for path, x in params.items()} == wanted
  assert {x.dtype for x in params.values()} == {np.dtype('float32')}
  assert all(x.flags.c_contiguous for x in params.values())


@pytest.mark.parametrize('dtype', [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_float_types_become_float32(weights, dtype):
  narrow = {name: x.astype(dtype) for name, x in _stored().items()}
  _store(weights, narrow)
  returned = huggingface.save_params(_load(weights))
  for name, x in narrow.items():
    assert returned[name].dtype == np.float32
    np.testing.assert_array_equal(returned[name], x.astype(np.float32))


def test_integer_weights_are_refused(weights):
  tensors = _stored()
  tensors['pooler.dense.bias'] = np.zeros(24, np.int32)
  _store(weights, tensors)
  _fails(lambda: _load(weights), 'pooler.dense.bias', 'I32')


def test_first_layers_alone(weights):
  full, two = _load(weights), _load(weights, num_layers=2)
  assert sorted(two['encoder']) == ['embeddings', 'layer_0', 'layer_1']
  for key, value in two['encoder'].items():
    jax.tree.map(np.testing.assert_array_equal, value, full['encoder'][key])
  _fails(
    lambda: _load(weights, num_layers=4), '3 layers', 'config.model.num_layers'
  )


def test_missing_tensor(weights):
  tensors = _stored()
  del tensors['encoder.layer.1.output.dense.bias']
  _store(weights, tensors)
  _fails(
    lambda: _load(weights),
    str(weights),
    'encoder.layer.1.output.dense.bias is missing',
  )


@pytest.mark.parametrize(
  'name', ['encoder.layer.3.output.dense.bias', 'lm_head.weight']
)
def test_surplus_tensor(weights, name):
  _store(weights, _stored() | {name: np.zeros(24, np.float32)})
  _fails(lambda: _load(weights), f'tensor {name} is not part of')


def test_same_tensor_under_two_names(weights):
  _store(
    weights, _stored() | {'bert.pooler.dense.bias': np.zeros(24, np.float32)}
  )
  _fails(lambda: _load(weights), ' pooler.dense.bias', 'bert.pooler.dense.bias')


def test_wrong_shape(weights):
  name = 'encoder.layer.0.intermediate.dense.weight'
  tensors = _stored()
  tensors[name] = np.ascontiguousarray(tensors[name].T)
  _store(weights, tensors)
  _fails(lambda: _load(weights), name, '[24, 40]', '[40, 24]')


def test_known_extras_are_dropped(weights):
  extras = {
    'bert.embeddings.position_ids': np.arange(16)[None],
    'cls.predictions.bias': np.zeros(33, np.float32),
    'classifier.weight': np.zeros((2, 24), np.float32),
  }
  _store(weights, {f'bert.{k}': x for k, x in _stored().items()} | extras)
  assert len(huggingface.save_params(_load(weights))) == len(_stored())


def test_pooler_may_be_absent(weights):
  tensors = {k: x for k, x in _stored().items() if 'pooler' not in k}
  _store(weights, tensors)
  params = _load(weights)
  assert sorted(params) == ['encoder']
  assert huggingface.save_params(params).keys() == tensors.keys()
  tensors['pooler.dense.bias'] = _stored()['pooler.dense.bias']
  _store(weights, tensors)
  _fails(lambda: _load(weights), 'pooler.dense.weight is missing')


def test_export_refuses_what_the_table_does_not_name():
  params = _load(GOLDEN / 'deep')
  params['encoder']['layer_0']['adapter'] = {'kernel': np.zeros(1)}
  with pytest.raises(ValueError, match='adapter'):
    huggingface.save_params(params)
  del params['encoder']['layer_0']['adapter']
  del params['encoder']['layer_2']['output']['bias']
  with pytest.raises(ValueError, match='layer_2'):
    huggingface.save_params(params)


def test_shards(weights):
  whole = huggingface.weights_digest(weights)
  (weights / 'model.safetensors').unlink()
  tensors, shards = _stored(), {}
  for i in range(2):
    file = f'model-0000{i + 1}-of-00002.safetensors'
    part = {name: tensors[name] for name in sorted(tensors)[i::2]}
    safetensors.numpy.save_file(part, weights / file)
    shards |= dict.fromkeys(part, file)
  (weights / 'model.safetensors.index.json').write_text(
    json.dumps({'weight_map': shards})
  )
  returned = huggingface.save_params(_load(weights))
  for name, x in tensors.items():
    np.testing.assert_array_equal(returned[name], x)
  assert huggingface.weights_digest(weights) != whole


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('model_type', 'gpt2'),
    ('hidden_act', 'silu'),
    ('hidden_act', ['gelu']),
    ('position_embedding_type', 'relative_key'),
    ('is_decoder', True),
    ('num_hidden_layers', 0),
    ('num_hidden_layers', 10**9),
    ('hidden_size', 2**40),
    ('vocab_size', 'many'),
    ('intermediate_size', None),
    ('num_attention_heads', 5),
    ('layer_norm_eps', '1e-12'),
  ],
)
def test_config_of_another_kind(weights, key, value):
  file = weights / 'config.json'
  file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
  _fails(lambda: huggingface.load_config(weights), str(file), key, str(value))


def test_config_round_trip(weights):
  config = _config(weights)
  assert config.layer_norm_eps == 1e-2
  assert (config.num_layers, config.type_vocab_size) == (3, 3)
  file = weights / 'config.json'
  file.write_text(json.dumps(huggingface.save_config(config, 0)))
  assert _config(weights) == config


def test_digest_is_the_files(weights):
  (weights / 'model.safetensors').write_bytes(b'abc')
  # The first example of FIPS 180.
  assert huggingface.weights_digest(weights) == (
    'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
  )
