"""BERT's Adam with learning-rate schedules and layer-wise learning rates.

The default configuration reproduces BAM's released code: clipping by the global
norm first, Adam without bias correction, weight decay scaled by the learning
rate of the layer.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bam_jax import config as config_lib
from bam_jax.core import paths

# Pattern of a path -> function from the number of encoder layers n to the
# depth. The stacked layers have the depths 1 to n. A model without a pooler has
# the same depths, so that the choice of pooling changes no learning rate.
DEPTHS: tuple[tuple[str, Callable[[int], int | np.ndarray]], ...] = (
  (r'^encoder/embeddings/', lambda n: 0),
  (r'^encoder/layers/', lambda n: np.arange(1, n + 1)),
  (r'^(encoder|pooler)/', lambda n: n + 1),  # such as a norm after the layers
  (r'^heads/', lambda n: n + 2),
)

# Pattern of a path -> whether weight decay applies.
DECAYS: tuple[tuple[str, bool], ...] = (
  (r'norm/(scale|bias)$', False),
  (r'/bias$', False),
  (r'/(kernel|pair_kernel|embedding)$', True),
)


def learning_rate(
  step: int, total_steps: int, peak: float, warmup_share: float, schedule: str
) -> float:
  """Computes a step's learning rate, with linear warm-up and linear decay.

  >>> [learning_rate(s, 10, 1.0, 0.2, 'bert') for s in (0, 1, 2, 10)]
  [0.0, 0.5, 0.8, 0.0]
  >>> [learning_rate(s, 10, 1.0, 0.2, 'warmup_linear') for s in (0, 1, 2, 10)]
  [0.0, 0.5, 1.0, 0.0]

  Args:
    step: number of the step, counted from 0.
    total_steps: the step from which the rate is 0.
    peak: the rate towards which the warm-up rises.
    warmup_share: warm-up steps as a share of all steps, 0-1.
    schedule: `bert` (released code): after the warm-up, the rate is on the line
      from `peak` at step 0 to 0 at `total_steps`. `warmup_linear`: the line
      starts at the end of the warm-up.

  Raises:
    ValueError: the schedule is unknown.
  """
  warmup_steps = int(total_steps * warmup_share)
  if step < warmup_steps:
    return peak * step / warmup_steps
  remaining = max(total_steps - step, 0)
  match schedule:
    case 'bert':
      return peak * remaining / total_steps
    case 'warmup_linear':
      return peak * remaining / max(total_steps - warmup_steps, 1)
  raise ValueError(f'unknown schedule {schedule!r}')


def scale_by_bert_adam(
  b1: float, b2: float, eps: float, bias_correction: bool
) -> optax.GradientTransformation:
  """Adam (Kingma & Ba, 2015), optionally without bias correction.

  Without bias correction the update is m / (sqrt(v) + eps), as in BERT's
  released code.

  >>> adam = scale_by_bert_adam(0.9, 0.99, 0.0, bias_correction=False)
  >>> gradient = jnp.array([4.0])
  >>> update, _ = adam.update(gradient, adam.init(gradient))
  >>> round(float(update[0]), 4)  # 0.1 * 4 / sqrt(0.01 * 16)
  1.0

  Args:
    b1: decay of the first moment m, 0-1.
    b2: decay of the second moment v, 0-1.
    eps: added to the root of the second moment.
    bias_correction: whether to divide the moments by 1 - b**step.
  """

  def update(
    updates: Any, state: optax.ScaleByAdamState, params: Any = None
  ) -> tuple[Any, optax.ScaleByAdamState]:
    count = optax.safe_increment(state.count)
    mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, updates)
    nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, updates)
    correct = 1.0, 1.0
    if bias_correction:
      correct = 1.0 - b1**count, 1.0 - b2**count
    updates = jax.tree.map(
      lambda m, v: m / correct[0] / (jnp.sqrt(v / correct[1]) + eps), mu, nu
    )
    return updates, optax.ScaleByAdamState(count, mu, nu)

  return optax.GradientTransformation(optax.scale_by_adam().init, update)


def scale_by_layer_depth(
  decay: jax.Array | float, num_layers: int
) -> optax.GradientTransformation:
  """Scales each update by decay**(distance from the heads).

  So lower layers learn more slowly (Clark et al. 2019, section 4.1: LR · α^d).

  >>> scale = scale_by_layer_depth(0.5, num_layers=2)
  >>> updates = {'heads': {'bias': 8.0}, 'pooler': {'bias': 8.0}}
  >>> updates, _ = scale.update(updates, scale.init(None))
  >>> float(updates['heads']['bias']), float(updates['pooler']['bias'])
  (8.0, 4.0)

  Args:
    decay: α, above 0, at most 1; may be traced.
    num_layers: number of layers of the encoder.
  """

  def scale(update: jax.Array, depth: int | np.ndarray) -> jax.Array:
    factor = decay ** jnp.asarray(num_layers + 2 - depth, jnp.float32)
    axes = range(factor.ndim, jnp.ndim(update))
    return update * jnp.expand_dims(factor, axes)

  return optax.stateless(
    lambda updates, params: jax.tree.map(
      scale, updates, layer_depths(updates, num_layers)
    )
  )


def layer_depths(params: Any, num_layers: int) -> Any:
  """Finds the depth of each parameter, from 0 (embeddings) to n + 2 (heads).

  n is `num_layers`. The stacked layers have the depths 1 to n.

  Raises:
    ValueError: no row of `DEPTHS` matches a parameter.
  """
  return paths.map_paths(
    lambda path, leaf: paths.lookup(DEPTHS, path)(num_layers), params
  )


def decay_mask(params: Any) -> Any:
  """Returns a tree of bools: all but biases and LayerNorm have weight decay.

  Raises:
    ValueError: no row of `DECAYS` matches a parameter.
  """
  return paths.map_paths(lambda path, leaf: paths.lookup(DECAYS, path), params)


def make_optimizer(
  config: config_lib.OptimizerConfig, num_layers: int
) -> optax.GradientTransformation:
  """Chains clipping, Adam, weight decay, layer-wise rates and learning rate.

  The state holds two hyperparameters, which every training step sets:
  `learning_rate`, the rate of the heads, and `layer_decay`, α of
  `scale_by_layer_depth`.
  """
  clip = (
    optax.clip_by_global_norm(config.clip_norm)
    if config.clip_norm
    else optax.identity()
  )
  adam = scale_by_bert_adam(
    config.b1, config.b2, config.eps, config.bias_correction
  )

  def chain(learning_rate: jax.Array, layer_decay: jax.Array):
    return optax.chain(
      clip,
      adam,
      optax.add_decayed_weights(config.weight_decay, decay_mask),
      scale_by_layer_depth(layer_decay, num_layers),
      optax.scale_by_learning_rate(learning_rate),
    )

  return optax.inject_hyperparams(chain, hyperparam_dtype=jnp.float32)(
    learning_rate=0.0, layer_decay=1.0
  )
