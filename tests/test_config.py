"""The configuration: checked once at the border, one line a mistake."""

import dataclasses
import importlib.util
from pathlib import Path
import typing

import jax
import numpy as np
import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import fields as fields_lib
from bam_jax.data import registry

_CONFIGS = sorted((Path(__file__).parent.parent / 'configs').glob('*.py'))


def _valid():
  config = config_lib.default_config()
  config.tasks = ('rte', 'mrpc')
  return config


def _load(path, *arguments):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(*arguments)


@pytest.mark.parametrize('path', _CONFIGS, ids=lambda path: path.stem)
def test_committed_configs_are_valid(path):
  config = _load(path)
  # configs/recommended.py is completed by a user's own tasks.
  config.tasks = config.tasks or ('demo_sentiment',)
  assert config_lib.from_config_dict(config).name == path.stem


def test_the_recommended_settings_have_a_plan_for_glue():
  config = _load(_CONFIGS[0].with_name('recommended.py'), 'glue')
  config = config_lib.from_config_dict(config)
  assert 'single_searched' in config.variants and 'rte' in config.tasks


def test_the_recommended_settings_have_some_for_small_tasks():
  config = _load(_CONFIGS[0].with_name('recommended.py'), 'small')
  config.tasks = ('demo_similarity',)
  config.data.bi_encoder = ('demo_similarity',)
  config = config_lib.from_config_dict(config)
  assert config.model.head_init == 'linear_probe'
  assert registry.resolve(config).bi_encoder_heads == (0,)


def test_a_config_file_says_which_arguments_it_has():
  bam = _load(_CONFIGS[0].with_name('bam.py'), 'paper')
  config = config_lib.from_config_dict(bam)
  assert config.name == 'bam_paper'
  assert config.seeds == tuple(range(20))
  assert config.variants == config_lib.VARIANTS
  with pytest.raises(
    errors.UserError,
    match=r"^--config: 'papr' after the colon is none of paper; give",
  ):
    _load(_CONFIGS[0].with_name('bam.py'), 'papr')


def test_the_released_codes_settings_are_the_defaults_and_its_switches():
  path = _CONFIGS[0].with_name('minilm.py')
  config = config_lib.from_config_dict(_load(path, 'released'))
  assert config.optimizer == config_lib.OptimizerConfig()
  assert (config.single, config.multi) == (
    config_lib.Config().single,
    config_lib.Config().multi,
  )
  assert config.data.swap == ('mrpc', 'stsb')
  assert config.sampling == config_lib.SamplingConfig('copies')
  assert 'wnli' not in config.tasks
  # Beside these, both train alike.
  usual = config_lib.from_config_dict(_load(path))
  assert (config.seeds, config.variants) == (usual.seeds, usual.variants)
  model = dataclasses.replace(
    usual.model, regression_head='linear', head_init='glorot_uniform'
  )
  assert config.model == model


