"""What is left of a plan: counted by hand, and XLA's memory by known shapes."""

from collections import Counter
import dataclasses
import json
import logging
import math

import pytest

from bam_jax import errors
from bam_jax.data import folds
from bam_jax.estimate import command as estimate
from bam_jax.estimate import memory as memory_lib
from bam_jax.estimate import remaining as remaining_lib
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import probes
from bam_jax.experiments import train
from bam_jax.runtime import phases
from bam_jax.tasks import demo

_SENTIMENT, _SIMILARITY = 'demo_sentiment', 'demo_similarity'
_SEEDS = tuple(range(8))


def _rows(task: str, split: str = 'train') -> int:
  return len(list(demo.generate(task, split)))


@pytest.fixture(scope='module')
def plan(tiny_plan, tmp_path_factory):
  """Eight seeds of a student and its two teachers, of which none is trained."""
  return tiny_plan(
    tmp_path_factory.mktemp('estimate'),
    variants=('single_to_multi',),
    seeds=_SEEDS,
    **{'train.seeds_at_once': len(_SEEDS), 'mesh.data': len(_SEEDS)},
  )


@pytest.fixture(scope='module')
def told(plan) -> dict:
  estimate.estimate(plan)
  return json.loads((plan.workspace.root / estimate.FILE).read_text())


def test_every_run_is_counted_and_none_is_begun(plan, told):
  names = [run['name'] for run in told['runs']]
  assert sorted(names) == sorted(run.name for run in plan.runs)
  # Two teachers and a student a seed, 4 steps of 16 examples each.
  assert told['steps'] == 8 * 3 * 4
  assert told['examples'] == 8 * 3 * 4 * 16
  labels = {run['name']: run['labels'] for run in told['runs']}
  assert labels[f'single-s7-{_SENTIMENT}'] == [_SENTIMENT]
  assert labels['single_to_multi-s7'] == []
  assert told['seconds'] == pytest.approx(sum(told['phases'].values()))
  others = ('start', 'compiling', 'report')
  assert told['seconds'] == pytest.approx(
    sum(run['seconds'] for run in told['runs'])
    + sum(told['phases'].get(name, 0) for name in others)
  )
  assert {path.name for path in plan.workspace.root.iterdir()} == {
    'features',
    estimate.FILE,
  }


def test_what_takes_longest_is_told_with_what_shortens_it(plan, told):
  remaining = remaining_lib.count_remaining(plan, plan.runs, plan.runs)
  # 16 teachers, 8 students.
  seconds = {
    each.run.name: Counter(training=3.0 if each.run.is_single else 5.0)
    for each in remaining
  }
  assert estimate.describe_longest(plan, remaining, seconds) == (
    'Longest: single, 48s. To shorten it, lower config.single.max_steps (now'
    ' 4), or use fewer config.seeds (now 8) or config.variants.'
  )
  seconds[remaining[-1].run.name]['training'] = 14.0
  longest = estimate.describe_longest(plan, remaining, seconds)
  assert longest.startswith('Longest: single_to_multi, 49s')


def test_memory_is_that_of_the_known_shapes(plan, told):
  """Eight seeds on as many devices: each holds one state and one batch."""
  programs = plan.setup.programs
  v, d, f, p = plan.encoder.config.vocab_size, 64, 256, 512
  layer = 4 * (d * d + d) + 2 * d + (d * f + f) + (f * d + d) + 2 * d
  embeddings = (v + p + 2) * d + 2 * d
  heads = 2 * (d * 2 + 2)
  params = embeddings + layer + d * d + d + heads
  # Parameters and two moments; the rest are counters and keys.
  state = 4 * 3 * params
  assert 0 <= memory_lib.state_bytes(programs) - state < 64
  # 4 numbers a token; 2 and 2 x 2 outputs and a weight a slot.
  batch = 4 * 16 * (4 * 32 + 4 * (2 + 2 * 2 + 1))
  found = programs.compiled()[8, 16].memory_analysis().argument_size_in_bytes
  assert abs(found - state - batch) < 64
  memory = told['memory']
  assert (memory['seeds'], memory['rows']) == (8, 16)
  assert memory['arguments'] == found
  # Each device has every seed's for a moment, one after the other.
  assert memory['copies'] == 2 * memory_lib.state_bytes(programs)
  assert memory['needed'] == found + max(
    memory['temporary'] + memory['code'], memory['copies']
  )


