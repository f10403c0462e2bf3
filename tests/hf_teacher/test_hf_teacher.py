"""A classifier of Hugging Face's teaches a student, by the command line.

Oracle: padded batches in torch, in the order of the rows. Skipped without torch
and transformers.
"""

import json
import os
from pathlib import Path
import subprocess
import sys

import numpy as np
import pytest

from bam_jax.data import features
from bam_jax.data import shards
from bam_jax.tasks import demo

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

_ROOT = Path(__file__).parents[2]
# What outputs are called, with the task's own label first or last.
_MODELS = {
  'demo_sentiment': ['POSITIVE', 'NEGATIVE'],
  'demo_similarity': ['score'],
}
# Shorter than some rows.
_LONGEST = 12


def _make_model(directory: Path, names: list[str]) -> None:
  """A small BERT with random weights, saved as any other is."""
  tokenizer = features.Tokenizer.from_vocab(demo.vocabulary(), lowercase=True)
  tokenizer.save(directory)
  (directory / 'tokenizer_config.json').write_text(
    json.dumps({'tokenizer_class': 'BertTokenizer', 'do_lower_case': True})
  )
  torch.manual_seed(len(names))
  config = transformers.BertConfig(
    vocab_size=tokenizer.vocab_size,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=40,
    initializer_range=0.5,
    id2label=dict(enumerate(names)),
    label2id={name: i for i, name in enumerate(names)},
  )
  transformers.BertForSequenceClassification(config).save_pretrained(directory)


