"""Random models, and what they compute, by compiled programs."""

import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from bam_jax.modeling import heads

init_params = jax.jit(heads.init_params, static_argnums=0)


def draw_params(
  model: heads.MultiTaskModel, deviation: float, seed: int = 0
) -> Any:
  """Initial parameters and noise: zeros and ones hide what is left out."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: np.asarray(x) + np.float32(rng.normal(0, deviation, x.shape)),
    init_params(model, jax.random.key(seed)),
  )


@functools.partial(jax.jit, static_argnums=0)
def apply(module: nn.Module, params: Any, *inputs: Any) -> Any:
  """The outputs of a module without dropout."""
  return module.apply({'params': params}, *inputs, deterministic=True)
