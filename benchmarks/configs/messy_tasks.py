"""Ten messy tasks that `python -m benchmarks.messy_tasks` writes; MiniLM-L6.

`messy_tasks.py:more` has an eleventh. Settings are those recommended for small
tasks, but for fewer steps.
"""

from bam_jax import config as config_lib
from bam_jax.configs import minilm
from bam_jax.configs import recommended


def _add(config, name, suffix, splits=('train', 'dev', 'test'), **fields):
  """Adds a task whose files are NAME/SPLIT.SUFFIX; `fields` are its own."""
  config.custom_tasks[name] = config_lib.custom_task(
    format=suffix.removesuffix('.gz'),
    **{split: f'{name}/{split}.{suffix}' for split in splits},
    **fields,
  )
  config.tasks = (*config.tasks, name)


def get_config(tasks=''):
  config_lib.check_argument(tasks, 'more')
  config = recommended.get_config('small')
  config.name = 'messy_tasks'
  config.data.dir = 'work/messy_rows'
  config.model.init = minilm.get_config().model.init
  # Quoted cells with commas and line breaks, after a byte order mark.
  _add(
    config, 'mail', 'csv', text=('subject', 'body'), label='urgency',
    labels=('low', 'normal', 'high'),
  )  # fmt: skip
  # Objects in lists in objects.
  _add(
    config, 'stars', 'jsonl', kind='regression', scale=(1.0, 5.0),
    text=('entry.text',), label='annotations.0.result.stars',
  )  # fmt: skip
  # No development rows.
  _add(config, 'answers', 'jsonl', ('train', 'test'), kind='qa', dev_share=0.2)
  # 150 classes that nobody has listed.
  _add(config, 'intents', 'csv', text=('utterance',), label='intent')
  # Sixty training rows.
  _add(config, 'returns', 'tsv', text=('text',))
  # One positive row in fifty.
  _add(
    config, 'payments', 'csv', labels=('fine', 'fraud'), text=('text',),
    class_weights=('balanced',), metrics=('average_precision', 'f1'),
  )  # fmt: skip
  # Any number of labels.
  _add(
    config, 'visits', 'jsonl', kind='multilabel', text=('text',), label='topics'
  )
  # A tag for every word.
  _add(config, 'names', 'conll', kind='tagging', text=('0',), label='-1')
  # Documents of more than 512 tokens, compressed.
  _add(
    config, 'contracts', 'jsonl.gz', text=('body',), label='sort',
    windows='mean',
  )  # fmt: skip
  # German and emoji.
  _add(config, 'opinions', 'jsonl', text=('Text',), label='Urteil')
  if tasks == 'more':
    _add(
      config, 'parts', 'jsonl', kind='plain_tagging', text=('tokens',),
      label='upos',
    )  # fmt: skip
  # What follows is for two CPU cores: short windows, since all other texts are
  # short, few steps, and teachers without folds.
  config.data.max_length = config.packing.row_length = 64
  config.packing.row_buckets = (4, 8, 16)
  config.distill.folds = 1
  config.single.epochs = config.multi.epochs = 2.0
  config.single.learning_rate = config.multi.learning_rate = 1e-4
  config.single.min_steps = 50
  config.single.batch_size = 16
  config.multi.batch_size = 32
  config.train.log_every = 10
  return config