def _run(module: str, *arguments: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [
      sys.executable, '-m', module,
      f'--config={_ROOT}/tests/configs/tiny.py', *arguments,
    ],
    cwd=_ROOT,
    env=os.environ | {'PYTHONPATH': str(_ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )  # fmt: skip


def _label(place: Path, task: str, *more: str) -> subprocess.CompletedProcess:
  return _run(
    'bam_jax.hf_teacher.command', f'--task={task}', f'--model={place / task}',
    f'--output={place / "logits"}', f'--max_length={_LONGEST}',
    f'--config.data.dir={place}',
    "--config.data.swap=('demo_similarity',)",
    "--config.data.unlabelled=('demo_sentiment=more.jsonl',)", *more,
  )  # fmt: skip


@pytest.fixture(scope='module')
def place(tmp_path_factory) -> Path:
  """A folder with a model a task, and what they have said."""
  place = tmp_path_factory.mktemp('hf')
  texts = ['a lovely dinner', 'the nasty book was horrible , and long']
  rows = [json.dumps({'text': text}) for text in texts]
  (place / 'more.jsonl').write_text('\n'.join(rows))
  for task, names in _MODELS.items():
    _make_model(place / task, names)
    score = ['--score=logit'] if task == 'demo_similarity' else []
    done = _label(place, task, '--batch_size=7', *score)
    assert done.returncode == 0, done.stderr
  return place


def _direct(directory: Path, texts: list[tuple[str, ...]]) -> np.ndarray:
  """Five rows at a time, padded, in their order."""
  tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
  auto_class = transformers.AutoModelForSequenceClassification
  model = auto_class.from_pretrained(directory).eval()
  result = []
  for first in range(0, len(texts), 5):
    columns = map(list, zip(*texts[first : first + 5]))
    batch = tokenizer(
      *columns,
      padding=True,
      truncation=True,
      max_length=_LONGEST,
      return_tensors='pt',
    )
    with torch.no_grad():
      result.append(model(**batch).logits.double().numpy())
  return np.concatenate(result)


@pytest.mark.parametrize('task', _MODELS)
def test_the_sets_hold_what_torch_says(place, task):
  rows = demo.generate(task, 'train')
  columns = shards.open(
    place / 'logits' / task, shards.logits_fields(len(_MODELS[task])), None
  )
  if task == 'demo_sentiment':
    uids = [row.uid for row in rows]
    direct = _direct(place / task, [(row.text_a,) for row in rows])
    # The names of the outputs say which is which.
    expected = direct[:, ::-1]
  else:
    uids = [f'{row.uid}{end}' for end in ('', '~swap') for row in rows]
    texts = [(row.text_a, row.text_b) for row in rows]
    direct = _direct(place / task, texts + [(b, a) for a, b in texts])
    expected = 1 / (1 + np.exp(-direct))
  assert list(columns.uids) == uids
  found = columns.fixed('logits').reshape(len(uids), -1)
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
  assert np.std(found) > 0.02


def test_rows_without_labels_are_labelled_too(place):
  columns = shards.open(
    place / 'logits' / 'demo_sentiment.unlabelled',
    shards.logits_fields(2),
    None,
  )
  assert list(columns.uids) == [
    f'demo_sentiment/unlabelled/{i}' for i in (0, 1)
  ]
  lines = (place / 'more.jsonl').read_text().splitlines()
  texts = [(json.loads(line)['text'],) for line in lines]
  direct = _direct(place / 'demo_sentiment', texts)
  np.testing.assert_allclose(
    columns.fixed('logits'), direct[:, ::-1], rtol=0, atol=1e-5
  )


def test_a_student_learns_from_them(place):
  done = _run(
    'bam_jax.main', f'--workdir={place / "work"}',
    f'--config.distill.logits={place / "logits"}',
    "--config.variants=('single_to_multi',)", '--config.multi.max_steps=2',
    f'--config.data.dir={place}', "--config.data.swap=('demo_similarity',)",
    "--config.data.unlabelled=('demo_sentiment=more.jsonl',)",
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  report = json.loads((place / 'work' / 'report.json').read_text())
  assert report['notes']['external teachers'] == '; '.join(_MODELS)
  (run,) = (place / 'work' / 'runs').iterdir()
  assert (run / 'DONE').exists()


def test_what_is_there_is_kept(place):
  path = place / 'logits' / 'demo_sentiment' / 'manifest.json'
  before = path.stat().st_mtime_ns
  assert _label(place, 'demo_sentiment').returncode == 0
  other = _label(place, 'demo_sentiment', '--dtype=bfloat16')
  assert other.returncode == 2
  assert (
    'demo_sentiment: was made from other inputs: teacher.digest has changed'
    in other.stderr
  )
  assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--model=gone'], '--model=gone: no such directory, and the hub does not'),
    (['--model=HERE'], ': holds no config.json; give a directory that save_'),
    (['--model=HERE/plain'], '/plain: has no classifier.bias, which would be'),
    (['--task=none'], '--task=none: is none of demo_sentiment, demo_simi'),
    (['--output='], 'bam-jax-hf-teacher: --output is missing; see --help'),
    (['--teacher=demo_similarity'], 'demo_similarity: is not a folder name'),
    (['--teacher=../x'], '--teacher=../x: is not a folder name'),
    (['--teacher=unlabelled'], '--teacher=unlabelled: is not a folder'),
    (['--score=unit'], '--score: is not for demo_sentiment'),
    (['--labels=a,b'], '--labels=a,b: these are not the labels of'),
    (['--device=toaster'], 'bam-jax-hf-teacher: --device=toaster: '),
    (['--config.data.unlabelled=()', 'x'], 'hf-teacher: x: no such argument'),
    (['--config.data.dir=ftp://b/c'], 'ftp://b/c: is neither s3://BUCKET'),
  ],
  ids=[
    'model', 'no-model', 'no-head', 'task', 'output', 'teacher',
    'teacher-elsewhere',
    'teacher-unlabelled', 'score', 'labels', 'device', 'word',
    'store',
  ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line(place, arguments, message):
  if 'HERE/plain' in arguments[0]:
    names = _MODELS['demo_sentiment']
    _make_model(place / 'plain', names)
    model = transformers.BertModel.from_pretrained(place / 'plain')
    model.save_pretrained(place / 'plain')
    config = json.loads((place / 'plain' / 'config.json').read_text())
    assert config['architectures'] == ['BertModel']
  arguments = [each.replace('HERE', str(place)) for each in arguments]
  done = _label(place, 'demo_sentiment', *arguments)
  assert done.returncode == 2, done.stderr
  assert message in done.stderr.splitlines()[-1]
