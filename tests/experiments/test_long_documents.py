"""Documents whose label depends on a word that comes after the limit."""

import collections
import dataclasses
import json

import numpy as np
import pytest

from bam_jax import config as config_lib
from bam_jax.data import unlabelled
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import predict
from bam_jax.experiments import train
from bam_jax.inference import own_file
from bam_jax.training import evaluate
from tests.configs import tiny
from tests.serving import serving

_WORDS = ('the', 'a', 'dog', 'cat', 'house', 'car', 'boat', 'was', 'in', 'of')
_SIZES = {'train': 240, 'dev': 100}


def _write(folder) -> None:
  for number, (split, size) in enumerate(_SIZES.items()):
    rng = np.random.default_rng(number)
    lines = []
    for row in range(size):
      # A window has 22 words.
      words = rng.choice(_WORDS, rng.integers(30, 50)).tolist()
      for place in rng.integers(23, len(words), 4):
        words[place] = ('bad', 'good')[row % 2]
      label = ('neg', 'pos')[row % 2]
      lines.append(json.dumps({'text': ' '.join(words), 'label': label}))
    (folder / f'{split}.jsonl').write_text('\n'.join(lines))


@pytest.fixture(scope='module')
def plan(tmp_path_factory) -> plan_lib.Plan:
  """One model that learns the same documents cut and in windows."""
  folder = tmp_path_factory.mktemp('windows')
  _write(folder)
  config = tiny.get_config()
  for name, how in (('cut', ''), ('most', 'max'), ('mean', 'mean')):
    config.custom_tasks[name] = config_lib.custom_task(
      labels=('neg', 'pos'),
      format='jsonl',
      train='train.jsonl',
      dev='dev.jsonl',
      test='dev.jsonl',
      text=('text',),
      windows=how,
    )
  config.tasks = ('cut', 'most', 'mean')
  config.variants = ('multi',)
  config.data.dir = str(folder)
  config.data.max_length = 24
  config.packing.row_length = 24
  config.packing.slots = 2
  config.packing.row_buckets = (32,)
  config.model.num_layers = 1
  config.multi.max_steps = 100
  config.multi.batch_size = 32
  config.multi.learning_rate = 1e-3
  config.train.checkpoint_every = 0
  config.mesh.data = 1
  made = plan_lib.make_plan(
    config_lib.from_config_dict(config), folder / 'work'
  )
  train.run(made)
  return made


def test_what_stands_after_the_limit_is_learnt_in_windows(plan):
  scores = plan.workspace.read_record('multi-s0')['scores']
  accuracy = {name: found['dev']['accuracy'] for name, found in scores.items()}
  assert 35 <= accuracy['cut'] <= 65
  assert accuracy['most'] >= 90
  assert accuracy['mean'] >= 90


def test_examples_are_counted_not_windows(plan):
  train_rows = plan.features['most']['train']
  assert len(train_rows) > 2 * _SIZES['train']
  with np.load(plan.workspace.outputs('multi-s0')) as arrays:
    for name in plan.tasks.names:
      assert arrays[f'{name}/dev/uid'].tolist() == [
        f'{name}/dev/{i}' for i in range(_SIZES['dev'])
      ]
  (run,) = plan.runs
  batch = plan.data.make_spec(run, plan.packing).batches(0)
  weights = batch['weight'][batch['task_id'] == plan.tasks.index['cut']]
  assert set(weights.tolist()) <= {0, 1}
  weights = batch['weight'][batch['task_id'] == plan.tasks.index['most']]
  examples = [uid.partition('~')[0] for uid in train_rows.uids]
  counts = np.array([*collections.Counter(examples).values()])
  allowed = len(train_rows) / len(counts) / np.unique(counts)
  weights = weights[weights > 0]
  assert len(np.unique(weights)) > 1
  assert np.isclose(weights[:, None], allowed).any(axis=1).all()


def test_scores_do_not_depend_on_the_packing(plan):
  params = plan.restore_params('multi-s0')
  (run,) = plan.runs
  unpacked = dataclasses.replace(plan.packing, enabled=False)
  found = [
    evaluate.evaluate(
      plan.setup.programs, params, plan.data.scored_splits(run), packing
    )[1]
    for packing in (plan.packing, unpacked)
  ]
  assert found[0] == found[1]


@pytest.mark.parametrize('task', ['most', 'mean'])
def test_files_and_requests_are_predicted_as_test_rows(plan, tmp_path, task):
  predict.predict(plan, 'multi-s0')
  table = plan.workspace.root / 'predictions' / 'multi-s0' / f'{task}-test.tsv'
  expected = [line.split('\t') for line in table.read_text().splitlines()[1:]]
  assert len(expected) == _SIZES['dev']
  model = predict.load_model(plan, 'multi-s0')
  source, output = f'{plan.config.data.dir}/dev.jsonl', tmp_path / 'out.jsonl'
  own_file.predict(model, task, source, str(output))
  by_file = [json.loads(line) for line in output.read_text().splitlines()]
  with unlabelled.open_rows(source, plan.tasks[task]) as rows:
    texts = [text for (text,) in rows.texts][:50]
  with serving.Served(model) as served:
    answers = served.predict(texts, task).json['predictions']
  for found in (by_file, [answer[task] for answer in answers]):
    for row, (_, label, _, pos) in zip(found, expected):
      assert row['label'] == label
      assert row['probabilities']['pos'] == pytest.approx(float(pos), abs=2e-4)
      assert not row['truncated']
