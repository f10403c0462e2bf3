"""Majority and frozen encoder, from a plan to its report and model cards."""

import collections
import csv
import json
import logging
import shutil

import numpy as np
import pytest

from bam_jax import variants
from bam_jax.experiments import baselines
from bam_jax.experiments import export
from bam_jax.experiments import merge
from bam_jax.experiments import probes
from bam_jax.experiments import report
from bam_jax.experiments import train
from bam_jax.experiments import weak_models
from bam_jax.modeling import bert
from bam_jax.modeling import layers
from bam_jax.reporting import outputs
from bam_jax.tasks import demo
from bam_jax.training import linear
from tests.modeling import models

_CLASSES, _PAIRS = 'demo_sentiment', 'demo_similarity'
_NAMES = list(variants.UNTRAINED)


@pytest.fixture(scope='module')
def make(tiny_plan):
  def make(workdir, **changes):
    changes = {'plan.baselines': True, 'variants': ('single',), **changes}
    return tiny_plan(workdir, **changes)

  return make


@pytest.fixture(scope='module')
def finished(make, tmp_path_factory):
  plan = make(tmp_path_factory.mktemp('baselines'))
  train.run(plan)
  return plan


@pytest.fixture
def computed(monkeypatch):
  """Names of the tasks whose baselines are computed while a test runs."""
  names = []
  compute = baselines._compute_task

  def recorded(plan, task, *arguments):
    names.append(task.name)
    compute(plan, task, *arguments)

  monkeypatch.setattr(baselines, '_compute_task', recorded)
  return names


def _record(plan, task):
  return json.loads((plan.workspace.baselines(task) / 'DONE').read_text())


def _outputs(plan, task, name):
  path = plan.workspace.baselines(task) / f'{name}.npz'
  return outputs.read(plan.tasks[task], {0: path})


def test_the_majority_is_counted_in_the_training_rows(finished):
  train_rows = demo.generate(_CLASSES, 'train')
  counts = collections.Counter(row.label for row in train_rows)
  (label, _), *_ = counts.most_common()
  gold = [row.label for row in demo.generate(_CLASSES, 'dev')]
  share = 100 * np.mean(np.array(gold) == label)
  scores = _record(finished, _CLASSES)['scores']['majority']
  assert scores['dev']['accuracy'] == pytest.approx(share)
  found = _outputs(finished, _CLASSES, 'majority')
  assert found.predictions.tolist() == [[label] * len(gold)]
  assert found.gold.tolist() == gold
  # No correlation with a constant.
  record = _record(finished, _PAIRS)
  assert record['scores']['majority']['dev'] == {
    'pearson': None, 'spearman': None
  }  # fmt: skip
  reasons = record['undefined']['majority']['dev']
  assert set(reasons.values()) == {'all predictions are equal'}


def _mean_vectors(plan, texts):
  """Means of the last hidden states of texts, each in a row of its own."""
  tokenizer = plan.encoder.tokenizer
  ids = np.zeros((len(texts), 32), np.int32)
  segments = np.zeros_like(ids)
  for row, own in enumerate(tokenizer.encode(texts)):
    own = [tokenizer.cls_id, *own, tokenizer.sep_id]
    ids[row, : len(own)] = own
    segments[row, : len(own)] = 1
  params = layers.unstack(plan.setup.initial_params(0))['encoder']
  hidden = models.apply(
    bert.BertEncoder(plan.encoder.config),
    params,
    ids,
    np.zeros_like(ids),
    np.tile(np.arange(32), (len(texts), 1)),
    segments,
  )
  return [np.asarray(h)[s == 1].mean(0) for h, s in zip(hidden, segments)]


def test_vectors_are_those_of_the_texts_alone(finished):
  params = finished.setup.programs.place_encoder(
    finished.setup.initial_params(0)
  )
  chosen = np.array([1, 4, 5])
  for name in (_CLASSES, _PAIRS):
    rows = finished.features[name]['dev']
    task = finished.tasks[name]
    found = probes.encode(finished, task, params, rows, chosen, is_apart=True)
    examples = [demo.generate(name, 'dev')[row] for row in chosen]
    expected = _mean_vectors(finished, [each.text_a for each in examples])
    if task.is_pair:
      seconds = _mean_vectors(finished, [each.text_b for each in examples])
      for i, (u, v) in enumerate(zip(expected, seconds)):
        u, v = u / np.sqrt(u @ u), v / np.sqrt(v @ v)
        expected[i] = np.concatenate([u, v, abs(u - v), u * v])
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_model_is_fitted_to_unswapped_training_rows_and_scored(
  make, tmp_path, monkeypatch
):
  fitted = []
  fit = linear.fit

  def recorded(task, vectors, rows, chosen):
    fitted.append([rows.uids[row] for row in chosen])
    return fit(task, vectors, rows, chosen)

  monkeypatch.setattr(linear, 'fit', recorded)
  monkeypatch.setattr(probes, '_MOST_ROWS', 50)
  plan = make(tmp_path, **{'data.swap': (_PAIRS,), 'tasks': (_PAIRS,)})
  baselines.compute(plan)
  ((uids),) = fitted
  assert len(set(uids)) == 50
  assert not [uid for uid in uids if 'swap' in uid]
  record = _record(plan, _PAIRS)
  assert record['about']['frozen_encoder'].startswith('50 training rows, L2 ')
  found = _outputs(plan, _PAIRS, 'frozen_encoder')
  oracle = np.corrcoef(found.predictions[0], found.gold)[0, 1]
  scores = record['scores']['frozen_encoder']['dev']
  assert scores['pearson'] == pytest.approx(100 * oracle, abs=1e-3)


