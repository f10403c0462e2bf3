"""What a search chooses: tables by hand, and the records of its runs."""

import json
import math
from pathlib import Path
import shutil
import statistics

import numpy as np
import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import registry
from bam_jax.experiments import report
from bam_jax.experiments import runs as runs_lib
from bam_jax.experiments import search
from bam_jax.experiments import train
from bam_jax.experiments import workspace as workspace_lib
from bam_jax.training import evaluate as evaluate_lib

_TASKS = ('demo_sentiment', 'demo_similarity')
_METRICS = {'demo_sentiment': 'accuracy', 'demo_similarity': 'spearman'}
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
    'search-s5-rte-lr1e-05-decay1.0-heldout',
    'search-s6-rte-lr1e-05-decay1.0-heldout',
    'search-s5-rte-lr1e-05-decay0.9-heldout',
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


_OF_MULTI = {
  'search.learning_rates': (),
  'search.multi.learning_rates': (1e-4, 2e-4),
}


def test_all_combinations_are_tried():
  """Oracle: by hand."""
  fields = {
    'single_searched': ('search', ('single_searched', 'long'), 'single'),
    'multi_searched': ('search.multi', ('flat', 'multi'), 'multi'),
  }
  for variant, (path, names, group) in fields.items():
    config = config_lib.default_config()
    config.tasks, config.data.dir = ('rte', 'stsb'), 'glue'
    config.variants = (variant,)
    config.custom_variants.long = config_lib.custom_variant(
      'single', changes={'single': {'learning_rate': 3e-5, 'epochs': 9.0}}
    )
    config.custom_variants.flat = config_lib.custom_variant(
      'multi', changes={'sampling': {'exponent': 0.0}}
    )
    config.update_from_flattened_dict(
      {
        'search.seeds': (5,),
        f'{path}.changes_of': names,
        f'{path}.batch_sizes': (8, 16),
      }
    )
    runs = search.plan_runs(config_lib.from_config_dict(config))
    assert len({run.name for run in runs}) == len(runs)
    tried = [
      (
        run.name.removesuffix('-heldout').removeprefix('search'),
        getattr(run.config, group).learning_rate,
        getattr(run.config, group).epochs,
        run.length.batch_size,
        run.config.sampling.exponent,
      )
      for run in runs
    ]
    if variant == 'single_searched':
      end = 'decay0.9-batch{}-as_{}'
      assert tried == [
        row
        for task in ('rte', 'stsb')
        for name, rate, epochs in (
          ('single_searched', 5e-5, 3.0), ('long', 3e-5, 9.0)
        )
        for size in (8, 16)
        for row in [(
          f'-s5-{task}-lr{rate}-{end.format(size, name)}',
          *(rate, epochs, size, 0.75),
        )]
      ]  # fmt: skip
    else:
      end = '_multi-s5-lr0.0001-decay0.9-batch'
      assert tried == [
        (f'{end}8-as_flat', 1e-4, 6.0, 8, 0.0),
        (f'{end}16-as_flat', 1e-4, 6.0, 16, 0.0),
        (f'{end}8-as_multi', 1e-4, 6.0, 8, 0.75),
        (f'{end}16-as_multi', 1e-4, 6.0, 16, 0.75),
      ]


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


def _record(scores):
  """A record as the search's runs leave it."""
  return {
    'scores': {task: {'held_out': found} for task, found in scores.items()},
    'held_out': dict.fromkeys(scores, 30),
  }


_SCORES = {
  'mrpc': {'accuracy': 2.0, 'f1': 3.0},
  'stsb': {'pearson': 5.0, 'spearman': 7.0},
  'wnli': {'accuracy': 99.0},
}


def test_a_score_is_the_metric_that_the_report_compares():
  config = _config(tasks=('mrpc', 'stsb'))
  runs = search.plan_runs(config)
  records = [_record({run.tasks[0]: _SCORES[run.tasks[0]]}) for run in runs]
  found = search.collect(runs, records, registry.resolve(config))
  assert found.scores['mrpc'][runs_lib.Choice(1e-5, 0.9)] == {5: 2.0, 6: 2.0}
  assert found.scores['stsb'][runs_lib.Choice(5e-5, 0.9)] == {5: 7.0, 6: 7.0}


def test_settings_of_several_tasks_are_scored_by_the_mean_of_the_report():
  """WNLI is in no average."""
  config = _config(
    tasks=('mrpc', 'stsb', 'wnli'), variants=('multi_searched',), **_OF_MULTI
  )
  runs = search.plan_runs(config)
  records = [_record(_SCORES) for _ in runs]
  found = search.collect(runs, records, registry.resolve(config))
  ((key, tried),) = found.scores.items()
  assert key == 'multi: mrpc, stsb, wnli'
  assert set(tried) == {runs_lib.Choice(r, 0.9) for r in (1e-4, 2e-4)}
  assert [*tried.values()] == [{5: 4.5, 6: 4.5}] * 2
  assert found.metrics[key] == "mean of 2 tasks' own metrics"


