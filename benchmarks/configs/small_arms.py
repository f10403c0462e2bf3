"""Lower bounds on the steps of small tasks, tried on held-out rows.

  cp -r $GLUE_DIR glue && rm -r glue/WNLI   # it has too few rows
  python docs/results/hold_out.py glue small --train=150 --dev=1000 --draw=tune
  python -m bam_jax.main --config=benchmarks/configs/small_arms.py \\
    --config.data.dir=small --workdir=work/rows_150

`small_arms.py:probe` has heads that start as linear probes, a bi-encoder for
pairs, and two learning rates.

Results: docs/results/small_tasks. Seeds 100 to 102 and the rows of the draw
`tune` choose settings; nothing is reported on them. `small_arms.py:recommended`
has the settings that were chosen, for seeds and draws that chose nothing:

  python docs/results/hold_out.py glue small --train=150 --dev=1000 --draw=1
  python -m bam_jax.main \\
    --config=benchmarks/configs/small_arms.py:recommended \\
    --config.data.dir=small --workdir=work/rows_150_1
"""

from bam_jax import config as config_lib
from bam_jax.configs import recommended

_PAIRS = 'mrpc', 'stsb', 'qqp', 'mnli', 'qnli', 'rte'


def get_config(arms=''):
  config_lib.check_argument(arms, 'probe', 'recommended')
  glue = recommended.get_config('glue')
  config = recommended.get_config('small' if arms else '')
  config.name = 'small_arms'
  config.tasks = glue.tasks[:-1]
  config.model.init = glue.model.init
  config.model.pooling = 'mean'
  config.note = glue.note
  config.train.checkpoint_every = 0
  if arms:
    config.data.bi_encoder = _PAIRS
  if arms == 'recommended':
    config.seeds = (0, 1, 2, 3, 4)
    config.train.seeds_at_once = 5
    return config
  config.seeds = (100, 101, 102)
  config.train.seeds_at_once = 3
  config.single.min_steps = config.multi.min_steps = 0
  for name, (like, teacher, changes) in (_probes if arms else _steps)().items():
    config.custom_variants[name] = config_lib.custom_variant(
      like, teacher=teacher, changes=changes
    )
  config.variants = tuple(config.custom_variants)
  return config


def _steps():
  """Arms with lower bounds on steps, and random heads."""
  # name: like, teacher, changes
  arms = {
    'm800': ('multi', '', {'multi': {'min_steps': 800}}),
    't800': ('single_to_multi', 's200', {'multi': {'min_steps': 800}}),
  }
  for steps in (100, 200, 400):
    least = {'min_steps': steps}
    arms[f's{steps}'] = 'single', '', {'single': least}
    arms[f'm{steps}'] = 'multi', '', {'multi': least}
    arms[f't{steps}'] = 'single_to_multi', f's{steps}', {'multi': least}
  return arms


def _probes():
  """Arms at 1e-4, and at 3e-5 (`low`)."""
  arms = {}
  for suffix, rate in (('', 1e-4), ('low', 3e-5)):
    for steps in (0, 100):
      length = {'min_steps': steps, 'learning_rate': rate}
      arms[f's{steps}{suffix}'] = 'single', '', {'single': length}
    arms[f'm100{suffix}'] = 'multi', '', {'multi': length}
  arms['t100low'] = 'single_to_multi', 's100low', {'multi': length}
  return arms
