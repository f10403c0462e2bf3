"""A plan with a kind, a metric and an encoder that the package lacks."""

from bam_jax import config as config_lib
from tests.configs import tiny
from tests.errands import bag
from tests.errands import closeness  # noqa: F401, which adds the metric.
from tests.errands import ordinal


def get_config():
  config = tiny.get_config()
  config.name = 'errands'
  config.model.arch = 'bag-tiny'
  config.custom_tasks.grades = config_lib.custom_task(
    kind=ordinal.Ordinal.name,
    labels=('poor', 'fair', 'good'),
    format='jsonl',
    text=('text',),
    label='grade',
    train='train.jsonl',
    dev='dev.jsonl',
    test='dev.jsonl',
  )
  config.tasks = ('demo_sentiment', 'grades')
  config.variants = ('single', 'single_to_multi')
  return config


__all__ = ['bag', 'get_config']
