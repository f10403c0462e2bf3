"""Runs that end early, on labels that nothing can be learnt from."""

import dataclasses
import json
import math
from pathlib import Path
import signal

import numpy as np
import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import folds
from bam_jax.experiments import export
from bam_jax.experiments import records
from bam_jax.experiments import train
from bam_jax.runtime import preemption
from bam_jax.tasks import demo
from bam_jax.training import evaluate as evaluate_lib
from bam_jax.training import programs as programs_lib

_TASK, _STEPS, _EVERY, _PATIENCE = 'demo_similarity', 60, 2, 3
_FIELDS = {
  'variants': ('mine',),
  'single.max_steps': _STEPS,
  'single.epochs': 1000.0,
  'single.learning_rate': 1e-3,
  'single.patience': _PATIENCE,
  'train.evaluate_every': _EVERY,
  'train.log_every': 4,
}
_OWN = {'mine': {'like': 'single', 'tasks': (_TASK,)}}
_RUN = f'mine-s0-{_TASK}'
_CLOCK = ('time', 'examples_per_second', 'waiting_for_batch')


@pytest.fixture(scope='module', autouse=True)
def drawn_labels():
  """The labels of training rows are random: a run can only overfit."""
  generate = demo.generate

  def relabelled(task_name, split, rows=None):
    found = generate(task_name, split, rows)
    if split != 'train':
      return found
    drawn = np.random.default_rng(0).permutation([row.label for row in found])
    return [row._replace(label=float(y)) for row, y in zip(found, drawn)]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(demo, 'generate', relabelled)
    yield


@pytest.fixture
def plan(tiny_plan):
  return lambda workdir, **fields: tiny_plan(workdir, _OWN, **_FIELDS, **fields)


@pytest.fixture(scope='module')
def finished(tiny_plan, tmp_path_factory):
  plan = tiny_plan(tmp_path_factory.mktemp('patience'), _OWN, **_FIELDS)
  train.run(plan)
  return plan


def _lines(workdir: Path, run: str = _RUN) -> list[dict]:
  lines = (workdir / 'runs' / run / 'metrics.jsonl').read_text().splitlines()
  return [
    {key: value for key, value in json.loads(line).items() if key not in _CLOCK}
    for line in lines
  ]


def _assert_ended(plan, run: str) -> dict:
  """Checks the end of a run against a loop over its curve; its record."""
  record = plan.workspace.read_record(run)
  lines = _lines(plan.workspace.root, run)
  curve = [
    (line['step'], line['held_out_score'])
    for line in lines
    if 'held_out_score' in line
  ]
  best, waited = -math.inf, 0
  for step, score in curve:
    waited = 0 if score > best else waited + 1
    best = max(best, score)
    if waited == _PATIENCE:
      assert step == curve[-1][0]
      break
  assert [step for step, _ in curve] == [*range(_EVERY, step + 1, _EVERY)]
  assert record['stopped_at'] == step < _STEPS
  assert max(line['step'] for line in lines) == step
  assert lines[-1] == {
    'step': step,
    'dev_score': record['scores'][_TASK]['dev']['pearson'],
  }
  highest = np.flatnonzero(np.array(curve)[:, 1] == best)
  assert record['best_step'] == curve[highest[0]][0]
  return record


def test_a_run_ends_where_a_loop_over_its_curve_does(finished):
  record = _assert_ended(finished, _RUN)
  assert record['steps'] == record['best_step'] < record['stopped_at']


def test_everything_speaks_of_the_best_step(finished):
  """Oracles: the parameters that each reader gets, and their dev outputs."""
  record, root = finished.workspace.read_record(_RUN), finished.workspace.root
  for best in (False, True):
    params = finished.restore_params(_RUN, best)
    assert records.parameters_digest(params) == record['parameters']
  outputs = (root / 'runs' / _RUN / 'outputs.npz').read_bytes()
  train.evaluate(finished)
  assert (root / 'runs' / _RUN / 'outputs.npz').read_bytes() == outputs
  assert finished.workspace.read_record(_RUN)['scores'] == record['scores']
  report = (root / 'report.md').read_text()
  assert (
    'with patience, at the step that is best on held-out training rows'
    in report
  )
  assert f'not on dev: mine {record["steps"]}' in report
  export.export(finished, None)
  card = (root / 'exports' / 'mine-s0' / _TASK / 'README.md').read_text()
  assert 'of the exported step, which was chosen' in card


@pytest.mark.parametrize(
  'fold', [None, folds.Fold(1, 4, seed=3), folds.HeldOut(0.2, 50)], ids=str
)
def test_a_run_is_trained_on_no_row_that_chooses_its_step(finished, fold):
  """Nor does such a row lie in the fold that it labels or is scored on."""
  run = dataclasses.replace(finished.runs[0], fold=fold)
  spec = finished.data.make_spec(run, finished.packing)
  rows = finished.features[_TASK]['train']
  division = finished.data._divide(run, _TASK)
  np.testing.assert_array_equal(
    np.sort(np.concatenate(division)), np.arange(len(rows))
  )
  chosen = {rows.uids[row] for row in division.held_out}
  assert chosen == set(spec.choosing[_TASK]['held_out'].uids)
  assert len(chosen) == (len(rows) - len(division.fold)) // 10
  drawn = [spec.batches._sampler(step)[1] for step in range(_STEPS)]
  assert set(np.concatenate(drawn)) == set(division.kept)