def test_defaults_are_the_papers():
  config = config_lib.from_config_dict(_valid())
  assert (config.single.epochs, config.single.batch_size) == (3.0, 32)
  assert (config.single.learning_rate, config.single.layer_decay) == (5e-5, 0.9)
  assert (config.multi.epochs, config.multi.batch_size) == (6.0, 128)
  assert (config.multi.learning_rate, config.multi.layer_decay) == (1e-4, 0.9)
  assert config.sampling == config_lib.SamplingConfig('sampled', 0.75)
  assert not config.optimizer.bias_correction
  assert config.optimizer.reduction == 'sum'


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    (
      'model.dtype',
      'float16',
      r"config\.model\.dtype: 'float16' is none of auto, float32,"
      r' bfloat16',
    ),
    (
      'single.batch_size',
      0,
      r'config\.single\.batch_size: 0 is out of range; give from 1',
    ),
    (
      'optimizer.warmup',
      1.5,
      r'config\.optimizer\.warmup: 1\.5 is out of range; give from 0 to 1'
      r' \(a share of the steps\)',
    ),
    (
      'variants',
      ('single,multi',),
      r"config\.variants: 'single,multi' is one name; several, .*\('single'",
    ),
    (
      'optimizer.schedule',
      'linear',
      r"config.* 'linear' is none of bert, warmup_linear; the nearest is warm",
    ),
    (
      'train.trackers',
      ('tensorboard',),
      r"config.*'tensorboard' is none of wandb, mlflow; TensorBoard is on by",
    ),
    (
      'variants',
      ('singel',),
      r"config\.variants: 'singel' is none of single, single_searched, multi",
    ),
    ('tasks', (), r'config\.tasks is empty; give at least one'),
    ('seeds', (1, 1), r'config\.seeds: \(1, 1\) has a value twice'),
    (
      'packing.row_length',
      64,
      r'config\.data\.max_length=128 is over config\.packing\.row_length'
      r'=64; raise the latter, or remove it',
    ),
    (
      'data.swap',
      ('qqp',),
      r"config\.data\.swap: 'qqp' is none of rte, mrpc; name a task of"
      r' config\.tasks, or leave it out',
    ),
    (
      'packing.row_buckets',
      (16, 8),
      r'config\.packing\.row_buckets=\(16, 8\) must ascend',
    ),
    (
      'packing.row_buckets',
      (0, 8),
      r'config\.packing\.row_buckets: 0 is out of range; give from 1 to',
    ),
    (
      'train.profile',
      (200,),
      r'config\.train\.profile=\(200,\) must be two ascending steps',
    ),
    (
      'multi.epochs',
      float('inf'),
      r'config\.multi\.epochs: inf is not a finite number',
    ),
    (
      'distill.teachers',
      2,
      r'config\.distill\.teachers=2: config\.seeds has only 1; each'
      r' teacher needs its own seed, so add seeds',
    ),
    (
      'plan.shard',
      '2',
      r"config\.plan\.shard: '2' is not i/n with i from 0 to n - 1",
    ),
    ('plan.shard', '2/2', r"config\.plan\.shard: '2/2' is not i/n"),
    ('plan.shard', '-1/2', r"config\.plan\.shard: '-1/2' is not i/n"),
    (
      'plan.shard',
      '1/2',
      r'config\.plan\.shard: 1/2 has no seed, because config\.seeds has only',
    ),
    (
      'search.learning_rates',
      (1e-5, 0.0),
      r'config\.search\.learning_rates: 0\.0 is out of range; give at l',
    ),
    (
      'search.layer_decays',
      (1.1,),
      r'config\.search\.layer_decays: 1\.1 is out of range; give from',
    ),
    (
      'search.layer_decays',
      (1.0, 1.0),
      r'config\.search\.layer_decays: \(1\.0, 1\.0\) has a value twice',
    ),
    ('search.seeds', (-1,), r'config\.search\.seeds: -1 is out of range'),
    ('search.seeds', (1,), r'config\.search: needs both seeds and values'),
    (
      'search.learning_rates',
      (1e-5,),
      r'config\.search: needs both .* seeds=\(\), learning_rates=\(1e-05,\)',
    ),
    *(
      ('sampling.loss_weights', (entry,), rf'config\.sampling.*{reason}')
      for entry, reason in (
        ('rte', 'is neither auto nor TASK=NUMBER'),
        ('rte=0', 'above 0'),
        ('rte=nan', 'above 0'),
        ('rte=1e9', 'at most 1e[+]06'),
        ('none=2', "'none'"),
      )
    ),
    (
      'sampling.loss_weights',
      ('rte=2', 'rte=3'),
      r"config\.sampling\.loss_weights: 'rte=3': rte already has 2",
    ),
    (
      'single',
      {'min_steps': 8, 'max_steps': 7},
      r'config\.single\.min_steps=8: is above max_steps=7; lower the first',
    ),
    (
      'custom_variants.own',
      {
        'like': 'multi',
        'changes': {'multi': {'min_steps': 8, 'max_steps': 7}},
      },
      r'config\.custom_variants\.own\.changes\.multi\.min_steps=8: is above',
    ),
    (
      'distill.folds',
      0,
      r'config\.distill\.folds: 0 is out of range; give from 1 to',
    ),
  ],
  ids=lambda value: str(value) if isinstance(value, str) else None,
)
def test_mistakes_are_told_in_one_line(key, value, message):
  config = _valid()
  with config.ignore_type():
    config.update_from_flattened_dict({key: value})
  with pytest.raises(errors.UserError, match=f'^{message}') as caught:
    config_lib.from_config_dict(config)
  assert '\n' not in str(caught.value)


