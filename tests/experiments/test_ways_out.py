"""What a finished plan of two GLUE tasks gives: a submission, a program."""

from pathlib import Path
import zipfile

import numpy as np
import pytest

from bam_jax import config as config_lib
from bam_jax.experiments import export
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import predict
from bam_jax.experiments import train
from bam_jax.tasks import demo
from bam_jax.training import evaluate
from tests.configs import tiny
from tests.inference import snippet

_GROUP = 'multi-s0'
_TEST_ROWS = 12


def _write_data(root: Path) -> None:
  """WNLI, three of whose five training labels are 1, and STS-B."""
  texts = [x.text_a for x in demo.generate('demo_sentiment', 'train')]
  pairs = list(zip(texts[:40], texts[40:80]))
  for split, rows in (('train', 40), ('dev', 10), ('test', _TEST_ROWS)):
    labelled = split != 'test'
    of_task = {'WNLI': ['index', 'sentence1', 'sentence2']}
    lines = {'WNLI': [], 'STS-B': []}
    of_task['STS-B'] = [str(i) for i in range(7)] + ['sentence1', 'sentence2']
    for i, pair in enumerate(pairs[:rows]):
      label = [str(int(i % 5 < 3))] if labelled else []
      lines['WNLI'].append([str(i), *pair, *label])
      score = [f'{i % 6}.0'] if labelled else []
      lines['STS-B'].append([*'0123456', *pair, *score])
    for task, header in of_task.items():
      header = [*header, *(['label'] if labelled else [])]
      path = root / task / f'{split}.tsv'
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(
        ''.join('\t'.join(line) + '\n' for line in (header, *lines[task]))
      )


@pytest.fixture(scope='module')
def plan(tmp_path_factory) -> plan_lib.Plan:
  root = tmp_path_factory.mktemp('ways_out')
  _write_data(root / 'data')
  config = tiny.get_config()
  config.tasks = ('stsb', 'wnli')
  config.variants = ('multi',)
  config.multi.max_steps = 2
  config.mesh.data = 1
  config.data.dir = str(root / 'data')
  made = plan_lib.make_plan(config_lib.from_config_dict(config), root / 'work')
  train.run(made)
  return made


def _submitted(plan: plan_lib.Plan, file: str) -> list[str]:
  path = plan.workspace.root / 'predictions' / _GROUP / 'submission.zip'
  with zipfile.ZipFile(path) as archive:
    lines = archive.read(file).decode().splitlines()[1:]
  return [line.split('\t')[1] for line in lines]


def _predicted(plan: plan_lib.Plan, task: str) -> list[str]:
  path = plan.workspace.root / 'predictions' / _GROUP / f'{task}-test.tsv'
  return [line.split('\t')[1] for line in path.read_text().splitlines()[1:]]


def test_a_majority_label_is_in_the_submission_alone(plan):
  predict.predict(plan, _GROUP)
  own = _predicted(plan, 'wnli')
  assert _submitted(plan, 'WNLI.tsv') == own != ['1'] * _TEST_ROWS
  scores = _submitted(plan, 'STS-B.tsv')
  predict.predict(plan, _GROUP, ['wnli'])
  assert _submitted(plan, 'WNLI.tsv') == ['1'] * _TEST_ROWS
  assert _predicted(plan, 'wnli') == own
  assert _submitted(plan, 'STS-B.tsv') == scores


def test_an_exported_program_says_what_the_model_says(plan, monkeypatch):
  export.export(plan, _GROUP, 'stablehlo')
  directory = plan.workspace.root / 'exports' / f'{_GROUP}-stablehlo' / 'all'
  path = Path(plan.config.data.dir) / 'WNLI' / 'test.tsv'
  lines = path.read_text().splitlines()[1:]
  texts = [tuple(line.split('\t')[1:3]) for line in lines]
  found = snippet.run(directory, texts)
  predicted = {}

  unchanged = evaluate.predict

  def kept(programs, params, features, head, packing):
    logits = unchanged(programs, params, features, head, packing)
    predicted[programs.tasks.names[head]] = logits
    return logits

  monkeypatch.setattr(evaluate, 'predict', kept)
  predict.predict(plan, _GROUP)
  for task, wanted in predicted.items():
    np.testing.assert_allclose(found[task], wanted, rtol=0, atol=1e-5)
