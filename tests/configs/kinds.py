"""A task of each kind in one plan, a random BERT of one layer: for the tests.

`data.dir` holds what `tests.kinds.rows.write` has written.
"""

from bam_jax import config as config_lib
from tests.configs import tiny


def get_config():
  config = tiny.get_config()
  config.name = 'kinds'
  config.custom_tasks.moods = config_lib.custom_task(
    kind='multilabel',
    labels=('joy', 'anger', 'fear'),
    class_weights=('balanced',),
    format='jsonl',
    text=('text',),
    label='moods',
    train='moods/train.jsonl',
    dev='moods/dev.jsonl',
    test='moods/test.jsonl',
  )
  config.custom_tasks.names = config_lib.custom_task(
    kind='tagging',
    labels=('O', 'B-PER', 'I-PER', 'B-OBJ'),
    class_weights=('O=0.5', 'B-PER=2'),
    format='conll',
    text=('0',),
    label='-1',
    train='names/train.conll',
    dev='names/dev.conll',
    test='names/test.conll',
  )
  config.custom_tasks.things = config_lib.custom_task(
    kind='qa',
    format='squad',
    train='things/train.json',
    dev='things/dev.json',
    test='things/test.json',
    unanswerable=True,
  )
  config.tasks = (
    'demo_sentiment', 'demo_similarity', 'moods', 'names', 'things'
  )  # fmt: skip
  config.variants = ('single', 'single_to_multi')
  config.plan.baselines = True
  config.single.max_steps = 4
  config.multi.max_steps = 6
  return config