_HUGE = 10**5000


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    (
      'distill.folds',
      10**9,
      r'distill.folds: 1000000000 is out of range; give',
    ),
    ('packing.eval_rows', 10**8, r'packing.eval_rows: 100000000 is out of ra'),
    ('packing.slots', 10**8, r'packing.slots: 100000000 is out of'),
    (
      'multi.epochs',
      1e12,
      r'multi.epochs: 1000000000000.0 is out',
    ),
    ('single.batch_size', 10**9, r'single.batch_size: 1000000000 is out of r'),
    ('data.shard_rows', 2**62, r'data.shard_rows: \d+ is out of range'),
    ('train.prefetch', 10**7, r'train.prefetch: 10000000 is out of range; giv'),
    ('train.accumulate', 10**7, r'train.accumulate: 10000000 is out of range'),
    ('train.seeds_at_once', 10**7, r'train.seeds_at_once: 10000000 is out of'),
    ('packing.row_buckets', (1, 10**9), r'packing.row_buckets: 1000000000 is'),
    ('packing.row_buckets', tuple(range(1, 200)), r'packing.row_buckets: 199'),
    (
      'seeds',
      (2**32,),
      r'seeds: 4294967296 is out of range; give from 0 to 429',
    ),
    ('seeds', tuple(range(10**6)), r'seeds: 1000000 values are too many; give'),
    (
      'search.seeds',
      (2**40,),
      r'search.seeds: \d+ is out of range; give from 0 to',
    ),
    ('tasks', ('rte',) * 10**6, r'tasks: 1000000 values are too many; give at'),
    ('train.profile', (0, 2**40), r'train.profile: \d+ is out of'),
    ('packing.slots', _HUGE, r'packing.slots: a number of 16610 bits is out'),
    ('model.dtype', _HUGE, r'model.dtype: a number of 16610 bits is out of ra'),
    ('seeds', (_HUGE,), r'seeds: a number of 16610 bits is out of range'),
    ('seeds', _HUGE, r'seeds: a number of 16610 bits is out of range'),
    ('plan.shard', f'0/{_HUGE // 10**4998}' + '0' * 4998, r'plan.shard: .* no'),
    # Figures to Python, but not ASCII ones.
    ('plan.shard', '\u0660/\u0662', r'plan.shard: .* is not i/n'),
  ],
  # Python writes no number of thousands of digits.
  ids=lambda value: value[:20] if isinstance(value, str) else 'number',
)
def test_a_number_beyond_any_use_is_refused(key, value, message):
  config = _valid()
  with config.ignore_type():
    config.update_from_flattened_dict({key: value})
  with pytest.raises(errors.UserError, match=rf'^config\.{message}'):
    config_lib.from_config_dict(config)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'packing.eval_rows': 1 << 18},
      r'packing.eval_rows=262144: with config.packing.row_length=128 a batch'
      r' has 33554432 tokens, over 16777216; give at most 131072',
    ),
    (
      {'packing.eval_rows': 1024, 'packing.slots': 2048},
      r'packing.eval_rows=1024: with config.packing.slots=2048 a batch',
    ),
    (
      {'packing.row_buckets': (1, 1 << 18)},
      r'packing.row_buckets=262144: w',
    ),
    (
      {'multi.batch_size': 1 << 19},
      r'multi.batch_size=524288: with con',
    ),
    (
      {'packing.row_length': 1 << 16, 'train.accumulate': 1000},
      r'train.accumulate=1000: with config.packing.row_length=65536 a batch',
    ),
    (
      {'seeds': tuple(range(1000)), 'distill.folds': 100},
      r'seeds, variants, tasks and distill.folds: \d+ runs are over',
    ),
    (
      {
        'search.seeds': tuple(range(100, 200)),
        'search.learning_rates': tuple(1e-5 * n for n in range(1, 101)),
        'search.layer_decays': tuple(n / 100 for n in range(1, 101)),
      },
      r'search: \d+ runs are over 100000; give fewer',
    ),
  ],
  ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_numbers_that_are_too_many_together_are_refused(changes, message):
  config = _valid()
  with config.ignore_type():
    config.update_from_flattened_dict(changes)
  with pytest.raises(errors.UserError, match=rf'^config\.{message}'):
    config_lib.from_config_dict(config)


