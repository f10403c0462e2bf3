"""Tests over seeds and examples of the outputs of runs, against their own."""

import itertools

import numpy as np
import pytest

from bam_jax.reporting import comparisons
from bam_jax.reporting import statistics
from bam_jax.tasks import metrics
from bam_jax.tasks import task as task_lib
from benchmarks import false_positives
from tests.reporting import plans

_N = 60
_TASKS = task_lib.TaskTable(
  (
    plans.make_task('word', 'matthews'),
    plans.make_task('score', 'spearman', scale=(0.0, 5.0)),
    plans.make_task('odd', in_average=False),
  )
)
_VARIANTS = ('single', 'multi', 'single_to_multi')
_SEEDS = (0, 1, 2)


def _gold(task):
  rng = np.random.default_rng(len(task.name))
  if task.kind.has_scale:
    return rng.uniform(0, 5, _N)
  return rng.integers(0, 2, _N)


def _logits(task, variant, seed):
  """Nearer to gold the later the variant."""
  rng = np.random.default_rng([len(variant), seed])
  strength = 0.5 * _VARIANTS.index(variant)
  if task.kind.has_scale:
    share = np.clip(_gold(task) / 5, 0.05, 0.95)
    logits = (1 + strength) * np.log(share / (1 - share)) + rng.normal(size=_N)
    return logits[:, None]
  right = np.eye(2)[_gold(task)]
  return rng.normal(size=(_N, 2)) + strength * right


def _write(tmp_path, change=lambda variant, seed, arrays: arrays):
  """Outputs as `evaluate.save` writes them; `change` spoils some."""
  runs = []
  for variant, seed in itertools.product(_VARIANTS, _SEEDS):
    arrays = {}
    for task in _TASKS.tasks:
      key = f'{task.name}/dev'
      arrays[f'{key}/uid'] = np.array([f'{key}/{i}' for i in range(_N)])
      arrays[f'{key}/logits'] = _logits(task, variant, seed)
      arrays[f'{key}/label'] = _gold(task)
    arrays = change(variant, seed, arrays)
    path = tmp_path / f'{variant}-s{seed}' / 'outputs.npz'
    path.parent.mkdir()
    np.savez(path, **arrays)
    runs += [
      plans.make_run(variant, seed, task, {}, outputs=path)
      for task in _TASKS.names
    ]
  return runs


def _tests(*columns):
  """As `comparisons.compare` finds them; only the p-value is looked at."""
  return {'single_to_multi': {column: {'p_value': 0.1} for column in columns}}


def _found(runs, *columns):
  return _resampled(_tests(*columns), runs)['single_to_multi']


def _resampled(tests, runs, test=comparisons.bootstrap):
  draws = comparisons.Draws(runs, _TASKS)
  return comparisons.resampled(tests, draws, test)


def _predicted(task, variant, seed):
  logits = _logits(task, variant, seed)
  return task.kind.predictions(task, logits)


def _score(task):
  metric = metrics.METRICS[task.paper_metric]
  return lambda outputs, counts: metric(outputs, _gold(task), counts)


def _observed(variant, seed):
  """Mean of both tasks' metrics, by the metrics themselves."""
  found = [
    100 * metrics.METRICS[name](_predicted(task, variant, seed), _gold(task))
    for task in _TASKS.tasks
    if task.in_average
    for name in task.metrics
  ]
  return np.mean(found)


@pytest.mark.parametrize('column', ['word', 'score', 'odd', 'average'])
def test_p_value_is_that_of_the_bootstrap_test(tmp_path, column):
  """Up to the draws, of which the test takes others."""
  found = _found(_write(tmp_path), *_TASKS.names, 'average')[column]
  names = ['word', 'score'] if column == 'average' else [column]
  tasks = [_TASKS[name] for name in names]
  groups = {
    variant: [
      np.stack([_predicted(task, variant, seed) for seed in _SEEDS])
      for task in tasks
    ]
    for variant in _VARIANTS
  }
  expected = max(
    false_positives.bootstrap_test(
      groups['single_to_multi'],
      groups[baseline],
      np.random.default_rng(5),
      [_score(task) for task in tasks],
    )
    for baseline in comparisons.BASELINES
  )
  assert found['p_value'] == pytest.approx(expected, abs=0.015)
  assert 0 < found['p_value'] < 0.7 and found['reason'] == ''


