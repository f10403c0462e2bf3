"""A plan with a kind, a metric, an encoder and a format from outside."""

from bam_jax import config as config_lib
from tests.configs import tiny
from tests.errands import bag  # noqa: F401, adds itself, as the others do.
from tests.errands import closeness  # noqa: F401
from tests.errands import ordinal
from tests.errands import piped  # noqa: F401


def get_config():
  config = tiny.get_config()
  config.name = 'errands'
  config.model.arch = 'bag-tiny'
  config.model.num_layers = 2
  config.custom_tasks.grades = config_lib.custom_task(
    kind=ordinal.Ordinal.name,
    labels=('poor', 'fair', 'good'),
    format='piped',
    text=('text',),
    label='grade',
    train='train.piped',
    dev='dev.piped',
    test='dev.piped',
  )
  config.tasks = ('demo_sentiment', 'grades')
  config.variants = ('single', 'single_to_multi')
  config.plan.baselines = True
  return config
