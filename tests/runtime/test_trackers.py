"""Runs in W&B (offline) and MLflow (a local database), by the libraries.

Oracle: what the libraries read back. Skipped where they are not installed.
"""

import json
import logging
import math
import struct
import time

import pytest

from bam_jax import errors
from bam_jax.runtime import telemetry
from bam_jax.runtime import trackers

# Of the libraries.
pytestmark = pytest.mark.filterwarnings('ignore')
_SETTINGS = {'train.log_every': 2, 'tasks': ['rte', 'cola'], 'note': ''}


@pytest.fixture(autouse=True)
def local(tmp_path, monkeypatch):
  """Nothing is sent anywhere, and all goes into the folder of the test."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('WANDB_MODE', 'offline')
  monkeypatch.setenv('MLFLOW_TRACKING_URI', f'sqlite:///{tmp_path}/m.db')


def _log(folder, name, *lines, error=None):
  """Writes (step, values) of a run in one tracker, as a process does."""
  opened = trackers.Trackers((name,), folder, 'plan', folder.name, _SETTINGS)
  try:
    with telemetry.Telemetry(folder, False, 'r', trackers=opened) as log:
      for step, values in lines:
        log.write(step, values)
      if error:
        raise error
  except RuntimeError:
    pass


def _mlflow_runs():
  mlflow = pytest.importorskip('mlflow')
  client = mlflow.MlflowClient()
  found = client.get_experiment_by_name('plan')
  return client, client.search_runs([found.experiment_id])


def test_mlflow_goes_on_with_the_run_that_was_stopped(tmp_path):
  pytest.importorskip('mlflow')
  one, other = tmp_path / 'multi-s0', tmp_path / 'multi-s1'
  _log(one, 'mlflow', (2, {'loss/rte': 0.5}), error=RuntimeError('stopped'))
  _, (stopped,) = _mlflow_runs()
  assert stopped.info.status == 'KILLED'
  _log(one, 'mlflow', (4, {'loss/rte': 0.25, 'dev_score': math.nan}))
  _log(other, 'mlflow', (2, {'loss/rte': 2.0}))
  client, runs = _mlflow_runs()
  named = {run.info.run_name: run for run in runs}
  assert named.keys() == {'multi-s0', 'multi-s1'}
  run = named['multi-s0']
  assert run.info.status == 'FINISHED'
  history = client.get_metric_history(run.info.run_id, 'loss/rte')
  assert [(m.step, m.value) for m in history] == [(2, 0.5), (4, 0.25)]
  assert 'dev_score' not in run.data.metrics
  assert run.data.params['tasks'] == "['rte', 'cola']"
  assert run.data.params['train.log_every'] == '2'


def _read_wandb(data):
  """Records of an offline run: LevelDB's log format after seven bytes."""
  from wandb.proto import wandb_internal_pb2

  records, parts, at = [], b'', 7
  while at + 7 <= len(data):
    if 2**15 - at % 2**15 < 7:  # The rest of a block is empty.
      at += 2**15 - at % 2**15
    _, length, part = struct.unpack_from('<IHB', data, at)
    parts += data[at + 7 : at + 7 + length]
    at += 7 + length
    if part in (1, 4):  # All of a record, or its end.
      records.append(wandb_internal_pb2.Record.FromString(parts))
      parts = b''
  return records


def test_wandb_goes_on_with_the_run_that_was_stopped(tmp_path):
  wandb = pytest.importorskip('wandb')
  one, other = tmp_path / 'multi-s0', tmp_path / 'multi-s1'
  _log(one, 'wandb', (2, {'loss/rte': 0.5}), error=RuntimeError('stopped'))
  time.sleep(1.1)  # W&B names an offline run's folder by the second.
  _log(one, 'wandb', (4, {'loss/rte': 0.25, 'dev_score': math.nan}))
  _log(other, 'wandb', (2, {'loss/rte': 2.0}))
  wandb.teardown()  # Waits until its other process has written the files.
  found = []
  for path in sorted(tmp_path.glob('wandb/offline-run-*/*.wandb')):
    records = _read_wandb(path.read_bytes())
    (run,) = (r.run for r in records if r.WhichOneof('record_type') == 'run')
    lines = [
      {
        item.key or '/'.join(item.nested_key): json.loads(item.value_json)
        for item in record.history.item
      }
      for record in records
      if record.WhichOneof('record_type') == 'history'
    ]
    (code,) = (
      r.exit.exit_code for r in records if r.WhichOneof('record_type') == 'exit'
    )
    config = {c.key: json.loads(c.value_json) for c in run.config.update}
    assert config['tasks'] == ['rte', 'cola']
    assert run.project == 'plan'
    (line,) = lines
    assert 'dev_score' not in line
    found.append((run.display_name, run.run_id, line['step'], code))
    assert (
      line['loss/rte'] == {2: 2.0 if code == 0 else 0.5, 4: 0.25}[line['step']]
    )
  names = sorted((name, step, code) for name, _, step, code in found)
  assert names == [
    ('multi-s0', 2, 1), ('multi-s0', 4, 0), ('multi-s1', 2, 0),
  ]  # fmt: skip
  assert len({run_id for _, run_id, *_ in found}) == 2


class _Broken:
  """A tracker whose server has gone."""

  run_id = '1'

  def __init__(self, *unused):
    self.calls = 0

  def write(self, *unused):
    self.calls += 1
    raise ConnectionError('no\nanswer')

  def close(self, is_finished):
    raise AssertionError('was left alone')


def test_one_that_fails_is_left_alone_with_a_warning(
  tmp_path, monkeypatch, caplog
):
  broken = _Broken()
  monkeypatch.setitem(trackers._TRACKERS, 'json', lambda *unused: broken)
  with caplog.at_level(logging.WARNING):
    _log(tmp_path / 'r', 'json', (1, {'x': 1.0}), (2, {'x': 2.0}))
  assert broken.calls == 1
  assert [r.getMessage() for r in caplog.records] == [
    'config.train.trackers=json: failed and receives no more metrics (no'
    ' answer); metrics.jsonl has all of them'
  ]
  lines = telemetry.read(tmp_path / 'r' / telemetry.METRICS_FILE)
  assert [line['x'] for line in lines] == [1.0, 2.0]


def test_a_missing_package_and_a_refusal_are_told_in_one_line(
  tmp_path, monkeypatch
):
  # As W&B's own folder beside a run, which Python would import.
  (tmp_path / 'absent_tracker').mkdir()
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(errors.UserError) as error:
    trackers.check(['absent_tracker'])
  assert str(error.value) == (
    'config.train.trackers: needs the package absent_tracker; pip install'
    " 'bam-jax[absent_tracker]'"
  )

  def refuse(*unused):
    raise ValueError('no key:\nlog in.')

  monkeypatch.setitem(trackers._TRACKERS, 'json', refuse)
  with pytest.raises(errors.UserError) as error:
    _log(tmp_path / 'r', 'json')
  assert str(error.value) == (
    'config.train.trackers=json: no key: log in; set up json, or leave it out'
  )
