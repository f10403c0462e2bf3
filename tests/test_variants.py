"""Variants of the user: their fields, teachers and starts are checked."""

import pytest

from bam_jax import config as config_lib
from bam_jax import errors


def _plan():
  config = config_lib.default_config()
  config.tasks = ('rte', 'mrpc')
  return config


def _with_variant(like='single_to_multi', **fields):
  config = _plan()
  config.custom_variants.mine = config_lib.custom_variant(like, **fields)
  config.variants = ('multi', 'mine')
  return config


def test_a_variant_changes_its_own_runs_alone():
  changes = {
    'multi': {'layer_decay': 1.0},
    'distill': {'annealing': 'constant'},
  }
  config = config_lib.from_config_dict(_with_variant(changes=changes))
  mine = config_lib.config_for_variant(config, 'mine')
  assert mine.multi.layer_decay == 1.0
  assert mine.multi.batch_size == config.multi.batch_size
  assert mine.distill.annealing == 'constant'
  assert config_lib.config_for_variant(config, 'multi') == config
  assert config_lib.variant_names(config)[-1] == 'mine'


def test_own_variants_stand_in_the_order_of_the_plan():
  """A ConfigDict puts them in that of the alphabet."""
  config = _plan()
  for name in ('b', 'a', 'c'):
    config.custom_variants[name] = config_lib.custom_variant('multi')
  config.variants = ('c', 'multi', 'a')
  names = config_lib.variant_names(config_lib.from_config_dict(config))
  assert names == (
    *('single', 'single_searched', 'multi', 'multi_searched'),
    *('single_to_single', 'multi_to_multi', 'single_to_multi'),
    *('c', 'a', 'b'),
  )


@pytest.mark.parametrize(
  ('fields', 'told'),
  [
    (
      {'changes': {'model': {'remat': True}}},
      r'changes\.model: a variant cannot change',
    ),
    (
      {'changes': {'multi': {'layer_decai': 1.0}}},
      r'nearest is .*\.layer_decay',
    ),
    ({'changes': {'multi': {'layer_decay': 2.0}}}, 'out of range'),
    ({'changes': {'multi': 3}}, 'is not a mapping; give a dict'),
    ({'changes': None}, 'changes: None is not a mapping; give a dict'),
    ({'changes': ['multi']}, r"\('multi',\) is not a mapping; give a dict"),
    (
      {'tasks': ('rte', 'rte')},
      r"custom_variants\.mine\.tasks: \('rte', 'rte'\) has a value twice",
    ),
    (
      {'changes': {'distill': {'teachers': 2}}},
      r'mine\.changes\.distill\.teachers=2: config\.seeds has only 1; each',
    ),
    (
      {'changes': {'distill': {'logits': 'sets', 'folds': 2}}},
      r'mine\.changes\.distill\.logits: external logits .*folds=2 have',
    ),
    (
      {'teacher': 'multi', 'changes': {'distill': {'logits': 'sets'}}},
      r"mine\.teacher: multi and distill\.logits='sets' both name a tea",
    ),
    ({'tasks': ('rte', 'cola')}, r"tasks: 'cola' is none of rte, mrpc"),
    (
      {'teacher': 'mutli'},
      r"mine\.teacher: 'mutli' is none of single, single_searched, multi",
    ),
    (
      {'teacher': 'mine'},
      r'config\.custom_variants: mine -> mine is a cycle, and a variant can',
    ),
    (
      {'start': 'multi'},
      r'mine\.start: single_to_multi trains one run over all tasks; only',
    ),
    (
      {'like': 'single', 'start': 'none'},
      r"mine\.start: 'none' is none of single, single_searched, multi",
    ),
  ],
)
def test_a_variant_that_does_not_hold_together_is_told(fields, told):
  with pytest.raises(errors.UserError, match=told):
    config_lib.from_config_dict(_with_variant(**fields))


def test_a_variant_does_not_take_the_name_of_another():
  config = _plan()
  config.custom_variants.single = config_lib.custom_variant('multi')
  with pytest.raises(errors.UserError, match='this name is reserved'):
    config_lib.from_config_dict(config)


@pytest.mark.parametrize('name', ['search', 'majority', 'frozen_encoder'])
def test_other_rows_and_runs_are_no_variant(name):
  config = _plan()
  config.custom_variants[name] = config_lib.custom_variant('multi')
  with pytest.raises(errors.UserError, match='this name is reserved'):
    config_lib.from_config_dict(config)


def test_a_cycle_of_variants_is_told():
  config = _with_variant(teacher='second')
  config.custom_variants.second = config_lib.custom_variant(
    'single', start='third'
  )
  config.custom_variants.third = config_lib.custom_variant(
    'multi', teacher='mine'
  )
  with pytest.raises(
    errors.UserError,
    match=r'custom_variants: mine -> second -> third -> mine is a cycle',
  ):
    config_lib.from_config_dict(config)


def test_a_long_chain_of_variants_is_checked_at_once():
  # Each link has two ways to the one below: 2^40 ways to the first.
  config = _plan()
  below = 'single'
  for number in range(40):
    config.custom_variants[f'link{number}'] = config_lib.custom_variant(
      'single', teacher=below, start=below
    )
    below = f'link{number}'
  config_lib.from_config_dict(config)


@pytest.mark.parametrize('key', ['teacher', 'start'])
def test_teachers_and_starts_cover_the_tasks_of_their_users(key):
  config = _with_variant(like='single', **{key: 'part'})
  config.custom_variants.part = config_lib.custom_variant(
    'multi', tasks=('rte',)
  )
  with pytest.raises(
    errors.UserError,
    match=rf'custom_variants\.mine\.{key}: part has no run for mrpc; choose',
  ):
    config_lib.from_config_dict(config)
  config.custom_variants.mine.tasks = ('rte',)
  config_lib.from_config_dict(config)
