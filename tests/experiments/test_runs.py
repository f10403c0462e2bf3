"""Variants as a graph of runs; the oracle is the table of method names."""

import re

import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.experiments import runs as runs_lib


def _config(**fields):
  config = config_lib.default_config()
  config.tasks = ('rte', 'mrpc')
  for key, value in fields.items():
    config.update_from_flattened_dict({key: value})
  return config_lib.from_config_dict(config)


def _names(config):
  return [run.name for run in runs_lib.plan_runs(config)]


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
  runs = {run.name: run for run in runs_lib.plan_runs(_config())}
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


def test_logits_from_outside_teach_in_place_of_runs():
  """But those variants alone that are taught, and not one's own teacher."""
  config = config_lib.default_config()
  config.tasks = ('rte', 'mrpc')
  config.variants = ('multi', 'single_to_multi', 'second')
  config.distill.logits = 'sets'
  config.custom_variants.second = config_lib.custom_variant(
    'multi_to_multi',
    changes={'distill': {'logits': ''}},
    teacher='single_to_multi',
  )
  runs = runs_lib.plan_runs(config_lib.from_config_dict(config))
  assert [(run.name, run.logits, run.is_taught) for run in runs] == [
    ('multi-s0', '', False),
    ('single_to_multi-s0', 'sets', True),
    ('second-s0', '', True),
  ]
  assert runs[1].teachers == {}
  assert runs[2].builds_on == {'single_to_multi-s0'}


@pytest.mark.parametrize(
  'variants', [('single_to_multi', 'single'), ('multi',)]
)
def test_teachers_precede_students_and_no_run_stands_twice(variants):
  runs = runs_lib.plan_runs(_config(variants=variants, seeds=(3, 1)))
  seen = set()
  for run in runs:
    assert run.name not in seen
    for teachers in run.teachers.values():
      assert seen.issuperset(teachers)
    seen.add(run.name)


def test_students_learn_from_teachers_of_their_own_seed():
  # Bug of the released code: only the outputs of trial 1 ever taught.
  runs = runs_lib.plan_runs(
    _config(seeds=(0, 1), variants=('single_to_multi',))
  )
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
  runs = {run.name: run for run in runs_lib.plan_runs(config)}
  assert runs['single_to_multi-s2'].teachers['rte'] == (
    'single-s0-rte',
    'single-s1-rte',
  )


def test_seeds_together_are_as_many_as_asked_and_follow_their_teachers():
  runs = runs_lib.plan_runs(
    _config(seeds=(0, 1, 2), variants=('single_to_multi',), tasks=('rte',))
  )
  groups = [
    [run.name for run in group]
    for group in runs_lib.group_runs(runs, 2, lambda r: 0)
  ]
  assert groups == [
    ['single-s0-rte', 'single-s1-rte'],
    ['single_to_multi-s0', 'single_to_multi-s1'],
    ['single-s2-rte'],
    ['single_to_multi-s2'],
  ]


def test_an_ensemble_is_trained_before_its_students():
  runs = runs_lib.plan_runs(
    _config(
      seeds=(0, 1, 2),
      variants=('single_to_multi',),
      **{'distill.teachers': 3, 'tasks': ('rte',)},
    )
  )
  done = set()
  for group in runs_lib.group_runs(runs, 2, lambda run: 0):
    for run in group:
      for teachers in run.teachers.values():
        assert done.issuperset(teachers)
    done.update(run.name for run in group)
  assert done == {run.name for run in runs}


def test_devices_divide_a_group_and_train_what_is_left_one_by_one():
  runs = runs_lib.plan_runs(_config(seeds=tuple(range(7)), variants=('multi',)))
  groups = runs_lib.group_runs(runs, 4, lambda run: 0, num_devices=2)
  assert [len(group) for group in groups] == [4, 2, 1]


def test_one_at_a_time_is_the_plan():
  runs = runs_lib.plan_runs(_config(seeds=(0, 1)))
  assert [[run] for run in runs] == list(
    runs_lib.group_runs(runs, 1, lambda r: 0)
  )


