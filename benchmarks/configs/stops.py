"""Two tasks, 12 steps a run, evaluated and saved on the way: a plan to stop.

  python -m benchmarks.stops

A random BERT of 2 layers. Every interval differs from the others, so that
stops fall before, between and after evaluations, checkpoints and log lines.
"""

from bam_jax import config as config_lib


def get_config():
  config = config_lib.default_config()
  config.name = 'stops'
  config.tasks = ('demo_sentiment', 'demo_similarity')
  config.variants = ('single_to_multi',)
  config.model.arch = 'tiny'
  config.data.max_length = 32
  config.packing.row_length = 32
  config.packing.slots = 4
  config.packing.row_buckets = (16,)
  config.packing.eval_rows = 16
  for length in (config.single, config.multi):
    length.max_steps = 12
    length.batch_size = 16
  config.train.log_every = 5
  config.train.evaluate_every = 3
  config.train.checkpoint_every = 2
  config.train.tensorboard = False
  return config
