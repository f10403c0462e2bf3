"""The paper: BERT-Large, nine GLUE tasks through TFDS, all five variants.

  pip install '.[cuda,tfds]'  # Or tpu in place of cuda.
  python -m bam_jax.main --config=configs/bam.py
  python -m bam_jax.main --config=configs/bam.py:paper

The paper reports these GLUE dev averages: Multi 85.5, Single->Multi 86.0.

The first use downloads google-bert/bert-large-uncased and the data. (The extra
`tfds` installs TensorFlow, which prepares the data.)

The first command trains one seed, about 25 M example passes, with fixed
settings. The second command runs the whole protocol with 20 seeds. It searches
the settings of each task's single-task runs: one of the four learning rates
below, and a layer-wise decay of 1.0 or 0.9. The search uses three other seeds
and held-out training rows; the paper chose these settings by dev scores.
"""

from bam_jax import config as config_lib


def get_config(protocol=''):
  config_lib.check_argument(protocol, 'paper')
  config = config_lib.default_config()
  config.name = 'bam'
  config.tasks = (
      'cola', 'sst2', 'mrpc', 'stsb', 'qqp', 'mnli', 'qnli', 'rte', 'wnli',
  )  # fmt: skip
  config.data.source = 'tfds'
  config.data.swap = ('mrpc', 'stsb')
  config.model.init = 'google-bert/bert-large-uncased'
  if protocol == 'paper':
    config.name = 'bam_paper'
    config.seeds = tuple(range(20))
    config.search.learning_rates = (5e-5, 4e-5, 3e-5, 2e-5)
    config.search.layer_decays = (1.0, 0.9)
    config.search.seeds = (100, 101, 102)
  return config