def test_runs_that_stand_at_different_steps_are_not_together():
  runs = runs_lib.plan_runs(_config(seeds=(0, 1, 2), variants=('multi',)))
  steps = {'multi-s0': 4, 'multi-s1': 0, 'multi-s2': 4}
  groups = list(runs_lib.group_runs(runs, 3, lambda run: steps[run.name]))
  assert [[run.seed for run in group] for group in groups] == [[0, 2], [1]]


def test_a_variant_of_the_users_own_shares_the_teachers_of_what_it_is_like():
  config = config_lib.default_config()
  config.tasks = ('rte', 'mrpc', 'cola')
  config.custom_variants.flat = config_lib.custom_variant(
    'single_to_multi',
    tasks=('rte', 'cola'),
    changes={'multi': {'layer_decay': 1.0}},
  )
  config.variants = ('single_to_multi', 'flat')
  runs = runs_lib.plan_runs(config_lib.from_config_dict(config))
  assert [run.name for run in runs] == [
    'single-s0-rte',
    'single-s0-mrpc',
    'single-s0-cola',
    'single_to_multi-s0',
    'flat-s0',
  ]
  student, flat = runs[-2:]
  assert flat.tasks == ('rte', 'cola')
  assert flat.teachers == {t: student.teachers[t] for t in flat.tasks}
  assert not flat.is_single
  assert (student.length.layer_decay, flat.length.layer_decay) == (0.9, 1.0)


def _plan(variants, custom, **fields):
  config = config_lib.default_config()
  config.tasks = ('rte', 'mrpc')
  config.variants = variants
  for name, own in custom.items():
    config.custom_variants[name] = config_lib.custom_variant(**own)
  config.update_from_flattened_dict(fields)
  config = config_lib.from_config_dict(config)
  return {run.name: run for run in runs_lib.plan_runs(config)}


def _assert_in_order(runs):
  seen = set()
  for run in runs:
    assert seen.issuperset(run.builds_on), run.name
    seen.add(run.name)


def test_further_rounds_are_taught_by_the_round_before():
  runs = _plan(
    ('third', 'multi_again'),
    {
      'third': {'like': 'single_to_multi', 'teacher': 'second'},
      'second': {'like': 'single_to_multi', 'teacher': 'single_to_multi'},
      'multi_again': {'like': 'multi_to_multi', 'teacher': 'multi_to_multi'},
    },
  )
  assert list(runs) == [
    'single-s0-rte',
    'single-s0-mrpc',
    'single_to_multi-s0',
    'second-s0',
    'third-s0',
    'multi-s0',
    'multi_to_multi-s0',
    'multi_again-s0',
  ]
  for student, teacher in (
    ('third-s0', 'second-s0'),
    ('second-s0', 'single_to_multi-s0'),
    ('multi_again-s0', 'multi_to_multi-s0'),
  ):
    assert runs[student].teachers == dict.fromkeys(('rte', 'mrpc'), (teacher,))


def test_a_teacher_makes_a_student_of_any_variant():
  runs = _plan(('taught',), {'taught': {'like': 'single', 'teacher': 'multi'}})
  assert list(runs) == ['multi-s0', 'taught-s0-rte', 'taught-s0-mrpc']
  assert runs['taught-s0-rte'].teachers == {'rte': ('multi-s0',)}
  assert runs['taught-s0-rte'].is_single


def test_fine_tuning_starts_from_the_run_of_its_seed_and_task():
  runs = _plan(
    ('tuned', 'again'),
    {
      'tuned': {'like': 'single', 'start': 'multi'},
      'again': {'like': 'single_to_single', 'start': 'tuned'},
    },
    seeds=(0, 1),
  )
  _assert_in_order(runs.values())
  for seed in (0, 1):
    for task in ('rte', 'mrpc'):
      tuned, again = (runs[f'{v}-s{seed}-{task}'] for v in ('tuned', 'again'))
      assert (tuned.start, tuned.teachers) == (f'multi-s{seed}', {})
      assert again.start == tuned.name
      assert again.teachers == {task: (f'single-s{seed}-{task}',)}
      assert again.builds_on == {tuned.name, f'single-s{seed}-{task}'}
  assert runs['multi-s0'].start == ''


