"""What encoder families have of their own beside their numbers.

Values and gradients against torch are in test_bert.py, exports in
tests/inference/test_export_families.py.
"""

import dataclasses
import functools
import json
from pathlib import Path
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from bam_jax import errors
from bam_jax.core import optimizer
from bam_jax.modeling import families
from bam_jax.modeling import family
from bam_jax.modeling import heads
from bam_jax.modeling import huggingface
from bam_jax.modeling import layers

GOLDEN = Path(__file__).parent / 'golden'
_NAMES = ('electra', 'electra-narrow', 'distilbert', 'distilbert-deep')


def _config(path: Path) -> family.EncoderConfig:
  return family.EncoderConfig(**huggingface.load_config(path))


def _stored(name: str) -> dict[str, np.ndarray]:
  return safetensors.numpy.load_file(GOLDEN / name / 'model.safetensors')


def _directory(path: Path, name: str, **values: object) -> Path:
  """Copies a golden model, with other entries of config.json."""
  shutil.copy(GOLDEN / name / 'model.safetensors', path)
  config = json.loads((GOLDEN / name / 'config.json').read_text())
  (path / 'config.json').write_text(json.dumps(config | values))
  return path


def _refusal(function, *arguments: object) -> str:
  with pytest.raises(errors.UserError) as caught:
    function(*arguments)
  message = str(caught.value)
  assert '\n' not in message
  return message


@pytest.mark.parametrize('name', _NAMES)
def test_what_is_loaded_is_written_again(name, tmp_path):
  """Oracle: the file of transformers, and the model's own initialisation."""
  config = _config(GOLDEN / name)
  params = huggingface.load_params(GOLDEN / name, config)
  abstract = heads.abstract_params(heads.MultiTaskModel(config, 1, 3))
  assert jax.tree.map(lambda x: x.shape, params) == jax.tree.map(
    lambda x: x.shape, {key: abstract[key] for key in ('encoder', 'pooler')}
  )
  of = families.FAMILIES[config.family]
  written = huggingface.save_params(params, of)
  renamed = of.heads['ForSequenceClassification']['pooler.dense']
  stored = {
    key.removeprefix(of.tensor_prefix).replace(renamed, 'pooler.dense'): x
    for key, x in _stored(name).items()
    if not key.startswith('classifier.') or key.startswith(renamed)
  }
  assert written.keys() == stored.keys()
  for key, value in stored.items():
    np.testing.assert_array_equal(written[key], value, err_msg=key)
  values = huggingface.save_config(config, pad_id=0)
  (tmp_path / 'config.json').write_text(json.dumps(values))
  assert _config(tmp_path) == config


@pytest.mark.parametrize(
  ('name', 'dtype'),
  [
    ('wide', 'float32'),
    ('wide', 'bfloat16'),
    ('deberta-v2', 'float32'),
    ('modernbert', 'float32'),
  ],
)
def test_tokens_that_are_read_are_those_of_the_whole(name, dtype):
  """Oracle: all tokens, computed. Segments, padding and places are random."""
  rng = np.random.default_rng(0)
  config = _config(GOLDEN / name)
  params = huggingface.load_params(GOLDEN / name, config)['encoder']
  lengths = np.array([[5, 4, 3], [12, 0, 0], [1, 9, 0]])
  segments = np.array(
    [np.repeat([1, 2, 3, 0], [*own, 14 - sum(own)]) for own in lengths]
  )
  positions = np.concatenate(
    [np.arange(n) for own in lengths for n in (*own, 14 - sum(own))]
  ).reshape(segments.shape)
  ids = rng.integers(5, config.vocab_size, segments.shape)
  read = np.array([[0, 5, 9], [0, 3, 11], [1, 0, 13]])
  compute = family.Compute(np.dtype(dtype), platform='cpu')
  encoder = families.FAMILIES[config.family].encoder(config, compute)

  weights = rng.normal(size=(*read.shape, config.hidden_size))

  @functools.partial(jax.jit, static_argnums=0)
  def encode(reads):
    def total(params):
      inputs = ids, np.zeros_like(ids), positions, segments, True
      x = encoder.apply({'params': params}, *inputs, read if reads else None)
      x = x.astype(np.float32)
      x = x if reads else jnp.take_along_axis(x, read[..., None], axis=1)
      return jnp.sum(x * weights.astype(np.float32)), x

    (_, x), gradients = jax.value_and_grad(total, has_aux=True)(params)
    return x, gradients

  (found, gradients), (whole, expected) = encode(True), encode(False)
  if dtype == 'float32':
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-5)
    chex.assert_trees_all_close(gradients, expected, rtol=0, atol=1e-4)
  else:  # Rounded at other places.
    assert np.abs(found - whole).mean() < 0.01 * np.abs(whole).mean()


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_taken_tokens_are_exact(dtype):
  """Oracle: NumPy's indexing, also for the gradient; not a bit is lost."""
  rng = np.random.default_rng(0)
  x = jnp.asarray(1000 * rng.normal(size=(3, 7, 5)), dtype)
  read = np.array([[0, 6], [3, 3], [1, 0]])
  rows = np.arange(3)[:, None]
  actual, pullback = jax.vjp(lambda x: family.take_tokens(x, read), x)
  np.testing.assert_array_equal(actual, np.asarray(x)[rows, read])
  weights = jnp.asarray(rng.integers(1, 9, (3, 2, 5)), dtype)
  expected = np.zeros(x.shape)
  np.add.at(expected, (rows, read), np.asarray(weights))
  np.testing.assert_array_equal(pullback(weights)[0], expected)


