"""The encoder against torch, and what packing and dropout rely on."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from bam_jax.modeling import bert
from bam_jax.modeling import families
from bam_jax.modeling import family
from bam_jax.modeling import heads
from bam_jax.modeling import huggingface

GOLDEN = Path(__file__).parent / 'golden'
RATES = ('dropout_embedding', 'dropout_attention', 'dropout_hidden')
SMALL = family.EncoderConfig(
  vocab_size=30,
  hidden_size=16,
  num_layers=1,
  num_heads=2,
  intermediate_size=32,
  max_positions=16,
)


def _inputs(rows: int, length: int = 10) -> dict[str, jax.Array]:
  """Two segments and a padding token in every row."""
  rng = np.random.default_rng(0)
  segment_ids = np.zeros((rows, length), np.int32)
  segment_ids[:, : length // 2] = 1
  segment_ids[:, length // 2 : -1] = 2
  positions = np.concatenate([np.arange(length // 2)] * 2)
  return {
    'input_ids': jnp.asarray(rng.integers(0, 30, (rows, length))),
    'token_type_ids': jnp.asarray(rng.integers(0, 2, (rows, length))),
    'positions': jnp.tile(jnp.asarray(positions), (rows, 1)),
    'segment_ids': jnp.asarray(segment_ids),
  }


@functools.partial(jax.jit, static_argnums=0)
def _encode(encoder, params, inputs, key=None):
  rngs = None if key is None else {'dropout': key}
  return encoder.apply(
    {'params': params}, **inputs, deterministic=key is None, rngs=rngs
  )


@functools.cache
def _encoder(**changes):
  """An encoder with its parameters; `changes` are fields of either."""
  own = {k: changes.pop(k) for k in ('dtype', 'remat') if k in changes}
  encoder = bert.BertEncoder(
    dataclasses.replace(SMALL, **changes), family.Compute(**own)
  )
  init = jax.jit(functools.partial(encoder.init, deterministic=True))
  return encoder, init(jax.random.key(0), **_inputs(1))['params']


@pytest.mark.parametrize('name', sorted(p.name for p in GOLDEN.iterdir()))
def test_values_and_gradients_match_torch(name):
  """Oracle: transformers' models in float64, see make_golden.py."""
  golden = safetensors.numpy.load_file(GOLDEN / name / 'golden.safetensors')
  config = family.EncoderConfig(**huggingface.load_config(GOLDEN / name))
  params = huggingface.load_params(GOLDEN / name, config)
  # A head that is the identity lets the pooled vector through.
  identity = {
    'kernel': np.eye(config.hidden_size, dtype=np.float32)[None],
    'bias': np.zeros((1, config.hidden_size), np.float32),
  }
  model = heads.MultiTaskModel(config, 1, config.hidden_size)
  ids = golden['input_ids']
  batch = {
    'input_ids': ids,
    'token_type_ids': golden['token_type_ids'],
    'segment_ids': golden['segment_ids'],
    'positions': np.tile(np.arange(ids.shape[1]), (len(ids), 1)),
    'cls_index': np.zeros((len(ids), 1), np.int32),
    'task_id': np.zeros((len(ids), 1), np.int32),
  }

  encoder = families.FAMILIES[config.family].encoder(config)
  inputs = {key: batch[key] for key in _inputs(1)}

  def loss(params):
    # The model computes no more of the last layer than it reads.
    pooled = model.apply(
      {'params': params | {'heads': identity}}, batch, True
    ).slots
    hidden = encoder.apply(
      {'params': params['encoder']}, **inputs, deterministic=True
    )
    value = (hidden * golden['hidden_weight']).sum()
    value += (pooled[:, 0] * golden['pooled_weight']).sum()
    return value, (hidden, pooled[:, 0])

  gradients, (hidden, pooled) = jax.jit(jax.grad(loss, has_aux=True))(params)
  real = golden['segment_ids'] > 0
  np.testing.assert_allclose(
    hidden[real], golden['hidden'][real], rtol=0, atol=1e-4
  )
  np.testing.assert_allclose(pooled, golden['pooled'], rtol=0, atol=1e-5)
  compared = huggingface.save_params(
    gradients, families.FAMILIES[config.family]
  )
  assert len(compared) == sum(key.startswith('gradient/') for key in golden)
  for key, actual in compared.items():
    expected = golden[f'gradient/{key}']
    # The softmax does not see a bias on the keys: zero but for rounding.
    is_key_bias = key.endswith(('key.bias', 'k_lin.bias', 'pos_key_proj.bias'))
    limit = 1e-6 if is_key_bias else 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(
      actual, expected, rtol=0, atol=limit, err_msg=key
    )


def test_parameter_paths():
  """Learning-rate depth, decay and sharding key on these names."""
  _, params = _encoder()
  dense, norm = ['bias', 'kernel'], ['bias', 'scale']
  leaves = {key: sorted(value) for key, value in params['layer_0'].items()}
  assert leaves == {
    'attention': ['key', 'output', 'query', 'value'],
    'attention_norm': norm,
    'intermediate': dense,
    'output': dense,
    'output_norm': norm,
  }
  embeddings = params['embeddings']
  assert sorted(embeddings) == ['norm', 'position', 'token_type', 'word']
  assert embeddings['token_type']['embedding'].shape == (2, 16)
  assert params['layer_0']['attention']['query']['kernel'].shape == (16, 16)