def test_the_step_is_chosen_on_those_rows(finished):
  """Oracle: the score of the chosen parameters, computed anew."""
  (run,) = finished.runs
  _, scores = evaluate_lib.evaluate(
    finished.setup.programs,
    finished.restore_params(run.name),
    finished.data.choosing_splits(run),
    finished.packing,
  )
  curve = [
    line.get('held_out_score', -math.inf)
    for line in _lines(finished.workspace.root)
  ]
  assert scores[_TASK]['held_out']['pearson'] == max(curve)


def test_an_interrupted_run_ends_bit_equal(
  finished, plan, tmp_path, monkeypatch
):
  """Stopped or killed at each fifth step, and before its record is written."""
  train_step, save_outputs = (
    programs_lib.Programs.train_step,
    records.save_outputs,
  )
  calls = []

  def interrupted(self, state, *arguments):
    calls.append(int(state.step))
    if len(calls) % 5 == 0:
      if len(calls) % 2:
        raise preemption.Preempted(signal.SIGTERM, 75)
      raise RuntimeError('killed')
    return train_step(self, state, *arguments)

  def killed(*arguments):
    monkeypatch.setattr(records, 'save_outputs', save_outputs)
    raise RuntimeError('killed')

  monkeypatch.setattr(programs_lib.Programs, 'train_step', interrupted)
  monkeypatch.setattr(records, 'save_outputs', killed)
  again, interruptions = plan(tmp_path), 0
  while again.workspace.read_record(_RUN) is None:
    try:
      train.train_runs(again, again.runs)
    except (preemption.Preempted, RuntimeError):
      interruptions += 1
  assert interruptions > 2
  ours, theirs = (p.workspace.read_record(_RUN) for p in (again, finished))
  for key in ('steps', 'best_step', 'stopped_at', 'parameters', 'scores'):
    assert ours[key] == theirs[key]
  assert _lines(tmp_path) == _lines(finished.workspace.root)


@pytest.fixture(scope='module')
def two_seeds(tiny_plan, tmp_path_factory):
  """A plan of two seeds at once, of which one ends earlier, and its steps."""
  fields = {'seeds': (0, 1), 'train.seeds_at_once': 2, **_FIELDS}
  root = tmp_path_factory.mktemp('seeds')

  def make(name):
    return tiny_plan(root / name, _OWN, **fields)

  plan, taken = make('whole'), []
  train_step = programs_lib.Programs.train_step

  def counted(self, state, *arguments):
    taken.append(np.ravel(state.step)[0])
    return train_step(self, state, *arguments)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(programs_lib.Programs, 'train_step', counted)
    train.train_runs(plan, plan.runs)
  return plan, make, taken


def test_a_seed_that_has_ended_waits_for_the_others(two_seeds, finished):
  """The program takes no step after the last of them has ended."""
  plan, _, taken = two_seeds
  first, second = (_assert_ended(plan, run.name) for run in plan.runs)
  assert first['stopped_at'] != second['stopped_at']
  last = max(first['stopped_at'], second['stopped_at'])
  assert taken == [*range(last)]
  assert first['seeds_at_once'] == second['seeds_at_once'] == 2
  for run, record in zip(plan.runs, (first, second)):
    params = plan.restore_params(run.name)
    assert records.parameters_digest(params) == record['parameters']
  alone = finished.workspace.read_record(_RUN)
  assert first['stopped_at'] == alone['stopped_at']
  score, expected = (
    r['scores'][_TASK]['dev']['pearson'] for r in (first, alone)
  )
  assert abs(score - expected) < 0.05


@pytest.mark.fault
def test_an_interruption_leaves_an_ended_seed_alone(two_seeds, monkeypatch):
  plan, make, _ = two_seeds
  again, train_step = make('again'), programs_lib.Programs.train_step
  first, second = sorted(
    (run.name for run in plan.runs),
    key=lambda name: plan.workspace.read_record(name)['stopped_at'],
  )
  expected = plan.workspace.read_record(first)
  end = expected['stopped_at']

  def stopped(self, state, *arguments):
    if int(np.ravel(state.step)[0]) == end + 1:
      raise preemption.Preempted(signal.SIGTERM, 75)
    return train_step(self, state, *arguments)

  with monkeypatch.context() as patch, pytest.raises(preemption.Preempted):
    patch.setattr(programs_lib.Programs, 'train_step', stopped)
    train.train_runs(again, again.runs)
  latest = {run.name: again.latest_step(run) for run in again.runs}
  assert latest == {first: end, second: end + 1}
  train.train_runs(again, again.runs)
  record = _assert_ended(again, first)
  for key in ('best_step', 'stopped_at', 'parameters', 'scores'):
    assert record[key] == expected[key]
  logs = (_lines(p.workspace.root, first) for p in (again, plan))
  assert next(logs) == next(logs)
  _assert_ended(again, second)


@pytest.mark.parametrize(
  ('fields', 'said'),
  [
    (
      {'single.patience': 2},
      r'config\.single\.patience=2: counts evaluations, but single is',
    ),
    (
      {'multi.patience': 2, 'train.evaluate_every': 5},
      r'config\.multi\.patience=2: multi_to_multi is taught, and .*; remove',
    ),
  ],
  ids=['no-evaluations', 'taught'],
)
def test_patience_that_has_no_meaning_is_refused(fields, said):
  config = config_lib.default_config()
  config.tasks = ('rte', 'mrpc')
  config.update_from_flattened_dict(fields)
  with pytest.raises(errors.UserError, match=f'^{said}'):
    config_lib.from_config_dict(config)
  config.update_from_flattened_dict(
    {'train.evaluate_every': 5, 'distill.annealing': 'constant'}
  )
  config_lib.from_config_dict(config)
