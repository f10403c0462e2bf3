"""The whole method on four small tasks, on any CPU, in 2 to 4 minutes.

  python -m bam_jax.main --config=configs/demo.py

Writes work/demo/report.html. The encoder is small and starts from random
weights. The tasks share their vocabulary, and a single task has only a few rows
to learn it from. Three in ten training labels are wrong; the teachers'
predictions are less noisy. The settings were chosen on seeds 100 to 107.
"""

from bam_jax import config as config_lib
from bam_jax.tasks import demo


def get_config():
  config = config_lib.default_config()
  config.name = 'demo'
  config.tasks = demo.REVIEWS
  config.variants = ('single', 'multi', 'single_to_multi')
  config.seeds = tuple(range(8))
  config.model.arch = 'tiny'
  config.model.num_layers = 1
  config.model.pooling = 'mean'
  config.data.max_length = 64
  # Every batch fits into 16 rows, so all runs share one compiled program.
  config.packing.row_length = 64
  config.packing.slots = 5
  config.packing.row_buckets = (16,)
  config.single.epochs = 3.0
  config.single.min_steps = 150
  config.single.batch_size = 32
  config.single.learning_rate = 2e-3
  config.single.layer_decay = 1.0
  config.multi.epochs = 2.0
  config.multi.batch_size = 32
  config.multi.learning_rate = 2e-3
  config.multi.layer_decay = 1.0
  config.optimizer.bias_correction = True
  config.optimizer.schedule = 'warmup_linear'
  config.optimizer.reduction = 'mean'
  config.sampling.loss_weights = ('auto',)
  config.train.seeds_at_once = 8
  config.train.log_every = 50
  config.train.tensorboard = False
  # The texts are generated, so the report page may show them.
  config.plan.report_texts = 'page'
  return config
