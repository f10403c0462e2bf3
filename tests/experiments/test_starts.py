"""Fine-tuning after another variant; the oracle is what it starts from.

At a learning rate of 0 a run ends with the parameters it started from, bit by
bit.
"""

import json
import shutil

import pytest

from bam_jax import errors
from bam_jax import schema
from bam_jax.experiments import train

_TASKS = ('demo_sentiment', 'demo_similarity')
_OWN = {'tuned': {'like': 'single', 'start': 'multi'}}
_FIELDS = {'variants': ('multi', 'tuned'), 'single.learning_rate': 0.0}


def _read(workdir, name, file='DONE'):
  return json.loads((workdir / 'runs' / name / file).read_text())


@pytest.fixture(scope='module')
def finished(tiny_plan, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('starts')
  train.run(tiny_plan(workdir, _OWN, **_FIELDS))
  return workdir


@pytest.fixture
def workdir(finished, tmp_path):
  """A copy of the finished work directory, to be broken."""
  return shutil.copytree(finished, tmp_path / 'work')


def test_a_run_starts_from_the_last_parameters_of_another(finished):
  start = _read(finished, 'multi-s0')['parameters']
  for task in _TASKS:
    assert _read(finished, f'tuned-s0-{task}')['parameters'] == start


def test_the_identity_holds_that_of_the_run_it_starts_from(finished):
  start = _read(finished, 'multi-s0', 'config.json')
  del start['digest']
  digest = schema.digest(start)
  for task in _TASKS:
    identity = _read(finished, f'tuned-s0-{task}', 'config.json')
    assert identity['start.multi-s0'] == digest


def test_seeds_at_once_start_from_the_run_of_their_own_seed(
  tiny_plan, workdir, trained
):
  """A seed on each of two devices."""
  seeds = (1, 2)
  fields = {'seeds': seeds, 'train.seeds_at_once': 2}
  train.run(tiny_plan(workdir, _OWN, **_FIELDS, **fields))
  assert trained[-2:] == [f'tuned-s{seed}-{_TASKS[1]}' for seed in seeds]
  starts = [_read(workdir, f'multi-s{seed}')['parameters'] for seed in seeds]
  assert len(set(starts)) == len(seeds)
  for task in _TASKS:
    ends = [_read(workdir, f'tuned-s{seed}-{task}') for seed in seeds]
    assert {end['seeds_at_once'] for end in ends} == {2}
    assert [end['parameters'] for end in ends] == starts


def test_a_start_without_its_checkpoint_is_told_before_any_step(
  tiny_plan, workdir, trained
):
  checkpoints = workdir / 'runs' / 'multi-s0' / 'checkpoints'
  run = workdir / 'runs' / f'tuned-s0-{_TASKS[0]}'
  shutil.rmtree(checkpoints)
  # What is finished needs nothing any more.
  train.run(tiny_plan(workdir, _OWN, **_FIELDS))
  shutil.rmtree(run)
  message = (
    rf'^{checkpoints}: {run.name} starts from the checkpoint of step 4, which'
    r' is missing; copy it from where multi-s0 was trained, or remove'
    rf' {workdir}/runs/multi-s0 to train multi-s0 again$'
  )
  for make in (lambda: None, checkpoints.mkdir):
    make()
    with pytest.raises(errors.UserError, match=message):
      train.run(tiny_plan(workdir, _OWN, **_FIELDS))
  assert trained == []
  shutil.rmtree(workdir / 'runs' / 'multi-s0')
  train.run(tiny_plan(workdir, _OWN, **_FIELDS))
  assert trained == ['multi-s0', run.name]


def test_a_second_round_learns_from_the_first(tiny_plan, workdir, trained):
  own = {'second': {'like': 'multi_to_multi', 'teacher': 'multi_to_multi'}}
  variants = ('multi', 'multi_to_multi', 'second')
  train.run(tiny_plan(workdir, own, variants=variants))
  assert trained == ['multi_to_multi-s0', 'second-s0']
  report = json.loads((workdir / 'report.json').read_text())
  assert tuple(report['variants']) == variants
  names = {path.name for path in (workdir / 'teachers').iterdir()}
  assert names == {'multi-s0', 'multi_to_multi-s0'}
  identity = _read(workdir, 'second-s0', 'config.json')
  assert [key for key in identity if key.startswith('teacher.')] == [
    'teacher.multi_to_multi-s0'
  ]
