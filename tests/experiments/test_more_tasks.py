"""Tasks that are added to a work directory: what stays, and what is trained.

Oracles: the files of the finished runs, and the logits that they wrote when
their model had other tasks.
"""

import json
import logging
from pathlib import Path
import shutil

import numpy as np
import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import schema
from bam_jax.estimate import command as estimate
from bam_jax.experiments import export
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import predict
from bam_jax.experiments import records
from bam_jax.experiments import report
from bam_jax.experiments import train
from bam_jax.training import moved_heads
from bam_jax.training import setup as setup_lib
from tests.configs import tiny

_CLASSES, _PAIRS, _NEW = 'demo_sentiment', 'demo_similarity', 'colour'
_BEFORE = (_CLASSES, _PAIRS)
# The new head is wider than the others, and comes first.
_AFTER = (_NEW, _PAIRS, _CLASSES)
_COLOURS = ('red', 'green', 'blue')
_SETTINGS = {
  'model.pooling': 'mean',
  'data.bi_encoder': (_PAIRS,),
  'variants': ('multi', 'single_to_multi', 'single_of_multi'),
  'single.max_steps': 4,
  'multi.max_steps': 4,
  'train.checkpoint_every': 0,
  'mesh.data': 1,
}


# By tasks, and those that are read by a bi-encoder.
_setups: dict[tuple, setup_lib.Setup] = {}


def _plan(workdir: Path, tasks, **changes) -> plan_lib.Plan:
  config = tiny.get_config()
  config.custom_variants.single_of_multi = config_lib.custom_variant(
    'single_to_single', teacher='multi'
  )
  if _NEW in tasks:
    rows = [f'a thing that is {c} {i}\t{c}' for i in range(9) for c in _COLOURS]
    text = '\n'.join(['text\tlabel', *rows]) + '\n'
    for name in ('train', 'dev'):
      workdir.with_name(f'{name}.tsv').write_text(text)
    config.custom_tasks[_NEW] = config_lib.custom_task(
      labels=_COLOURS,
      text=('text',),
      train=str(workdir.with_name('train.tsv')),
      dev=str(workdir.with_name('dev.tsv')),
    )
  changes = _SETTINGS | {'tasks': tasks} | changes
  config.update_from_flattened_dict(changes)
  config = config_lib.from_config_dict(config)
  key = config.tasks, config.data.bi_encoder
  plan = plan_lib.make_plan(config, workdir, setup=_setups.get(key))
  _setups[key] = plan.setup
  return plan


@pytest.fixture(scope='module')
def finished(tmp_path_factory) -> Path:
  """The work directory of a finished plan of two tasks."""
  workdir = tmp_path_factory.mktemp('two') / 'work'
  train.run(_plan(workdir, _BEFORE))
  return workdir


@pytest.fixture
def workdir(finished, tmp_path) -> Path:
  return Path(shutil.copytree(finished, tmp_path / 'work'))


def _contents(workdir: Path) -> dict[str, bytes]:
  """Path -> content of all files of runs and of teachers' logits."""
  return {
    str(path.relative_to(workdir)): path.read_bytes()
    for folder in ('runs', 'teachers')
    for path in sorted((workdir / folder).rglob('*'))
    if path.is_file()
  }


def test_runs_of_other_tasks_are_kept_and_the_others_trained(
  workdir, trained, caplog
):
  before = _contents(workdir)
  plan = _plan(workdir, _AFTER)
  estimate.estimate(plan)
  told = json.loads((workdir / estimate.FILE).read_text())
  with caplog.at_level(logging.INFO):
    train.run(plan)
  listed = f'2 finished, 6 to train, 24 steps: {", ".join(trained)}'
  assert listed in caplog.text
  digest = schema.digest(_AFTER)[:8]
  new = [
    f'multi-s0-{digest}',
    f'single-s0-{_NEW}',
    f'single_to_multi-s0-{digest}',
    *(f'single_of_multi-s0-{name}-{digest}' for name in _AFTER),
  ]
  assert sorted(trained) == sorted(new)
  assert sorted(run['name'] for run in told['runs']) == sorted(new)
  after = _contents(workdir)
  assert {name: after[name] for name in before} == before
  found = json.loads((workdir / 'report.json').read_text())
  for variant in _SETTINGS['variants']:
    assert {*found['variants'][variant]['tasks']} == {*_AFTER}
  # The student learns the kept logits of its old teachers.
  identity = plan.workspace.identity(f'single_to_multi-s0-{digest}')
  for name in _BEFORE:
    teacher = plan.workspace.identity(f'single-s0-{name}')
    assert identity[f'teacher.single-s0-{name}'] == schema.digest(teacher)

  # Again, and with the tasks of before, nothing is trained.
  trained.clear()
  train.run(_plan(workdir, _AFTER))
  train.run(_plan(workdir, _BEFORE))
  assert trained == []
  found = json.loads((workdir / 'report.json').read_text())
  assert {*found['variants']['multi']['tasks']} == {*_BEFORE}


