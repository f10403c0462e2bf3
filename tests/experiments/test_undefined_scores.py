"""Scores that gold labels leave undefined, from a run to its report."""

import dataclasses
import json
import logging
import math
from pathlib import Path

import pytest

from bam_jax import files
from bam_jax.doctor import command as doctor
from bam_jax.experiments import export
from bam_jax.experiments import report as report_lib
from bam_jax.experiments import train
from bam_jax.experiments import workspace as workspace_lib
from bam_jax.tasks import demo

_RUN, _OTHER = 'single-s0-demo_similarity', 'single-s0-demo_sentiment'
_METRICS = demo.TASKS['demo_similarity'].metrics
_ALIKE = 'all gold labels are equal'


def _generate(task_name, split, rows=None):
  """The demo, in which all similarities of dev rows are 2.5."""
  rows = _GENERATE(task_name, split, rows)
  if (task_name, split) == ('demo_similarity', 'dev'):
    return [row._replace(label=2.5) for row in rows]
  return rows


_GENERATE = demo.generate


@pytest.fixture(scope='module', autouse=True)
def alike():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(demo, 'generate', _generate)
    yield


@pytest.fixture(scope='module')
def finished(alike, tiny_plan, tmp_path_factory):
  """A work directory, what was logged, and the plan."""
  logged = []
  handler = logging.Handler(logging.WARNING)
  handler.emit = lambda record: logged.append(record.getMessage())
  logging.getLogger().addHandler(handler)
  workdir = tmp_path_factory.mktemp('undefined')
  plan = tiny_plan(workdir, variants=('single',), **{'train.evaluate_every': 2})
  train.run(plan)
  export.export(plan, None)
  logging.getLogger().removeHandler(handler)
  return workdir, logged, plan


def _strict(path: Path) -> dict:
  """JSON without NaN, which only Python reads."""
  return json.loads(path.read_text(), parse_constant=pytest.fail)


def test_it_is_null_with_its_reason_in_record_and_log(finished):
  workdir, logged, _ = finished
  record = _strict(workdir / 'runs' / _RUN / 'DONE')
  scores = {'demo_similarity': {'dev': dict.fromkeys(_METRICS)}}
  assert record['scores'] == scores
  reasons = dict.fromkeys(_METRICS, _ALIKE)
  assert record['undefined'] == {'demo_similarity': {'dev': reasons}}
  assert [
    f'{_RUN}: {metric} of demo_similarity on dev is undefined: {_ALIKE}'
    for metric in _METRICS
  ] == [line for line in logged if 'undefined' in line]
  lines = (workdir / 'runs' / _RUN / 'metrics.jsonl').read_text().splitlines()
  scores = [json.loads(line) for line in lines if 'dev_score' in line]
  assert [line['dev_score'] for line in scores] == [None, None]
  other = _strict(workdir / 'runs' / _OTHER / 'DONE')
  assert other['undefined'] == {}
  assert other['scores']['demo_sentiment']['dev']['accuracy'] > 0


def test_no_checkpoint_is_preferred_for_it(finished):
  workdir, _, _ = finished
  record = _strict(workdir / 'runs' / _RUN / 'DONE')
  # None has a score, so that it is the last one.
  assert record['best_step'] == record['steps'] == 4


def test_it_is_undefined_in_report_and_card(finished):
  workdir, _, _ = finished
  report = _strict(workdir / 'report.json')
  single = report['variants']['single']
  assert single['average'] is None and single['missing'] == {}
  assert single['tasks']['demo_sentiment']['accuracy'] is not None
  assert [found['reason'] for found in report['undefined']] == [_ALIKE] * len(
    _METRICS
  )
  card = workdir / 'exports' / 'single-s0' / 'demo_similarity' / 'README.md'
  line = f'| demo_similarity | dev | pearson | undefined: {_ALIKE} |'
  assert line in card.read_text().splitlines()


def test_an_older_record_is_read(finished, tmp_path):
  """It has 0 for an undefined score, and nothing of reasons."""
  _, _, plan = finished
  record = dict(plan.workspace.read_record(_RUN))
  del record['undefined']
  scores = dict.fromkeys(_METRICS, 0.0) | {'spearman': 40.0}
  record['scores'] = {'demo_similarity': {'dev': scores}}
  older = workspace_lib.Workspace(tmp_path)
  older.open_runs({n: plan.workspace.identity(n) for n in (_RUN, _OTHER)})
  files.write_json(tmp_path / 'runs' / _RUN / 'DONE', record)
  older.write_record(_OTHER, plan.workspace.read_record(_OTHER))
  report_lib.report(dataclasses.replace(plan, workspace=older))
  report = _strict(tmp_path / 'report.json')
  shown = report['variants']['single']['tasks']['demo_similarity']
  assert shown == scores
  assert report['variants']['single']['average'] is not None
  assert report['undefined'] == []


def test_a_record_comes_back_with_its_digest(tmp_path):
  record = {
    'steps': 1,
    'parameters': '',
    'seconds': 0.0,
    'device': '',
    'scores': {'rte': {'dev': {'matthews': math.nan, 'f1': 50.0}}},
  }
  workspace = workspace_lib.Workspace(tmp_path)
  workspace.open_runs({'a': {'run.seed': 0}})
  workspace.write_record('a', record)
  scores = workspace.read_record('a')['scores']['rte']['dev']
  assert math.isnan(scores['matthews']) and scores['f1'] == 50.0


def test_the_doctor_warns_before_a_run(finished, tmp_path, capsys):
  _, _, plan = finished
  assert doctor.run(plan.config, tmp_path) == 1
  names = ' and '.join(_METRICS)
  found = _strict(tmp_path / 'doctor.json')['findings']
  (metric,) = [f for f in found if f['check'] == 'metric']
  assert (metric['severity'], metric['split']) == ('warning', 'dev')
  assert metric['what'].startswith(
    f'all gold labels are alike, so {names} cannot be measured'
  )
  assert names in (tmp_path / 'doctor.md').read_text()
  assert names in ' '.join(capsys.readouterr().out.split())
