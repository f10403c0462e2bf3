"""The demo, a longer Multi, and two students without working distillation.

`python -m benchmarks.demo` trains them: `shuffled` needs its change of what the
student reads.
"""

from bam_jax import config as config_lib
from bam_jax.configs import demo


def get_config():
  config = demo.get_config()
  config.custom_variants.longer = config_lib.custom_variant(
    like='multi', changes={'multi': {'epochs': 4.0}}
  )
  config.custom_variants.gold = config_lib.custom_variant(
    like='single_to_multi',
    changes={'distill': {'annealing': 'constant', 'constant': 1.0}},
  )
  config.custom_variants.shuffled = config_lib.custom_variant(
    like='single_to_multi'
  )
  config.variants = (*config.variants, 'longer', 'gold', 'shuffled')
  return config
