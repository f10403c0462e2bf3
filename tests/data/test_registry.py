"""Names of a configuration to tasks, and declared tasks checked."""

import dataclasses
import re

import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import registry
from bam_jax.data import sources
from bam_jax.inference import export
from bam_jax.reporting import comparisons
from bam_jax.tasks import demo
from bam_jax.tasks import glue

_PLANETS = config_lib.TaskConfig(
  labels=('rock', 'gas'),
  train='planets/train.tsv',
  dev='planets/dev.tsv',
  text=('name',),
  label='kind',
)


def _config(*tasks: str, swap: tuple[str, ...] = (), **custom):
  return config_lib.Config(
    tasks=tasks,
    custom_tasks=custom,
    data=config_lib.DataConfig(dir='data', swap=swap),
  )


def test_order_of_the_heads_is_that_of_the_configuration():
  table = registry.resolve(
    _config('stsb', 'planets', 'demo_nli', 'cola', planets=_PLANETS)
  )
  assert table.names == ('stsb', 'planets', 'demo_nli', 'cola')
  assert table['cola'] == glue.TASKS['cola']
  assert table['demo_nli'] == demo.TASKS['demo_nli']
  assert table.num_outputs == 3


# The released code's task list and its table of sizes had to be edited.
def test_a_task_declared_as_data_is_resolved_and_read(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'data/planets').mkdir(parents=True)
  (tmp_path / 'data/planets/train.tsv').write_text(
    'name\tkind\nMars\trock\nSaturn\tgas\n'
  )
  (tmp_path / 'extra.tsv').write_text('kind\tname\ngas\tNeptune\n')
  task_config = dataclasses.replace(_PLANETS, dev=str(tmp_path / 'extra.tsv'))

  values = config_lib.default_config()
  values.tasks = ('planets',)
  values.data.dir = 'data'
  values.custom_tasks.planets = config_lib.custom_task(
    **dataclasses.asdict(task_config)
  )
  config = config_lib.from_config_dict(values)
  task = registry.resolve(config)['planets']

  assert list(sources.read(task, 'train', config.data)) == [
    ('planets/train/0', 'Mars', None, 0),
    ('planets/train/1', 'Saturn', None, 1),
  ]
  assert list(sources.read(task, 'dev', config.data)) == [
    ('planets/dev/0', 'Neptune', None, 1)
  ]
  assert task.metrics == ('accuracy',)
  assert task.paper_metric == 'accuracy'
  assert task.test_splits == ()
  assert not task.is_pair


@pytest.mark.parametrize(
  ('names', 'is_averaged'),
  [
    (('neg_mean_absolute_error',), False),
    (('neg_mean_absolute_error', 'pearson'), False),
    (('neg_mean_absolute_error', 'spearman'), False),
    (('spearman', 'neg_mean_absolute_error'), True),
    (('pearson', 'neg_mean_absolute_error'), True),
  ],
)
def test_a_task_that_is_compared_by_a_distance_is_in_no_average(
  names, is_averaged
):
  own = config_lib.TaskConfig(
    kind='regression', scale=(1, 10), train='a', dev='b', text=('text',),
    label='score', metrics=names,
  )  # fmt: skip
  assert registry.resolve(_config('a', a=own))['a'].in_average == is_averaged


@pytest.mark.parametrize(
  ('names', 'compared'),
  [
    ((), 'spearman'),
    (('pearson', 'spearman'), 'pearson'),
    (('spearman', 'pearson'), 'spearman'),
  ],
)
def test_the_report_compares_the_first_metric_that_is_given(names, compared):
  own = config_lib.TaskConfig(
    kind='regression', scale=(1, 10), train='a', dev='b', text=('text',),
    label='score', metrics=names,
  )  # fmt: skip
  assert registry.resolve(_config('a', a=own))['a'].paper_metric == compared


def test_defaults_of_a_regression_task():
  task = registry.resolve(
    _config(
      'ages',
      ages=config_lib.TaskConfig(
        kind='regression',
        scale=(0, 120),
        train='a.jsonl',
        dev='b.jsonl',
        test='c.jsonl',
        format='jsonl',
        text=('left', 'right'),
        label='years',
      ),
    )
  )['ages']
  assert task.metrics == ('pearson', 'spearman')
  assert task.paper_metric == 'spearman'
  assert task.num_outputs == 1
  assert task.is_pair
  assert task.test_splits == ('test',)
  assert task.tables['test'].label is None
  assert task.tables['train'].label == 'years'
  assert task.tables['train'].format == 'jsonl'


