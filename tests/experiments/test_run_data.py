"""The sampler of a run."""

import dataclasses
import math

import numpy as np
import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.core import sampling
from bam_jax.data import folds
from bam_jax.data import registry
from bam_jax.experiments import run_data
from bam_jax.experiments import runs as runs_lib
from bam_jax.tasks import glue
from bam_jax.tasks import task as task_lib


@pytest.mark.parametrize(
  ('mode', 'variant', 'sampler'),
  [
    ('sampled', 'single', sampling.ProportionalSampler),
    ('sampled', 'multi', sampling.ProportionalSampler),
    # One task leaves nothing to copy or to weigh.
    ('copies', 'single', sampling.ProportionalSampler),
    ('copies', 'multi', sampling.CopiesSampler),
  ],
)
def test_sampler(mode, variant, sampler):
  config = config_lib.default_config()
  config.tasks = ('rte', 'mrpc')
  config.variants = (variant,)
  config.sampling.mode = mode
  config = config_lib.from_config_dict(config)
  run = runs_lib.plan_runs(config)[0]
  made = run_data._make_sampler(run, [100] * len(run.tasks))
  assert isinstance(made, sampler)


class _Rows:
  """Labels of a split."""

  def __init__(self, label):
    self._label = np.float32(label)
    self.uids = [f'x/train/{i}' for i in range(len(label))]

  def __len__(self):
    return len(self._label)

  def fixed(self, name):
    return {'label': self._label}[name]

  def select(self, rows):
    return _Rows(self._label[rows])


def _weights(entries, variant='multi', fold=None):
  """Returns the factors of CoLA and STS-B, or of the last single-task run."""
  config = config_lib.default_config()
  config.tasks = ('cola', 'stsb')
  config.variants = (variant,)
  config.data.dir = 'not_read'
  config.sampling.loss_weights = entries
  config = config_lib.from_config_dict(config)
  run = runs_lib.plan_runs(config)[-1]
  table = registry.resolve(config)
  run = dataclasses.replace(run, fold=fold)
  data = run_data.PlanData(
    table,
    {
      'cola': {'train': _Rows([0, 1, 1, 1])},
      'stsb': {'train': _Rows([0.2, 0.2, 0.6, 0.6])},
    },
  )
  return data._loss_weights(run)


def test_loss_weights_are_factors_in_multi_task_runs():
  assert _weights(()) == [1, 1]
  assert _weights(('stsb=8',)) == [1, 8]
  assert _weights(('stsb=8',), 'single') == [1]


def test_automatic_weights_divide_by_the_loss_of_a_constant():
  # By hand: the entropy of 1/4 and 3/4, the variance of 0.2 and 0.6.
  entropy = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
  np.testing.assert_allclose(_weights(('auto',)), [1 / entropy, 25], rtol=1e-5)
  np.testing.assert_allclose(
    _weights(('stsb=8', 'auto')), [1 / entropy, 8], rtol=1e-5
  )
  assert _weights(('auto',), 'single') == [1]


def test_automatic_weights_are_of_the_rows_that_a_run_learns_from():
  """Oracles: the division of the uids, entropy and variance of its labels."""
  fold = folds.Fold(1, 4, seed=1)
  kept, left_out = folds.split([f'x/train/{i}' for i in range(4)], fold)
  assert len(kept) == 3 and left_out in ([2], [3])
  # 0, 1, 1 of CoLA's labels, and 0.2, 0.2, 0.6 of STS-B's.
  entropy = -math.log(1 / 3) / 3 - 2 * math.log(2 / 3) / 3
  np.testing.assert_allclose(
    _weights(('auto',), fold=fold),
    [1 / entropy, 1 / np.var([0.2, 0.2, 0.6])],
    rtol=1e-5,
  )


def test_class_weights_are_of_the_rows_that_a_run_learns_from():
  """By hand: 0, 1, 1 of the labels; the division is that of above."""
  config = config_lib.default_config()
  config.custom_tasks.own = config_lib.custom_task(
    labels=('0', '1'),
    class_weights=('balanced',),
    text=('text',),
    train='a',
    dev='b',
  )
  config.tasks, config.variants = ('own',), ('multi',)
  config.sampling.loss_weights = ('auto',)
  config = config_lib.from_config_dict(config)
  run = runs_lib.plan_runs(config)[-1]
  data = run_data.PlanData(
    registry.resolve(config), {'own': {'train': _Rows([0, 1, 1, 1])}}
  )
  (task,) = data._weigh(run).tasks
  np.testing.assert_allclose(task.target_weights, [2, 2 / 3])
  # Balanced classes are as uncertain as a fair coin.
  np.testing.assert_allclose(data._loss_weights(run), [1 / math.log(2)])
  run = dataclasses.replace(run, fold=folds.Fold(1, 4, seed=1))
  (task,) = data._weigh(run).tasks
  np.testing.assert_allclose(task.target_weights, [1.5, 0.75])


