"""ModernBERT: windows in packed rows, files, layers, long rows.

Values and gradients against torch are in test_bert.py.
"""

import dataclasses
import json
from pathlib import Path
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.core import optimizer
from bam_jax.modeling import attention
from bam_jax.modeling import families
from bam_jax.modeling import family
from bam_jax.modeling import heads
from bam_jax.modeling import huggingface
from bam_jax.modeling import layers
from bam_jax.modeling import pretrained
from tests.data import modernbert_tokenizer

GOLDEN = Path(__file__).parent / 'golden' / 'modernbert'
_FAMILY = families.FAMILIES['modernbert']


@pytest.fixture
def weights(tmp_path):
  for name in ('config.json', 'model.safetensors'):
    shutil.copy(GOLDEN / name, tmp_path)
  return tmp_path


@pytest.fixture(scope='module')
def config():
  return _config(GOLDEN)


@pytest.fixture(scope='module')
def params(config):
  rng = np.random.default_rng(0)
  head = {
    'kernel': rng.normal(size=(1, config.hidden_size, 3)).astype(np.float32),
    'bias': np.zeros((1, 3), np.float32),
  }
  return huggingface.load_params(GOLDEN, config) | {'heads': head}


def _config(path):
  return family.EncoderConfig(**huggingface.load_config(path))


def _change_config(path, *removed, **values):
  file = path / 'config.json'
  values = json.loads(file.read_text()) | values
  kept = {key: x for key, x in values.items() if key not in removed}
  file.write_text(json.dumps(kept))


@pytest.mark.parametrize('pooling', ['cls', 'mean'])
def test_packed_rows_are_those_alone(config, params, pooling):
  """Oracle: each text alone in a row. Both are longer than the window."""
  config = dataclasses.replace(config, pooling=pooling)
  model = heads.MultiTaskModel(config, 1, 3, token_heads=(0,), token_outputs=3)
  ids = np.random.default_rng(0).integers(2, 40, 22)
  lengths = (9, 11)
  assert config.own.window == 3

  @jax.jit
  def apply(rows, segments, positions, first):
    batch = {
      'input_ids': rows,
      'token_type_ids': jnp.zeros_like(rows),
      'positions': positions,
      'segment_ids': segments,
      'cls_index': first,
      'task_id': jnp.zeros_like(first),
    }
    return model.apply({'params': params}, batch, True)

  segments = np.repeat([1, 2, 0], (*lengths, 2))
  positions = np.concatenate([np.arange(n) for n in (*lengths, 2)])
  packed = apply(ids[None], segments[None], positions[None], np.array([[0, 9]]))
  for slot, own in enumerate(np.split(ids[:20], [9])):
    row = np.pad(own, (0, 22 - len(own)))[None]
    there = (np.arange(22) < len(own)).astype(int)[None]
    alone = apply(row, there, np.arange(22)[None], np.array([[0, 0]]))
    np.testing.assert_allclose(
      packed.slots[0, slot], alone.slots[0, 0], rtol=0, atol=1e-5
    )
    np.testing.assert_allclose(
      packed.tokens[0, segments == slot + 1],
      alone.tokens[0, : len(own)],
      rtol=0,
      atol=1e-5,
    )


def test_each_rate_has_its_own_site(config, params):
  """Oracle: evaluation, which differs from training with one rate."""
  batch = {
    'input_ids': np.arange(2, 14)[None],
    'token_type_ids': np.zeros((1, 12), int),
    'positions': np.arange(12)[None],
    'segment_ids': np.ones((1, 12), int),
    'cls_index': np.zeros((1, 1), int),
    'task_id': np.zeros((1, 1), int),
  }
  rngs = {'dropout': jax.random.key(1)}
  none = _FAMILY.keep_layers(config, (0, 1)).without_dropout()
  outputs = []
  for rate in ('', *config.dropout_rates()):
    own = dataclasses.replace(none, **({rate: 0.5} if rate else {}))
    model = heads.MultiTaskModel(own, 1, 3)

    @jax.jit
    def apply(model=model):
      return model.apply({'params': params}, batch, False, rngs=rngs).slots

    outputs.append(np.asarray(apply()).ravel())
  for i, one in enumerate(outputs):
    for other in outputs[:i]:
      assert np.abs(one - other).max() > 1e-3


def test_depths_of_learning_rates(config, params):
  depths = optimizer.layer_depths(layers.stack(params), config.num_layers)
  count = config.num_layers
  flat = {
    jax.tree_util.keystr(path, simple=True, separator='/'): np.unique(depth)
    for path, depth in jax.tree_util.tree_leaves_with_path(depths)
  }
  expected = {'embeddings/': [0], 'layers/': [*range(1, count + 1)]} | {
    name: [count + 1] for name in ('final_norm/', 'pooler/')
  }
  for name, wanted in (expected | {'heads/': [count + 2]}).items():
    found = [depth for path, depth in flat.items() if name in path]
    assert found
    assert all(list(depth) == wanted for depth in found)
  decays = optimizer.decay_mask(layers.stack(params))
  assert not decays['encoder']['final_norm']['scale']
  assert not decays['pooler']['norm']['scale']
  assert decays['pooler']['dense']['kernel']


