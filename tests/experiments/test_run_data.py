"""The sampler of a run."""

import math

import numpy as np
import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.core import sampling
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
  made = run_data._make_sampler(run, [100] * len(run.tasks), 3)
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


def _weights(entries, variant='multi'):
  """Returns the factors of CoLA and STS-B, or of the last single-task run."""
  config = config_lib.default_config()
  config.tasks = ('cola', 'stsb')
  config.variants = (variant,)
  config.data.dir = 'not_read'
  config.sampling.loss_weights = entries
  config = config_lib.from_config_dict(config)
  run = runs_lib.plan_runs(config)[-1]
  table = registry.resolve(config)
  train = {'cola': _Rows([0, 1, 1, 1]), 'stsb': _Rows([0.2, 0.2, 0.6, 0.6])}
  return run_data._loss_weights(
    run,
    [table[name] for name in run.tasks],
    [train[name] for name in run.tasks],
  )


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


def test_probabilities_are_of_sizes_before_swapping():
  # Oracle: equal sizes before swapping give equal shares, whatever is swapped.
  config = config_lib.default_config()
  config.tasks = ('rte', 'mrpc')
  config.variants = ('multi',)
  config.data.swap = ('mrpc',)
  config.multi.batch_size = 1000
  config = config_lib.from_config_dict(config)
  run = runs_lib.plan_runs(config)[0]
  made = run_data._make_sampler(run, [5000, 10000], 4)
  drawn = sum(int((made(step)[0] == 1).sum()) for step in range(4))
  assert abs(drawn / 4000 - 0.5) < 4 * (0.25 / 4000) ** 0.5


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
  rows = 3_200_000
  if steps is not None:
    assert run_data._num_steps(run, rows) == steps
    return
  with pytest.raises(
    errors.UserError,
    match=rf'config.{variant}.epochs={epochs}: makes \d+ steps over {rows}'
    ' rows, and a run has at most 67108863 steps; give fewer epochs',
  ):
    run_data._num_steps(run, rows)


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
