"""The configuration: frozen dataclasses that are checked once, at the start.

A file in `configs/` returns `default_config()` with some fields changed, and
the command line may change more fields (`--config.train.log_every=10`).
`from_config_dict` checks all fields and returns a `Config`.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import math
from pathlib import Path
import re

import ml_collections

from bam_jax import errors
from bam_jax import fields
from bam_jax import files
from bam_jax import schema
from bam_jax import searches
from bam_jax import task_values
from bam_jax import variants

# Names that the rest of the package imports from this module.
VARIANTS = fields.VARIANTS
Config = fields.Config
DataConfig = fields.DataConfig
DecisionConfig = fields.DecisionConfig
DistillConfig = fields.DistillConfig
MeshConfig = fields.MeshConfig
ModelConfig = fields.ModelConfig
OptimizerConfig = fields.OptimizerConfig
PackingConfig = fields.PackingConfig
RunLengthConfig = fields.RunLengthConfig
SamplingConfig = fields.SamplingConfig
TaskConfig = fields.TaskConfig
TrainConfig = fields.TrainConfig
VariantConfig = fields.VariantConfig
config_for_variant = variants.config_for_variant
variant_names = variants.variant_names
AUTO = task_values.AUTO
loss_weights = task_values.loss_weights
thresholds = task_values.thresholds
unlabelled_files = task_values.unlabelled_files

# File in a work directory: the settings of the last command that changed it.
FILE = 'config.json'

# Highest numbers of tokens and slots per batch, and of runs per plan.
_MOST_TOKENS = 1 << 24
_MOST_SLOTS = 1 << 20
_MOST_RUNS = 100_000
# For automatic packing settings, a row consists of whole blocks. These are the
# tokens and slots per block, and the most blocks per evaluation batch.
_BLOCK_TOKENS, _BLOCK_SLOTS, _EVAL_BLOCKS = 128, 16, 64

# Fields that are not part of a run's fingerprint because they do not change its
# result. `distill.logits` is a path; the content of that folder is part of the
# run's identity instead.
_NOT_IN_FINGERPRINT = frozenset({
    'name', 'note', 'variants', 'custom_variants', 'seeds', 'mesh',
    'search', 'plan', 'decisions',
    'train.checkpoint_every', 'train.log_every', 'train.prefetch',
    'model.kernels', 'train.seeds_at_once', 'packing.row_buckets',
    'packing.eval_rows', 'train.keep_optimizer', 'train.tensorboard',
    'train.trackers', 'train.profile', 'data.shard_rows', 'distill.logits',
})  # fmt: skip


def default_config() -> ml_collections.ConfigDict:
  """Returns the default configuration, which refuses unknown field names."""
  config = schema.to_config_dict(Config())
  config.custom_tasks.unlock()
  config.custom_variants.unlock()
  return config


def check_argument(argument: str, *known: str) -> None:
  """Checks the argument of a config file, from `--config=FILE:ARGUMENT`.

  Raises:
    errors.UserError: the argument is neither empty nor known.
  """
  if argument and argument not in known:
    raise errors.UserError(
      f'--config: {argument!r} after the colon is none of {", ".join(known)};'
      ' give one of them, or only the file'
    )


def custom_task(**values: object) -> ml_collections.ConfigDict:
  """Makes a custom task, to assign to `config.custom_tasks.NAME`.

  Args:
    **values: fields of `TaskConfig`. An unknown field raises an error with the
      nearest field name.
  """
  return _make_group(TaskConfig(), values)


def custom_variant(like: str, **values: object) -> ml_collections.ConfigDict:
  """Makes a custom variant, to assign to `config.custom_variants.NAME`.

  Args:
    like: the built-in variant that the custom variant is based on, one of
      `VARIANTS` or `fields.SEARCHED`.
    **values: fields of `VariantConfig`, such as
      `changes={'multi': {'layer_decay': 1.0}}`, or `teacher='single_to_multi'`
      for a further round of distillation.
  """
  return _make_group(VariantConfig(like=like), values)


def _make_group(
  base: TaskConfig | VariantConfig, values: Mapping[str, object]
) -> ml_collections.ConfigDict:
  group = schema.to_config_dict(base)
  # Types are checked later. A field for files may be a string or a tuple.
  with group.ignore_type():
    for key, value in values.items():
      if isinstance(value, Mapping):
        group[key].unlock()
        group[key].update(value)
      else:
        setattr(group, key, tuple(value) if isinstance(value, list) else value)
  return group


def from_config_dict(config: ml_collections.ConfigDict) -> Config:
  """Checks a ConfigDict and returns it as a frozen `Config`.

  Zeros in `config.packing` are replaced by automatic values.

  Raises:
    errors.UserError: a field is unknown, or a value has the wrong type, is out
      of range or contradicts another field.
  """
  return from_dict(config.to_dict())


def load(workdir: Path) -> Config:
  """Returns the settings that the last command wrote into a work directory.

  Raises:
    errors.UserError: nothing was trained in `workdir`, or it is not a work
      directory.
  """
  path = workdir / FILE
  if not path.exists():
    raise errors.UserError(
      f'{path}: is missing: nothing was trained there; name the settings to'
      ' train with, or another work directory'
    )
  values = files.read_json(path)
  if not isinstance(values.get('model'), dict):
    raise errors.UserError(
      f'{path}: has no settings of a plan; give a work directory, the folder'
      ' that --workdir names, not one of its runs or an exported model'
    )
  values['model'].pop('if_missing', None)  # A field of older versions.
  return from_dict(values)


def from_dict(values: Mapping[str, object]) -> Config:
  """Like `from_config_dict`, for nested dicts instead of a ConfigDict."""
  result = schema.build(Config(), values, 'config')
  result = dataclasses.replace(result, packing=_resolve_packing(result))
  errors.raise_first(_find_mistakes(result))
  return result


def default_values() -> dict[str, object]:
  """Returns dotted field name -> default, with automatic packing values."""
  config = Config()
  config = dataclasses.replace(config, packing=_resolve_packing(config))
  return schema.flatten(config)


def _resolve_packing(config: Config) -> PackingConfig:
  """Replaces the zeros in `config.packing` by automatic values.

  A row is long enough for any text of `data.max_length` tokens, including texts
  that are predicted later. Longer rows have more slots, so that short examples
  can fill them. Evaluation batches of longer rows have fewer rows, so that they
  need about the same memory.

  >>> packing = _resolve_packing(Config(data=DataConfig(max_length=512)))
  >>> packing.row_length, packing.slots, packing.eval_rows
  (512, 64, 16)
  """
  packing = config.packing
  blocks = -(-config.data.max_length // _BLOCK_TOKENS)
  row_length = packing.row_length or blocks * _BLOCK_TOKENS
  # With a given row length there are 16 slots, for compatibility with existing
  # work directories.
  slots = _BLOCK_SLOTS * (1 if packing.row_length else blocks)
  eval_rows = _EVAL_BLOCKS * _BLOCK_TOKENS // row_length
  return dataclasses.replace(
    packing,
    row_length=row_length,
    slots=packing.slots or slots,
    eval_rows=packing.eval_rows or min(max(eval_rows, 1), _EVAL_BLOCKS),
  )


def seeds_of_shard(config: Config) -> tuple[int, ...]:
  """Returns the seeds that `config.plan.shard` selects; all if it is empty.

  Raises:
    errors.UserError: `config.plan.shard` is malformed, or selects no seed.
  """
  shard = config.plan.shard
  if not shard:
    return config.seeds
  found = re.fullmatch(r'([0-9]{1,9})/([0-9]{1,9})', shard)
  index, count = map(int, found.groups()) if found else (0, 0)
  if index >= count:
    raise errors.UserError(
      f'config.plan.shard: {shard!r} is not i/n with i from 0 to n - 1; give'
      " something like '0/4'"
    )
  seeds = config.seeds[index::count]
  if not seeds:
    raise errors.UserError(
      f'config.plan.shard: {shard} has no seed, because config.seeds has only'
      f' {len(config.seeds)}; make at most that many shards'
    )
  return seeds


def check_students(config: Config) -> None:
  """Raises a `UserError` if an unlabelled file is not used by any variant."""
  for task in unlabelled_files(config):
    if not any(
      variants.learns_unlabelled(config, name, task) for name in config.variants
    ):
      raise errors.UserError(
        f'config.data.unlabelled: none of the variants'
        f' {", ".join(config.variants)} learns from the file of {task}; add a'
        ' variant that has a teacher and distill.unlabelled=True, or remove the'
        ' file'
      )


def fingerprint_values(config: Config) -> dict[str, object]:
  """Returns dotted name -> value for fields that affect a run's result."""
  return {
    key: value
    for key, value in schema.flatten(config).items()
    if key not in _NOT_IN_FINGERPRINT
    and key.split('.')[0] not in _NOT_IN_FINGERPRINT
  }


