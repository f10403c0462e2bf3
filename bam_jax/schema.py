"""Declares, checks and compares groups of configuration fields.

A group is a frozen dataclass whose fields are declared by `field`. It comes
from a mapping of plain values, and goes back to one.
"""

from collections.abc import Mapping
import dataclasses
import difflib
import hashlib
import json
import math
import typing
from typing import Literal

import ml_collections

from bam_jax import errors

# The most items of a tuple: labels of a task, tasks, files.
_MOST_ITEMS = 100_000
_MOST_BITS = 63


def field(default, doc: str, low=None, high=None, most=_MOST_ITEMS):
  """Declares a field with its meaning, and its limits if it has any.

  Args:
    default: its value if none is given.
    doc: its meaning.
    low: the lowest allowed number, also for items of a tuple; None: any.
    high: the highest allowed number, likewise.
    most: the most items of a tuple.
  """
  metadata = {'doc': doc, 'low': low, 'high': high, 'most': most}
  return dataclasses.field(default=default, metadata=metadata)


def build(cls, values: object, path: str):
  """Makes a dataclass from a mapping and checks it field by field.

  Args:
    cls: the dataclass.
    values: field -> plain value; those left out keep their default.
    path: the user's name of the group, such as `config.multi`.

  Raises:
    errors.UserError: an unknown field, with the nearest right one, or a value
      of another type or out of its range.
  """
  if not isinstance(values, Mapping):
    raise errors.UserError(
      f'{path}: {values!r} is no group of fields; give fields with values'
    )
  fields = {field.name: field for field in dataclasses.fields(cls)}
  hints = typing.get_type_hints(cls)
  for key in values:
    if key not in fields:
      near = difflib.get_close_matches(key, fields, 1, 0.0)[0]
      raise errors.UserError(
        f'{path}.{key}: no such key; the nearest is {path}.{near}'
      )
  return cls(
    **{
      key: _value(fields[key], hints[key], value, f'{path}.{key}')
      for key, value in values.items()
    }
  )


def _value(field: dataclasses.Field, hint, value, path: str):
  """Returns a value of the hinted type, or raises if out of its limits."""
  if dataclasses.is_dataclass(hint):
    return build(hint, value, path)
  if typing.get_origin(hint) is Mapping:
    item_class = typing.get_args(hint)[1]
    if item_class is object:  # checked where it is known what it is part of
      return value
    return {
      name: build(item_class, item, f'{path}.{name}')
      for name, item in value.items()
    }
  most = field.metadata['most']
  # Before each item is looked at.
  if isinstance(value, (tuple, list)) and len(value) > most:
    raise errors.UserError(
      f'{path}: {len(value)} values are too many; give at most {most}'
    )
  value = _typed(hint, value, path)
  for number in value if isinstance(value, tuple) else (value,):
    _check_limits(number, field.metadata['low'], field.metadata['high'], path)
  return value


def _check_limits(value, low, high, path: str) -> None:
  if (low is not None and value < low) or (high is not None and value > high):
    limits = f'at least {low}' if high is None else f'from {low} to {high}'
    if low is None:
      limits = f'at most {high}'
    raise errors.UserError(f'{path}: {value} is out of range; give {limits}')


def _typed(hint, value, path: str):
  """Returns the value, or raises and names the type that is needed."""
  if isinstance(value, int) and value.bit_length() > _MOST_BITS:
    # Python writes no number of thousands of digits.
    raise errors.UserError(
      f'{path}: a number of {value.bit_length()} bits is out of range; give one'
      f' of at most {_MOST_BITS}'
    )
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin is Literal:
    if value not in args:
      raise errors.UserError(
        f'{path}: {value!r} is none of {", ".join(map(str, args))}'
      )
    return value
  if origin is tuple:
    if not isinstance(value, (tuple, list)):
      raise errors.UserError(f'{path}: {value!r} is no tuple')
    if args[-1] is not Ellipsis and len(value) != len(args):
      raise errors.UserError(f'{path}: {value!r} needs {len(args)} values')
    return tuple(_typed(args[0], item, path) for item in value)
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  if isinstance(value, float) and not math.isfinite(value):
    raise errors.UserError(f'{path}: {value} is no finite number')
  if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
    raise errors.UserError(
      f'{path}: {value!r} is a {type(value).__name__}, give a {hint.__name__}'
    )
  return value


def to_config_dict(value) -> ml_collections.ConfigDict:
  """Returns a group as a ConfigDict, locked against unknown names."""
  result = ml_collections.ConfigDict(convert_dict=True)
  for field in dataclasses.fields(value):
    item = getattr(value, field.name)
    if dataclasses.is_dataclass(item):
      item = to_config_dict(item)
    elif isinstance(item, Mapping):
      item = ml_collections.ConfigDict()
    result[field.name] = item
  result.lock()
  return result


def to_dict(config) -> dict[str, object]:
  """Returns the configuration as plain JSON values."""
  return json.loads(json.dumps(_plain(config)))


def _plain(value):
  if dataclasses.is_dataclass(value):
    return {
      f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)
    }
  if isinstance(value, Mapping):
    return {key: _plain(item) for key, item in value.items()}
  return list(value) if isinstance(value, tuple) else value


def flatten(config) -> dict[str, object]:
  """Returns dotted key -> value, for comparing configurations."""

  def walk(prefix: str, value) -> dict[str, object]:
    if not isinstance(value, dict):
      return {prefix: value}
    result = {}
    for key, item in value.items():
      result |= walk(f'{prefix}.{key}' if prefix else key, item)
    return result

  return walk('', to_dict(config))


def digest(value: object) -> str:
  """Returns the sha256 of the canonical JSON of a value, hexadecimal."""
  text = json.dumps(value, sort_keys=True, separators=(',', ':'))
  return hashlib.sha256(text.encode()).hexdigest()