def test_a_batch_of_an_own_variant_is_limited_too():
  config = _valid()
  config.custom_variants.mine = config_lib.custom_variant(
    'multi', changes={'multi': {'batch_size': 1 << 19}}
  )
  config.variants = ('mine',)
  with pytest.raises(
    errors.UserError,
    match=r'^config.custom_variants.mine.changes.multi.batch_size=524288: with',
  ):
    config_lib.from_config_dict(config)


def test_every_number_has_a_limit_that_is_kept():
  """But for those that take neither memory nor time."""
  free = {'learning_rate', 'eps', 'weight_decay', 'clip_norm', 'temperature'}

  def numbers(cls, path):
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
      hint = hints[field.name]
      if dataclasses.is_dataclass(hint):
        yield from numbers(hint, f'{path}.{field.name}')
      elif hint in (int, float, tuple[int, ...]):
        yield f'{path}.{field.name}', field

  found = dict(numbers(fields_lib.Config, 'config'))
  assert len(found) > 30
  for path, field in found.items():
    if field.name not in free and path != 'config.model.layers':
      assert field.metadata['high'] is not None, path


def test_cross_entropy_needs_the_sigmoid_head():
  config = _valid()
  config.model.regression_loss = 'cross_entropy'
  config_lib.from_config_dict(config)
  config.model.regression_head = 'linear'
  with pytest.raises(errors.UserError, match='needs predictions on 0-1'):
    config_lib.from_config_dict(config)


def test_the_largest_seed_is_its_own():
  """JAX's keys hold 32 bits: a larger one would repeat a smaller one's run."""
  config = _valid()
  config.seeds = (0, 2**32 - 1)
  assert config_lib.from_config_dict(config).seeds == (0, 2**32 - 1)
  keys = [jax.random.key(np.uint32(seed)) for seed in (0, 2**32 - 1, 2**31)]
  assert len({jax.random.key_data(key).tobytes() for key in keys}) == 3


def test_wrong_type_names_both_types():
  config = _valid()
  with config.ignore_type():
    config.single.batch_size = 'many'
  with pytest.raises(
    errors.UserError,
    match=r"batch_size: 'many' is of type str; give a value of type int",
  ):
    config_lib.from_config_dict(config)


def test_unknown_key_names_the_nearest():
  config = _valid()
  with config.unlocked():
    config.single.batch_sise = 3
  with pytest.raises(
    errors.UserError,
    match=r'config\.single\.batch_sise: no such key; the nearest is'
    r' config\.single\.batch_size',
  ):
    config_lib.from_config_dict(config)


def test_an_assignment_to_an_unknown_key_names_the_nearest():
  with pytest.raises(AttributeError, match='Did you mean "tasks"'):
    _valid().taks = ('rte',)


def test_fingerprint_ignores_what_no_run_depends_on():
  one, two = _valid(), _valid()
  two.seeds = (0, 1)
  two.variants = ('single',)
  two.train.log_every = 7
  two.mesh.fsdp = 2
  assert _fingerprint(one) == _fingerprint(two)
  two.single.learning_rate = 1e-5
  assert _fingerprint(one) != _fingerprint(two)


def _fingerprint(config):
  return config_lib.fingerprint_values(config_lib.from_config_dict(config))


