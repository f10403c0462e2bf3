"""Checks the values that a hyperparameter search tries (`config.search`)."""

from collections.abc import Iterator
import dataclasses

from bam_jax import errors
from bam_jax import fields
from bam_jax import variants

GRID_FIELDS = tuple(f.name for f in dataclasses.fields(fields.SearchGrid))

# Field of `SearchGrid` -> the field of `RunLengthConfig` that it sets.
_SINGULAR = {
  'learning_rates': 'learning_rate',
  'layer_decays': 'layer_decay',
  'epochs': 'epochs',
  'batch_sizes': 'batch_size',
}


def grids(config: fields.Config) -> dict[str, fields.SearchGrid]:
  """Returns the values to try for single-task and for multi-task runs."""
  return {'search': config.search, 'search.multi': config.search.multi}


def find_mistakes(config: fields.Config) -> Iterator[str]:
  """Yields a message for each mistake in `config.search`."""
  seeds = config.search.seeds
  values = {
    path: {key: values for key in GRID_FIELDS if (values := getattr(grid, key))}
    for path, grid in grids(config).items()
  }
  if any(values.values()) != bool(seeds):
    shown = {'seeds': seeds, 'learning_rates': config.search.learning_rates}
    shown |= {
      f'{path}.{key}'.removeprefix('search.'): tried
      for path, grid in values.items()
      for key, tried in grid.items()
    }
    yield (
      'config.search: needs both seeds and values to try with them, such as'
      f' learning_rates; now {", ".join(f"{k}={v}" for k, v in shown.items())}'
    )
  groups = {'search': ('single',), 'search.multi': ('multi', 'sampling')}
  for path, grid in values.items():
    names = grid.get('changes_of', ())
    where = f'config.{path}.changes_of'
    yield from errors.find_unknown(where, names, variants.variant_names(config))
    for name in {*names} & {*config.custom_variants}:
      if other := {*config.custom_variants[name].changes} - {*groups[path]}:
        yield (
          f'{where}: {name} changes {min(other)}, which the runs of this search'
          f' do not use; change only {", ".join(groups[path])}'
        )
      own = config.custom_variants[name].changes.get(groups[path][0], {})
      for field in sorted({*own} & {_SINGULAR.get(key) for key in grid}):
        yield (
          f'{where}: {name} changes {field}, but the values of config.{path}'
          ' replace this change; remove one of the two'
        )
  searched = variants.searched(config)
  users = {
    path: sorted(
      name
      for name in searched
      if variants.resolve(config, name).is_single == (path == 'search')
    )
    for path in values
  }
  for path, name in zip(values, fields.SEARCHED):
    if values[path] and not users[path] and (searched or path != 'search'):
      yield (
        f'config.{path}: no variant uses these settings; add {name} to'
        ' config.variants'
      )
  for path, names in users.items():
    if names and not values[path]:
      yield (
        f'config.variants: {names[0]} has no settings to choose from; give'
        f' config.search.seeds and values in config.{path}, such as'
        ' learning_rates'
      )
