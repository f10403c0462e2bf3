"""Parts that are added from outside the package, one file each.

A plan trains, scores, reports, predicts and exports with all of them. Oracles:
the metric and the encoder by NumPy loops.
"""

import json
import os
from pathlib import Path
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

_ROOT = Path(__file__).parents[2]
_GRADES = ('poor', 'fair', 'good')


def _write(folder: Path) -> None:
  """Texts whose words say the grade."""
  rng = np.random.default_rng(0)
  folder.mkdir()
  for split, count in (('train', 120), ('dev', 40)):
    lines = ['grade|text']
    for grade in rng.integers(0, 3, count):
      words = rng.choice(['film', 'book', 'meal', 'day'], 3).tolist()
      words.insert(int(rng.integers(4)), ('bad', 'so-so', 'great')[grade])
      lines.append(f'{_GRADES[grade]}|{" ".join(words)}')
    (folder / f'{split}.piped').write_text('\n'.join(lines) + '\n')


def _command(folder: Path, *arguments: str) -> None:
  result = subprocess.run(
    [
      sys.executable,
      '-m',
      'bam_jax.main',
      '--config=tests/errands/config.py',
      f'--config.data.dir={folder / "data"}',
      f'--workdir={folder / "work"}',
      *arguments,
    ],
    cwd=_ROOT,
    env=os.environ | {'PYTHONPATH': str(_ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr


@pytest.fixture(scope='module')
def finished(tmp_path_factory) -> Path:
  folder = tmp_path_factory.mktemp('errands')
  _write(folder / 'data')
  _command(folder, '--mode=run')
  return folder


def _run(finished: Path, name: str) -> Path:
  return finished / 'work' / 'runs' / name


def test_the_kind_trains_and_the_metric_scores(finished):
  done = json.loads((_run(finished, 'single-s0-grades') / 'DONE').read_text())
  scores = done['scores']['grades']['dev']
  with np.load(_run(finished, 'single-s0-grades') / 'outputs.npz') as outputs:
    logits, gold = outputs['grades/dev/logits'], outputs['grades/dev/label']
  closeness = [
    1 / (1 + abs(int(np.argmax(row)) - int(label)))
    for row, label in zip(logits, gold, strict=True)
  ]
  assert len(closeness) == 40
  assert scores['mean_closeness'] == pytest.approx(100 * np.mean(closeness))


def test_students_learn_from_its_teacher_and_are_reported(finished):
  done = _run(finished, 'single_to_multi-s0') / 'DONE'
  assert set(json.loads(done.read_text())['scores']) == {
    'demo_sentiment',
    'grades',
  }
  report = (finished / 'work' / 'report.html').read_text()
  assert 'mean_closeness' in report


def test_the_kind_has_baselines(finished):
  folder = finished / 'work' / 'baselines' / 'grades'
  scores = json.loads((folder / 'DONE').read_text())['scores']

  def grades(split):
    _, *lines = (finished / 'data' / f'{split}.piped').read_text().splitlines()
    return [line.partition('|')[0] for line in lines]

  most = max(_GRADES, key=grades('train').count)
  accuracy = 100 * grades('dev').count(most) / len(grades('dev'))
  assert scores['majority']['dev']['accuracy'] == pytest.approx(accuracy)
  # One word says the grade.
  assert scores['frozen_encoder']['dev']['accuracy'] > 95


def test_predictions_and_exports(finished):
  _command(finished, '--mode=predict')
  work = finished / 'work'
  rows = work / 'predictions' / 'single_to_multi-s0' / 'grades-test.tsv'
  header, *lines = rows.read_text().splitlines()
  assert header.split('\t') == ['uid', 'prediction', *_GRADES]
  assert len(lines) == 40
  assert {line.split('\t')[1] for line in lines} <= set(_GRADES)
  _command(finished, '--mode=export')
  output = work / 'exports' / 'single_to_multi-s0'
  config = json.loads((output / 'grades' / 'config.json').read_text())
  assert config['model_type'] == 'bag'
  assert config['architectures'] == ['BagForSequenceClassification']
  tensors = safetensors.numpy.load_file(output / 'grades' / 'model.safetensors')
  assert tensors['bag.layers.1.mix.weight'].shape == (32, 32)
  assert tensors['classifier.weight'].shape == (3, 32)


def test_the_encoder_by_loops():
  from bam_jax.modeling import family
  from tests.errands import bag
  from tests.modeling import models

  config = family.EncoderConfig(7, 4, 1, 1, 1, family='bag')
  ids = np.array([[1, 2, 3, 0]], np.int32)
  segments = np.array([[1, 1, 2, 0]], np.int32)
  encoder = bag.BagEncoder(config)
  params = encoder.init(
    jax.random.key(0), ids, ids, ids, segments, deterministic=True
  )['params']
  actual = models.apply(encoder, params, ids, ids, ids, segments)
  table = np.asarray(params['embeddings']['word']['embedding'])
  dense = params['layer_0']['mix']
  for place, own in enumerate(([0, 1], [0, 1], [2], [3])):
    mean = np.mean([table[ids[0, i]] for i in own], axis=0)
    expected = table[ids[0, place]] + np.tanh(
      mean @ np.asarray(dense['kernel']) + np.asarray(dense['bias'])
    )
    np.testing.assert_allclose(actual[0, place], expected, atol=1e-6)