def test_they_are_computed_once_and_again_if_what_decides_them_changes(
  make, tmp_path, computed
):
  changes = {'tasks': (_CLASSES,), 'model.regression_head': 'linear'}
  baselines.compute(make(tmp_path, **changes))
  baselines.compute(make(tmp_path, **changes))
  assert computed == [_CLASSES]
  # The encoder is random, and drawn by the first seed.
  baselines.compute(make(tmp_path, **changes, seeds=(3, 0)))
  assert computed == [_CLASSES] * 2
  # What a stopped command leaves behind is no baseline.
  plan = make(tmp_path, **changes, seeds=(3, 0))
  (plan.workspace.baselines(_CLASSES) / 'DONE').unlink()
  assert not baselines.read(plan)
  baselines.compute(plan)
  assert computed == [_CLASSES] * 3
  assert list(baselines.read(plan)) == [_CLASSES]
  assert not baselines.describe_missing(baselines.read(plan), plan.tasks)
  both = make(tmp_path, **changes | {'tasks': (_CLASSES, _PAIRS)}, seeds=(3, 0))
  known = baselines.read(both)
  (warning,) = baselines.describe_missing(known, both.tasks)
  assert warning.startswith(f'{_PAIRS}: no baselines were computed')
  baselines.compute(make(tmp_path, **changes, **{'plan.baselines': False}))
  assert computed == [_CLASSES] * 3


def _report(plan):
  return json.loads((plan.workspace.root / 'report.json').read_text())


def test_each_report_has_their_rows_without_seeds(finished):
  found = _report(finished)['baselines']
  assert list(found) == _NAMES
  scores = _record(finished, _CLASSES)['scores']
  for name in _NAMES:
    expected = scores[name]['dev']['accuracy']
    assert found[name]['tasks'][_CLASSES]['accuracy'] == expected
  # Of an undefined score there is no average.
  assert found['majority']['average'] is None
  assert found['frozen_encoder']['average'] is not None
  root = finished.workspace.root
  for name in ('report.md', 'report.html', 'report.tex'):
    text = (root / name).read_text()
    assert 'Frozen encoder' in text and 'Majority' in text
  line = next(
    line
    for line in (root / 'report.md').read_text().splitlines()
    if line.startswith('| Majority')
  )
  accuracy = scores['majority']['dev']['accuracy']
  assert [cell.strip() for cell in line.split('|')[2:4]] == [
    f'{accuracy:.1f}', 'undefined'
  ]  # fmt: skip
  rows = list(csv.DictReader((root / 'scores.csv').read_text().splitlines()))
  own = [row for row in rows if row['variant'] == 'frozen_encoder']
  assert [(row['task'], row['metric']) for row in own] == [
    (_CLASSES, 'accuracy'), (_PAIRS, 'pearson'), (_PAIRS, 'spearman')
  ]  # fmt: skip
  assert {row['seed'] for row in own} == {''}
  assert {row['seed'] for row in rows if row['variant'] == 'single'} == {'0'}


def test_an_old_directory_says_how_to_get_them(finished, make, tmp_path):
  shutil.copytree(finished.workspace.root, tmp_path / 'old')
  shutil.rmtree(tmp_path / 'old' / 'baselines')
  plan = make(tmp_path / 'old')
  report.report(plan)
  assert _report(plan)['baselines'] == {}
  text = (tmp_path / 'old' / 'report.md').read_text()
  assert '--mode=evaluate adds them' in text and '| Majority' not in text
  train.evaluate(plan)
  assert _report(plan)['baselines'] == _report(finished)['baselines']
  report.report(make(tmp_path / 'old', **{'plan.baselines': False}))
  text = (tmp_path / 'old' / 'report.md').read_text()
  assert '--mode=evaluate' not in text and '| Majority' not in text


def test_merging_copies_them(finished, make, tmp_path, computed):
  plan = make(tmp_path)
  merge.merge(plan, [finished.workspace.root])
  assert _report(plan)['baselines'] == _report(finished)['baselines']
  assert not computed
  for task in (_CLASSES, _PAIRS):
    copied, own = (p.workspace.baselines(task) for p in (plan, finished))
    assert {p.name for p in copied.iterdir()} == {p.name for p in own.iterdir()}


