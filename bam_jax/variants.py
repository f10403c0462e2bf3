"""Variants: what the runs of each are, and which runs they build on.

  single            one run a task, gold labels
  multi             one run over all tasks, gold labels
  single_to_single  one run a task, taught by `single`
  multi_to_multi    one run over all tasks, taught by `multi`
  single_to_multi   one run over all tasks, taught by `single` (BAM)

With `distill.logits` those that are taught learn from the sets there instead.
A variant of the user's own is like one of these, over part of the tasks, with
some fields changed, taught by another variant, or going on from one.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import re
from typing import NamedTuple

import ml_collections

from bam_jax import errors
from bam_jax import fields as fields_lib
from bam_jax import schema

# The runs that try values out for `config.search`; no variant to report on.
SEARCH = 'search'

# variant -> (one run a task?, variant of its teachers)
_BUILT_IN: Mapping[str, tuple[bool, str]] = {
  'single': (True, ''),
  'multi': (False, ''),
  'single_to_single': (True, 'single'),
  'multi_to_multi': (False, 'multi'),
  'single_to_multi': (False, 'single'),
}

# What differs between the runs of a plan is data of its programs. A variant may
# change no field that is compiled into them.
_OF_VARIANTS = ('single', 'multi', 'sampling', 'distill')


class Variant(NamedTuple):
  """What the runs of a variant are.

  Attributes:
    is_single: one run a task; else one over all tasks.
    tasks: that its runs cover.
    teacher: variant whose runs teach its own; empty: gold labels alone.
    start: variant whose runs' last parameters its own start from; empty: the
      pretrained encoder.
  """

  is_single: bool
  tasks: tuple[str, ...]
  teacher: str
  start: str


def variant(config: fields_lib.Config, name: str) -> Variant:
  """What the runs of the variant `name` are."""
  own = config.custom_variants.get(name)
  if own is None:
    is_single, teacher = _BUILT_IN[name]
    return Variant(is_single, config.tasks, teacher, '')
  is_single, teacher = _BUILT_IN[own.like]
  return Variant(
    is_single, own.tasks or config.tasks, own.teacher or teacher, own.start
  )


def custom_variant(
  like: str,
  tasks: Sequence[str] = (),
  changes: Mapping[str, Mapping[str, object]] | None = None,
  teacher: str = '',
  start: str = '',
) -> ml_collections.ConfigDict:
  """A variant of the user's own, for `config.custom_variants.NAME`.

  Args:
    like: the variant it changes, one of `VARIANTS`.
    tasks: part of `config.tasks`; empty: all.
    changes: fields of its runs, such as {'multi': {'layer_decay': 1.0}}.
    teacher: the variant whose runs teach its own, such as 'single_to_multi' for
      a further round; empty: as `like`.
    start: of a variant of single-task runs: the variant from whose runs' last
      parameters they go on; empty: from the pretrained encoder.
  """
  result = schema.to_config_dict(fields_lib.VariantConfig())
  result.like, result.tasks = like, tuple(tasks)
  result.teacher, result.start = teacher, start
  result.changes.unlock()
  result.changes.update(changes or {})
  return result


def of_variant(config: fields_lib.Config, name: str) -> fields_lib.Config:
  """The configuration that the runs of a variant have.

  Raises:
    errors.UserError: a change of a field that is not there, that all runs of a
      plan share, or of a wrong value.
  """
  if name not in config.custom_variants:
    return config
  where = f'config.custom_variants.{name}.changes'
  changed = {}
  for group, fields in config.custom_variants[name].changes.items():
    if group not in _OF_VARIANTS:
      raise errors.UserError(
        f'{where}.{group}: is none of {", ".join(_OF_VARIANTS)}, which alone a'
        ' variant may change'
      )
    if not isinstance(fields, Mapping):
      raise errors.UserError(
        f'{where}.{group}: {fields!r} is no group of fields; give fields with'
        ' values'
      )
    now = getattr(config, group)
    values = {f.name: getattr(now, f.name) for f in dataclasses.fields(now)}
    values |= dict(fields)
    changed[group] = schema.build(type(now), values, f'{where}.{group}')
  return dataclasses.replace(config, **changed)


def variant_names(config: fields_lib.Config) -> tuple[str, ...]:
  """All variants that there are, in the order of a report.

  The user's own stand as `config.variants` has them: a ConfigDict forgets the
  order in which they were made.
  """
  own = [name for name in config.variants if name in config.custom_variants]
  return tuple(
    dict.fromkeys((*fields_lib.VARIANTS, *own, *config.custom_variants))
  )


def outside(config: fields_lib.Config, name: str) -> str:
  """The folder of logits that teach a variant; empty: runs or gold labels."""
  is_taught = bool(variant(config, name).teacher)
  return of_variant(config, name).distill.logits if is_taught else ''


def learns_unlabelled(config: fields_lib.Config, name: str, task: str) -> bool:
  """Whether runs of a variant, or what it builds on, see a task's other rows.

  Those of `data.unlabelled`, which students alone are trained on.
  """
  found = variant(config, name)
  if task not in found.tasks:
    return False
  if found.teacher and of_variant(config, name).distill.unlabelled:
    return True
  below = [found.start]
  if not outside(config, name):
    below.append(found.teacher)
  return any(learns_unlabelled(config, other, task) for other in below if other)


def check(config: fields_lib.Config) -> None:
  """The user's own variants, against one another and the configuration.

  Raises:
    errors.UserError: names the variant that does not hold together.
  """

  def require(condition: bool, message: str) -> None:
    if not condition:
      raise errors.UserError(f'config.custom_variants.{name}{message}')

  _check_logits(config.distill, 'config.distill')
  names = variant_names(config)
  for name, own in config.custom_variants.items():
    require(
      name not in (*fields_lib.VARIANTS, SEARCH)
      and re.fullmatch(r'[a-z0-9_]+', name) is not None,
      ': name it in small letters, figures and _, and as no variant of the'
      ' package',
    )
    for task in own.tasks:
      require(
        task in config.tasks,
        f'.tasks: {task!r} is none of {", ".join(config.tasks)}',
      )
    of_own = variant(config, name)
    require(
      not own.start or of_own.is_single,
      f'.start: {own.like} trains one run over all tasks; only single-task runs'
      " start from another's parameters, so make it like 'single'",
    )
    for key in ('teacher', 'start'):
      other = getattr(own, key)
      if other:
        require(
          other in names, f'.{key}: {other!r} is none of {", ".join(names)}'
        )
        missing = set(of_own.tasks) - set(variant(config, other).tasks)
        require(
          not missing,
          f'.{key}: {other} has no run for {", ".join(sorted(missing))}; give a'
          ' variant that covers all tasks of this one',
        )
    distill = of_variant(config, name).distill
    require(
      distill.teachers <= len(config.seeds),
      f'.changes.distill.teachers={distill.teachers} asks for more teachers'
      f' than config.seeds has seeds ({len(config.seeds)})',
    )
    _check_logits(distill, f'config.custom_variants.{name}.changes.distill')
    require(
      not (own.teacher and distill.logits),
      f'.teacher: {own.teacher} and distill.logits={distill.logits!r} both'
      ' teach it; leave the former out, or give'
      " changes={'distill': {'logits': ''}}",
    )
  for name in config.custom_variants:
    _check_cycles(config, name, ())


def _check_logits(distill: fields_lib.DistillConfig, where: str) -> None:
  """Logits from outside are whose they are, and on all rows."""
  if distill.logits and (distill.teachers > 1 or distill.folds > 1):
    raise errors.UserError(
      f'{where}.logits: who teaches is settled by the sets there, so'
      f' teachers={distill.teachers} and folds={distill.folds} say nothing;'
      ' leave both at 1'
    )


def _check_cycles(
  config: fields_lib.Config, name: str, above: tuple[str, ...]
) -> None:
  """Raises where a variant builds on itself, by way of others or not."""
  if name in above:
    cycle = ' -> '.join((*above[above.index(name) :], name))
    raise errors.UserError(
      f'config.custom_variants: {cycle} is a cycle: no variant can be taught by'
      ' or start from one that builds on it; give another teacher or start'
    )
  found = variant(config, name)
  for other in (found.teacher, found.start):
    if other:
      _check_cycles(config, other, (*above, name))
