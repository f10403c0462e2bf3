"""Recommended settings for your own tasks; copy this file or build on it.

  from bam_jax.configs import recommended
  config = recommended.get_config()
  config.custom_tasks.urgency = ...

`get_config('small')` is for tasks with 60 to a few hundred rows, and for an
encoder that was trained on pairs of sentences, such as MiniLM-L6. The heads
start as linear probes. List the tasks of text pairs in config.data.bi_encoder.

`recommended.py:glue` trains MiniLM-L6 on GLUE with these settings. For
comparison it also trains the paper's Single variant, once with fixed settings
and once with a search. For each task, the search chooses the learning rate and
the number of epochs on held-out training rows:

  python -m bam_jax.main --config=configs/recommended.py:glue \\
    --config.data.dir=$GLUE_DIR

The settings were chosen with MiniLM-L6, on seeds and rows that no reported
result uses; see docs/results/settings and docs/results/small_tasks. For larger
encoders try half the learning rates.
"""

from bam_jax import config as config_lib
from bam_jax.configs import minilm


def get_config(tasks=''):
  config_lib.check_argument(tasks, 'glue', 'small')
  is_glue = tasks == 'glue'
  config = minilm.get_config() if is_glue else config_lib.default_config()
  config.name = 'recommended'
  config.optimizer.reduction = 'mean'
  config.optimizer.bias_correction = True
  config.optimizer.schedule = 'warmup_linear'
  config.multi.batch_size = 64
  # The loss of 0-1 scores (their variance) is small compared with the loss of
  # labels (their entropy), so the weights balance the tasks.
  config.sampling.loss_weights = ('auto',)
  # On its own training rows a teacher predicts little more than the labels, so
  # each teacher labels rows that it was not trained on.
  config.distill.folds = 3
  if is_glue:
    # The checkpoint was trained with this pooling.
    config.model.pooling = 'mean'
    config.search.learning_rates = (5e-5, 1e-4)
    config.search.epochs = (3.0, 6.0)
    config.search.seeds = (100, 101, 102)
    config.custom_variants.student = config_lib.custom_variant(
      'single_to_multi', teacher='single_searched'
    )
    config.variants = ('single', 'single_searched', 'multi', 'student')
    return config
  config.model.pooling = 'auto'  # The pooling of the checkpoint's training.
  config.single.epochs = 6.0
  config.single.learning_rate = 1e-4
  # With 60 rows, six epochs are only a dozen steps; see
  # docs/results/small_tasks.
  config.single.min_steps = 100
  config.multi.min_steps = 400
  if tasks == 'small':
    config.model.pooling = 'mean'
    config.model.head_init = 'linear_probe'
    config.single.learning_rate = config.multi.learning_rate = 3e-5
    # Heads that start as linear probes get worse in 100 steps on 60 rows.
    config.single.min_steps = 0
    config.multi.min_steps = 100
  config.variants = ('single', 'multi', 'single_to_multi')
  return config
