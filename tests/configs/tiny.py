"""Two demo tasks, a random BERT of one layer, 20 steps: for the tests."""

from bam_jax import config as config_lib


def get_config():
  config = config_lib.default_config()
  config.name = 'tiny'
  config.tasks = ('demo_sentiment', 'demo_similarity')
  config.model.arch = 'tiny'
  config.model.num_layers = 1  # Half of what there is to compile.
  config.data.max_length = 32
  config.packing.row_length = 32
  config.packing.slots = 4
  config.packing.row_buckets = (16,)
  config.packing.eval_rows = 16
  config.single.max_steps = 20
  config.single.batch_size = 16
  config.multi.max_steps = 20
  config.multi.batch_size = 16
  config.train.log_every = 5
  config.train.checkpoint_every = 4
  config.train.tensorboard = False
  # Their programs would be compiled in each of many tests.
  config.plan.baselines = False
  return config
