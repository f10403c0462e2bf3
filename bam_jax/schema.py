"""Declares, checks and compares dataclasses of configuration fields.

A group of fields is a frozen dataclass whose fields are declared by `field`.
"""

from collections.abc import Mapping
import dataclasses
import difflib
import hashlib
import json
import math
import types
import typing
from typing import Any, Literal, TypeVar

import ml_collections

from bam_jax import errors
from bam_jax import trainer_names

_Group = TypeVar('_Group')

# Highest number of items in a tuple, such as labels, tasks or files.
_MOST_ITEMS = 100_000
_MOST_BITS = 63
# Most characters of a value, and most changed values of a list, in a message.
_LONGEST_TEXT = 40
_MOST_NAMED = 5


def field(
  default: object,
  doc: str,
  low: float | None = None,
  high: float | None = None,
  most: int = _MOST_ITEMS,
) -> Any:
  """Declares a configuration field with a default and limits.

  Args:
    default: the default value.
    doc: what the field means, for readers of the code.
    low: lowest allowed number; None: no limit. In a tuple, each item has this
      limit.
    high: highest allowed number, like `low`.
    most: highest allowed number of items in a tuple.
  """
  metadata = {'doc': doc, 'low': low, 'high': high, 'most': most}
  if isinstance(default, dict):
    return dataclasses.field(default_factory=default.copy, metadata=metadata)
  return dataclasses.field(default=default, metadata=metadata)


def build(base: _Group, values: object, path: str) -> _Group:
  """Returns a copy of a config dataclass with some fields set and checked.

  Args:
    base: the dataclass to copy; fields that are not in `values` are kept.
    values: field -> plain value, such as a number, a string or a dict.
    path: name of the dataclass in error messages, such as `config.multi`.

  Raises:
    errors.UserError: a field is unknown, or a value has the wrong type or is
      out of range.
  """
  if not isinstance(values, Mapping):
    raise errors.UserError(
      f'{path}: {values!r} is not a mapping; give a dict of field values'
    )
  fields = {field.name: field for field in dataclasses.fields(base)}
  hints = typing.get_type_hints(type(base))
  checked = {}
  for key, value in values.items():
    if key not in fields:
      near = difflib.get_close_matches(key, fields, 1, 0.0)[0]
      known = trainer_names.describe_option(key)
      raise errors.UserError(
        f'{path}.{key}: no such key'
        + (known or f'; the nearest is {path}.{near}')
      )
    where = f'{path}.{key}'
    if dataclasses.is_dataclass(hints[key]):
      checked[key] = build(getattr(base, key), value, where)
    elif typing.get_origin(hints[key]) is Mapping:
      checked[key] = _build_items(typing.get_args(hints[key])[1], value, where)
    else:
      checked[key] = _check_value(fields[key], hints[key], value, where)
  return dataclasses.replace(base, **checked)


def _build_items(item_class: type, items: Any, path: str) -> object:
  if not isinstance(items, Mapping):
    raise errors.UserError(f'{path}: {items!r} is not a mapping; give a dict')
  if item_class is object:  # The module `variants` checks these.
    return items
  return {
    name: build(item_class(), item, f'{path}.{name}')
    for name, item in items.items()
  }


def _check_value(
  field: dataclasses.Field, hint: Any, value: object, path: str
) -> object:
  """Converts a value to its field's type; raises if it is out of range."""
  low, high = field.metadata['low'], field.metadata['high']
  most = field.metadata['most']
  if isinstance(value, (tuple, list)) and len(value) > most:
    raise errors.UserError(
      f'{path}: {len(value)} values are too many; give at most {most}'
    )
  value = _check_type(hint, value, path)
  for number in value if isinstance(value, tuple) else (value,):
    if (low is not None and number < low) or (
      high is not None and number > high
    ):
      limits = f'at least {low}' if high is None else f'from {low} to {high}'
      raise errors.UserError(
        f'{path}: {number} is out of range; give {limits}'
        f' ({field.metadata["doc"]})'
      )
  return value