def test_probabilities_are_of_sizes_before_swapping():
  # Oracle: equal sizes before swapping give equal shares, whatever is swapped.
  config = config_lib.default_config()
  config.tasks = ('rte', 'mrpc')
  config.variants = ('multi',)
  config.data.swap = ('mrpc',)
  config.multi.batch_size = 1000
  config = config_lib.from_config_dict(config)
  run = runs_lib.plan_runs(config)[0]
  made = run_data._make_sampler(run, [5000, 10000])
  drawn = sum(int((made(step)[0] == 1).sum()) for step in range(4))
  assert abs(drawn / 4000 - 0.5) < 4 * (0.25 / 4000) ** 0.5


def _num_steps(run, sizes):
  sampler = run_data._make_sampler(run, sizes)
  return run_data._decide_steps(run, sizes, sampler)[0]


@pytest.mark.parametrize(
  ('variant', 'epochs', 'max_steps', 'steps'),
  [
    ('single', 1e9, 0, None),
    ('multi', 1e9, 0, None),
    ('multi', 700.0, 0, None),
    # Epochs without end are how some say that max_steps alone counts.
    ('multi', 1e9, 1000, 1000),
    ('multi', 600.0, 0, 60_000_000),
  ],
)
def test_steps_that_nobody_could_count_are_refused(
  variant, epochs, max_steps, steps
):
  config = config_lib.default_config()
  config.tasks = ('rte', 'mrpc')
  config.variants = (variant,)
  for length in (config.single, config.multi):
    length.epochs, length.max_steps, length.batch_size = epochs, max_steps, 32
  run = runs_lib.plan_runs(config_lib.from_config_dict(config))[0]
  run = dataclasses.replace(run, tasks=run.tasks[:1])
  rows = 3_200_000
  if steps is not None:
    assert _num_steps(run, [rows]) == steps
    return
  with pytest.raises(
    errors.UserError,
    match=rf'config.{variant}.epochs={epochs}: makes \d+ steps over {rows}'
    ' rows, and a run has at most 67108863 steps; give fewer epochs',
  ):
    _num_steps(run, [rows])


def _length_run(variant='multi', mode='sampled', changes=None, **length):
  """A run over RTE and MRPC with 16 and 81 rows, or over RTE alone."""
  config = config_lib.default_config()
  config.tasks = ('rte', 'mrpc')
  config.sampling.mode = mode
  for each in (config.single, config.multi):
    each.update(length)
  if changes:
    config.custom_variants.own = config_lib.custom_variant(
      variant, changes=changes
    )
  config.variants = ('own' if changes else variant,)
  return runs_lib.plan_runs(config_lib.from_config_dict(config))[0]


@pytest.mark.parametrize(
  ('run', 'sizes', 'steps'),
  [
    # By hand: 60 rows three times in batches of 32 are 5 steps.
    (_length_run('single'), [60], 5),
    (_length_run('single', min_steps=80), [60], 80),
    (_length_run('single', min_steps=4), [60], 5),
    (_length_run('single', min_steps=80, max_steps=90), [60], 80),
    (_length_run('single', min_steps=80, max_steps=90), [1000], 90),
    (_length_run('single', min_passes=16.0), [60], 30),
    # 8 and 27 of 35 examples a step, of 16 and 81 rows; 97 rows in an epoch.
    (_length_run(epochs=1.0, batch_size=35), [16, 81], 2),
    (_length_run(epochs=1.0, batch_size=35, min_passes=2.0), [16, 81], 6),
    (_length_run(epochs=9.0, batch_size=35, min_passes=2.0), [16, 81], 24),
    (_length_run(batch_size=35, min_steps=50), [16, 81], 50),
    # 16 rows are copied twice, as (81 / 16)**0.25 is 1.5; 113 rows in all.
    (_length_run(mode='copies', epochs=1.0, batch_size=10), [16, 81], 12),
    (
      _length_run(mode='copies', epochs=1.0, batch_size=10, min_passes=2.0),
      [16, 81],
      23,
    ),
    # One task is not copied.
    (_length_run('single', mode='copies', epochs=3.0), [60], 5),
    (
      _length_run('single', changes={'single': {'min_steps': 70}}),
      [60],
      70,
    ),
  ],
)
def test_length_of_a_run(run, sizes, steps):
  assert _num_steps(run, sizes) == steps


