"""DeBERTa: buckets of distances, packing, dropout, files, refusals.

Values and gradients against torch are in test_bert.py.
"""

import dataclasses
import json
import math
from pathlib import Path
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from bam_jax import errors
from bam_jax.core import optimizer
from bam_jax.modeling import deberta
from bam_jax.modeling import disentangled_attention
from bam_jax.modeling import families
from bam_jax.modeling import family
from bam_jax.modeling import heads
from bam_jax.modeling import huggingface
from bam_jax.modeling import layers

GOLDEN = Path(__file__).parent / 'golden'
NAMES = ('deberta-v2', 'deberta-v3')
FAMILY = families.FAMILIES['deberta-v2']
LENGTHS = 12, 9, 1  # The golden encoders' distances from 5 on share buckets.


def _config(path):
  return family.EncoderConfig(**huggingface.load_config(path))


@pytest.fixture
def weights(tmp_path):
  for name in ('config.json', 'model.safetensors'):
    shutil.copy(GOLDEN / 'deberta-v3' / name, tmp_path)
  return tmp_path


@pytest.mark.parametrize(
  ('span', 'farthest'), [(256, 512), (32, 512), (6, 8), (24, 0)]
)
def test_buckets(span, farthest):
  """Oracle: a loop over the formula of the paper's code, in float64."""
  middle, longest = span // 2, 600
  found = disentangled_attention.buckets(span, farthest, longest)
  for distance, bucket in zip(range(1 - longest, longest), found, strict=True):
    exact = abs(distance)
    if farthest and exact > middle:
      ratio = math.log(exact / middle) / math.log((farthest - 1) / middle)
      # A whole number but for rounding stays one.
      exact = math.ceil(round(ratio * (middle - 1), 6)) + middle
    expected = span + math.copysign(exact, distance)
    assert bucket == min(max(expected, 0), 2 * span - 1)


def _segments(lengths):
  """Inputs of a row of segments, without its ids, [1, L] each."""
  positions = np.concatenate([np.arange(n) for n in lengths])[None]
  return {
    'token_type_ids': (positions > 1).astype(np.int32),
    'positions': positions,
    'segment_ids': np.repeat(np.arange(1, len(lengths) + 1), lengths)[None],
  }


def test_packed_rows_are_those_alone():
  """Oracle: each text alone in a row, padded."""
  config = _config(GOLDEN / 'deberta-v3')
  params = huggingface.load_params(GOLDEN / 'deberta-v3', config)['encoder']
  encoder = deberta.DebertaEncoder(config)

  @jax.jit
  def encode(inputs):
    return encoder.apply({'params': params}, **inputs, deterministic=True)

  longest = max(LENGTHS)
  ids = np.random.default_rng(0).integers(1, 20, (len(LENGTHS), longest))
  real = np.arange(longest) < np.array(LENGTHS)[:, None]
  alone = {
    key: np.tile(x, (len(LENGTHS), 1))
    for key, x in _segments([longest]).items()
  }
  alone |= {'input_ids': ids, 'segment_ids': real.astype(np.int32)}
  packed = {'input_ids': ids[real][None], **_segments(LENGTHS)}
  np.testing.assert_allclose(
    encode(packed)[0], encode(alone)[real], rtol=0, atol=1e-5
  )


def test_padding_sees_nothing_and_gradients_are_finite():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(3, 1, 6, 2, 4)).astype(np.float32)
  buckets = rng.normal(size=(2, 8, 2, 4)).astype(np.float32)
  segments = jnp.array([[1, 1, 2, 0, 0, 0]])

  def total(x, buckets):
    contexts = disentangled_attention.attend(
      *x,
      {'c2p': buckets[0], 'p2c': buckets[1]},
      disentangled_attention.bucket_indices(4, 8, 6, 6),
      segments,
      0.0,
      jnp.zeros(2, jnp.uint32),
    )
    return (contexts**2).sum(), contexts

  grad = jax.jit(jax.grad(total, (0, 1), has_aux=True))
  gradients, contexts = grad(x, buckets)
  assert not contexts[0, 3:].any()
  assert not gradients[0][:, 0, 3:].any()
  for gradient in gradients:
    assert np.isfinite(gradient).all()
    assert gradient.any()


