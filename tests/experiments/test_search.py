"""What a search chooses: tables by hand, and the records of its runs."""

import json
import math
from pathlib import Path
import shutil
import statistics

import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import registry
from bam_jax.experiments import evaluate
from bam_jax.experiments import report
from bam_jax.experiments import runs as runs_lib
from bam_jax.experiments import search
from bam_jax.experiments import train
from bam_jax.experiments import workspace as workspace_lib

_TASKS = ('demo_sentiment', 'demo_similarity')
_METRICS = {'demo_sentiment': 'accuracy', 'demo_similarity': 'pearson'}
_RATES = (1e-3, 0.01)
_SEEDS = (7, 8, 9)
_FIELDS = {
  'variants': ('single', 'multi', 'single_to_multi'),
  'search.learning_rates': _RATES,
  'search.seeds': _SEEDS,
}


def _config(**fields):
  config = config_lib.default_config()
  config.tasks, config.data.dir = ('rte', 'stsb'), 'glue'
  config.search.seeds = (5, 6)
  config.search.learning_rates = (1e-5, 5e-5)
  config.update_from_flattened_dict(fields)
  return config_lib.from_config_dict(config)


def test_every_pair_is_tried_with_every_seed():
  config = _config(**{'search.layer_decays': (1.0, 0.9)})
  runs = search.plan_runs(config)
  assert [run.name for run in runs[:3]] == [
    'search-s5-rte-lr1e-05-decay1.0',
    'search-s6-rte-lr1e-05-decay1.0',
    'search-s5-rte-lr1e-05-decay0.9',
  ]
  tried = [
    (
      *run.tasks,
      run.config.single.learning_rate,
      run.config.single.layer_decay,
      run.seed,
    )
    for run in runs
  ]
  assert tried == [
    (task, rate, decay, seed)
    for task in ('rte', 'stsb')
    for rate in (1e-5, 5e-5)
    for decay in (1.0, 0.9)
    for seed in (5, 6)
  ]
  assert len({run.name for run in runs}) == len(runs) == 16
  for run in runs:
    assert run.length.batch_size == config.single.batch_size
    assert not run.builds_on


def test_a_value_that_is_not_searched_is_that_of_the_configuration():
  runs = search.plan_runs(_config(**{'single.layer_decay': 0.7}))
  assert {run.config.single.layer_decay for run in runs} == {0.7}


@pytest.mark.parametrize(
  ('fields', 'tasks'),
  [
    ({'variants': ('multi',)}, set()),
    ({'variants': ('single_to_multi',)}, {'rte', 'stsb'}),
    ({'search.seeds': (), 'search.learning_rates': ()}, set()),
  ],
  ids=['no-single-task-run', 'as-teachers', 'no-search'],
)
def test_only_tasks_of_single_task_runs_are_searched(fields, tasks):
  runs = search.plan_runs(_config(**fields))
  assert {run.tasks[0] for run in runs} == tasks


_LOW, _MIDDLE, _HIGH = (
  runs_lib.Choice(rate, 0.9) for rate in (1e-5, 2e-5, 5e-5)
)


@pytest.mark.parametrize(
  ('scores', 'chosen'),
  [
    # Mean and maximum would choose the first.
    ({_LOW: (0.0, 59.0, 100.0), _HIGH: (30.0, 60.0, 61.0)}, _HIGH),
    ({_HIGH: (1.0, 60.0, 60.0), _MIDDLE: (60.0, 60.0, 99.0)}, _MIDDLE),
    (
      {runs_lib.Choice(1e-5, 1.0): (3.0,), runs_lib.Choice(1e-5, 0.8): (3.0,)},
      runs_lib.Choice(1e-5, 0.8),
    ),
    ({_LOW: (math.nan,) * 3, _HIGH: (-5.0, -6.0, -7.0)}, _HIGH),
    ({_HIGH: (math.nan,), _LOW: (math.nan,)}, _LOW),
  ],
  ids=['median', 'tie', 'tie-of-rates', 'no-number', 'no-number-at-all'],
)
def test_the_highest_median_is_chosen(scores, chosen):
  found = {'rte': {pair: dict(enumerate(v)) for pair, v in scores.items()}}
  assert search.choose(found) == {'rte': chosen}


def test_a_score_is_the_first_metric_of_the_first_dev_split():
  config = _config(tasks=('mrpc', 'mnli'))
  tasks = registry.resolve(config)
  searched = search.plan_runs(config)
  records = {
    'mrpc': {'dev': {'accuracy': 2.0, 'f1': 3.0}},
    'mnli': {
      'dev_matched': {'accuracy': 4.0},
      'dev_mismatched': {'accuracy': 5.0},
    },
  }

  found = search.collect_scores(
    searched,
    [{'scores': {run.tasks[0]: records[run.tasks[0]]}} for run in searched],
    tasks,
  )
  assert found['mrpc'][runs_lib.Choice(1e-5, 0.9)] == {5: 3.0, 6: 3.0}
  assert found['mnli'][runs_lib.Choice(5e-5, 0.9)] == {5: 4.0, 6: 4.0}


