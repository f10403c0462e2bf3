"""The paper: BERT-Large, nine GLUE tasks through TFDS, all five variants.

  pip install '.[cuda,tfds]'  # Or tpu in place of cuda.
  python -m bam_jax.main --config=configs/bam.py

Reported by the paper on GLUE dev: Multi 85.5, Single->Multi 86.0 on average.
Downloads the data (extra `tfds` brings TensorFlow, which prepares them) and
google-bert/bert-large-uncased on first use. The paper takes 20 seeds; one costs
about 25 M example passes.
"""

from bam_jax import config as config_lib


def get_config():
  config = config_lib.default_config()
  config.name = 'bam'
  config.tasks = (
      'cola', 'sst2', 'mrpc', 'stsb', 'qqp', 'mnli', 'qnli', 'rte', 'wnli',
  )  # fmt: skip
  config.data.source = 'tfds'
  config.data.swap = ('mrpc', 'stsb')
  config.model.init = 'google-bert/bert-large-uncased'
  return config
