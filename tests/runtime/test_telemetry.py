"""Telemetry; the oracles are hand-written lines and numbers."""

import json
import math
import pathlib
import re
import subprocess
import sys

import pytest

from bam_jax import errors
from bam_jax.runtime import telemetry


def _lines(directory):
  return (directory / telemetry.METRICS_FILE).read_text().splitlines()


def _events(directory):
  """(step, tag, value) and purge markers, parsed with tensorboardX's protos."""
  from tensorboardX.proto import event_pb2

  events = []
  for path in sorted((directory / 'tensorboard').iterdir()):
    data, place = path.read_bytes(), 0
    while place < len(data):
      size = int.from_bytes(data[place : place + 8], 'little')
      event = event_pb2.Event.FromString(data[place + 12 : place + 12 + size])
      place += 16 + size
      if event.HasField('session_log'):
        events.append(('purge', event.step))
      events += [
        (event.step, v.tag, v.simple_value) for v in event.summary.value
      ]
  return events


def test_write_appends_one_json_line(tmp_path):
  with telemetry.Telemetry(tmp_path / 'new', False, 'r') as log:
    log.write(50, {'loss': 0.5, 'loss/rte': 0.25})
    log.write(100, {'loss': 0.4})
  first, second = map(json.loads, _lines(tmp_path / 'new'))
  assert first.pop('time') > 1e9
  assert first == {'step': 50, 'loss': 0.5, 'loss/rte': 0.25}
  assert second['step'] == 100
  assert not (tmp_path / 'new' / 'tensorboard').exists()


def test_nan_is_null_in_the_file_and_nan_when_read(tmp_path):
  with telemetry.Telemetry(tmp_path, False, 'r') as log:
    log.write(1, {'loss': math.nan, 'grad_norm': math.inf, 'x': 1.0})
  assert '"loss": null, "grad_norm": null' in _lines(tmp_path)[0]
  (line,) = telemetry.read(tmp_path / telemetry.METRICS_FILE)
  assert math.isnan(line['loss']) and line['x'] == 1.0


@pytest.mark.parametrize(
  'tail',
  ['', '{"step": 400, "lo', '\0\0\0\0\n', '{"step": 400, "loss": 1}'],
  ids=['whole', 'torn', 'zeros', 'no-newline'],
)
def test_truncate_drops_later_steps_and_a_torn_line(tmp_path, tail):
  path = tmp_path / telemetry.METRICS_FILE
  whole = ''.join(f'{{"step": {s}, "loss": 0.5}}\n' for s in (100, 200, 300))
  path.write_text(whole + tail)
  with telemetry.Telemetry(tmp_path, False, 'r') as log:
    # Opened again, the file is whole even where nothing is truncated.
    assert path.read_text() == whole
    log.truncate(200)
    log.write(200, {'loss': 0.25})
  lines = telemetry.read(path)
  assert [(x['step'], x['loss']) for x in lines] == [(100, 0.5), (200, 0.25)]
  assert sorted(tmp_path.iterdir()) == [path]


def test_truncate_keeps_the_score_of_the_state_it_goes_on_from(tmp_path):
  with telemetry.Telemetry(tmp_path, False, 'r') as log:
    for step in (10, 20):
      log.write(step - 1, {'loss': 0.5})
      log.write(step, {'dev_score': 70.0})
    log.write(10, {'loss': 0.25})
  with telemetry.Telemetry(tmp_path, False, 'r') as log:
    log.truncate(10)
  lines = telemetry.read(tmp_path / telemetry.METRICS_FILE)
  assert [x['step'] for x in lines] == [9, 10]
  assert lines[1]['dev_score'] == 70.0


def test_read_leaves_a_torn_last_line_out(tmp_path):
  path = tmp_path / 'm.jsonl'
  path.write_text('{"step": 1}\n{"st')
  assert telemetry.read(path) == [{'step': 1}]
  assert path.read_text().endswith('{"st'), 'reading changes nothing'


@pytest.mark.parametrize(
  'bad',
  [
    'nonsense',
    '[1]',
    '{"loss": 1}',
    '{"step": 1, "loss": "0.5"}',
    '{"step": 1, "loss": [0.5]}',
    '{"step": 1e999}',
  ],
)
def test_a_broken_line_inside_is_named(tmp_path, bad):
  path = tmp_path / 'm.jsonl'
  path.write_text(f'{{"step": 1}}\n{bad}\n{{"step": 2}}\n')
  with pytest.raises(errors.UserError, match=r'm\.jsonl:2: .*remove the line'):
    telemetry.read(path)


def test_tensorboard_holds_the_scalars_and_purges_on_resume(tmp_path, capsys):
  """Undefined ones are left out; tensorboardX would print a line for each."""
  with telemetry.Telemetry(tmp_path, True, 'multi/0') as log:
    log.write(50, {'loss': 0.5, 'dev_score': math.nan, 'grad_norm': math.inf})
    log.write(100, {'loss': 0.25})
  with telemetry.Telemetry(tmp_path, True, 'multi/0') as log:
    log.truncate(100)
    log.write(100, {'loss': 0.125})
    with pytest.raises(ValueError, match='call truncate before write'):
      log.truncate(50)
  assert all(
    '.multi-0.' in path.name for path in (tmp_path / 'tensorboard').iterdir()
  )
  events = _events(tmp_path)
  assert [e for e in events if e[0] != 'purge'] == [
      (50, 'loss', 0.5), (100, 'loss', 0.25), (100, 'loss', 0.125),
  ]  # fmt: skip
  assert ('purge', 100) in events
  assert capsys.readouterr() == ('', '')


def test_a_log_of_any_size_is_not_read(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  with path.open('wb') as file:
    file.truncate(1 << 40)  # A hole: it takes no room on the disk.
  with pytest.raises(errors.UserError, match=r'metrics.jsonl: is too large fo'):
    telemetry.read(path)


_FULL = """
import pathlib, resource, sys
from bam_jax import errors, files
from bam_jax.runtime import progress as progress_lib
from bam_jax.runtime import telemetry
folder, tensorboard, limit = sys.argv[1:]
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
try:
  with files.report_errors(pathlib.Path(folder)):
    with telemetry.Telemetry(
      pathlib.Path(folder), tensorboard == 'True', 'r'
    ) as log:
      log.write(0, {'x': 0.0})
      resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), hard))
      for step in range(1, 1000):
        log.write(step, {f'{name}': 0.5 for name in range(50)})
except errors.UserError as e:
  print(e)
"""


@pytest.mark.parametrize(
  ('tensorboard', 'limit'),
  [(False, 4096), (True, 4096), (True, 1 << 15)],
  ids=['lines', 'events', 'events-later'],
)
def test_a_disk_that_is_full_is_told_at_once(tmp_path, tensorboard, limit):
  """A limit on the size of files stands for it; fifty values fill any queue."""
  done = subprocess.run(
    [sys.executable, '-c', _FULL, tmp_path, str(tensorboard), str(limit)],
    cwd=pathlib.Path(__file__).parents[2],
    capture_output=True,
    text=True,
    timeout=60,
    check=True,
  )
  assert done.stderr == ''
  assert re.fullmatch(
    rf'{tmp_path}.*: File too large; free some space, and run the same'
    r' command again\n',
    done.stdout,
  )