def test_passes_that_max_steps_does_not_allow_are_refused():
  length = {'batch_size': 35, 'epochs': 1.0}
  run = _length_run(min_passes=2.0, max_steps=5, **length)
  with pytest.raises(
    errors.UserError,
    match=r'config\.multi\.min_passes=2\.0: needs 6 steps over 97 rows, and'
    r' config\.multi\.max_steps=5; lower the first or raise the second',
  ):
    _num_steps(run, [16, 81])
  run = _length_run(
    max_steps=5, changes={'multi': {'min_passes': 2.0}}, **length
  )
  with pytest.raises(
    errors.UserError,
    match=r'custom_variants\.own\.changes\.multi\.min_passes=2.0: .*'
    r' config\.multi\.max_steps=5;',
  ):
    _num_steps(run, [16, 81])
  run = _length_run('single', min_passes=1e9)
  with pytest.raises(errors.UserError, match=r'min_passes=.*; give less'):
    _num_steps(run, [97])


def test_runs_of_few_steps_are_described():
  config = config_lib.default_config()
  config.tasks = ('rte', 'mrpc', 'wnli')
  config.variants = ('single', 'multi', 'capped')
  config.seeds = (0, 1)
  config.custom_variants.capped = config_lib.custom_variant(
    'single', changes={'single': {'max_steps': 7}}
  )
  runs = runs_lib.plan_runs(config_lib.from_config_dict(config))
  steps = {'rte': 50, 'mrpc': 49, 'wnli': 5}
  counted = [
    (run, (steps[run.tasks[0]] if run.is_single else 20) - run.seed)
    for run in runs
  ]
  assert runs_lib.describe_short_runs(counted) == [
    'single: fewer than 50 training steps, of mrpc (48), wnli (4), rte (49);'
    ' set config.single.min_steps to 50 or more',
    'multi: fewer than 50 training steps, of rte + mrpc + wnli (19);'
    ' set config.multi.min_steps to 50 or more',
    'capped: fewer than 50 training steps, of mrpc (48), rte (49);'
    ' raise config.custom_variants.capped.changes.single.max_steps',
    # The rows end before `max_steps` is reached.
    'capped: fewer than 50 training steps, of wnli (4); set'
    ' config.custom_variants.capped.changes.single.max_steps and'
    ' config.single.min_steps to 50 or more',
  ]
  fold = dataclasses.replace(runs[0], fold=folds.Fold(1, 3, 0))
  assert runs_lib.describe_short_runs([(fold, 30), (runs[0], 40)]) == [
    'single: fewer than 50 training steps, of rte without a fold (30), rte'
    ' (40); set config.single.min_steps to 50 or more'
  ]
  assert not runs_lib.describe_short_runs((run, 50) for run in runs)
  # Heads that are fitted before training need few steps.
  config.model.head_init = 'linear_probe'
  config.model.pooling = 'mean'
  runs = runs_lib.plan_runs(config_lib.from_config_dict(config))
  assert not runs_lib.describe_short_runs((run, 5) for run in runs)


def test_bounds_that_overrule_the_epochs_are_described():
  config = config_lib.default_config()
  config.tasks = ('rte', 'mrpc')
  config.variants = ('single', 'multi', 'single_to_multi')
  config.single.min_steps, config.multi.min_passes = 80, 2.5
  runs = runs_lib.plan_runs(config_lib.from_config_dict(config))
  fields = {
    ('single', 'rte'): (80, 'min_steps'),
    ('single', 'mrpc'): (90, 'epochs'),
    ('multi', 'rte'): (30, 'min_passes'),
    ('single_to_multi', 'rte'): (40, 'min_passes'),
  }
  lengths = [(run, fields[run.variant, run.tasks[0]]) for run in runs]
  assert sorted(runs_lib.describe_lengthened_runs(lengths)) == [
    'config.multi.min_passes=2.5 makes more steps than the epochs do: multi'
    ' 30, single_to_multi 40',
    'config.single.min_steps=80 makes more steps than the epochs do: single 80',
  ]


@pytest.mark.parametrize(
  ('teacher', 'tasks'),
  [
    ('multi-s0', ['rte', 'mrpc']),
    ('single-s0-rte', ['rte']),
    ('single_to_multi-s0', []),
  ],
)
def test_a_run_labels_the_tasks_that_it_teaches(teacher, tasks):
  config = config_lib.default_config()
  config.tasks = ('rte', 'mrpc')
  config = config_lib.from_config_dict(config)
  runs = {run.name: run for run in runs_lib.plan_runs(config)}
  table = task_lib.TaskTable((glue.TASKS['rte'], glue.TASKS['mrpc']))
  data = run_data.PlanData(table, {'rte': {}, 'mrpc': {}})
  found = data.splits_to_label(runs[teacher], list(runs.values()))
  assert found == [(task, 'train') for task in tasks]
