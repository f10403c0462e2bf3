"""Teachers' quality and agreement, against plain loops."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from bam_jax.reporting import scores as scores_lib
from bam_jax.reporting import teaching
from bam_jax.tasks import task as task_lib
from tests.reporting import plans

_WORD = plans.make_task('word', labels=('0', '1', '2'))
_SCORE = plans.make_task('score', 'spearman')
_TASKS = task_lib.TaskTable((_WORD, _SCORE))


def test_agreement_is_that_of_all_pairs_of_runs():
  predictions = np.random.default_rng(0).integers(0, 3, (5, 40))
  pairs = itertools.combinations(predictions, 2)
  expected = np.mean([np.mean(a == b) for a, b in pairs])
  assert teaching.agreement(predictions) == pytest.approx(expected)
  assert 0.2 < expected < 0.5


def test_agreement_of_a_single_run_is_none():
  assert teaching.agreement(np.zeros((1, 3), int)) is None


def test_quality_is_the_median_over_seeds():
  runs = [
    plans.make_run(
      'single',
      seed,
      'word',
      {},
      quality={
        'dev': {'accuracy': accuracy, 'confidence': 0.9},
        'train': {'accuracy': 1.0},
      },
    )
    for seed, accuracy in enumerate((0.5, 0.9, 0.6))
  ]
  score = {'dev': {'bias': 0.25}}
  runs.append(plans.make_run('single', 0, 'score', {}, quality=score))
  runs.append(plans.make_run('multi', 0, 'score', {}, quality={'dev': {}}))
  found = teaching.summarise(runs, _TASKS)
  assert found == {
    'word': {
      'quality': {
        'dev': {'accuracy': 0.6, 'confidence': 0.9},
        'train': {'accuracy': 1.0},
      },
      'agreement': None,
    },
    'score': {'quality': {'dev': {'bias': 0.25}}, 'agreement': None},
  }


def _with_outputs(tmp_path: Path) -> list[scores_lib.RunScores]:
  """Of two seeds, which agree on three of four rows and on every score."""
  runs = []
  for seed, best in enumerate(([0, 1, 2, 0], [0, 1, 2, 1])):
    path = tmp_path / f's{seed}.npz'
    np.savez(
      path,
      **{
        'word/dev/uid': np.array(list('abcd')),
        'word/dev/logits': np.eye(3)[best],
        'score/dev/uid': np.array(list('abcd')),
        'score/dev/logits': np.zeros((4, 1)),
      },
    )
    runs += [
      plans.make_run('single', seed, task, {}, outputs=path)
      for task in _TASKS.names
    ]
  return runs


def test_seeds_agree_on_classes_alone(tmp_path):
  found = teaching.summarise(_with_outputs(tmp_path), _TASKS)
  assert found == {'word': {'quality': {}, 'agreement': 0.75}}


def test_nothing_recorded_is_nothing_said():
  assert teaching.summarise([], _TASKS) == {}