def test_the_table_is_json_whatever_was_scored():
  config = _config()
  found = {'rte': {_LOW: {5: math.nan, 6: 50.0}, _HIGH: {5: 40.0, 6: 50.0}}}
  table = search.to_json(found, registry.resolve(config))
  assert json.loads(json.dumps(table, allow_nan=False))['rte'] == {
    'chosen': {'learning_rate': 5e-5, 'layer_decay': 0.9},
    'by': 'median accuracy on dev',
    'tried': [
      {
        'learning_rate': 1e-5,
        'layer_decay': 0.9,
        'median': None,
        'scores': {'5': None, '6': 50.0},
      },
      {
        'learning_rate': 5e-5,
        'layer_decay': 0.9,
        'median': 45.0,
        'scores': {'5': 40.0, '6': 50.0},
      },
    ],
  }


def test_a_choice_without_a_defined_score_is_told():
  nothing = {_LOW: {5: 1.0, 6: math.nan}, _HIGH: {5: math.nan, 6: math.nan}}
  found = {'rte': nothing, 'cola': {_LOW: {5: math.nan}, _HIGH: {5: -1.0}}}
  assert search.tasks_without_choice(found) == ['rte']
  assert 'No pair has a defined median for rte' in search.describe(found)
  del found['rte']
  assert 'defined' not in search.describe(found)


@pytest.fixture(scope='module')
def finished(tiny_plan, tmp_path_factory) -> Path:
  workdir = tmp_path_factory.mktemp('search')
  train.run(tiny_plan(workdir, **_FIELDS))
  return workdir


@pytest.fixture
def workdir(finished, tmp_path) -> Path:
  """A copy of the finished work directory, to be broken."""
  return Path(shutil.copytree(finished, tmp_path / 'work'))


def _read(workdir, name, file='DONE'):
  return json.loads((workdir / 'runs' / name / file).read_text())


def _chosen(workdir) -> dict[str, float]:
  """Task -> rate of the highest median, from the records alone."""
  return {
    task: max(
      _RATES,
      key=lambda rate, task=task: statistics.median(
        _read(workdir, f'search-s{seed}-{task}-lr{rate}-decay0.9')['scores'][
          task
        ]['dev'][_METRICS[task]]
        for seed in _SEEDS
      ),
    )
    for task in _TASKS
  }


def test_single_task_runs_train_with_what_the_search_found(finished):
  chosen = _chosen(finished)
  names = {path.name for path in (finished / 'runs').iterdir()}
  names = {name for name in names if not name.startswith('search-')}
  singles = {f'single-s0-{t}-lr{chosen[t]}-decay0.9' for t in _TASKS}
  assert singles < names
  (student,) = (name for name in names if name.startswith('single_to_multi'))
  assert names == {*singles, 'multi-s0', student}
  for task in _TASKS:
    name = f'single-s0-{task}-lr{chosen[task]}-decay0.9'
    identity = _read(finished, name, 'config.json')
    assert identity['config.single.learning_rate'] == chosen[task]
    assert f'teacher.{name}' in _read(finished, student, 'config.json')


def test_what_was_tried_is_recorded_and_reported(finished):
  table = json.loads((finished / 'choices.json').read_text())
  chosen = _chosen(finished)
  assert list(table) == list(_TASKS)
  for task, found in table.items():
    assert found['chosen'] == {
      'learning_rate': chosen[task],
      'layer_decay': 0.9,
    }
    for row in found['tried']:
      rate = row['learning_rate']
      for seed in _SEEDS:
        record = _read(finished, f'search-s{seed}-{task}-lr{rate}-decay0.9')
        score = record['scores'][task]['dev'][_METRICS[task]]
        assert row['scores'][str(seed)] == score
  report = json.loads((finished / 'report.json').read_text())
  assert list(report['variants']) == list(_FIELDS['variants'])
  assert list(report['per_seed']['single']) == ['0']
  (note,) = (text for key, text in report['notes'].items() if 'decay' in key)
  for task in _TASKS:
    assert f'{task} {chosen[task]:g} and 0.9' in note
  assert 'seeds 7, 8, 9, none of which is reported' in note


def test_a_rerun_does_what_is_missing(tiny_plan, workdir, trained):
  train.run(tiny_plan(workdir, **_FIELDS))
  assert trained == []
  removed = f'search-s8-{_TASKS[0]}-lr0.01-decay0.9'
  before = _read(workdir, removed)['parameters']
  shutil.rmtree(workdir / 'runs' / removed)
  for command in (report.report, evaluate.evaluate):
    with pytest.raises(
      errors.UserError,
      match=rf'^{workdir}: 1 of the 12 runs of config.search are not finished,',
    ):
      command(tiny_plan(workdir, **_FIELDS))
  train.run(tiny_plan(workdir, **_FIELDS))
  assert trained == [removed]
  assert _read(workdir, removed)['parameters'] == before


def test_another_choice_leaves_what_was_trained_before(
  tiny_plan, workdir, trained
):
  before = {path.name for path in (workdir / 'runs').iterdir()}
  task, chosen = _TASKS[0], _chosen(workdir)[_TASKS[0]]
  (other,) = set(_RATES) - {chosen}
  # As if the other rate had been far better.
  for seed in _SEEDS:
    name = f'search-s{seed}-{task}-lr{other}-decay0.9'
    workspace = workspace_lib.Workspace(workdir)
    record = workspace.read_record(name)
    record['scores'][task]['dev']['accuracy'] = 100.5
    workspace.write_record(name, record)
  train.run(tiny_plan(workdir, **_FIELDS))
  teacher, student = trained
  assert teacher == f'single-s0-{task}-lr{other}-decay0.9'
  assert student.startswith('single_to_multi-s0-')
  assert before.isdisjoint(trained)
  assert before <= {path.name for path in (workdir / 'runs').iterdir()}