def test_columns_are_numbers_where_no_header_names_them():
  task_config = dataclasses.replace(
    _PLANETS, header=False, text=('3', '-1'), label='1'
  )
  task = registry.resolve(_config('planets', planets=task_config))['planets']
  assert task.tables['train'].text == (3, -1)
  assert task.tables['train'].label == 1
  named = dataclasses.replace(_PLANETS, text=('3',))
  task = registry.resolve(_config('planets', planets=named))['planets']
  assert task.tables['train'].text == ('3',)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    pytest.param(
      {'labels': ('a',)},
      "config.custom_tasks.planets.labels: ('a',) must be two or more different"
      ' labels',
      id='one-label',
    ),
    pytest.param(
      {'labels': ('a', 'a')},
      "config.custom_tasks.planets.labels: ('a', 'a') must be two or more"
      ' different labels',
      id='label-twice',
    ),
    pytest.param(
      {'kind': 'regression'},
      "config.custom_tasks.planets.labels: ('rock', 'gas') given for a"
      ' regression task; leave it empty and give scale',
      id='labels-of-a-regression-task',
    ),
    pytest.param(
      {'kind': 'regression', 'labels': (), 'scale': (5.0, 0.0)},
      'config.custom_tasks.planets.scale: (5.0, 0.0) must be the lowest and'
      ' the highest score',
      id='scale-upside-down',
    ),
    pytest.param(
      {'text': ()},
      'config.custom_tasks.planets.text: () names 0 columns; give one, or two'
      ' for pairs',
      id='no-text',
    ),
    pytest.param(
      {'text': ('a', 'b', 'c')},
      "config.custom_tasks.planets.text: ('a', 'b', 'c') names 3 columns; give"
      ' one, or two for pairs',
      id='three-texts',
    ),
    pytest.param(
      {'dev': ''},
      'config.custom_tasks.planets.dev: empty; give a file, below'
      ' config.data.dir or absolute, or a dev_share of the training rows',
      id='no-dev',
    ),
    pytest.param(
      {'metrics': ('accuracy', 'bleu')},
      "config.custom_tasks.planets.metrics: 'bleu' is none of accuracy, f1,"
      ' matthews, balanced_accuracy, micro_f1, macro_f1, weighted_f1, roc_auc,'
      ' average_precision; these are the metrics of a classification task',
      id='unknown-metric',
    ),
    pytest.param(
      {'metrics': ('pearson',)},
      "config.custom_tasks.planets.metrics: 'pearson' is none of accuracy, f1,"
      ' matthews, balanced_accuracy, micro_f1, macro_f1, weighted_f1, roc_auc,'
      ' average_precision; these are the metrics of a classification task',
      id='metric-of-the-other-kind',
    ),
    pytest.param(
      {'metrics': ('f1',), 'labels': ('a', 'b', 'c')},
      "config.custom_tasks.planets.metrics: 'f1' needs two labels, not 3; give"
      ' macro_f1, accuracy or matthews',
      id='f1-of-three-classes',
    ),
    *(
      pytest.param(
        {'class_weights': weights},
        f'config.custom_tasks.planets.class_weights: {message}',
        id=f'class-weights-{weights[0]}',
      )
      for weights, message in (
        (
          ('rocy=2',),
          "'rocy=2' is neither balanced nor LABEL=NUMBER with one of the labels"
          ' rock, gas',
        ),
        (
          ('balanced', 'gas=2'),
          "'balanced' stands for all labels; leave out the rest",
        ),
        (
          ('gas=0',),
          "'gas=0': give a number above 0 and at most 1e+06",
        ),
        (
          ('gas=1', 'gas=2'),
          "'gas=2': 'gas' has two weights; remove one",
        ),
      )
    ),
    pytest.param(
      {'header': False, 'text': ('0',)},
      "config.custom_tasks.planets.label: 'kind' is not a column number, and"
      ' header=False says that the files name no columns; count from 0',
      id='name-without-header',
    ),
  ],
)
def test_a_declaration_that_does_not_hold_together(changes, message):
  task_config = dataclasses.replace(_PLANETS, **changes)
  with pytest.raises(errors.UserError) as caught:
    registry.resolve(_config('planets', planets=task_config))
  assert str(caught.value) == message