def test_dropout_of_a_row_does_not_depend_on_the_rows_after_it():
  config = _config(GOLDEN / 'deberta-v3')
  params = huggingface.load_params(GOLDEN / 'deberta-v3', config)['encoder']
  row = {'input_ids': np.arange(1, 13)[None], **_segments([12])}

  @jax.jit
  def encode(inputs, key):
    return deberta.DebertaEncoder(config).apply(
      {'params': params}, **inputs, deterministic=False, rngs={'dropout': key}
    )

  few, many = (
    {name: np.tile(x, (rows, 1)) for name, x in row.items()} for rows in (2, 3)
  )
  key = jax.random.key(1)
  actual, expected = encode(many, key)[:2], encode(few, key)
  np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)
  assert np.abs(expected[0] - expected[1]).max() > 0.1


def test_each_dropout_of_the_attention_has_its_words():
  config = _config(GOLDEN / 'deberta-v3')
  params = huggingface.load_params(GOLDEN / 'deberta-v3', config)
  params = params['encoder']['layer_0']['attention']
  rng = np.random.default_rng(0)
  x, buckets = rng.normal(size=(2, 1, 16, 16)).astype(np.float32)

  def outputs(**rates):
    """With the bits of both sites 0; of the first 1; of the second 1."""
    own = dataclasses.replace(config.without_dropout(), **rates)
    attention = deberta.DisentangledAttention(own, family.ONE_DEVICE)
    segments = jnp.ones((1, 16), jnp.int32)

    def apply(*dropout_bits):
      dropout_bits = [jnp.full(2, word, jnp.uint32) for word in dropout_bits]
      return attention.apply(
        {'params': params}, x, segments, buckets[0], *dropout_bits
      )[0]

    return jax.jit(jax.vmap(apply))(jnp.array([0, 1, 0]), jnp.array([0, 0, 1]))

  plain = outputs()
  for rate, same in (('dropout_attention', 2), ('dropout_hidden', 1)):
    found = outputs(**{rate: 0.5})
    assert np.abs(found[0] - plain[0]).max() > 1e-2
    np.testing.assert_allclose(found[0], found[same], rtol=0, atol=1e-6)
    assert np.abs(found[0] - found[3 - same]).max() > 1e-2


def test_the_pooler_has_dropout_of_its_own():
  """Oracle: GELU of 0, 1 and 2, through a kernel that is the identity."""
  config = _config(GOLDEN / 'deberta-v3').without_dropout()
  params = {'kernel': np.eye(16, dtype=np.float32), 'bias': np.zeros(16)}
  gelu = [x * (1 + math.erf(x / math.sqrt(2))) / 2 for x in (0, 1, 2)]

  def pool(rate, deterministic):
    own = dataclasses.replace(config.own, pooler_dropout=rate)
    pooler = FAMILY.pooler(dataclasses.replace(config, own=own))
    return pooler.apply(
      {'params': params},
      jnp.ones((200, 16)),
      deterministic,
      rngs={'dropout': jax.random.key(0)},
    )

  for rate, deterministic in ((0.0, False), (0.5, True)):
    found = pool(rate, deterministic)
    np.testing.assert_allclose(found, np.full((200, 16), gelu[1]), atol=1e-6)
  found = pool(0.5, False)
  wanted = np.where(found > 1, gelu[2], gelu[0])
  np.testing.assert_allclose(found, wanted, atol=1e-6)
  assert abs((found > 1).mean() - 0.5) < 0.05


