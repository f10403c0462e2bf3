"""Texts of a user's own, in files and over HTTP, on a finished plan.

Oracle: `predict` on the same rows as a split of the task, another code path up
to the packing.
"""

import io
import json
import re
import signal
import sys
import urllib.request

import pytest

from bam_jax.experiments import predict
from bam_jax.experiments import train
from bam_jax.inference import own_file
from bam_jax.storage import lock
from bam_jax.tasks import demo
from tests.experiments import commands

_GROUP = 'single_to_multi-s0'
_TASK, _PAIRS = 'demo_sentiment', 'demo_similarity'


# What `tiny_plan` changes of the configuration.
_FLAGS = (
  '--config.single.max_steps=4',
  '--config.multi.max_steps=4',
  '--config.train.checkpoint_every=0',
)


@pytest.fixture(scope='module')
def plan(tiny_plan, tmp_path_factory):
  made = tiny_plan(
    tmp_path_factory.mktemp('own_texts'), variants=('single_to_multi',)
  )
  train.run(made)
  return made


@pytest.fixture(scope='module')
def model(plan):
  return predict.load_model(plan, _GROUP)


@pytest.fixture(scope='module')
def expected(plan) -> list[list[str]]:
  """Label and probabilities of the test split, by `predict`."""
  predict.predict(plan, _GROUP)
  path = plan.workspace.root / 'predictions' / _GROUP / f'{_TASK}-test.tsv'
  lines = path.read_text().splitlines()[1:]
  return [line.split('\t')[1:] for line in lines]


def _texts() -> list[str]:
  return [example.text_a for example in demo.generate(_TASK, 'test')]


def test_a_table_is_predicted_line_by_line(model, expected, tmp_path):
  source, output = tmp_path / 'in.tsv', tmp_path / 'out.tsv'
  rows = [f'{i}\t{text}' for i, text in enumerate(_texts())]
  source.write_text('\n'.join(['id\ttext', *rows]) + '\n')
  own_file.predict(model, _TASK, str(source), str(output))
  header, *lines = output.read_text().splitlines()
  assert header == 'id\tprediction\tnegative\tpositive\terror'
  found = [line.split('\t') for line in lines]
  assert [row.pop(0) for row in found] == [*map(str, range(len(rows)))]
  assert {row.pop() for row in found} == {''}
  assert [row[0] for row in found] == [row[0] for row in expected]
  for row, wanted in zip(found, expected, strict=True):
    assert [float(p) for p in row[1:]] == pytest.approx(
      [float(p) for p in wanted[1:]], abs=2e-4
    )


def test_standard_input_to_standard_output(model, expected, monkeypatch):
  lines = [json.dumps({'text': text, 'more': 1}) for text in _texts()]
  stdin = io.TextIOWrapper(io.BytesIO('\n'.join(lines).encode()))
  monkeypatch.setattr(sys, 'stdin', stdin)
  monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(io.BytesIO()))
  own_file.predict(model, _TASK, '-', None)
  sys.stdout.seek(0)
  found = [json.loads(line) for line in sys.stdout]
  assert [row['label'] for row in found] == [row[0] for row in expected]


def test_a_server_says_what_files_say(plan, model, tmp_path):
  """The command as a process of its own, up to its end."""
  inputs = [[row.text_a, row.text_b] for row in demo.generate(_PAIRS, 'test')]
  texts, by_task = inputs[:50], {}
  for task, rows in (
    (_TASK, [{'text': first} for first, _ in texts]),
    (_PAIRS, [{'text_a': a, 'text_b': b} for a, b in texts]),
  ):
    source, output = tmp_path / 'in.jsonl', tmp_path / 'out.jsonl'
    source.write_text('\n'.join(map(json.dumps, rows)))
    own_file.predict(model, task, str(source), str(output))
    lines = output.read_text().splitlines()
    by_task[task] = [json.loads(line) for line in lines]
  flags = ['--mode=serve', '--port=0', *_FLAGS]
  server = commands.start(
    plan.workspace.root, tmp_path, f'import sys; sys.argv += {flags}\n'
  )
  try:
    told = ''
    while not (found := re.search(r'is served at (http://\S+)', told)):
      told += server.stderr.readline() or pytest.fail(told)
    # The work directory is free for others while it serves.
    with lock.lock_directory(plan.workspace.root):
      body = json.dumps({'inputs': texts}).encode()
      with urllib.request.urlopen(f'{found[1]}/v1/predict', body) as response:
        predictions = json.load(response)['predictions']
    server.send_signal(signal.SIGTERM)
    assert commands.ends_with(server, 0) == 'stopped\n'
  finally:
    server.kill()
  for i, found in enumerate(predictions):
    assert list(found) == [_TASK, _PAIRS]
    said, expected = found[_TASK], by_task[_TASK][i]
    assert said['label'] == expected['label']
    assert said['probabilities'] == pytest.approx(
      expected['probabilities'], abs=1e-5
    )
    assert found[_PAIRS]['score'] == pytest.approx(
      by_task[_PAIRS][i]['score'], abs=1e-4
    )