def test_fine_tuning_waits_for_what_it_starts_from():
  runs = list(
    _plan(
      ('tuned',),
      {'tuned': {'like': 'single', 'start': 'multi'}},
      seeds=(0, 1, 2),
    ).values()
  )
  groups = list(runs_lib.group_runs(runs, 2, lambda run: 0))
  assert [[run.name for run in group] for group in groups] == [
    ['multi-s0', 'multi-s1'],
    ['tuned-s0-rte', 'tuned-s1-rte'],
    ['tuned-s0-mrpc', 'tuned-s1-mrpc'],
    ['multi-s2'],
    ['tuned-s2-rte'],
    ['tuned-s2-mrpc'],
  ]


def test_a_variant_has_as_many_teachers_as_it_says():
  changes = {'distill': {'teachers': 2}}
  runs = _plan(
    ('many',),
    {'many': {'like': 'single_to_multi', 'changes': changes}},
    seeds=(5, 6, 7),
  )
  assert runs['many-s7'].teachers['rte'] == ('single-s5-rte', 'single-s6-rte')


def test_shards_are_the_plan_in_parts():
  seeds = (0, 1, 2, 3, 4)
  whole = _plan(config_lib.VARIANTS, {}, seeds=seeds)
  parts = [
    _plan(config_lib.VARIANTS, {}, seeds=seeds, **{'plan.shard': f'{i}/2'})
    for i in (0, 1)
  ]
  assert [{run.seed for run in part.values()} for part in parts] == [
    {0, 2, 4},
    {1, 3},
  ]
  assert parts[0].keys() | parts[1].keys() == whole.keys()
  for part in parts:
    for name, run in part.items():
      assert run.teachers == whole[name].teachers


def test_a_shard_brings_the_ensemble_that_its_students_need():
  fields = {'seeds': (0, 1, 2), 'distill.teachers': 2, 'plan.shard': '1/3'}
  runs = _plan(('single_to_multi',), {}, **fields)
  assert list(runs) == [
    'single-s0-rte',
    'single-s0-mrpc',
    'single-s1-rte',
    'single-s1-mrpc',
    'single_to_multi-s1',
  ]


def _chosen(choices, **changes):
  config = config_lib.default_config()
  config.tasks = ('rte', 'mrpc')
  config.custom_variants.tuned = config_lib.custom_variant(
    'single', start='multi', changes=changes
  )
  config.variants = (*config_lib.VARIANTS, 'tuned')
  config.search.seeds, config.search.learning_rates = (9,), (1e-5,)
  config = config_lib.from_config_dict(config)
  return config, runs_lib.plan_runs(config, choices)


_CHOICES = {
  'rte': runs_lib.Choice(3e-5, 1.0),
  'mrpc': runs_lib.Choice(2e-5, 0.9),
}


def test_single_task_runs_train_with_what_was_chosen_for_their_task():
  config, runs = _chosen(_CHOICES)
  for run in runs:
    if run.is_single:
      (task,) = run.tasks
      chosen = (run.length.learning_rate, run.length.layer_decay)
      assert chosen == _CHOICES[task][:2]
    else:
      assert run.length == config.multi


def test_what_a_variant_changes_is_not_chosen():
  _, runs = _chosen(_CHOICES, single={'layer_decay': 0.5})
  (run,) = (run for run in runs if run.name.startswith('tuned-s0-rte'))
  assert (run.length.learning_rate, run.length.layer_decay) == (3e-5, 0.5)


def test_runs_are_named_by_all_that_was_chosen_for_them():
  _, runs = _chosen(_CHOICES)
  names = [run.name for run in runs]
  assert names[:3] == [
    'single-s0-rte-lr3e-05-decay1.0',
    'single-s0-mrpc-lr2e-05-decay0.9',
    'multi-s0',
  ]
  for other in (
    {**_CHOICES, 'mrpc': runs_lib.Choice(2e-5, 0.8)},
    {**_CHOICES, 'mrpc': runs_lib.Choice(1e-5, 0.9)},
    {},
  ):
    kept = set(names) & {run.name for run in _chosen(other)[1]}
    # Of other choices for MRPC the students learn too, all but Multi->Multi.
    rte = {name for name in names if '-rte-' in name} if other else set()
    assert kept == rte | {'multi-s0', 'multi_to_multi-s0'}