def test_p_values_are_corrected_over_the_table(tmp_path):
  found = _found(_write(tmp_path), 'word', 'score', 'average')
  p_values = [test['p_value'] for test in found.values()]
  assert [test['corrected'] for test in found.values()] == statistics.holm(
    p_values
  )


def test_the_average_is_over_the_seeds_that_have_every_task(tmp_path):
  missing = ('single_to_multi', 1, 'score')
  runs = [
    run
    for run in _write(tmp_path)
    if (run.variant, run.seed, run.task) != missing
  ]
  draws = comparisons.Draws(runs, _TASKS)
  scores = draws.scores('single_to_multi', 'average')
  expected = [_observed('single_to_multi', seed) / 100 for seed in (0, 2)]
  np.testing.assert_allclose(scores[0], expected)


def _without(part):
  def change(variant, seed, arrays):
    return {key: v for key, v in arrays.items() if not key.endswith(part)}

  return change


def _backwards(*runs):
  def change(variant, seed, arrays):
    if (variant, seed) not in runs:
      return arrays
    return arrays | {'word/dev/uid': arrays['word/dev/uid'][::-1]}

  return change


@pytest.mark.parametrize(
  ('change', 'reason'),
  [
    (
      _without('/label'),
      'no run kept the gold labels of word; --mode=evaluate adds them',
    ),
    (_without('/logits'), 'runs/single_to_multi-s0/outputs.npz is damaged'),
    (
      _backwards(('multi', 1)),
      'runs/multi-s1/outputs.npz has other examples than the first seed',
    ),
    (
      _backwards(*[('multi', seed) for seed in _SEEDS]),
      'the runs of multi have other examples of word',
    ),
  ],
  ids=['labels', 'logits', 'a-run', 'a-variant'],
)
def test_without_data_there_is_no_p_value_but_a_reason(
  tmp_path, change, reason
):
  found = _found(_write(tmp_path, change), 'word')['word']
  assert found['p_value'] is None and found['corrected'] is None
  assert found['reason'] == reason


def test_a_file_that_is_not_there_is_a_reason(tmp_path):
  runs = _write(tmp_path)
  (tmp_path / 'single-s2' / 'outputs.npz').unlink()
  found = _found(runs, 'word', 'score')
  for column in ('word', 'score'):
    reason = found[column]['reason']
    assert reason == 'runs/single-s2/outputs.npz is missing'


def test_one_seed_is_no_test():
  test = {'p_value': None, 'reason': statistics.NOT_ENOUGH_SEEDS}
  tests = {'single_to_multi': {'word': test}}
  found = _resampled(tests, [])
  assert found['single_to_multi']['word'] == {
    'p_value': None, 'corrected': None, 'reason': 'not enough seeds',
  }  # fmt: skip


def test_an_undefined_score_is_a_reason(tmp_path):
  """A run that predicts one class, of which an old record may have 0."""

  def change(variant, seed, arrays):
    if (variant, seed) == ('multi', 1):
      arrays['word/dev/logits'] = np.tile([1.0, 0.0], (_N, 1))
    return arrays

  found = _found(_write(tmp_path, change), *_TASKS.names, 'average')
  assert found['word'] == {
    'p_value': None,
    'corrected': None,
    'reason': 'multi has an undefined score of word',
  }
  assert found['average']['reason'] == 'multi has an undefined score of average'
  assert found['score']['p_value'] is not None


def test_labels_of_one_run_serve_the_others(tmp_path):
  def change(variant, seed, arrays):
    if (variant, seed) == ('multi', 2):
      return arrays
    return _without('/label')(variant, seed, arrays)

  (tmp_path / 'a').mkdir()
  (tmp_path / 'b').mkdir()
  assert _found(_write(tmp_path / 'a', change), 'word') == _found(
    _write(tmp_path / 'b'), 'word'
  )