def test_a_step_without_room_is_refused(plan, told, monkeypatch):
  monkeypatch.setattr(memory_lib, 'device_memory', lambda: 1_500_000)
  with pytest.raises(
    errors.UserError, match=r'step of 8 x 16 rows needs .* which has 1.5 MB; r'
  ):
    estimate.estimate(plan)


def test_a_bucket_that_few_steps_fill_is_compiled_too(plan, told, monkeypatch):
  """It is the one that needs most memory."""
  packing = dataclasses.replace(plan.packing, row_buckets=(16, 64))
  asked = []
  monkeypatch.setattr(
    type(plan.setup.programs),
    'compile_ahead',
    lambda self, packing, seeds: asked.append((packing.row_buckets, seeds)),
  )
  memory_lib.compile_steps(plan.setup.programs, packing, [16, 24], {8})
  assert asked == [((16, 24, 64), {8})]


def test_steps_of_every_bucket_are_measured(tiny_plan, tmp_path):
  """A measured step gives its state away, and the next bucket needs one."""
  plan = tiny_plan(
    tmp_path,
    variants=('multi',),
    seeds=(0, 1, 2),
    **{
      'packing.row_buckets': (8, 16),
      'train.seeds_at_once': 2,
      'multi.max_steps': 40,
    },
  )
  estimate.estimate(plan)
  told = json.loads((tmp_path / estimate.FILE).read_text())
  assert sorted(told['measured']['step']) == ['1x16', '1x8', '2x16', '2x8']
  assert all(run['seconds'] > 0 for run in told['runs'])


def test_rows_that_linear_probes_encode_are_counted(
  tiny_plan, tmp_path, monkeypatch
):
  """Training and dev rows of each missing baseline, and rows of new heads."""
  plan = tiny_plan(
    tmp_path,
    variants=('single', 'multi'),
    seeds=(0, 1),
    **{'plan.baselines': True},
  )
  train.prepare(plan)
  monkeypatch.setattr(probes, '_MOST_ROWS', 100)
  remaining = remaining_lib.count_remaining(plan, plan.runs, plan.runs)
  dev = {task: _rows(task, 'dev') for task in (_SENTIMENT, _SIMILARITY)}
  assert {
    task: (len(chosen), encoded)
    for task, chosen, encoded in remaining_lib.list_probes(plan, remaining)
  } == {task: (100, 100 + count) for task, count in dev.items()}
  config = dataclasses.replace(
    plan.config,
    model=dataclasses.replace(plan.config.model, head_init='linear_probe'),
    plan=dataclasses.replace(plan.config.plan, baselines=False),
  )
  plan = dataclasses.replace(plan, config=config)
  remaining = remaining_lib.count_remaining(plan, plan.runs, plan.runs)
  # The encoder is random, so each seed has probes of its own, which the
  # multi-task run shares. Seed 0 of one task has a checkpoint.
  remaining[0] = dataclasses.replace(remaining[0], done=2)
  assert remaining_lib.list_probes(plan, remaining[:1]) == []
  probed = [probe.task for probe in remaining_lib.list_probes(plan, remaining)]
  assert sorted(probed) == 2 * [_SENTIMENT] + 2 * [_SIMILARITY]


