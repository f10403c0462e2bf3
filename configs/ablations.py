"""The paper's ablations of Single->Multi, with MiniLM-L6 on one GPU.

  python -m bam_jax.main --config=configs/ablations.py \\
      --config.data.dir=$GLUE_DIR

With --workdir=work/minilm, this plan reuses the runs that configs/minilm.py has
finished there: the teachers and the Single->Multi student.
"""

from bam_jax import config as config_lib
from bam_jax.configs import minilm


def get_config():
  config = minilm.get_config()
  config.name = 'ablations'
  changes = {
    'no_layer_decay': {'multi': {'layer_decay': 1.0}},
    'no_task_sampling': {'sampling': {'exponent': 1.0}},
    'teacher_alone': {'distill': {'annealing': 'constant', 'constant': 0.0}},
    'half_teacher': {'distill': {'annealing': 'constant', 'constant': 0.5}},
  }
  for name, fields in changes.items():
    config.custom_variants[name] = config_lib.custom_variant(
      'single_to_multi', changes=fields
    )
  config.variants = ('single_to_multi', *changes)
  return config
