"""The configuration: frozen dataclasses, made and checked once at the border.

A file in `configs/` returns `default_config()` with some fields changed; the
command line may change more (`--config.train.seed=3`). `from_config_dict`
checks names, types and ranges and returns a `Config`; nothing behind it looks
a value up by string or supplies a default.
"""

import re

import ml_collections

from bam_jax import errors
from bam_jax import fields
from bam_jax import schema
from bam_jax import variants

# Names that the rest of the package uses from here.
VARIANTS = fields.VARIANTS
Config = fields.Config
DataConfig = fields.DataConfig
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
custom_variant = variants.custom_variant
of_variant = variants.of_variant
variant_names = variants.variant_names

# The most tokens and slots of a batch, and runs of a plan.
_MOST_TOKENS = 1 << 24
_MOST_SLOTS = 1 << 20
_MOST_RUNS = 100_000

# Fields that do not change the outcome of a run, and a path whose content is
# part of the identity instead.
_NOT_IN_FINGERPRINT = frozenset({
    'name', 'note', 'variants', 'custom_variants', 'seeds', 'mesh',
    'search', 'plan',
    'train.checkpoint_every', 'train.log_every', 'train.prefetch',
    'model.kernels', 'train.seeds_at_once', 'packing.row_buckets',
    'packing.eval_rows',
    'train.keep_optimizer', 'train.tensorboard', 'train.profile',
    'data.shard_rows', 'distill.logits',
})  # fmt: skip


def default_config() -> ml_collections.ConfigDict:
  """Returns all fields at their defaults, locked against unknown names."""
  config = schema.to_config_dict(Config())
  config.custom_tasks.unlock()
  config.custom_variants.unlock()
  return config


def custom_task(**values) -> ml_collections.ConfigDict:
  """Returns a task of the user's own, for `config.custom_tasks.NAME`.

  Args:
    **values: fields of `TaskConfig`; an unknown one raises, naming the nearest.
  """
  task = schema.to_config_dict(fields.TaskConfig())
  for key, value in values.items():
    setattr(task, key, value)
  return task


def seeds_of_shard(config: Config) -> tuple[int, ...]:
  """Returns the seeds of this shard of the plan; all if it has no shards.

  Raises:
    errors.UserError: `config.plan.shard` is not a shard of the plan.
  """
  shard = config.plan.shard
  if not shard:
    return config.seeds
  found = re.fullmatch(r'([0-9]{1,9})/([0-9]{1,9})', shard)
  index, count = map(int, found.groups()) if found else (0, 0)
  if index >= count:
    raise errors.UserError(
      f'config.plan.shard: {shard!r} is no i/n with i from 0 to n - 1, such as'
      " '0/4'"
    )
  seeds = config.seeds[index::count]
  if not seeds:
    raise errors.UserError(
      f'config.plan.shard: {shard} has no seed, as config.seeds has'
      f' {len(config.seeds)}; make at most that many shards'
    )
  return seeds


def unlabelled_files(config: Config) -> dict[str, str]:
  """Returns task -> file of unlabelled rows, of the tasks that have one.

  Raises:
    errors.UserError: an entry of `config.data.unlabelled` is malformed.
  """
  result: dict[str, str] = {}
  for entry in config.data.unlabelled:
    where = f'config.data.unlabelled: {entry!r}'
    task, _, file = entry.partition('=')
    if not file.endswith(('.tsv', '.jsonl')):
      raise errors.UserError(
        f'{where} is no TASK=FILE of a .tsv or .jsonl file, such as'
        " 'rte=more.jsonl'"
      )
    if task not in config.tasks:
      raise errors.UserError(
        f'{where}: {task!r} is none of {", ".join(config.tasks)}'
      )
    if task in result:
      raise errors.UserError(
        f'{where}: {task} has {result[task]} already; join the two files'
      )
    result[task] = file
  return result


def check_students(config: Config) -> None:
  """Raises if no variant learns from a file of unlabelled rows."""
  for task in unlabelled_files(config):
    if not any(
      variants.learns_unlabelled(config, name, task) for name in config.variants
    ):
      raise errors.UserError(
        f'config.data.unlabelled: no variant of {", ".join(config.variants)} is'
        f' taught {task} with distill.unlabelled=True, and no other learns of'
        ' rows without labels; add such a variant, or leave the file out'
      )


def fingerprint_values(config: Config) -> dict[str, object]:
  """Returns the fields that decide the outcome of a run."""
  return {
    key: value
    for key, value in schema.flatten(config).items()
    if key not in _NOT_IN_FINGERPRINT
    and key.split('.')[0] not in _NOT_IN_FINGERPRINT
  }


def from_config_dict(config: ml_collections.ConfigDict) -> Config:
  """Checks a ConfigDict and freezes it.

  Raises:
    errors.UserError: an unknown key (with the nearest right one), a value of
      the wrong type or out of its range, or fields that do not go together.
  """
  result = schema.build(Config, config.to_dict(), 'config')
  _check(result)
  return result