def _check_type(hint: Any, value: Any, path: str) -> object:
  """Converts a value to the hinted type; raises if its type does not fit."""
  if isinstance(value, int) and value.bit_length() > _MOST_BITS:
    # Python refuses to print numbers of thousands of digits.
    raise errors.UserError(
      f'{path}: a number of {value.bit_length()} bits is out of range; give one'
      f' of at most {_MOST_BITS}'
    )
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin is types.UnionType:  # One string, or several.
    one, several = args
    hint = several if isinstance(value, (tuple, list)) else one
    return _check_type(hint, value, path)
  if origin is Literal:
    errors.raise_first(errors.find_unknown(path, [value], args))
    return value
  if origin is tuple:
    if not isinstance(value, (tuple, list)):
      example = f'such as ({value!r},)'
      if args[-1] is not Ellipsis:
        example = f'of {len(args)} values'
      raise errors.UserError(
        f'{path}: {value!r} is not a tuple; give one, {example}'
      )
    if args[-1] is not Ellipsis and len(value) != len(args):
      raise errors.UserError(
        f'{path}: {value!r} has {len(value)} values; give {len(args)}'
      )
    return tuple(_check_type(args[0], item, path) for item in value)
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  if isinstance(value, float) and not math.isfinite(value):
    raise errors.UserError(
      f'{path}: {value} is not a finite number; give a finite one'
    )
  if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
    raise errors.UserError(
      f'{path}: {value!r} is of type {type(value).__name__}; give a value of'
      f' type {hint.__name__}'
    )
  return value


def find_doc(group: object, path: str) -> str:
  """Returns the meaning of a field; '' if there is no such field.

  Args:
    group: the config dataclass.
    path: dotted name of the field, such as `multi.epochs`.
  """
  *parents, name = path.split('.')
  for parent in parents:
    group = getattr(group, parent, None)
  fields = getattr(group, '__dataclass_fields__', {})
  return fields[name].metadata.get('doc', '') if name in fields else ''


def to_config_dict(group: object) -> ml_collections.ConfigDict:
  """Converts a config dataclass to a ConfigDict that refuses unknown names."""
  result = ml_collections.ConfigDict(convert_dict=True)
  for field in dataclasses.fields(group):
    item = getattr(group, field.name)
    if dataclasses.is_dataclass(item):
      item = to_config_dict(item)
    elif isinstance(item, Mapping):
      item = ml_collections.ConfigDict()
    result[field.name] = item
  result.lock()
  return result


def to_dict(group: object) -> dict[str, object]:
  """Converts a dataclass, or a dict with dataclasses, to nested JSON dicts."""
  return json.loads(json.dumps(group, default=dataclasses.asdict))


def flatten(group: object) -> dict[str, object]:
  """Like `to_dict`, but returns one flat dict with dotted keys."""
  result = {}
  for key, value in to_dict(group).items():
    if isinstance(value, dict):
      below = flatten(value)
      result |= {f'{key}.{name}': item for name, item in below.items()}
    else:
      result[key] = value
  return result


def describe_change(before: object, after: object) -> str:
  """Describes how a value changed, for an error message.

  >>> describe_change(1, 2)
  'was 1, is 2'
  >>> describe_change(digest(1), digest(2))
  'has changed'
  >>> describe_change([*range(20)], [*range(1, 19), 20])
  'lacks 0, 19 of before, and has 20 more'
  """
  texts = f'{before!r}', f'{after!r}'
  both_lists = isinstance(before, list) and isinstance(after, list)
  if not both_lists and min(map(len, texts)) > _LONGEST_TEXT:
    return 'has changed'  # The start of a digest would not help the user.
  if not both_lists or max(map(len, texts)) <= _LONGEST_TEXT:
    short = [t if len(t) <= _LONGEST_TEXT else f'{t[:16]}…' for t in texts]
    return f'was {short[0]}, is {short[1]}'
  lost = [value for value in before if value not in after]
  new = [value for value in after if value not in before]
  if not lost and not new and len(before) == len(after):
    place = next(i for i, value in enumerate(after) if value != before[i])
    return (
      f'has another order: {after[place]!r} is in place {place + 1}, where'
      f' {before[place]!r} was'
    )
  parts = []
  if lost:
    parts.append(f'lacks {_few(lost)} of before')
  if new:
    parts.append(f'has {_few(new)} more')
  return ', and '.join(parts) or f'had {len(before)} values, has {len(after)}'


def _few(values: list[object]) -> str:
  """Lists the first few values and counts the rest."""
  text = ', '.join(map(repr, values[:_MOST_NAMED]))
  others = len(values) - _MOST_NAMED
  return f'{text} and {others} others' if others > 0 else text


def digest(value: object) -> str:
  """Returns the hexadecimal sha256 of a value's canonical JSON."""
  text = json.dumps(value, sort_keys=True, separators=(',', ':'))
  return hashlib.sha256(text.encode()).hexdigest()