def test_a_checkpoint_of_other_tasks_has_the_same_logits(workdir):
  """`evaluate` computes them from checkpoints of [2, D, 2] heads."""
  plan = _plan(workdir, _AFTER, variants=('single',))
  names = {name: f'single-s0-{name}' for name in _BEFORE}
  before = {n: dict(np.load(plan.workspace.outputs(n))) for n in names.values()}
  train.evaluate(plan)
  for task, name in names.items():
    after = np.load(plan.workspace.outputs(name))
    key = f'{task}/dev/logits'
    assert np.ptp(before[name][key]) > 0
    np.testing.assert_allclose(after[key], before[name][key], atol=1e-5)
    kept = plan.restore_params(name)['heads']
    head = plan.tasks.index[task]
    others = np.delete(np.asarray(kept['kernel']), head, axis=0)
    assert not others.any()


def test_heads_of_pairs_that_are_not_known_are_refused():
  tasks = _plan(Path('unused'), _BEFORE).tasks
  tables = {
    'kernel': np.zeros((3, 4, 2)),
    'bias': np.zeros((3, 2)),
    'pair_kernel': np.zeros((2, 12, 2)),
  }
  with pytest.raises(
    errors.UserError,
    match=r'config\.tasks: the checkpoint of demo_similarity has heads of other'
    ' pair tasks; use the tasks that it was trained with, gone, demo_',
  ):
    moved_heads.move(tables, tables, tasks, ('gone', *_BEFORE), [_PAIRS])


@pytest.mark.fault
def test_a_run_that_was_interrupted_is_not_begun_again(tmp_path, trained):
  """Before its first checkpoint it is; after it, the user decides."""
  workdir, name = tmp_path / 'work', f'single-s0-{_CLASSES}'
  settings = {'variants': ('single',), 'data.bi_encoder': ()}
  plan = _plan(workdir, _BEFORE, **settings)
  plan.open_runs(plan.runs)
  train.run(_plan(workdir, _BEFORE[:1], **settings))
  assert trained == [name]
  assert plan.workspace.identity(name)['config.tasks'] == [_CLASSES]
  # As after a stop at its last step.
  (workdir / 'runs' / name / 'DONE').unlink()
  with pytest.raises(
    errors.UserError,
    match=rf'runs/{name}: was interrupted when config.tasks was {_CLASSES};'
    ' finish it with these tasks first, or remove that folder to start it a',
  ):
    train.run(_plan(workdir, _BEFORE, **settings))
  train.run(_plan(workdir, _BEFORE[:1], **settings))
  trained.clear()
  train.run(_plan(workdir, _BEFORE, **settings))
  assert trained == [f'single-s0-{_PAIRS}']


def test_before_they_are_trained_new_tasks_are_not_reported(workdir):
  report.report(_plan(workdir, _AFTER, variants=('single', 'multi')))
  found = json.loads((workdir / 'report.json').read_text())
  assert {*found['variants']['single']['tasks']} == {*_BEFORE}
  assert found['variants']['multi']['tasks'] == {}


def _dev_outputs(plan: plan_lib.Plan, run):
  """The dev outputs and scores of a run, from its outputs.npz."""
  arrays = np.load(plan.workspace.outputs(run.name))
  outputs = {'mood': {'dev': arrays['mood/dev/logits']}}
  return outputs, plan.read_record(run)['scores']