@pytest.mark.parametrize(
  ('config', 'message'),
  [
    pytest.param(
      _config('colla'),
      "config.tasks: 'colla' is not a task; the nearest is 'cola', and your own"
      ' are declared under config.custom_tasks',
      id='unknown-task',
    ),
    pytest.param(
      _config('[cola, planets]', planets=_PLANETS),
      "config.tasks: '[cola, planets]' is one name; several, where allowed, are"
      " written \"('cola', 'planets')\"",
      id='several-in-one-string',
    ),
    pytest.param(
      _config('planet', planets=_PLANETS),
      "config.tasks: 'planet' is not a task; the nearest is 'planets', and your"
      ' own are declared under config.custom_tasks',
      id='unknown-task-near-an-own-one',
    ),
    pytest.param(
      _config('demo_nli', cola=_PLANETS),
      "config.custom_tasks.cola: 'cola' is a task of the package; give yours"
      ' another name',
      id='shadows-glue',
    ),
    pytest.param(
      _config('cola', demo_nli=_PLANETS),
      "config.custom_tasks.demo_nli: 'demo_nli' is a task of the package; give"
      ' yours another name',
      id='shadows-demo',
    ),
    pytest.param(
      _config('a/b', **{'a/b': _PLANETS}),
      "config.custom_tasks.a/b: 'a/b' is not a task name; use letters, digits,"
      ' _ and - only',
      id='name-breaks-uids',
    ),
    pytest.param(
      _config('mrpc', 'cola', swap=('mrpc', 'cola')),
      "config.data.swap: 'cola' has one text a row; leave it out, or name a"
      ' task of text pairs',
      id='swap-of-single-texts',
    ),
    *(
      pytest.param(
        config_lib.Config(
          tasks=('demo_nli', 'demo_sentiment'),
          decisions=config_lib.DecisionConfig(thresholds=thresholds),
        ),
        f'config.decisions.thresholds: {message}',
        id=f'threshold-{thresholds[0]}',
      )
      for thresholds, message in (
        (
          ('demo_nli',),
          "'demo_nli' is not TASK=METRIC; give something like 'mrpc=f1'",
        ),
        (
          ('demo_nli=macro_f1',),
          "'demo_nli=macro_f1': only tasks with two labels and multilabel tasks"
          ' have a threshold; remove it',
        ),
        (
          ('demo_sentiment=f1', 'demo_sentiment=matthews'),
          "'demo_sentiment=matthews': demo_sentiment already has f1; remove one"
          ' of the two',
        ),
        (
          ('demo_sentiment=roc_auc',),
          "'demo_sentiment=roc_auc': 'roc_auc' is none of accuracy, f1,"
          ' matthews, balanced_accuracy, micro_f1, macro_f1, weighted_f1',
        ),
      )
    ),
    pytest.param(
      config_lib.Config(tasks=('demo_nli', 'rte')),
      "config.data.dir is empty but 'rte' is read from it; set it to the folder"
      " of the GLUE files (GLUE's own download_glue_data.py --data_dir=DIR"
      ' --tasks=all gets it, or set config.data.source=tfds)',
      id='no-data-dir',
    ),
  ],
)
def test_a_configuration_that_names_the_wrong_thing(config, message):
  with pytest.raises(errors.UserError) as caught:
    registry.resolve(config)
  assert str(caught.value) == message


@pytest.mark.parametrize(
  'config',
  [
    pytest.param(
      config_lib.Config(
        tasks=('rte',), data=config_lib.DataConfig(source='tfds')
      ),
      id='glue-from-tfds',
    ),
    pytest.param(config_lib.Config(tasks=('demo_nli',)), id='generated'),
  ],
)
def test_no_data_dir_is_needed(config):
  assert len(registry.resolve(config)) == 1