def _result(scores, rows=30):
  return search.Result(
    scores, dict.fromkeys(scores, 'accuracy'), dict.fromkeys(scores, rows)
  )


def test_the_table_is_json_whatever_was_scored():
  found = {'rte': {_LOW: {5: math.nan, 6: 50.0}, _HIGH: {5: 40.0, 6: 50.0}}}
  table = search.to_json(_result(found))
  assert json.loads(json.dumps(table, allow_nan=False)) == {
    'held-out rows': {'rte': 30},
    'rte': {
      'chosen': {'learning_rate': 5e-5, 'layer_decay': 0.9},
      'by': 'median accuracy on held_out',
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
    },
  }


def test_a_choice_without_a_defined_score_is_told():
  nothing = {_LOW: {5: 1.0, 6: math.nan}, _HIGH: {5: math.nan, 6: math.nan}}
  found = {'rte': nothing, 'cola': {_LOW: {5: math.nan}, _HIGH: {5: -1.0}}}
  said = search.describe(_result(found))
  assert 'No setting has a defined median for rte' in said
  assert 'Few rows to choose on: rte 30, cola 30' in said
  del found['rte']
  said = search.describe(_result(found, 100))
  assert 'defined' not in said and 'Few' not in said


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
        _read(workdir, f'search-s{seed}-{task}-lr{rate}-decay0.9-heldout')[
          'scores'
        ][task]['held_out'][_METRICS[task]]
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
  for task, count in table.pop('held-out rows').items():
    name = f'search-s7-{task}-lr0.01-decay0.9-heldout'
    arrays = np.load(finished / 'runs' / name / 'outputs.npz')
    assert count == len(arrays[f'{task}/held_out/uid']) > 20
    assert all(f'{task}/train/' in u for u in arrays[f'{task}/held_out/uid'])
  assert list(table) == list(_TASKS)
  for task, found in table.items():
    assert found['chosen'] == {
      'learning_rate': chosen[task],
      'layer_decay': 0.9,
    }
    for row in found['tried']:
      rate = row['learning_rate']
      for seed in _SEEDS:
        record = _read(
          finished, f'search-s{seed}-{task}-lr{rate}-decay0.9-heldout'
        )
        score = record['scores'][task]['held_out'][_METRICS[task]]
        assert row['scores'][str(seed)] == score
  report = json.loads((finished / 'report.json').read_text())
  assert list(report['variants']) == list(_FIELDS['variants'])
  assert list(report['per_seed']['single']) == ['0']
  note = report['notes']['searched settings']
  for task in _TASKS:
    values = f'learning rate {chosen[task]:g}, layer decay 0.9'
    assert f'{task}: {values}' in note
  assert 'seeds 7, 8, 9, none of which is reported' in note


def test_a_rerun_does_what_is_missing(tiny_plan, workdir, trained):
  train.run(tiny_plan(workdir, **_FIELDS))
  assert trained == []
  removed = f'search-s8-{_TASKS[0]}-lr0.01-decay0.9-heldout'
  before = _read(workdir, removed)['parameters']
  shutil.rmtree(workdir / 'runs' / removed)
  for command in (report.report, train.evaluate):
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
    name = f'search-s{seed}-{task}-lr{other}-decay0.9-heldout'
    workspace = workspace_lib.Workspace(workdir)
    record = workspace.read_record(name)
    record['scores'][task]['held_out']['accuracy'] = 100.5
    workspace.write_record(name, record)
  train.run(tiny_plan(workdir, **_FIELDS))
  teacher, student = trained
  assert teacher == f'single-s0-{task}-lr{other}-decay0.9'
  assert student.startswith('single_to_multi-s0-')
  assert before.isdisjoint(trained)
  assert before <= {path.name for path in (workdir / 'runs').iterdir()}


def _predict_dev(plan, run):
  """The logits of a finished run on the dev rows of `demo_similarity`."""
  return evaluate_lib.predict(
    plan.setup.programs,
    plan.restore_params(run.name),
    plan.features[_TASKS[1]]['dev'],
    1,
    plan.config.packing,
  )