def test_other_metrics_are_computed_from_kept_outputs(tmp_path, trained):
  """Oracle: the same metrics, when they were those of the training."""

  def plan(metrics, setup=None, **changes):
    config = tiny.get_config()
    config.update_from_flattened_dict(
      _SETTINGS
      | {
        'tasks': ('mood',),
        'data.bi_encoder': (),
        'variants': ('single', 'multi'),
      }
    )
    config.custom_tasks.mood = config_lib.custom_task(
      labels=('down', 'up'),
      text=('text',),
      train=str(tmp_path / 'train.tsv'),
      dev=str(tmp_path / 'train.tsv'),
      metrics=metrics,
    )
    config.update_from_flattened_dict(changes)
    workdir = tmp_path / f'work{changes.get("train.evaluate_every", 0)}'
    config = config_lib.from_config_dict(config)
    return plan_lib.make_plan(config, workdir, setup=setup)

  rows = [
    f'a film {i} that is {w}\t{w}' for i in range(9) for w in ('up', 'down')
  ]
  text = '\n'.join(['text\tlabel', *rows, 'no\tdown']) + '\n'
  (tmp_path / 'train.tsv').write_text(text)
  first = plan(('accuracy', 'f1'))
  train.run(first)
  before = [first.read_record(run)['scores'] for run in first.runs]
  assert len(trained) == 2
  kept = _contents(tmp_path / 'work0')
  for metrics in (('f1',), ('f1', 'accuracy'), ('matthews',)):
    again = plan(metrics)
    train.run(again)
    for run, old in zip(again.runs, before):
      record = again.read_record(run)
      (scores,) = record['scores']['mood'].values()
      assert {*scores} == {*metrics}
      assert {
        k: old['mood']['dev'].get(k, scores[k]) for k in metrics
      } == scores
      is_defined = not np.isnan(list(scores.values())).any()
      assert is_defined or 'matthews' in record['undefined']['mood']['dev']
    found = json.loads((tmp_path / 'work0' / 'report.json').read_text())
    assert {*found['variants']['single']['tasks']['mood']} == {*metrics}
  assert len(trained) == 2
  assert _contents(tmp_path / 'work0') == kept

  # So are a temperature and a threshold; the record stays as it was.
  changes = {
    'decisions.temperature': True,
    'decisions.thresholds': ('mood=f1',),
  }
  decided = plan(('accuracy', 'f1'), **changes)
  report.report(decided)
  found = json.loads((tmp_path / 'work0' / 'report.json').read_text())
  assert {*found['decisions']['mood']} == {'single', 'multi'}
  assert len(trained) == 2 and _contents(tmp_path / 'work0') == kept
  (run,) = (run for run in decided.runs if run.name == 'multi-s0')
  task = decided.decided_tasks(run)['mood']
  record = decided.read_record(run)
  assert task.threshold == record['decisions']['mood']['threshold']
  assert predict.load_model(decided, 'multi-s0').tasks['mood'] == task
  export.export(decided, 'multi-s0')
  folder = tmp_path / 'work0' / 'exports' / 'multi-s0' / 'mood'
  exported = json.loads((folder / 'config.json').read_text())
  assert exported['decision'] == {
    'temperature': task.temperature,
    'threshold': task.threshold,
  }
  card = (folder / 'README.md').read_text()
  assert f'probs = (logits / {task.temperature}).softmax(-1)' in card
  assert 'mood: the expected calibration error is' in card
  # Trained with it, a run keeps it in its record.
  records.save_outputs(decided, run, record, *_dev_outputs(decided, run))
  assert decided.workspace.read_record(run.name)['decisions'] == {
    'mood': record['decisions']['mood']
  }
  decided.workspace.write_record(run.name, {**record, 'best_step': 2})
  with pytest.raises(
    errors.UserError,
    match=r'config\.decisions: multi-s0 predicts with its best step, 2, but',
  ):
    predict.load_model(decided, 'multi-s0')

  (tmp_path / 'work0' / 'runs' / 'multi-s0' / 'outputs.npz').unlink()
  with pytest.raises(
    errors.UserError,
    match=r'multi-s0: was scored by accuracy, f1, not by f1, and runs/multi-s0'
    r'/outputs\.npz is missing; restore the metrics of mood and run --mode=e',
  ):
    report.report(plan(('f1',)))

  # The first metric chooses the best checkpoint.
  every = {'train.evaluate_every': 2}
  train.run(plan(('accuracy', 'f1'), first.setup, **every))
  report.report(plan(('accuracy',), **every))
  with pytest.raises(errors.UserError, match=r'mood\.metrics was .* is .\'f1'):
    report.report(plan(('f1',), **every))