def test_baselines_take_time_when_nothing_is_left_to_train(
  tiny_plan, tmp_path, monkeypatch
):
  plan = tiny_plan(tmp_path, variants=('single',), **{'plan.baselines': True})
  record = {'steps': 4}
  monkeypatch.setattr(plan_lib.Plan, 'read_record', lambda self, run: record)
  estimate.estimate(plan)
  told = json.loads((tmp_path / estimate.FILE).read_text())
  assert told['runs'] == []
  by_task = told['measured']['linear_probes']
  assert list(by_task) == [_SENTIMENT, _SIMILARITY]
  probes = sum(by_task.values())
  assert told['phases']['linear probes'] == pytest.approx(probes)
  assert probes > 0


def test_checkpoints_take_what_is_kept_of_them(plan, told):
  kept = told['measured']['params_bytes']
  # A third of the state are parameters, compressed, as little as noise can be.
  state = memory_lib.state_bytes(plan.setup.programs)
  assert 0.8 < 3 * kept / state < 1.2
  assert told['disk']['checkpoints'] == 24 * kept


@pytest.mark.parametrize('epochs', [0.5, 3.0])
def test_steps_follow_from_the_rows(tiny_plan, tmp_path, monkeypatch, epochs):
  plan = tiny_plan(
    tmp_path,
    variants=('single', 'multi'),
    **{
      'single.max_steps': 0,
      'single.epochs': epochs,
      'multi.max_steps': 0,
      'multi.epochs': epochs,
      'multi.batch_size': 24,
    },
  )
  train.prepare(plan)
  monkeypatch.setattr(plan_lib.Plan, 'latest_step', lambda self, run: 3)
  works = remaining_lib.count_remaining(plan, plan.runs, plan.runs[1:])
  # The first run is finished, and teaches nobody.
  assert [work.run.name for work in works] == [
    f'single-s0-{_SIMILARITY}', 'multi-s0',
  ]  # fmt: skip
  single, multi = works
  assert single.steps == int(epochs * _rows(_SIMILARITY) / 16)
  assert single.examples == (single.steps - 3) * 16
  rows = _rows(_SENTIMENT) + _rows(_SIMILARITY)
  assert multi.steps == int(epochs * rows / 24)
  assert multi.examples == (multi.steps - 3) * 24


def test_a_finished_teacher_has_labels_left(plan, told, monkeypatch):
  todo = [run for run in plan.runs if run.variant == 'single_to_multi']
  monkeypatch.setattr(
    remaining_lib,
    'has_logits',
    lambda plan, run, task, split: task == _SENTIMENT,
  )
  works = remaining_lib.count_remaining(plan, plan.runs, todo)
  teachers = [work for work in works if work.is_trained]
  left = ((_SIMILARITY, 'train'),)
  assert [work.labels for work in teachers] == [left] * 8
  assert {work.left for work in teachers} == {0}


@pytest.mark.parametrize('learnt', [True, False])
def test_rows_without_labels_are_left_to_label_where_somebody_learns_them(
  tiny_plan, tmp_path, monkeypatch, learnt
):
  """The sets of the training rows are there, and those of the others not."""
  (tmp_path / 'more.jsonl').write_text('{"text": "a lovely dinner"}\n')
  plan = tiny_plan(
    tmp_path / 'work',
    variants=('single_to_multi',),
    **{
      'data.dir': str(tmp_path),
      'data.unlabelled': (f'{_SENTIMENT}=more.jsonl',),
      'distill.unlabelled': learnt,
    },
  )
  train.prepare(plan)
  monkeypatch.setattr(
    remaining_lib, 'has_logits', lambda plan, run, task, split: split == 'train'
  )
  works = remaining_lib.count_remaining(plan, plan.runs, plan.runs[-1:])
  expected = [((_SENTIMENT, 'unlabelled'),)] if learnt else []
  assert [work.labels for work in works if work.is_trained] == expected


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'distill.logits': '/nowhere'}, 'config.distill.logits: /nowhere: is no'),
    (
      {
        'distill.unlabelled': False,
        'data.unlabelled': (f'{_SENTIMENT}=x.tsv',),
      },
      'config.data.unlabelled: none of the variants single_to_multi learns',
    ),
  ],
  ids=['no-logits', 'no-student'],
)
def test_what_the_run_would_refuse_is_refused_before_it(
  tiny_plan, tmp_path, changes, message
):
  plan = tiny_plan(tmp_path, variants=('single_to_multi',), **changes)
  with pytest.raises(errors.UserError, match=message):
    estimate.estimate(plan)


