"""A tiny model of random weights that says other things of other texts."""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from bam_jax import config as config_lib
from bam_jax.data import registry
from bam_jax.inference import model as model_lib
from bam_jax.modeling import heads
from bam_jax.modeling import layers
from bam_jax.modeling import pretrained
from bam_jax.training import setup as setup_lib
from tests.configs import tiny

MAX_LENGTH = 24


class Tiny(NamedTuple):
  """A model, the programs it calls, and what its oracle needs."""

  model: model_lib.Model
  setup: setup_lib.Setup
  encoder: pretrained.Encoder
  params: dict[str, object]
  on_devices: dict[str, object]
  apply: Callable[..., jax.Array]

  def logits(self, ids: list[int], types: list[int], task: str) -> np.ndarray:
    """By the Flax module, of one example alone in its row."""
    tasks = self.setup.programs.tasks
    padding = MAX_LENGTH - len(ids)
    batch = {
      'input_ids': np.pad(ids, (0, padding))[None],
      'token_type_ids': np.pad(types, (0, padding))[None],
      'positions': np.arange(MAX_LENGTH)[None],
      'segment_ids': np.pad(np.ones_like(ids), (0, padding))[None],
      'cls_index': np.zeros((1, 1), np.int32),
      'task_id': np.full((1, 1), tasks.index[task]),
    }
    found = self.apply({'params': self.params}, batch, deterministic=True)
    return np.asarray(found.slots)[0, 0, : tasks[task].num_outputs]


@functools.cache
def make(
  get_config: Callable[[], ml_collections.ConfigDict] = tiny.get_config,
  head_scale: float = 1.0,
) -> Tiny:
  """A model of the tasks of a config.

  Args:
    get_config: of a config file.
    head_scale: of the heads' random weights.
  """
  config = get_config()
  config.model.num_layers = 2  # With one, its probabilities are all near 1.
  config.data.max_length = MAX_LENGTH
  config.packing.eval_rows = 32
  config = config_lib.from_config_dict(config)
  tasks = registry.resolve(config)
  encoder = pretrained.load_encoder(config)
  setup = setup_lib.Setup(config, tasks, encoder)
  rng = np.random.default_rng(0)

  def disturbed(path, x):
    scale = head_scale if 'heads' in jax.tree_util.keystr(path) else 0.1
    return x + rng.normal(0, scale, x.shape).astype(np.float32)

  params = jax.tree.map_with_path(disturbed, setup.initial_params(0))
  on_devices = setup.programs.init_state(params, 0).params
  module = heads.MultiTaskModel(
    encoder.config,
    len(tasks),
    tasks.num_outputs,
    tasks.token_heads,
    tasks.token_outputs,
  )
  return Tiny(
    model_lib.Model(
      setup.programs,
      [({task.name: task for task in tasks.tasks}, on_devices)],
      encoder.tokenizer,
      config,
    ),
    setup,
    encoder,
    layers.unstack(params),
    on_devices,
    jax.jit(module.apply, static_argnames='deterministic'),
  )
