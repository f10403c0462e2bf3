"""Variants as a graph of runs; the oracle is the table of method names."""

import pytest

from bam_jax import config as config_lib
from bam_jax.experiments import plan


def _config(**fields):
  config = config_lib.default_config()
  config.tasks = ('rte', 'mrpc')
  for key, value in fields.items():
    config.update_from_flattened_dict({key: value})
  return config_lib.from_config_dict(config)


def _names(config):
  return [run.name for run in plan.plan(config)]


def test_all_variants_of_a_seed():
  assert _names(_config()) == [
    'single-s0-rte',
    'single-s0-mrpc',
    'multi-s0',
    'single_to_single-s0-rte',
    'single_to_single-s0-mrpc',
    'multi_to_multi-s0',
    'single_to_multi-s0',
  ]


def test_teachers_of_each_variant():
  runs = {run.name: run for run in plan.plan(_config())}
  assert runs['multi-s0'].teachers == {}
  assert runs['single_to_single-s0-rte'].teachers == {'rte': ('single-s0-rte',)}
  assert runs['multi_to_multi-s0'].teachers == {
    'rte': ('multi-s0',),
    'mrpc': ('multi-s0',),
  }
  assert runs['single_to_multi-s0'].teachers == {
    'rte': ('single-s0-rte',),
    'mrpc': ('single-s0-mrpc',),
  }


def test_a_student_alone_brings_its_teachers():
  assert _names(_config(variants=('single_to_multi',))) == [
    'single-s0-rte',
    'single-s0-mrpc',
    'single_to_multi-s0',
  ]


@pytest.mark.parametrize(
  'variants', [('single_to_multi', 'single'), ('multi',)]
)
def test_teachers_precede_students_and_no_run_stands_twice(variants):
  runs = plan.plan(_config(variants=variants, seeds=(3, 1)))
  seen = set()
  for run in runs:
    assert run.name not in seen
    for teachers in run.teachers.values():
      assert seen.issuperset(teachers)
    seen.add(run.name)


def test_students_learn_from_teachers_of_their_own_seed():
  # Bug of the released code: only the outputs of trial 1 ever taught.
  runs = plan.plan(_config(seeds=(0, 1), variants=('single_to_multi',)))
  for run in runs:
    for teachers in run.teachers.values():
      assert all(f'-s{run.seed}-' in name for name in teachers)
  assert {run.seed for run in runs} == {0, 1}


def test_an_ensemble_teaches_every_seed():
  config = _config(
    seeds=(0, 1, 2),
    variants=('single_to_multi',),
    **{'distill.teachers': 2},
  )
  runs = {run.name: run for run in plan.plan(config)}
  assert runs['single_to_multi-s2'].teachers['rte'] == (
    'single-s0-rte',
    'single-s1-rte',
  )


def test_tasks_taught_by():
  runs = plan.plan(_config())
  assert plan.tasks_taught_by(runs, 'multi-s0') == ('rte', 'mrpc')
  assert plan.tasks_taught_by(runs, 'single-s0-rte') == ('rte',)
  assert plan.tasks_taught_by(runs, 'single_to_multi-s0') == ()