@pytest.mark.parametrize(
  ('max_length', 'given', 'resolved'),
  [
    (8, {}, (128, 16, 64)),
    (128, {}, (128, 16, 64)),
    (129, {}, (256, 32, 32)),
    (384, {}, (384, 48, 21)),
    (512, {}, (512, 64, 16)),
    (1 << 16, {}, (1 << 16, 8192, 1)),
    (64, {'row_length': 64}, (64, 16, 64)),
    (384, {'row_length': 400}, (400, 16, 20)),
    (512, {'slots': 8, 'eval_rows': 3}, (512, 8, 3)),
  ],
)
def test_rows_are_as_long_as_the_longest_example(max_length, given, resolved):
  config = _valid()
  config.data.max_length = max_length
  config.packing.update(given)
  packing = config_lib.from_config_dict(config).packing
  found = packing.row_length, packing.slots, packing.eval_rows
  assert found == resolved


def test_automatic_packing_is_what_earlier_runs_recorded():
  """Work directories from before it was automatic stay valid."""
  values = config_lib.default_values()
  for key, value in {'row_length': 128, 'slots': 16}.items():
    assert _fingerprint(_valid())[f'packing.{key}'] == value
    assert values[f'packing.{key}'] == value


def test_nothing_is_chosen_on_the_seeds_that_are_reported():
  config = _valid()
  config.seeds, config.search.seeds = (0, 1), (1, 2)
  config.search.learning_rates = (1e-5, 5e-5)
  with pytest.raises(
    errors.UserError,
    match=r'config\.search\.seeds: 1 is in config\.seeds too; the values'
    r' must be chosen on seeds that are not reported',
  ):
    config_lib.from_config_dict(config)
  config.search.seeds = (2, 3)
  config_lib.from_config_dict(config)


@pytest.mark.parametrize(
  ('shard', 'seeds'), [('', (3, 1, 4)), ('0/2', (3, 4)), ('1/2', (1,))]
)
def test_a_shard_takes_every_nth_seed(shard, seeds):
  config = _valid()
  config.seeds, config.plan.shard = (3, 1, 4), shard
  config = config_lib.from_config_dict(config)
  assert config_lib.seeds_of_shard(config) == seeds
  assert config.seeds == (3, 1, 4)


@pytest.mark.parametrize(
  ('fields', 'told'),
  [
    (
      {'variants': ('single_searched',), 'search.seeds': ()},
      r'^config\.variants: single_searched has no settings to choose from;',
    ),
    (
      {'variants': ('multi_searched',), 'search.learning_rates': (1e-5,)},
      r'^config\.search: no variant uses these settings; add single_searched',
    ),
    (
      {'search.multi.epochs': (1.0, 2.0)},
      r'^config\.search\.multi: no variant uses these .* add multi_searched',
    ),
    (
      {'search.changes_of': ('short',)},
      r"^config\.search\.changes_of: 'short' is none of single",
    ),
    (
      {'search.changes_of': ('single', 'taught')},
      r'^config\.search\.changes_of: taught changes distill, which the runs',
    ),
    (
      {
        'search.changes_of': ('single', 'slow'),
        'search.learning_rates': (1e-5, 2e-5),
      },
      r'^config\.search\.changes_of: slow changes learning_rate, but the ',
    ),
    (
      {'search.multi.changes_of': ('multi', 'multi')},
      r'^config\.search\.multi\.changes_of: .* has a value twice',
    ),
    (
      {'search.epochs': (1.0,), 'search.held_out': 0.6},
      r'^config\.search\.held_out: 0\.6 is out of range',
    ),
    (
      {'search.batch_sizes': (1 << 20,)},
      r'^config\.search\.batch_sizes=1048576: .* tokens, over',
    ),
    (
      {'search.seeds': (), 'search.multi.epochs': (1.0,)},
      r'^config\.search: needs both seeds .*, multi\.epochs=\(1\.0,\)$',
    ),
  ],
)
def test_a_search_that_nothing_uses_is_told(fields, told):
  config = _valid()
  config.custom_variants.taught = config_lib.custom_variant(
    'single', changes={'distill': {'constant': 1.0}}
  )
  config.custom_variants.slow = config_lib.custom_variant(
    'single', changes={'single': {'learning_rate': 1e-5, 'epochs': 9.0}}
  )
  config.search.seeds = (100,)
  config.update_from_flattened_dict(fields)
  with pytest.raises(errors.UserError, match=told):
    config_lib.from_config_dict(config)
