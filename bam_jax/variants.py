"""The variants of an experiment: their training runs and their teachers.

  single            one run per task, trained on gold labels
  multi             one run over all tasks, trained on gold labels
  single_to_single  one run per task, taught by `single`
  multi_to_multi    one run over all tasks, taught by `multi`
  single_to_multi   one run over all tasks, taught by `single` (BAM)
  single_searched   like `single`, with the settings that the search chose
  multi_searched    like `multi`, with the settings that the search chose

With `distill.logits`, external logits replace the teacher's runs. A custom
variant is based on one of these variants. It may change tasks, fields and
teacher, and its runs may start from the parameters of another variant's runs.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import graphlib
import re
from typing import NamedTuple

from bam_jax import errors
from bam_jax import fields as fields_lib
from bam_jax import schema

# Names of the single-task and multi-task runs that try the values of
# `config.search`. The report does not compare these runs.
SEARCH, SEARCH_MULTI = 'search', 'search_multi'
# Names of the baselines that need no run: a constant prediction, and a linear
# model of the vectors of the encoder before training.
UNTRAINED = MAJORITY, FROZEN = 'majority', 'frozen_encoder'

# Variant -> (whether it has one run per task, variant of its teachers or '').
_BUILT_IN: Mapping[str, tuple[bool, str]] = {
  'single': (True, ''),
  'single_searched': (True, ''),
  'multi': (False, ''),
  'multi_searched': (False, ''),
  'single_to_single': (True, 'single'),
  'multi_to_multi': (False, 'multi'),
  'single_to_multi': (False, 'single'),
}

# Groups of fields that a variant may change. Compiled programs do not depend on
# these fields, so all runs of a plan can share the programs.
_CHANGEABLE = ('single', 'multi', 'sampling', 'distill')


class Variant(NamedTuple):
  """Describes the training runs of a variant.

  Attributes:
    is_single: whether there is one run per task; if not, one run has all tasks.
    tasks: tasks of the runs.
    teacher: variant whose runs are the teachers; empty: the runs learn only
      from gold labels.
    start: variant from whose last parameters the runs start; empty: they start
      from the pretrained encoder.
  """

  is_single: bool
  tasks: tuple[str, ...]
  teacher: str
  start: str


def resolve(config: fields_lib.Config, name: str) -> Variant:
  """Looks up a built-in or custom variant by its name."""
  own = config.custom_variants.get(name, fields_lib.VariantConfig(like=name))
  is_single, teacher = _BUILT_IN[own.like]
  tasks = own.tasks or config.tasks
  return Variant(is_single, tasks, own.teacher or teacher, own.start)


def config_for_variant(
  config: fields_lib.Config, name: str
) -> fields_lib.Config:
  """Returns the configuration with a variant's changes applied.

  Only custom variants have changes.

  Raises:
    errors.UserError: a changed field is unknown, is shared by all runs of a
      plan, or has an invalid value.
  """
  if name not in config.custom_variants:
    return config
  where = f'config.custom_variants.{name}.changes'
  changed = {}
  for group, values in config.custom_variants[name].changes.items():
    if group not in _CHANGEABLE:
      raise errors.UserError(
        f'{where}.{group}: a variant cannot change this group; change only'
        f' {", ".join(_CHANGEABLE)}'
      )
    changed[group] = schema.build(
      getattr(config, group), values, f'{where}.{group}'
    )
  return dataclasses.replace(config, **changed)


def field_path(config: fields_lib.Config, name: str, field: str) -> str:
  """Returns the full name under which a variant's field is set.

  For `multi.epochs`, this is `config.multi.epochs`. If a custom variant changes
  the field, it is `config.custom_variants.NAME.changes.multi.epochs`.
  """
  group, key = field.split('.')
  own = config.custom_variants.get(name)
  if own and key in own.changes.get(group, {}):
    return f'config.custom_variants.{name}.changes.{field}'
  return f'config.{field}'


def variant_names(config: fields_lib.Config) -> tuple[str, ...]:
  """Returns the names of all variants, in the order of the report.

  Custom variants are ordered as in `config.variants`, because a ConfigDict
  forgets the order in which they were added.
  """
  own = [name for name in config.variants if name in config.custom_variants]
  return tuple(dict.fromkeys((*_BUILT_IN, *own, *config.custom_variants)))


def planned(config: fields_lib.Config) -> set[str]:
  """Returns the configured variants and all variants that they build on."""
  names, left = set(), [*config.variants]
  while left:
    name = left.pop()
    if name not in names:
      names.add(name)
      found = resolve(config, name)
      left += filter(None, (found.teacher, found.start))
  return names


def searched(config: fields_lib.Config) -> set[str]:
  """Returns the planned variants that use the settings of the search.

  These are `single_searched`, `multi_searched` and custom variants based on
  them. If a plan with a search has none of these, all single-task variants use
  the settings.
  """
  names, own = planned(config), config.custom_variants
  like = {name: own[name].like if name in own else name for name in names}
  found = {name for name in names if like[name] in fields_lib.SEARCHED}
  if found or not config.search.seeds:
    return found
  return {name for name in names if resolve(config, name).is_single}


def find_external_logits(config: fields_lib.Config, name: str) -> str:
  """Returns the folder of a variant's external logits; '' if it has none."""
  is_taught = bool(resolve(config, name).teacher)
  return config_for_variant(config, name).distill.logits if is_taught else ''