def _find_mistakes(config: Config) -> Iterator[str]:
  """Yields a message for each value that contradicts another field."""
  yield from errors.find_unknown(
    'config.variants', config.variants, variant_names(config)
  )
  for mistake in errors.find_unknown(
    'config.train.trackers', config.train.trackers, fields.TRACKERS
  ):
    yield f'{mistake}; TensorBoard is on by default (config.train.tensorboard)'
  yield from variants.find_mistakes(config)
  for key in ('tasks', 'variants', 'seeds'):
    if not getattr(config, key):
      what = 'at least one value'
      if key == 'tasks' and config.custom_tasks:
        what = f'those of config.custom_tasks, {tuple(config.custom_tasks)}'
      yield f'config.{key} is empty; give {what}'
  search, profile = config.search, config.train.profile
  for key, values in {
    'tasks': config.tasks,
    'variants': config.variants,
    'seeds': config.seeds,
    **{
      f'custom_variants.{name}.tasks': own.tasks
      for name, own in config.custom_variants.items()
    },
    **{
      f'{path}.{key}': values
      for path, grid in searches.grids(config).items()
      for key, values in vars(grid).items()
      if isinstance(values, tuple)
    },
  }.items():
    if len({*values}) < len(values):
      yield f'config.{key}: {values} has a value twice; remove one'
  for field in ('swap', 'bi_encoder'):
    for mistake in errors.find_unknown(
      f'config.data.{field}', getattr(config.data, field), config.tasks
    ):
      yield f'{mistake}; name a task of config.tasks, or leave it out'
  if profile and not (len(profile) == 2 and profile[0] < profile[1]):
    yield (
      f'config.train.profile={profile} must be two ascending steps, such as'
      ' (200, 400)'
    )
  packing = config.packing
  if config.data.max_length > packing.row_length:
    yield (
      f'config.data.max_length={config.data.max_length} is over'
      f' config.packing.row_length={packing.row_length}; raise the latter, or'
      ' remove it, as rows are as long as needed by default'
    )
  if tuple(sorted({*packing.row_buckets})) != packing.row_buckets:
    yield f'config.packing.row_buckets={packing.row_buckets} must ascend'
  model = config.model
  is_sigmoid = model.regression_head == 'sigmoid'
  if model.regression_loss == 'cross_entropy' and not is_sigmoid:
    yield (
      'config.model.regression_loss=cross_entropy needs predictions on 0-1; set'
      ' config.model.regression_head=sigmoid'
    )
  for where, own in _changed_configs(config):
    loss_weights(own)
    for group, length in (('single', own.single), ('multi', own.multi)):
      if 0 < length.max_steps < length.min_steps:
        yield (
          f'{where}.{group}.min_steps={length.min_steps}: is above'
          f' max_steps={length.max_steps}; lower the first or raise the second'
        )
  seeds_of_shard(config)
  unlabelled_files(config)
  thresholds(config)
  yield from searches.find_mistakes(config)
  if both := sorted({*search.seeds} & {*config.seeds}):
    yield (
      f'config.search.seeds: {both[0]} is in config.seeds too; the values'
      ' must be chosen on seeds that are not reported, so give other seeds'
    )
  yield from _find_large_batches(config)
  yield from _find_large_plans(config)