def _weak(plan, score, majority=60.0, steps=100, frozen=70.0, run=None):
  """What is said of a run of the plan with these scores."""
  (plan.workspace.baselines(_CLASSES)).mkdir(parents=True, exist_ok=True)
  plan.workspace.write_baselines(
    _CLASSES,
    {
      'identity': baselines.settings(plan, plan.tasks[_CLASSES]),
      'scores': {
        name: {'dev': {'accuracy': value}}
        for name, value in zip(_NAMES, (majority, frozen))
      },
      'undefined': {},
      'about': {},
    },
  )
  run = run or plan.runs[0]
  scores = {_CLASSES: {'dev': {'accuracy': score}}}
  return weak_models.find(plan, [(run, {'steps': steps, 'scores': scores})])


def test_a_model_that_a_constant_matches_is_weak(make, tmp_path):
  plan = make(tmp_path, tasks=(_CLASSES,))
  assert _weak(plan, 60.1) == {}
  weak = _weak(plan, 60.0)
  assert weak[_CLASSES].variants == ['single']
  assert weak[_CLASSES].text == (
    'demo_sentiment: no better than the majority (accuracy 60.0): single 60.0;'
    ' a frozen encoder reaches 70.0, so try more steps or another learning rate'
  )
  text = _weak(plan, 60.0, frozen=59.0)[_CLASSES].text
  assert 'a frozen encoder is no better, so try more training rows' in text
  # The plan's runs are limited to 4 steps.
  text = _weak(plan, 60.0, steps=4)[_CLASSES].text
  assert text.endswith('only: raise config.single.max_steps')
  text = _weak(plan, 60.0, steps=1)[_CLASSES].text
  assert (
    'trained for 1 step only: set config.single.max_steps and'
    ' config.single.min_steps to 50 or more'
  ) in text
  text = _weak(plan, 100.0, majority=100.0)[_CLASSES].text
  assert text.endswith(
    '; all dev rows have one label, so choose other dev rows'
  )
  # An undefined score is no better; an undefined majority counts as 0.
  assert 'single undefined' in _weak(plan, float('nan'))[_CLASSES].text
  assert _weak(plan, 0.1, majority=float('nan')) == {}
  text = _weak(plan, -3.0, majority=float('nan'))[_CLASSES].text
  assert '(accuracy undefined, which counts as 0): single -3.0' in text


def test_a_model_that_predicts_one_class_is_weak_however_it_scores(
  make, tmp_path
):
  plan = make(tmp_path, tasks=(_CLASSES,))
  path = plan.workspace.outputs(plan.runs[0].name)
  path.parent.mkdir(parents=True)
  for number, is_weak in ((0, True), (1, False)):
    logits = np.tile(np.float32([[1, 0]]), (6, 1))
    logits[:number, 1] = 2
    np.savez(
      path,
      **{
        f'{_CLASSES}/dev/uid': np.array([f'{i}' for i in range(6)]),
        f'{_CLASSES}/dev/logits': logits,
        f'{_CLASSES}/dev/label': np.zeros(6, int),
      },
    )
    weak = _weak(plan, 99.0)
    assert bool(weak) == is_weak
    if is_weak:
      assert (
        'one class only is predicted by single with seed 0'
        in weak[_CLASSES].text
      )


def test_weak_models_are_marked_in_log_report_and_card(make, tmp_path, caplog):
  plan = make(tmp_path, tasks=(_CLASSES,))
  with caplog.at_level(logging.WARNING):
    train.run(plan)
  run = plan.runs[0]
  record = plan.workspace.read_record(run.name)
  (found,) = weak_models.find(plan, [(run, record)]).values()
  # After 4 steps a random encoder has learnt nothing.
  assert 'trained for 4 steps only' in found.text
  assert found.text in caplog.text
  assert _report(plan)['weak'] == {_CLASSES: ['single']}
  accuracy = record['scores'][_CLASSES]['dev']['accuracy']
  for name, mark in (
    ('report.md', '†'), ('report.html', '†'), ('report.tex', r'$\dagger$')
  ):  # fmt: skip
    assert f'{accuracy:.1f}{mark}' in (tmp_path / name).read_text()
  export.export(plan, None)
  folder = tmp_path / 'exports' / run.group / _CLASSES
  card = (folder / 'README.md').read_text()
  assert '**Not learnt**: demo_sentiment: no better' in card
  scores = _record(plan, _CLASSES)['scores']
  cells = [scores[name]['dev']['accuracy'] for name in _NAMES]
  assert (
    '| task | dev split | metric | score | majority | frozen encoder |'
    in (card)
  )
  row = ' | '.join(f'{value:.1f}' for value in (accuracy, *cells))
  assert f'| {_CLASSES} | dev | accuracy | {row} |' in card.replace('\\', '')
