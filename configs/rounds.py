"""Further distillation rounds, and multi-task models tuned on single tasks.

  python -m bam_jax.main --config=configs/rounds.py \\
      --config.data.dir=$GLUE_DIR

This plan trains MiniLM-L6 on one GPU. With --workdir=work/minilm, it reuses the
runs that configs/minilm.py has finished there. The single-task tuning starts
from the checkpoints of the multi-task runs, which must still exist.
"""

from bam_jax import config as config_lib
from bam_jax.configs import minilm


def get_config():
  config = minilm.get_config()
  config.name = 'rounds'
  own = {
    'single_to_multi_to_multi': {
      'like': 'single_to_multi',
      'teacher': 'single_to_multi',
    },
    'multi_to_multi_to_multi': {
      'like': 'multi_to_multi',
      'teacher': 'multi_to_multi',
    },
    'multi_tuned': {'like': 'single', 'start': 'multi'},
    'single_to_multi_tuned': {'like': 'single', 'start': 'single_to_multi'},
  }
  for name, fields in own.items():
    config.custom_variants[name] = config_lib.custom_variant(**fields)
  config.variants = (*config.variants, *own)
  return config