def test_runs_that_were_chosen_other_values_are_not_together():
  runs = [
    run
    for rate in (1e-5, 2e-5)
    for run in _chosen({'rte': runs_lib.Choice(rate, 1.0)})[1]
    if run.name.startswith('single-s0-rte')
  ]
  groups = list(runs_lib.group_runs(runs, 2, lambda run: 0))
  assert [len(group) for group in groups] == [1, 1]


@pytest.mark.parametrize(
  ('variant', 'teachers'),
  [
    ('single_to_multi', 'single-s{seed}-rte-fold{fold}of3'),
    ('multi_to_multi', 'multi-s{seed}-fold{fold}of3'),
  ],
)
def test_a_teacher_of_folds_is_a_run_a_fold(variant, teachers):
  config = _config(
    seeds=(4, 2),
    variants=(variant,),
    **{'distill.folds': 3, 'distill.teachers': 2},
  )
  runs = {run.name: run for run in runs_lib.plan_runs(config)}
  names = tuple(
    teachers.format(seed=seed, fold=fold)
    for seed in (4, 2)
    for fold in (1, 2, 3)
  )
  assert runs[f'{variant}-s2'].teachers['rte'] == names
  for name in names:
    fold = runs[name].fold
    assert name.endswith(f'fold{fold.number}of3')
    assert fold.seed == runs[name].seed
  assert runs[f'{variant}-s2'].fold is None
  # None is taken for a run of the variant that predicts or is reported.
  assert not {run.group for run in runs.values()} & {'single-s4', 'multi-s4'}


def test_whole_runs_stand_beside_folds():
  names = _names(
    _config(
      tasks=('rte',),
      variants=('single_to_multi', 'single'),
      **{'distill.folds': 2},
    )
  )
  assert names == [
    'single-s0-rte-fold1of2',
    'single-s0-rte-fold2of2',
    'single_to_multi-s0',
    'single-s0-rte',
  ]


def test_runs_of_different_folds_are_not_together():
  runs = runs_lib.plan_runs(
    _config(
      seeds=(0, 1),
      tasks=('rte',),
      variants=('single', 'single_to_multi'),
      **{'distill.folds': 2},
    )
  )
  groups = [
    [run.name for run in group]
    for group in runs_lib.group_runs(runs, 8, lambda r: 0)
  ]
  assert groups == [
    ['single-s0-rte', 'single-s1-rte'],
    ['single-s0-rte-fold1of2', 'single-s1-rte-fold1of2'],
    ['single-s0-rte-fold2of2', 'single-s1-rte-fold2of2'],
    ['single_to_multi-s0', 'single_to_multi-s1'],
  ]


def test_a_variant_of_the_users_own_may_have_other_teachers():
  """Folds and ensembles beside the paper's teachers, in one plan."""
  config = config_lib.default_config()
  config.tasks, config.seeds = ('rte',), (0, 1)
  config.variants = ('single_to_multi',)
  for name, changes in (
    ('folded', {'folds': 2}),
    ('ensemble', {'teachers': 2}),
  ):
    config.custom_variants[name] = config_lib.custom_variant(
      'single_to_multi', changes={'distill': changes}
    )
    config.variants += (name,)
  runs = {
    run.name: run
    for run in runs_lib.plan_runs(config_lib.from_config_dict(config))
  }
  assert {
    name: runs[f'{name}-s1'].teachers['rte'] for name in config.variants
  } == {
    'single_to_multi': ('single-s1-rte',),
    'folded': ('single-s1-rte-fold1of2', 'single-s1-rte-fold2of2'),
    'ensemble': ('single-s0-rte', 'single-s1-rte'),
  }


@pytest.mark.parametrize('name', ['mood-fold1of2', 'MOOD-Fold2of2'])
def test_a_task_named_like_the_fold_of_another(name):
  config = config_lib.default_config()
  config.tasks = ('mood', name)
  config.variants = ('single', 'single_to_multi')
  for task in config.tasks:
    config.custom_tasks[task] = config_lib.custom_task()
  # Without folds there is nothing to be taken for another.
  assert len(_names(config_lib.from_config_dict(config))) == 3
  config.distill.folds = 2
  with pytest.raises(errors.UserError) as told:
    runs_lib.plan_runs(config_lib.from_config_dict(config))
  # Which of the two runs comes second depends on the folds.
  assert re.search(
    r'config\.tasks: the run that trains .* would share the name single-s0-',
    str(told.value),
  )