@pytest.mark.parametrize('number', [1, 2, 3])
@pytest.mark.parametrize('swapped', [False, True], ids=['plain', 'swapped'])
def test_a_fold_is_left_out_of_the_steps(tiny_plan, tmp_path, number, swapped):
  """Oracle: the division of the uids itself."""
  plan = tiny_plan(
    tmp_path,
    **{
      'single.max_steps': 0,
      'single.batch_size': 1,
      'single.epochs': 1.0,
      'data.swap': (_SIMILARITY,) if swapped else (),
    },
  )
  train.prepare(plan)
  run = next(run for run in plan.runs if run.tasks == (_SIMILARITY,))
  run = dataclasses.replace(run, fold=folds.Fold(number, 3, seed=5))
  columns = plan.features[_SIMILARITY]['train']
  kept = folds.split(columns.uids, run.fold)[0]
  found = plan.data.num_steps(run)
  assert found == len(kept) != len(columns)
  single = dataclasses.replace(run.config.single, min_passes=1.5)
  config = dataclasses.replace(run.config, single=single)
  found = plan.data.num_steps(dataclasses.replace(run, config=config))
  assert found == math.ceil(1.5 * len(kept))


@pytest.mark.parametrize(
  ('every', 'done', 'dues'),
  [(0, 0, 0), (5, 0, 3), (5, 10, 1), (5, 11, 1), (7, 0, 2), (30, 0, 0)],
)
def test_what_is_due_before_the_last_step(plan, every, done, dues):
  """Of 20 steps; what is due at the end counts by itself."""
  left = remaining_lib.Remaining(plan.runs[0], 20, done, ())
  assert len(left.steps_due(every)) == dues


def test_a_finished_plan_leaves_nothing(plan, told, monkeypatch):
  record = {'steps': 4}
  monkeypatch.setattr(plan_lib.Plan, 'read_record', lambda self, run: record)
  monkeypatch.setattr(remaining_lib, 'has_logits', lambda *arguments: True)
  estimate.estimate(plan)
  told = json.loads((plan.workspace.root / estimate.FILE).read_text())
  assert told == {'seconds': 0, 'runs': []}


@pytest.mark.parametrize('taken', [96, 95])
def test_a_plan_logs_its_time_beside_the_estimate_of_the_same_steps(
  plan, told, monkeypatch, caplog, taken
):
  phase = phases.Phases(iter([0, 70]).__next__)
  phase.steps = taken
  monkeypatch.setattr(phases, 'phase', phase)
  found = {'steps': 96, 'phases': {'training': 59.6, 'report': 1}}
  (plan.workspace.root / estimate.FILE).write_text(json.dumps(found))
  with caplog.at_level(logging.INFO):
    estimate.log_time(plan)
  lines = [record.getMessage() for record in caplog.records]
  expected = ['took 1m 10s: start 1m 10s']
  if taken == 96:
    expected.append('estimated 1m 01s: training 1m 00s, report 1s')
  assert lines == expected


def test_a_run_says_how_many_steps_are_left(tiny_plan, tmp_path, caplog):
  plan = tiny_plan(tmp_path, variants=('multi',))
  with caplog.at_level(logging.INFO):
    train.run(plan)
    train.run(plan)
  lines = [r.getMessage() for r in caplog.records if 'to train' in r.message]
  assert lines == [
    '1 runs: 0 finished, 1 to train, 4 steps with seed 0',
    '1 runs: 1 finished, 0 to train, 0 steps',
  ]
  (warning,) = [r for r in caplog.records if 'fewer than 50' in r.message]
  assert warning.levelno == logging.WARNING
  assert warning.getMessage().startswith('multi: fewer than 50 training steps')
