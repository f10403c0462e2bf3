"""Files of a user's own, through the command on a finished plan.

Oracle: `predict` on the same rows as a split of the task, another code path up
to the packing.
"""

import io
import json
import sys

import pytest

from bam_jax import errors
from bam_jax.tasks import demo

_GROUP = 'single_to_multi-s0'
_TASK = 'demo_sentiment'


@pytest.fixture(scope='module')
def runner(tiny_runner, tmp_path_factory):
  made = tiny_runner(
    tmp_path_factory.mktemp('own_files'),
    variants=('single', 'single_to_multi'),
  )
  made.run()
  return made


@pytest.fixture(scope='module')
def expected(runner) -> list[list[str]]:
  """Label and probabilities of the test split, by `predict`."""
  runner.predict(_GROUP)
  path = runner.workspace.root / 'predictions' / _GROUP / f'{_TASK}-test.tsv'
  lines = path.read_text().splitlines()[1:]
  return [line.split('\t')[1:] for line in lines]


def _texts() -> list[str]:
  return [example.text_a for example in demo.generate(_TASK, 'test')]


def test_a_table_is_predicted_line_by_line(runner, expected, tmp_path):
  source, output = tmp_path / 'in.tsv', tmp_path / 'out.tsv'
  rows = [f'{i}\t{text}' for i, text in enumerate(_texts())]
  source.write_text('\n'.join(['id\ttext', *rows]) + '\n')
  runner.predict_file(_GROUP, _TASK, str(source), str(output))
  header, *lines = output.read_text().splitlines()
  assert header == 'prediction\tnegative\tpositive'
  found = [line.split('\t') for line in lines]
  assert [row[0] for row in found] == [row[0] for row in expected]
  for row, wanted in zip(found, expected, strict=True):
    assert [float(p) for p in row[1:]] == pytest.approx(
      [float(p) for p in wanted[1:]], abs=2e-4
    )


def test_standard_input_to_standard_output(
  runner, expected, monkeypatch, capsys
):
  lines = [json.dumps({'text': text, 'more': 1}) for text in _texts()]
  stdin = io.TextIOWrapper(io.BytesIO('\n'.join(lines).encode()))
  monkeypatch.setattr(sys, 'stdin', stdin)
  monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(io.BytesIO()))
  runner.predict_file(_GROUP, _TASK, '-', None)
  sys.stdout.seek(0)
  found = [json.loads(line) for line in sys.stdout]
  assert [row['label'] for row in found] == [row[0] for row in expected]


@pytest.mark.parametrize(
  ('task', 'message'),
  [
    (None, r'^--task: is missing; give one of demo_sentiment, demo_similarity'),
    ('mood', r'^--task=mood: is none of demo_sentiment, demo_similarity$'),
  ],
)
def test_a_task_that_is_none_of_the_groups(runner, task, message):
  with pytest.raises(errors.UserError, match=message):
    runner.predict_file(_GROUP, task, 'in.tsv', None)


def test_a_row_that_is_none_leaves_no_output(runner, tmp_path):
  source, output = tmp_path / 'in.jsonl', tmp_path / 'out.jsonl'
  source.write_text('{"text": "fine"}\n{"text": 1}\n')
  with pytest.raises(errors.UserError, match=r"in.jsonl:2: 'text' is no str"):
    runner.predict_file(_GROUP, _TASK, str(source), str(output))
  assert [path.name for path in tmp_path.iterdir()] == ['in.jsonl']
