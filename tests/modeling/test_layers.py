"""Stacked layers: there and back, and the gradient of the way back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bam_jax.modeling import family
from bam_jax.modeling import heads
from bam_jax.modeling import layers

CONFIG = family.EncoderConfig(20, 16, 12, 2, 32)


def _params():
  model = heads.MultiTaskModel(CONFIG, num_tasks=2, num_outputs=3)
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(x.dtype),
    heads.abstract_params(model),
  )


def test_there_and_back():
  """Twelve layers: their order is that of numbers, not of names."""
  params = _params()
  stacked = layers.stack(params)
  kernel = stacked['encoder']['layers']['output']['kernel']
  assert isinstance(kernel, np.ndarray)
  assert kernel.shape == (12, 32, 16)
  np.testing.assert_array_equal(
    kernel[10], params['encoder']['layer_10']['output']['kernel']
  )
  jax.tree.map(np.testing.assert_array_equal, layers.unstack(stacked), params)
  assert 'layers' not in params['encoder']


@pytest.mark.parametrize(('stack_late', 'barriers'), [(False, 1), (True, 2)])
def test_gradient_is_that_of_slices(stack_late, barriers):
  stacked = layers.stack(_params())

  def gradient_of(take):
    def function(stacked):
      kernels = take(stacked)
      return sum(jnp.sum(jnp.sin(k) * (i + 1)) for i, k in enumerate(kernels))

    return jax.grad(function)

  def by_unstack(stacked):
    encoder = layers.unstack(stacked, stack_late=stack_late)['encoder']
    return [encoder[f'layer_{i}']['output']['kernel'] for i in range(12)]

  def by_slice(stacked):
    kernel = stacked['encoder']['layers']['output']['kernel']
    return [kernel[i] for i in range(12)]

  gradient = gradient_of(by_unstack)
  jax.tree.map(
    np.testing.assert_array_equal,
    jax.jit(gradient)(stacked),
    jax.jit(gradient_of(by_slice))(stacked),
  )
  program = str(jax.make_jaxpr(gradient)(stacked))
  assert program.count('optimization_barrier') == barriers


def test_cast_spares_the_norms_and_what_is_no_layer():
  tree = layers.unstack(layers.stack(_params()), jnp.bfloat16)
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    narrow = name.startswith('encoder/layer_') and 'norm/' not in name
    assert leaf.dtype == (jnp.bfloat16 if narrow else jnp.float32), name