_NAMES = config_lib.TaskConfig(
  kind='tagging',
  labels=('O', 'B-PER'),
  train='names/train.conll',
  dev='names/dev.conll',
  format='conll',
  text=('0',),
  label='-1',
)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'labels': ('O', 'PER')},
      ".labels: ('O', 'PER') must be different tags: O, B-TYPE and I-TYPE, with"
      ' E-TYPE and S-TYPE, or L-TYPE and U-TYPE, if the files have them; other'
      " tags are those of kind='plain_tagging'",
    ),
    (
      {'labels': ('B-PER', 'I-PER')},
      ".labels: ('B-PER', 'I-PER') must be different tags: O, B-TYPE and"
      ' I-TYPE, with E-TYPE and S-TYPE, or L-TYPE and U-TYPE, if the files have'
      " them; other tags are those of kind='plain_tagging'",
    ),
    ({'text': ('0', '1')}, ".text: ('0', '1') names 2 columns; give one"),
    (
      {'label': 'tag'},
      ".label: 'tag' is not a column number, and the files name no columns;"
      ' count from 0',
    ),
    (
      {'stride': 5},
      ': a tagging task has no stride; leave it out',
    ),
    (
      {'windows': 'max'},
      '.windows: is only for classification, regression, multilabel, not for'
      ' tagging; leave it out',
    ),
    (
      {'format': 'tsv'},
      ".format: a tagging task cannot be read from 'tsv'; give conll or jsonl",
    ),
  ],
  ids=['tag', 'no-o', 'pair', 'name', 'stride', 'windows', 'format'],
)
def test_a_tagging_task_that_cannot_be_used_is_told(changes, message):
  task_config = dataclasses.replace(_NAMES, **changes)
  with pytest.raises(errors.UserError) as told:
    registry.resolve(_config('names', names=task_config))
  assert str(told.value) == f'config.custom_tasks.names{message}'


@pytest.mark.parametrize(
  ('fields', 'swap', 'message'),
  [
    ({'stride': 5}, (), 'planets.stride: has no effect without windows; set'),
    (
      {'windows': 'max', 'unanswerable': True},
      (),
      ' task has no unanswerable; leave',
    ),
    (
      {'windows': 'mean', 'text': ('a', 'b')},
      ('planets',),
      "data.swap: 'planets' is read in windows, which do not work with"
      ' swap; leave it out, or remove config.custom_tasks.planets.windows',
    ),
  ],
)
def test_what_windows_do_not_go_with(fields, swap, message):
  task = dataclasses.replace(_PLANETS, **fields)
  with pytest.raises(errors.UserError, match=re.escape(message)):
    registry.resolve(_config('planets', swap=swap, planets=task))


@pytest.mark.parametrize('name', ['all', 'ALL', 'average', 'Average'])
def test_names_that_the_program_uses_itself(name):
  with pytest.raises(errors.UserError) as told:
    registry.resolve(_config(name, **{name: _PLANETS}))
  assert str(told.value).startswith(
    f'config.custom_tasks.{name}: {name!r} is the name of the '
  )


def test_reserved_names_are_those_in_use():
  assert registry.RESERVED.keys() == {export.ALL, comparisons.AVERAGE}
  assert registry.RESERVED.keys().isdisjoint(glue.TASKS | demo.TASKS)


def test_names_that_differ_in_capital_letters():
  with pytest.raises(errors.UserError) as told:
    registry.resolve(_config('planets', 'cola', 'Planets', planets=_PLANETS,
                             Planets=_PLANETS))  # fmt: skip
  assert str(told.value).startswith(
    "config.tasks: 'planets' and 'Planets' differ only in capital letters"
  )
  with pytest.raises(errors.UserError, match="'cola' and 'COLA' differ"):
    registry.resolve(_config('cola', 'COLA', COLA=_PLANETS))
  # One that is not in the plan has no folder.
  registry.resolve(_config('cola', COLA=_PLANETS))


@pytest.mark.parametrize('number', ['1_0', '\u0661', ' 1', '1.0', '1' * 5000])
def test_a_column_number_is_written_in_figures(number):
  task_config = dataclasses.replace(
    _PLANETS, header=False, text=(number,), label='1'
  )
  with pytest.raises(errors.UserError, match='is not a column number'):
    registry.resolve(_config('planets', planets=task_config))
