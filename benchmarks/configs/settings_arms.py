"""Run lengths, batches, loss weights and teachers, tried on held-out rows.

  python docs/results/hold_out.py $GLUE_DIR held_out
  python -m bam_jax.main --config=benchmarks/configs/settings_arms.py \\
    --config.data.dir=held_out --workdir=work/mean

Results: docs/results/settings. Seeds 100 to 102 and the held-out rows choose
settings; nothing is reported on them.
"""

from bam_jax import config as config_lib
from bam_jax.configs import minilm


def get_config():
  config = minilm.get_config()
  config.name = 'settings_arms'
  config.seeds = (100, 101, 102)
  config.train.seeds_at_once = 3
  config.model.pooling = 'mean'
  small = ('cola', 'mrpc', 'stsb', 'rte')
  balanced = {'loss_weights': ('auto',)}
  even = {'loss_weights': ('auto',), 'exponent': 0.6}
  half = {'loss_weights': ('auto',), 'exponent': 0.5}
  # name: like, tasks, teacher, changes
  arms = {
    'single_3': ('single', (), '', {'single': {'epochs': 3.0}}),
    'single_6': ('single', (), '', {'single': _length(6.0, 1e-4)}),
    'single_10': ('single', small, '', {'single': _length(10.0, 1e-4)}),
    'single_10_slow': ('single', small, '', {'single': _length(10.0, 5e-5)}),
    'multi_auto': ('multi', (), '', {'sampling': balanced}),
    'multi_auto_fast': (
      *('multi', (), ''),
      {'sampling': balanced, 'multi': _length(6.0, 2e-4)},
    ),
    'multi_64': (
      *('multi', (), ''),
      {'sampling': balanced, 'multi': {'batch_size': 64}},
    ),
  }
  for name, changes in {
    'multi_32': {},
    'multi_32_even': {'sampling': even},
    'multi_32_slow': {'multi': _length(6.0, 5e-5) | {'batch_size': 32}},
  }.items():
    defaults = {'sampling': balanced, 'multi': {'batch_size': 32}}
    arms[name] = 'multi', (), '', defaults | changes
  folds_64 = {'multi': {'batch_size': 64}, 'distill': {'folds': 3}}
  taught = {
    'taught': {},
    'taught_half': {'sampling': half},
    'taught_12': {'multi': {'epochs': 12.0}},
    'taught_64': {'multi': {'batch_size': 64}},
    'taught_64_folds': folds_64,
    'taught_64_folds_even': folds_64 | {'sampling': even},
    'taught_64_ensemble_even': {
      **folds_64,
      'sampling': even,
      'distill': {'folds': 3, 'teachers': 3},
    },
    'taught_32_folds': folds_64 | {'multi': {'batch_size': 32}},
  }
  for name, changes in taught.items():
    changes = {'sampling': balanced} | changes
    arms[name] = 'single_to_multi', (), 'single_6', changes
  for name, (like, tasks, teacher, changes) in arms.items():
    config.custom_variants[name] = config_lib.custom_variant(
      like, tasks=tasks, teacher=teacher, changes=changes
    )
  config.variants = ('multi', *arms)
  return config


def _length(epochs: float, learning_rate: float) -> dict[str, float]:
  return {'epochs': epochs, 'learning_rate': learning_rate}
