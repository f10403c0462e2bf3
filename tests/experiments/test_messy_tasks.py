"""The ten messy tasks of `benchmarks/messy_tasks.py`, with a tiny encoder."""

import json
import logging
from pathlib import Path
import re

import pytest

from bam_jax import config as config_lib
from bam_jax import schema
from bam_jax.data import labels as labels_lib
from bam_jax.data import lines
from bam_jax.data import registry
from bam_jax.data import sources
from bam_jax.experiments import export
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import predict
from bam_jax.experiments import train
from benchmarks import messy_tasks
from benchmarks.configs import messy_tasks as messy_config

_GROUP = 'single_to_multi-s0'
_SETTINGS = {
  'model.init': '',
  'model.arch': 'tiny',
  'model.num_layers': 1,
  # What classes of transformers have; the config starts from linear probes.
  'model.pooling': 'cls',
  'model.head_init': 'truncated_normal',
  'packing.row_buckets': (16,),
  'packing.eval_rows': 16,
  'single.min_steps': 0,
  'single.max_steps': 2,
  'multi.min_steps': 0,
  'multi.max_steps': 2,
  'plan.baselines': False,
  'train.tensorboard': False,
  'mesh.data': 1,
}


@pytest.fixture(scope='module')
def rows(tmp_path_factory) -> Path:
  folder = tmp_path_factory.mktemp('messy') / 'rows'
  messy_tasks.write_rows(folder)
  return folder


def _config(
  rows: Path, vocab: str = '', tasks: str = '', **changes
) -> config_lib.Config:
  config = messy_config.get_config(tasks)
  changes = {'data.dir': str(rows), 'model.vocab': vocab} | changes
  config.update_from_flattened_dict(_SETTINGS | changes)
  return config_lib.from_config_dict(config)


@pytest.fixture(scope='module')
def vocab(rows) -> str:
  """A vocabulary of all words of the rows."""
  words = set()
  for path in sorted(rows.rglob('*.*')):
    with lines.open_text(path) as file:
      words |= {*re.findall(r'\w+|[^\w\s]', file.read().lower())}
  path = rows.with_name('vocab.txt')
  special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
  path.write_text('\n'.join([*special, *sorted(words)]))
  return str(path)


@pytest.fixture(scope='module')
def plan(rows, vocab, tmp_path_factory) -> plan_lib.Plan:
  """The finished plan, with predictions and exported models."""
  workdir = tmp_path_factory.mktemp('messy') / 'work'
  made = plan_lib.make_plan(_config(rows, vocab), workdir, reads_rows=True)
  train.run(made)
  predict.predict(made, None)
  export.export(made, None)
  return made


def test_its_rows_are_as_messy_as_it_says(rows):
  config = _config(rows)
  tasks = registry.resolve(config)
  tasks = labels_lib.add(tasks, labels_lib.find(tasks, config.data, None), None)
  assert (rows / 'mail' / 'train.csv').read_bytes().startswith(b'\xef\xbb\xbf')
  read = {
    (task.name, split): [*sources.read(task, split, config.data)]
    for task in tasks.tasks
    for split in task.tables
  }
  mail = read['mail', 'train'][0]
  assert '"' in mail.text_a and ',' in mail.text_a and '\n' in mail.text_b
  stars = {row.label for row in read['stars', 'train']}
  assert stars == {1, 2, 3, 4, 5}
  divided = [len(read['answers', split]) for split in ('train', 'dev')]
  assert sum(divided) == 375 and 70 < divided[1] <= 75
  assert len(tasks['intents'].labels) == 150
  assert len(read['returns', 'train']) == 60
  assert sum(row.label for row in read['payments', 'train']) == 10
  assert len(read['payments', 'train']) == 500
  assert {len(row.label) for row in read['visits', 'train']} == {0, 1, 2, 3}
  assert len({row.label for row in read['names', 'train']}) == 2
  for row in read['contracts', 'train']:
    assert len(row.text_a.split()) > 512
  assert all('ü' in row.text_a for row in read['opinions', 'train'])


@pytest.mark.fault
def test_every_kind_is_predicted_and_reported(plan):
  folder = plan.workspace.root / 'predictions' / _GROUP
  for files in messy_tasks.FILES:
    name = files.name.split('/')[0]
    if name in plan.tasks.names:
      _, *found = (folder / f'{name}-test.tsv').read_text().splitlines()
      assert [line.split('\t')[0] for line in found] == [
        f'{name}/test/{row}' for row in range(files.sizes[1])
      ]
  report = json.loads((plan.workspace.root / 'report.json').read_text())
  for variant in plan.config.variants:
    assert {*report['variants'][variant]['tasks']} == {*plan.tasks.names}


@pytest.mark.fault
@pytest.mark.parametrize('name', messy_config.get_config().tasks)
def test_transformers_predicts_as_the_plan_did(plan, name):
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  task = plan.tasks[name]
  folder = plan.workspace.root / 'exports' / _GROUP / name
  auto_class = getattr(transformers, f'AutoModel{task.kind.architecture}')
  model, loaded = auto_class.from_pretrained(folder, output_loading_info=True)
  assert not any(loaded.values())
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  if task.has_windows or task.kind.name != 'classification':
    return
  path = plan.workspace.root / 'predictions' / _GROUP / f'{name}-test.tsv'
  _, *lines = path.read_text().splitlines()
  for row, line in zip(sources.read(task, 'test', plan.config.data), lines):
    inputs = tokenizer(row.text_a, row.text_b, return_tensors='pt')
    with torch.no_grad():
      (logits,) = model(**inputs).logits
    _, label, *probs = line.split('\t')
    assert model.config.id2label[int(logits.argmax())] == label
    found = torch.softmax(logits, -1).tolist()
    assert found == pytest.approx([float(p) for p in probs], abs=2e-4)


@pytest.mark.fault
def test_an_eleventh_task_trains_what_depends_on_it(
  plan, rows, vocab, trained, caplog
):
  config = _config(rows, vocab, 'more')
  assert config.tasks == (*plan.config.tasks, 'parts')
  more = plan_lib.make_plan(config, plan.workspace.root, reads_rows=True)
  with caplog.at_level(logging.INFO):
    train.run(more)
  digest = schema.digest(config.tasks)[:8]
  assert trained == [
    'single-s0-parts', f'multi-s0-{digest}', f'single_to_multi-s0-{digest}'
  ]  # fmt: skip
  assert (
    f'10 finished, 3 to train, 6 steps: {", ".join(trained)}' in caplog.text
  )


@pytest.mark.fault
def test_another_metric_trains_nothing(plan, rows, vocab, trained):
  changes = {'custom_tasks.payments.metrics': ('roc_auc',)}
  config = _config(rows, vocab, **changes)
  train.run(plan_lib.make_plan(config, plan.workspace.root, reads_rows=True))
  assert trained == []
  report = json.loads((plan.workspace.root / 'report.json').read_text())
  scores = report['variants']['single']['tasks']['payments']
  assert 'roc_auc' in json.dumps(scores)