@pytest.mark.parametrize('name', ['electra-narrow', 'distilbert', 'ernie'])
def test_packed_rows_are_those_alone(name):
  """Oracle: each text alone in a row. All rows are computed at once."""
  config = _config(GOLDEN / name)
  rng = np.random.default_rng(0)
  head = {
    'kernel': rng.normal(size=(1, config.hidden_size, 3)).astype(np.float32),
    'bias': np.zeros((1, 3), np.float32),
  }
  params = huggingface.load_params(GOLDEN / name, config) | {'heads': head}
  ids, types = rng.integers(1, 20, 9), rng.integers(0, 2, 9)
  positions = np.array([0, 1, 2, 3, 4, 0, 1, 2, 3])
  first = np.arange(9) < 5
  batch = {
    'input_ids': np.stack([ids] * 3),
    'token_type_ids': np.stack([types] * 3),
    'positions': np.stack([positions] * 3),
    'segment_ids': np.stack([2 - first, first, ~first]).astype(np.int32),
    'cls_index': np.array([[0, 5], [0, 0], [5, 5]]),
    'task_id': np.zeros((3, 2), np.int32),
  }
  model = heads.MultiTaskModel(config, 1, 3)
  slots = jax.jit(lambda: model.apply({'params': params}, batch, True).slots)()
  assert np.abs(slots[0, 0] - slots[0, 1]).max() > 0.1
  np.testing.assert_allclose(slots[0, 0], slots[1, 0], rtol=0, atol=1e-5)
  np.testing.assert_allclose(slots[0, 1], slots[2, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
  ('name', 'prefix', 'more'),
  [
    ('electra', 'electra.', 'discriminator_predictions.dense'),
    ('distilbert', 'distilbert.', 'vocab_layer_norm'),
  ],
)
def test_pretraining_checkpoint_has_no_pooler(name, prefix, more, tmp_path):
  path = _directory(tmp_path, name)
  tensors = {k: x for k, x in _stored(name).items() if k.startswith(prefix)}
  tensors[f'{more}.weight'] = np.zeros((2, 2), np.float32)
  safetensors.numpy.save_file(tensors, path / 'model.safetensors')
  assert sorted(huggingface.load_params(path, _config(path))) == ['encoder']


@pytest.mark.parametrize(
  'architecture', ['ElectraForMaskedLM', 'ElectraForCausalLM']
)
def test_electras_generator_is_refused(architecture, tmp_path):
  path = _directory(tmp_path, 'electra', architectures=[architecture])
  message = _refusal(huggingface.load_config, path)
  assert f"{architecture}, ELECTRA's generator" in message


def test_electras_generator_of_unknown_architecture_is_refused(tmp_path):
  path = _directory(tmp_path, 'electra')
  tensors = _stored('electra')
  tensors['generator_predictions.dense.bias'] = np.zeros(2, np.float32)
  safetensors.numpy.save_file(tensors, path / 'model.safetensors')
  message = _refusal(huggingface.load_params, path, _config(path))
  assert 'generator_predictions.dense.bias is not part of' in message


def test_a_narrow_electra_needs_its_projection(tmp_path):
  path = _directory(tmp_path, 'electra-narrow')
  tensors = _stored('electra-narrow')
  del tensors['electra.embeddings_project.bias']
  safetensors.numpy.save_file(tensors, path / 'model.safetensors')
  message = _refusal(huggingface.load_params, path, _config(path))
  assert 'tensor embeddings_project.bias is missing' in message


def test_ernies_task_types_are_refused(tmp_path):
  path = _directory(tmp_path, 'ernie', use_task_id=True)
  assert 'use_task_id is True' in _refusal(huggingface.load_config, path)


def test_names_of_distilberts_settings_are_in_messages(tmp_path):
  for changes, expected in (
    ({'activation': 'silu'}, "activation is 'silu'"),
    ({'n_heads': 5}, 'n_heads 5 does not divide dim 16'),
    ({'n_layers': 0}, 'n_layers is 0'),
  ):
    path = _directory(tmp_path, 'distilbert', **changes)
    assert expected in _refusal(huggingface.load_config, path)


def test_electras_projection_learns_like_the_embeddings():
  """As in ELECTRA's code, whose depths are 0, the layers', and the heads'."""
  config = _config(GOLDEN / 'electra-narrow')
  model = heads.MultiTaskModel(config, 1, 3)
  params = jax.tree.map(
    lambda x: np.zeros(x.shape), heads.abstract_params(model)
  )
  params = layers.stack(params)
  depths = optimizer.layer_depths(params, config.num_layers)
  assert depths['encoder']['embeddings']['project'] == {'bias': 0, 'kernel': 0}
  assert depths['encoder']['layers']['output']['bias'].tolist() == [1, 2, 3]
  assert depths['pooler']['kernel'] == 4


@pytest.mark.parametrize('name', ['bert', 'distilbert'])
def test_dropout_of_what_attention_returns(name):
  """With a feed-forward network that returns 0, no other site is left."""
  config = dataclasses.replace(
    _config(GOLDEN / 'wide'),
    family=name,
    num_layers=1,
    dropout_embedding=0.0,
    dropout_attention=0.0,
    dropout_hidden=0.5,
  )
  encoder = families.FAMILIES[name].encoder(config)
  row = np.arange(6)[None]
  inputs = row, np.zeros_like(row), row, np.ones_like(row)
  params = jax.jit(lambda key: encoder.init(key, *inputs, True)['params'])(
    jax.random.key(0)
  )
  params['layer_0']['output'] = jax.tree.map(
    np.zeros_like, params['layer_0']['output']
  )
  keys = {'dropout': jax.random.key(1)}
  plain, noisy = jax.jit(
    lambda: [
      encoder.apply({'params': params}, *inputs, fixed, rngs=keys)
      for fixed in (True, False)
    ]
  )()
  assert bool(np.any(plain != noisy)) == (name != 'distilbert')


@pytest.mark.parametrize(
  ('name', 'kept'),
  [('electra', 1.9545), ('roberta', 0.964), ('xlm-roberta', 0.964)],
)
def test_the_pooler_of_a_head_drops_its_input(name, kept):
  """By hand: ones through an identity are gelu(2) or tanh(2), or 0.

  So do `ElectraClassificationHead` and `RobertaClassificationHead` of
  transformers.
  """
  config = _config(GOLDEN / name)
  config = dataclasses.replace(config, dropout_head=0.5)
  pooler = families.FAMILIES[name].pooler(config)
  size = config.hidden_size
  params = {
    'kernel': np.eye(size, dtype=np.float32),
    'bias': np.zeros(size, np.float32),
  }
  found = pooler.apply(
    {'params': params},
    np.ones((9, size), np.float32),
    deterministic=False,
    rngs={'dropout': jax.random.key(0)},
  )
  assert set(np.round(np.float64(found), 4).ravel()) == {0.0, kept}