@pytest.mark.parametrize('name', NAMES)
def test_files_round_trip(name):
  config = _config(GOLDEN / name)
  params = huggingface.load_params(GOLDEN / name, config)
  returned = huggingface.save_params(params, FAMILY)
  stored = safetensors.numpy.load_file(GOLDEN / name / 'model.safetensors')
  stored = {
    key.removeprefix('deberta.'): value
    for key, value in stored.items()
    if not key.startswith('classifier.')
  }
  assert returned.keys() == stored.keys()
  for key, value in stored.items():
    np.testing.assert_array_equal(returned[key], value, err_msg=key)
  shapes = heads.abstract_params(heads.MultiTaskModel(config, 1, 3))
  shapes = {key: shapes[key] for key in params}
  assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, shapes)


@pytest.mark.parametrize('name', NAMES)
def test_config_round_trip(name, tmp_path):
  config = _config(GOLDEN / name)
  own = dataclasses.replace(config.own, pooler_dropout=0.25)
  config = dataclasses.replace(config, own=own)
  written = huggingface.save_config(config, pad_id=0)
  assert written['cls_dropout'] == config.dropout_head
  (tmp_path / 'config.json').write_text(json.dumps(written))
  assert _config(tmp_path) == config


def test_buckets_vectors_learn_like_the_embeddings():
  config = _config(GOLDEN / 'deberta-v3')
  shapes = heads.abstract_params(heads.MultiTaskModel(config, 1, 3))
  stacked = jax.eval_shape(
    lambda: layers.stack(jax.tree.map(lambda x: jnp.zeros(x.shape), shapes))
  )
  depths = optimizer.layer_depths(stacked, config.num_layers)
  decays = optimizer.decay_mask(stacked)
  embeddings = depths['encoder']['embeddings']
  assert set(jax.tree.leaves(embeddings)) == {0}
  assert sorted(embeddings) == ['norm', 'relative', 'relative_norm', 'word']
  of_embeddings = decays['encoder']['embeddings']
  assert of_embeddings['relative']['embedding']
  assert not of_embeddings['relative_norm']['scale']


def test_positions_that_are_switched_off_are_not_read(weights):
  """transformers ignores their table too."""
  file = weights / 'model.safetensors'
  tensors = safetensors.numpy.load_file(file)
  config = _config(weights)
  before = huggingface.load_params(weights, config)
  tensors['deberta.embeddings.position_embeddings.weight'] = np.ones((24, 16))
  safetensors.numpy.save_file(tensors, file)
  after = huggingface.load_params(weights, config)
  jax.tree.map(np.testing.assert_array_equal, before, after)


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({'conv_kernel_size': 3}, 'conv_kernel_size is 3, but only'),
    ({'relative_attention': False}, 'relative_attention is False, but only'),
    ({'embedding_size': 8}, 'embedding_size is 8, but only'),
    ({'pos_att_type': 'c2p|p2p'}, "pos_att_type is 'p2p', but only"),
    ({'pos_att_type': None}, 'pos_att_type is None, but only'),
    ({'pos_att_type': [['c2p']]}, 'pos_att_type is'),
    ({'position_buckets': '8'}, "position_buckets is '8', no number"),
    ({'max_relative_positions': 5}, 'position_buckets is 8 and max_relative_p'),
    ({'share_att_key': 1}, 'share_att_key is 1, but only'),
    ({'type_vocab_size': -1}, 'type_vocab_size is -1'),
    ({'pooler_hidden_act': 'silu'}, "pooler_hidden_act is 'silu', but only"),
    ({'pooler_dropout': 1}, 'pooler_dropout is 1, no number'),
    ({'pooler_hidden_act': []}, 'pooler_hidden_act is'),
  ],
)
def test_refusals(weights, values, message):
  file = weights / 'config.json'
  file.write_text(json.dumps(json.loads(file.read_text()) | values))
  with pytest.raises(errors.UserError) as caught:
    huggingface.load_config(weights)
  assert f'config.json: {message}' in str(caught.value)
  assert 'choose another config.model.init' in str(caught.value)
