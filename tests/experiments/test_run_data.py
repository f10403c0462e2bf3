"""The sampler of a run."""

import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.core import sampling
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


@pytest.mark.parametrize(
  ('mode', 'variant', 'ratio'),
  [('sampled', 'multi', 8), ('copies', 'multi', 8), ('sampled', 'single', 1)],
)
def test_loss_weights_are_factors_in_multi_task_runs(mode, variant, ratio):
  config = config_lib.default_config()
  config.tasks = ('rte', 'mrpc')
  config.variants = (variant,)
  config.sampling.mode = mode
  run = runs_lib.plan_runs(config_lib.from_config_dict(config))[-1]
  without = run_data._make_sampler(run, [100] * len(run.tasks), 3).weights
  config.sampling.loss_weights = ('mrpc=8',)
  run = runs_lib.plan_runs(config_lib.from_config_dict(config))[-1]
  weights = run_data._make_sampler(run, [100] * len(run.tasks), 3).weights
  assert weights.dtype == 'float32'
  assert (weights / without).tolist() == [1, ratio][-len(run.tasks) :]


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