def test_no_dev_row_is_used(tiny_plan, tmp_path):
  """Oracle: dev labels by which another rate is perfect change nothing."""
  own = {'mine': {'like': 'single_searched', 'tasks': _TASKS[1:]}}
  fields = {**_FIELDS, 'variants': ('mine',), 'search.seeds': (7,)}
  plan = tiny_plan(tmp_path / 'right', own, **fields)
  train.train_runs(plan, plan.search_runs)
  (chosen,) = plan.runs
  rate = chosen.config.single.learning_rate
  other = next(
    run for run in plan.search_runs if run.config.single.learning_rate != rate
  )
  wrong = tiny_plan(tmp_path / 'wrong', own, **fields)
  task, dev = wrong.tasks[_TASKS[1]], wrong.features[_TASKS[1]]['dev']
  relabelled = dev.select(np.arange(len(dev)))
  relabelled._arrays['label.values'] = _predict_dev(plan, other)[:, 0]
  wrong.features[_TASKS[1]]['dev'] = relabelled
  scores = {
    run.config.single.learning_rate: task.kind.score(
      task, _predict_dev(plan, run), relabelled
    )['spearman']
    for run in plan.search_runs
  }
  assert scores.pop(rate) < 99 < min(scores.values())
  train.train_runs(wrong, wrong.search_runs)
  assert [run.name for run in wrong.runs] == [chosen.name]
  tables = [
    (tmp_path / name / 'choices.json').read_text()
    for name in ('right', 'wrong')
  ]
  assert tables[0] == tables[1]


_BOTH = {
  'variants': ('single', 'single_searched', 'multi', 'multi_searched', 'mine'),
  'search.learning_rates': _RATES,
  'search.multi.batch_sizes': (8, 16),
  'search.seeds': (7,),
}
_STUDENT = {'like': 'multi_searched', 'teacher': 'single_searched'}


def test_searched_variants_stand_beside_the_plain_ones(tiny_plan, tmp_path):
  plan = tiny_plan(tmp_path, {'mine': _STUDENT}, **_BOTH)
  assert len(plan.search_runs) == 2 * 2 + 2
  train.run(plan)
  table = json.loads((tmp_path / 'choices.json').read_text())
  key = f'multi: {", ".join(_TASKS)}'
  size = table[key]['chosen']['batch_size']
  rates = {task: table[task]['chosen']['learning_rate'] for task in _TASKS}
  for run in plan.runs:
    is_searched = run.variant in ('single_searched', 'multi_searched', 'mine')
    assert bool(run.choices) == is_searched
    rate, batch = 5e-5, 16
    if run.variant == 'single_searched':
      rate = rates[run.tasks[0]]
    elif not run.is_single:
      rate, batch = 1e-4, size if is_searched else 16
    assert (run.length.learning_rate, run.length.batch_size) == (rate, batch)
  (student,) = (run for run in plan.runs if run.variant == 'mine')
  assert student.teachers == {
    task: (f'single_searched-s0-{task}-lr{rates[task]}-decay0.9',)
    for task in _TASKS
  }
  report_json = json.loads((tmp_path / 'report.json').read_text())
  assert list(report_json['variants']) == list(_BOTH['variants'])
  (pairs,) = (t for t in report_json['pairs'] if t['kind'] == 'searched')
  assert {(row['variant'], row['baseline']) for row in pairs['rows']} == {
    (name, baseline)
    for baseline in ('single_searched', 'multi_searched')
    for name in _BOTH['variants']
    if name != baseline
  }
  text = (tmp_path / 'report.md').read_text()
  assert '| Single, searched ' in text and '| Multi, searched ' in text
  assert 'their difference is not of' not in text


def test_batches_of_every_searched_size_have_a_bucket(tiny_plan, tmp_path):
  fields = {**_BOTH, 'packing.row_buckets': (), 'search.batch_sizes': (8, 64)}
  plan = tiny_plan(tmp_path, {'mine': _STUDENT}, **fields)
  for run in plan.search_runs:
    spec = plan.data.make_spec(run, plan.packing)
    rows = [spec.batches.rows_filled(step) for step in range(spec.num_steps)]
    assert max(rows) <= plan.packing.row_buckets[-1]
    assert min(rows) >= run.length.batch_size / plan.packing.slots


def test_open_choices_count_with_the_most_steps():
  config = _config(
    variants=('single_searched', 'multi_searched'),
    **{
      'search.epochs': (1.0, 9.0, 2.0),
      'search.multi.epochs': (4.0, 3.0),
      'search.multi.batch_sizes': (32, 16),
    },
  )
  longest = search.longest_choices(config)
  found = {key: (each.epochs, each.batch_size) for key, each in longest.items()}
  assert found == {
    'rte': (9.0, None),
    'stsb': (9.0, None),
    'multi: rte, stsb': (4.0, 16),
  }