def _check(config: Config) -> None:
  """Raises if fields contradict each other."""

  def require(condition: bool, message: str) -> None:
    if not condition:
      raise errors.UserError(message)

  for key, values, known in (
    ('variants', config.variants, variant_names(config)),
    ('data.swap', config.data.swap, config.tasks),
  ):
    for value in values:
      require(
        value in known,
        f'config.{key}: {value!r} is none of {", ".join(known)}',
      )
  variants.check(config)
  for key in ('tasks', 'variants', 'seeds'):
    values = getattr(config, key)
    require(len(values) > 0, f'config.{key} is empty; give at least one')
    require(
      len(set(values)) == len(values),
      f'config.{key}: {values} names one twice',
    )
  require(
    min(config.seeds) >= 0,
    f'config.seeds: {config.seeds} has one below 0; give numbers from 0',
  )
  profile = config.train.profile
  require(
    not profile or (len(profile) == 2 and 0 <= profile[0] < profile[1]),
    f'config.train.profile={profile} must be two steps that ascend, such as'
    ' (200, 400)',
  )
  packing = config.packing
  require(
    config.data.max_length <= packing.row_length,
    f'config.data.max_length={config.data.max_length} is over'
    f' config.packing.row_length={packing.row_length}; raise the latter',
  )
  require(
    tuple(sorted({0, *packing.row_buckets})) == (0, *packing.row_buckets),
    f'config.packing.row_buckets={packing.row_buckets} must ascend, from 1 on',
  )
  require(
    config.distill.teachers <= len(config.seeds),
    f'config.distill.teachers={config.distill.teachers} asks for more'
    f' teachers than config.seeds has seeds ({len(config.seeds)})',
  )
  seeds_of_shard(config)
  unlabelled_files(config)
  _check_search(config)
  _check_rows(config)
  _check_runs(config)


def _check_rows(config: Config) -> None:
  """Raises if a batch could be too large for memory."""
  packing = config.packing
  counts = {
    'config.packing.eval_rows': packing.eval_rows,
    'config.packing.row_buckets': max(packing.row_buckets, default=0),
    'config.train.accumulate': config.train.accumulate,
  }
  for name in (*config.custom_variants, ''):
    own = of_variant(config, name)
    where = f'config.custom_variants.{name}.changes' if name else 'config'
    # The rows of a batch, unless several examples share one.
    counts[f'{where}.single.batch_size'] = own.single.batch_size
    counts[f'{where}.multi.batch_size'] = own.multi.batch_size
  slots = packing.slots if packing.enabled else 1
  for key, rows in counts.items():
    for other, each, most in (
      ('row_length', packing.row_length, _MOST_TOKENS),
      ('slots', slots, _MOST_SLOTS),
    ):
      if rows * each > most and not (other == 'slots' and 'batch' in key):
        raise errors.UserError(
          f'{key}={rows}: with config.packing.{other}={each} a batch would have'
          f' {rows * each} of them, over {most}; give at most {most // each}'
        )


def _check_runs(config: Config) -> None:
  """Raises if a plan has too many runs."""
  tasks, found = len(config.tasks), {}
  left = list(config.variants)
  while left:
    name = left.pop()
    if name in found:
      continue
    its = variants.variant(config, name)
    folds = of_variant(config, name).distill.folds
    found[name] = (tasks if its.is_single else 1, folds)
    left += [other for other in (its.teacher, its.start) if other]
  each = sum(runs for runs, _ in found.values())
  folds = max(folds for _, folds in found.values())
  # Whoever teaches is there as a whole and by fold.
  count = len(config.seeds) * each * (folds + 1 if folds > 1 else 1)
  search = config.search
  pairs = max(len(search.learning_rates), 1) * max(len(search.layer_decays), 1)
  tried = len(search.seeds) * pairs * tasks
  for key, runs in (
    ('config.seeds, variants, tasks and distill.folds', count),
    ('config.search', tried),
  ):
    if runs > _MOST_RUNS:
      raise errors.UserError(
        f'{key}: these make {runs} runs, more than {_MOST_RUNS}; give fewer'
      )


def _check_search(config: Config) -> None:
  """Raises if the search has no values to try, or no seeds of its own."""
  search = config.search
  for key, limits, is_valid in (
    ('learning_rates', 'numbers above 0', lambda value: value > 0),
    ('layer_decays', 'numbers from 1e-06 to 1', lambda v: 1e-6 <= v <= 1),
    ('seeds', 'numbers from 0', lambda value: value >= 0),
  ):
    values = getattr(search, key)
    if len(set(values)) < len(values):
      raise errors.UserError(f'config.search.{key}: {values} names one twice')
    for value in values:
      if not is_valid(value):
        raise errors.UserError(
          f'config.search.{key}: {value} is out of range; give {limits}'
        )
  is_grid = bool(search.learning_rates or search.layer_decays)
  if is_grid != bool(search.seeds):
    raise errors.UserError(
      'config.search: takes seeds, and learning_rates or layer_decays to try'
      f' with them; seeds={search.seeds},'
      f' learning_rates={search.learning_rates},'
      f' layer_decays={search.layer_decays}'
    )
  both = sorted({*search.seeds} & {*config.seeds})
  if both:
    raise errors.UserError(
      f'config.search.seeds: {both[0]} is one of config.seeds too; what is'
      ' chosen and reported on one set of seeds reports its own luck; give'
      ' seeds of its own'
    )
