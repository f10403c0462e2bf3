"""Study of which tasks help RTE: multi-task runs on RTE and one other task.

  python -m bam_jax.main --config=configs/rte_study.py \\
      --config.data.dir=$GLUE_DIR

This plan trains MiniLM-L6 on one GPU. To study another task or other sets of
tasks, change `task` and `sets`.
"""

from bam_jax import config as config_lib
from bam_jax.configs import minilm


def get_config():
  config = minilm.get_config()
  config.name = 'rte_study'
  task = 'rte'
  sets = [(task, other) for other in config.tasks if other != task]
  for tasks in sets:
    config.custom_variants['_with_'.join(tasks)] = config_lib.custom_variant(
      'multi', tasks=tasks
    )
  config.variants = ('single', 'multi', *config.custom_variants)
  return config