def learns_unlabelled(config: fields_lib.Config, name: str, task: str) -> bool:
  """Whether training a variant requires a task's unlabelled rows."""
  found = resolve(config, name)
  if task not in found.tasks:
    return False
  if found.teacher and config_for_variant(config, name).distill.unlabelled:
    return True
  below = [found.start]
  if not find_external_logits(config, name):
    below.append(found.teacher)
  return any(learns_unlabelled(config, other, task) for other in below if other)


def find_mistakes(config: fields_lib.Config) -> Iterator[str]:
  """Yields a message for each mistake in the variants of a configuration."""
  yield from _check_distill(config, config.distill, 'config.distill')
  names = variant_names(config)
  for name, own in config.custom_variants.items():
    where = f'config.custom_variants.{name}'
    reserved = name in (*_BUILT_IN, SEARCH, SEARCH_MULTI, *UNTRAINED)
    if reserved or not re.fullmatch(r'[a-z0-9_]+', name):
      yield (
        f'{where}: this name is reserved or malformed; use lower-case'
        ' letters, digits and _, but not the name of a built-in variant'
      )
    yield from errors.find_unknown(f'{where}.tasks', own.tasks, config.tasks)
    found = resolve(config, name)
    if own.start and not found.is_single:
      yield (
        f'{where}.start: {own.like} trains one run over all tasks; only'
        " single-task runs can start from a variant, so choose like='single'"
      )
    for key in ('teacher', 'start'):
      if other := getattr(own, key):
        yield from errors.find_unknown(f'{where}.{key}', [other], names)
        if missing := {*found.tasks} - {*resolve(config, other).tasks}:
          yield (
            f'{where}.{key}: {other} has no run for'
            f' {", ".join(sorted(missing))}; choose a variant that covers all'
            ' tasks of this one'
          )
    distill = config_for_variant(config, name).distill
    yield from _check_distill(config, distill, f'{where}.changes.distill')
    if own.teacher and distill.logits:
      yield (
        f'{where}.teacher: {own.teacher} and distill.logits={distill.logits!r}'
        ' both name a teacher; remove the first, or set'
        " changes={'distill': {'logits': ''}}"
      )
  yield from _find_cycle(config)
  yield from _find_patience_mistakes(config)


def _check_distill(
  config: fields_lib.Config, distill: fields_lib.DistillConfig, where: str
) -> Iterator[str]:
  if distill.teachers > len(config.seeds):
    yield (
      f'{where}.teachers={distill.teachers}: config.seeds has only'
      f' {len(config.seeds)}; each teacher needs its own seed, so add seeds'
    )
  if distill.logits and (distill.teachers > 1 or distill.folds > 1):
    yield (
      f'{where}.logits: external logits replace all teachers, so'
      f' teachers={distill.teachers} and folds={distill.folds} have no effect;'
      ' set both to 1'
    )


def _find_patience_mistakes(config: fields_lib.Config) -> Iterator[str]:
  for name in sorted(planned(config)):
    found, own = resolve(config, name), config_for_variant(config, name)
    group = 'single' if found.is_single else 'multi'
    patience = getattr(own, group).patience
    where = f'{field_path(config, name, f"{group}.patience")}={patience}'
    if patience and not config.train.evaluate_every:
      yield (
        f'{where}: counts evaluations, but {name} is evaluated only after its'
        ' last step; set config.train.evaluate_every to a number of steps'
      )
    # If a run ends early, the student's target is still mostly the teacher's
    # prediction.
    if patience and found.teacher and own.distill.annealing != 'constant':
      yield (
        f'{where}: {name} is taught, and the weight of its gold labels rises'
        f' until the last step, which patience may never reach; remove {name},'
        f' set {group}.patience=0, or set distill.annealing=constant'
      )


def _find_cycle(config: fields_lib.Config) -> Iterator[str]:
  """Yields an error message if a variant depends on itself."""
  builds_on = {}
  for name in config.custom_variants:
    found = resolve(config, name)
    builds_on[name] = found.teacher, found.start
  try:
    graphlib.TopologicalSorter(builds_on).prepare()
  except graphlib.CycleError as error:
    # A list of names, each of which is built on by the next.
    cycle = ' -> '.join(reversed(error.args[1]))
    yield (
      f'config.custom_variants: {cycle} is a cycle, and a variant cannot'
      ' build on itself; choose another teacher or start'
    )