def _changed_configs(config: Config) -> Iterator[tuple[str, Config]]:
  """Yields (path, configuration) of the plan and of each custom variant."""
  yield 'config', config
  for name in config.custom_variants:
    own = config_for_variant(config, name)
    yield f'config.custom_variants.{name}.changes', own


def _find_large_batches(config: Config) -> Iterator[str]:
  packing = config.packing
  counts = {
    'config.packing.eval_rows': packing.eval_rows,
    'config.packing.row_buckets': max(packing.row_buckets, default=0),
    'config.train.accumulate': config.train.accumulate,
  }
  for where, own in _changed_configs(config):
    # A batch has at most `batch_size` rows, because each holds an example.
    counts[f'{where}.single.batch_size'] = own.single.batch_size
    counts[f'{where}.multi.batch_size'] = own.multi.batch_size
  for path, grid in searches.grids(config).items():
    counts[f'config.{path}.batch_sizes'] = max(grid.batch_sizes, default=0)
  for key, rows in counts.items():
    limits = [('row_length', packing.row_length, 'tokens', _MOST_TOKENS)]
    if 'batch_size' not in key:
      limits.append(('slots', packing.used_slots, 'slots', _MOST_SLOTS))
    for other, each, unit, most in limits:
      if rows * each > most:
        yield (
          f'{key}={rows}: with config.packing.{other}={each} a batch has'
          f' {rows * each} {unit}, over {most}; give at most {most // each}'
        )


def _find_large_plans(config: Config) -> Iterator[str]:
  tasks, runs, folds = len(config.tasks), {}, 1
  for name in variants.planned(config):
    runs[name] = tasks if variants.resolve(config, name).is_single else 1
    folds = max(folds, config_for_variant(config, name).distill.folds)
  # With k folds, a teacher is k + 1 runs: one on all rows, and one without each
  # fold.
  count = sum(runs.values()) * (folds + 1 if folds > 1 else 1)
  search = config.search
  settings = {
    path: math.prod(
      max(len(getattr(grid, key)), 1) for key in searches.GRID_FIELDS
    )
    for path, grid in searches.grids(config).items()
  }
  settings['search'] *= tasks
  # An upper limit: variants with the same tasks share the runs of a search.
  settings['search.multi'] *= len(config.variants)
  for key, total in {
    'seeds, variants, tasks and distill.folds': len(config.seeds) * count,
    'search': len(search.seeds) * sum(settings.values()),
  }.items():
    if total > _MOST_RUNS:
      yield f'config.{key}: {total} runs are over {_MOST_RUNS}; give fewer'
