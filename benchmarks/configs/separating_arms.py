"""Multi-task training with one thing changed at a time: why tasks lose by it.

  python -m bam_jax.main --config=benchmarks/configs/separating_arms.py \\
    --config.data.dir=$GLUE_DIR

The baselines are `multi` and `single` of configs/minilm.py. Seeds 100 to 102
are used to understand and to choose; no result is reported on them.
"""

from bam_jax import config as config_lib
from bam_jax.configs import minilm


def get_config():
  config = minilm.get_config()
  config.name = 'separating_arms'
  config.seeds = (100, 101, 102)
  config.train.seeds_at_once = 3
  arms = {
    # The length, batch and rate of `multi`, with STS-B as the only task.
    'stsb_alone': ('multi', ('stsb',), {}),
    'stsb_weight_8': (
      'multi',
      (),
      {'sampling': {'loss_weights': ('stsb=8',)}},
    ),
    # Of the subset, STS-B's share rises from 3.9% to 11.1%, CoLA's from 5.3%.
    'equal_shares': ('multi', (), {'sampling': {'exponent': 0.0}}),
    'multi_half': ('multi', (), {'multi': {'epochs': 3.0}}),
    'multi_double': ('multi', (), {'multi': {'epochs': 12.0}}),
    'no_layer_decay': ('multi', (), {'multi': {'layer_decay': 1.0}}),
    # Single-task runs with the length and rate of `multi`.
    'single_double': (
      'single',
      (),
      {'single': {'epochs': 6.0, 'learning_rate': 1e-4}},
    ),
  }
  for name, (like, tasks, changes) in arms.items():
    config.custom_variants[name] = config_lib.custom_variant(
      like, tasks=tasks, changes=changes
    )
  config.variants = ('multi', *arms)
  return config