def test_initial_values_are_as_in_bert():
  """Normal(0.02) cut at two deviations, whose own deviation is 0.88 of it."""
  _, params = _encoder(hidden_size=64, intermediate_size=256)
  layer = params['layer_0']
  for matrix in (
    params['embeddings']['word']['embedding'],
    layer['attention']['key']['kernel'],
    layer['output']['kernel'],
  ):
    assert np.abs(matrix).max() <= 0.04
    np.testing.assert_allclose(np.std(matrix), 0.02 * 0.8796, rtol=0.05)
  assert not layer['intermediate']['bias'].any()


def test_segments_and_padding_are_isolated():
  """No gradient flows from one segment's outputs to another's inputs."""
  encoder, params = _encoder()
  inputs = _inputs(2)
  segments = np.asarray(inputs['segment_ids'])
  # Every token its own word, so that the gradient of a word is a token's.
  inputs['input_ids'] = jnp.arange(20).reshape(2, 10)

  def total(params, chosen):
    hidden = _encode(encoder, params, inputs)
    return (hidden**2 * chosen[..., None]).sum()

  gradient = jax.jit(jax.grad(total))
  for segment in (1, 2):
    chosen = segments == segment
    words = gradient(params, jnp.asarray(chosen))
    words = words['embeddings']['word']['embedding'][:20]
    reached = np.abs(words).sum(-1).reshape(2, 10) > 0
    np.testing.assert_array_equal(reached, chosen)


def test_a_row_of_padding_is_finite():
  encoder, params = _encoder()
  inputs = {key: jnp.zeros_like(x) for key, x in _inputs(2).items()}

  def total(params):
    return (_encode(encoder, params, inputs) ** 2).sum()

  value, gradients = jax.jit(jax.value_and_grad(total))(params)
  assert np.isfinite(value)
  for gradient in jax.tree.leaves(gradients):
    assert np.isfinite(gradient).all()


def test_dropout_of_a_row_does_not_depend_on_the_rows_after_it():
  encoder, params = _encoder()
  key = jax.random.key(7)
  many = _inputs(5)
  few = {name: x[:2] for name, x in many.items()}
  actual = _encode(encoder, params, many, key)
  expected = _encode(encoder, params, few, key)
  np.testing.assert_allclose(actual[:2], expected, atol=1e-6)
  assert np.abs(expected - _encode(encoder, params, few)).max() > 0.1


def test_dropout_under_vmap_is_that_of_each_key_alone():
  encoder, params = _encoder()
  keys = jax.random.split(jax.random.key(3), 3)
  inputs = _inputs(2)
  together = jax.vmap(lambda key: _encode(encoder, params, inputs, key))(keys)
  for actual, key in zip(together, keys, strict=True):
    expected = _encode(encoder, params, inputs, key)
    np.testing.assert_allclose(actual, expected, atol=1e-6)
  assert np.abs(together[0] - together[1]).max() > 0.1


@pytest.mark.parametrize('rate', RATES)
def test_each_dropout_rate_has_its_site(rate):
  """With the other rates at zero, training differs from evaluation."""
  encoder, params = _encoder(**(dict.fromkeys(RATES, 0.0) | {rate: 0.5}))
  inputs = _inputs(2)
  plain = _encode(_encoder()[0], params, inputs)
  noisy = _encode(encoder, params, inputs, jax.random.key(0))
  assert np.abs(noisy - plain).max() > 1e-3


def test_remat_changes_neither_values_nor_gradients():
  inputs, key = _inputs(2), jax.random.key(5)
  results = []
  for remat in (False, True):
    encoder, params = _encoder(remat=remat)

    def total(params, encoder=encoder):
      hidden = _encode(encoder, params, inputs, key)
      return (hidden[:, 0] ** 3).sum(), hidden

    results.append(jax.jit(jax.grad(total, has_aux=True))(params))
  leaves = (jax.tree.leaves_with_path(result) for result in results)
  for (path, plain), (_, again) in zip(*leaves, strict=True):
    np.testing.assert_allclose(
      again,
      plain,
      rtol=0,
      atol=1e-5 * np.abs(plain).max() + 1e-6,
      err_msg=jax.tree_util.keystr(path),
    )


def test_bfloat16_keeps_parameters_and_gradients_float32():
  encoder, params = _encoder(dtype=jnp.bfloat16)
  inputs = _inputs(2)

  def total(params):
    return (_encode(encoder, params, inputs).astype(jnp.float32) ** 2).sum()

  hidden = _encode(encoder, params, inputs)
  assert hidden.dtype == jnp.bfloat16
  for tree in (params, jax.jit(jax.grad(total))(params)):
    assert {x.dtype for x in jax.tree.leaves(tree)} == {np.dtype('float32')}
  exact, _ = _encoder()
  np.testing.assert_allclose(
    hidden.astype(jnp.float32),
    _encode(exact, params, inputs),
    atol=0.1,
  )