def test_the_first_layers_norm_is_not_used_and_not_saved(config, params):
  """The parameters of all layers are one array, so the first has a norm."""
  stored = huggingface.save_params(
    {name: params[name] for name in ('encoder', 'pooler')}, _FAMILY
  )
  assert 'layers.0.attn_norm.weight' not in stored
  assert 'layers.1.attn_norm.weight' in stored
  np.testing.assert_array_equal(
    params['encoder']['layer_0']['attention_norm']['scale'], 1
  )
  model = heads.MultiTaskModel(config, 1, 3)
  batch = {
    name: np.ones((1, 5), int)
    for name in ('input_ids', 'token_type_ids', 'positions', 'segment_ids')
  } | {name: np.zeros((1, 1), int) for name in ('cls_index', 'task_id')}
  gradient = jax.jit(
    jax.grad(lambda p: model.apply({'params': p}, batch, True).slots.sum())
  )(params)['encoder']
  assert not gradient['layer_0']['attention_norm']['scale'].any()
  assert gradient['layer_1']['attention_norm']['scale'].any()


def test_older_files_give_the_same_encoder(weights, config):
  """Those of transformers 4 have numbers in place of lists for each layer."""
  written = huggingface.save_config(config, 0)
  assert written['global_attn_every_n_layers'] == 3
  assert written['architectures'] == ['ModernBertModel']
  (weights / 'config.json').write_text(json.dumps(written))
  assert _config(weights) == config
  _change_config(weights, 'layer_types', 'rope_parameters')
  assert _config(weights) == config
  _change_config(weights, local_rope_theta=None)
  assert _config(weights).own.thetas == (160_000.0, 160_000.0)


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({'norm_bias': True}, 'norm_bias is True'),
    ({'classifier_pooling': 'max'}, "classifier_pooling is 'max', but only"),
    (
      {'layer_types': ['full_attention']},
      'layer_types is not a list of 4 types',
    ),
    ({'rope_scaling': {'factor': 2}}, 'rope_scaling is {'),
    (
      {'rope_parameters': {'full_attention': {'rope_type': 'yarn'}}},
      "rope_type is 'yarn', but only",
    ),
    ({'rope_parameters': [1]}, 'rope_parameters is not an object'),
    ({'local_attention': -1}, 'local_attention is -1'),
    ({'num_attention_heads': 16}, 'the size of a head is odd'),
    ({'hidden_activation': 'silu'}, "hidden_activation is 'silu'"),
  ],
)
def test_what_cannot_be_computed_is_refused(weights, values, message):
  _change_config(weights, **values)
  with pytest.raises(errors.UserError, match=message) as caught:
    _config(weights)
  assert '\n' not in str(caught.value)


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  return modernbert_tokenizer.make(tmp_path_factory.mktemp('tokenizer'))


@pytest.fixture
def loadable(weights, tokenizer):
  """A model directory whose tensors are not read."""
  for name in ('tokenizer.json', 'tokenizer_config.json'):
    shutil.copy(tokenizer / name, weights)
  _change_config(weights, vocab_size=600)
  return weights


def _load(weights, **changes):
  config = config_lib.default_config()
  config.tasks = ('demo_sentiment',)
  config.model.init = str(weights)
  config.model.update(changes)
  config.data.max_length = 12
  return pretrained.load_encoder(config_lib.from_config_dict(config))


def test_chosen_layers_stay_global_or_local(loadable, config):
  encoder = _load(loadable, layers=(1, 3), pooling='auto', dropout_hidden=0.2)
  assert config.own.is_global == (True, False, False, True)
  assert encoder.config.own.is_global == (False, True)
  assert (encoder.config.num_layers, encoder.config.pooling) == (2, 'cls')
  rates = [getattr(encoder.config, n) for n in config.dropout_rates()]
  assert rates == [0.0, 0.0, 0.2, 0.0]


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'layers': (1, 0)}, 'it can only be the first'),
    (
      {'head_init': 'linear_probe', 'pooling': 'mean'},
      'head_init=linear_probe: is a head on the mean itself',
    ),
  ],
)
def test_settings_that_do_not_fit_are_refused(loadable, changes, message):
  with pytest.raises(errors.UserError, match=message):
    _load(loadable, **changes)


def test_pooling_is_what_config_json_states(loadable):
  _change_config(loadable, classifier_pooling='mean')
  assert _load(loadable, pooling='auto').config.pooling == 'mean'


def test_rows_of_8192_tokens_need_one_setting():
  config = config_lib.default_config()
  config.tasks = ('demo_sentiment',)
  config.model.arch = 'modernbert-base'
  config.data.max_length = 8192
  checked = config_lib.from_config_dict(config)
  assert checked.packing.row_length == 8192
  encoder = pretrained.load_encoder(checked).config
  assert encoder.max_positions == 8192
  assert encoder.own.is_global[:5] == (True, False, False, True, False)
  assert not any(getattr(encoder, name) for name in encoder.dropout_rates())


@pytest.mark.parametrize('window', [None, 64])
def test_a_long_row_has_no_array_of_its_square(window):
  """By the compiler's own account, forward and backward; nothing is run."""

  def total(qkv, segments):
    dropout_bits = jnp.zeros(2, jnp.uint32)
    bias = jnp.zeros(qkv.shape[2:])
    contexts = attention.attend(
      qkv, bias, segments, 0.1, dropout_bits, window=window
    )
    return jnp.sum(contexts**2)

  length, num_heads = 8192, 2
  qkv = jax.ShapeDtypeStruct((1, length, 3, num_heads, 16), jnp.float32)
  segments = jax.ShapeDtypeStruct((1, length), jnp.int32)
  compiled = jax.jit(jax.grad(total)).lower(qkv, segments).compile()
  needed = compiled.memory_analysis().temp_size_in_bytes
  assert needed < num_heads * length**2 * 4 / 8
