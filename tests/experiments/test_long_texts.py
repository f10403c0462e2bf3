"""Texts of more than 128 tokens, in a plan that raises `data.max_length` alone.

Oracle: `predict` on the test split, another code path than a user's own texts.
"""

import json

import numpy as np
import pytest

from bam_jax import config as config_lib
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import predict
from bam_jax.experiments import train
from bam_jax.inference import own_file
from tests.configs import kinds as kinds_config
from tests.kinds import rows as rows_lib
from tests.serving import serving

_GROUP = 'multi-s0'
_KINDS = {'moods': 'multilabel', 'names': 'tagging', 'things': 'qa'}


@pytest.fixture(scope='module')
def plan(tmp_path_factory) -> plan_lib.Plan:
  """A finished plan."""
  folder = tmp_path_factory.mktemp('long')
  (folder / 'data').mkdir()
  rows_lib.write(folder / 'data', times=20)
  config = kinds_config.get_config()
  config.packing = config_lib.default_config().packing
  config.packing.row_buckets = (16,)  # Else one program for each of many.
  config.data.dir = str(folder / 'data')
  config.data.max_length = 200
  config.tasks = tuple(_KINDS)
  config.variants = ('multi',)
  config.multi.max_steps = 2
  config.plan.baselines = False
  config.mesh.data = 1
  made = plan_lib.make_plan(
    config_lib.from_config_dict(config), folder / 'work'
  )
  train.run(made)
  return made


def _test_texts(plan: plan_lib.Plan) -> list[str]:
  path = plan.workspace.root.parent / 'data' / 'moods' / 'test.jsonl'
  return [json.loads(line)['text'] for line in path.read_text().splitlines()]


def test_rows_hold_the_longest_text(plan):
  assert plan.packing.row_length == 256
  for task, kind in _KINDS.items():
    assert plan.tasks[task].kind.name == kind
    for split in plan.features[task].values():
      lengths = np.diff(split.ragged('input_ids')[1])
      assert 128 < lengths.max() <= 200


def test_finished_runs_are_evaluated(plan):
  before = plan.workspace.read_record(_GROUP)
  train.evaluate(plan)
  assert plan.workspace.read_record(_GROUP)['scores'] == before['scores']


def test_own_texts_are_predicted_and_served(plan, tmp_path):
  predict.predict(plan, _GROUP)
  table = plan.workspace.root / 'predictions' / _GROUP / 'moods-test.tsv'
  expected = [
    [float(cell) for cell in line.split('\t')[2:]]
    for line in table.read_text().splitlines()[1:]
  ]
  model = predict.load_model(plan, _GROUP)
  source, output = tmp_path / 'in.jsonl', tmp_path / 'out.jsonl'
  texts = _test_texts(plan)
  source.write_text('\n'.join(json.dumps({'text': text}) for text in texts))
  own_file.predict(model, 'moods', str(source), str(output))
  from_file = [json.loads(line) for line in output.read_text().splitlines()]
  with serving.Served(model) as served:
    answers = served.predict(texts, 'moods').json['predictions']
  for found in (from_file, [answer['moods'] for answer in answers]):
    np.testing.assert_allclose(
      [[*row['probabilities'].values()] for row in found], expected, atol=2e-4
    )
    assert not any(row['truncated'] for row in found)


def test_a_longer_text_is_cut_when_it_is_served(plan):
  model = predict.load_model(plan, _GROUP)
  (row,) = model.encode('moods', [('a ' * 300,)])
  assert row.truncated and row.num_tokens == 200
  (result,) = model.predict([row])
  assert result.truncated
