"""Reads single entries of config.json; raises ValueError if one is wrong."""

from collections.abc import Collection, Mapping

# Largest size that config.json may state, far above that of any known encoder.
# There is a limit because memory of this size is allocated.
MOST = 1 << 20


def choice(
  values: Mapping[str, object], key: str, default: object, known: Collection
) -> object:
  """Returns an entry, which must equal a value in `known`, type included."""
  found = values.get(key, default)
  if not any(type(found) is type(each) and found == each for each in known):
    raise ValueError(
      f'{key} is {found!r}, but only encoders with {key}'
      f' {" or ".join(map(repr, known))} can be loaded'
    )
  return found


def integer(
  values: Mapping[str, object],
  key: str,
  default: int | None,
  least: int,
  most: int = MOST,
) -> int:
  """Returns an entry, which must be an integer from `least` to `most`."""
  found = values.get(key, default)
  if type(found) is not int or not least <= found <= most:
    raise ValueError(f'{key} is {found!r}, no number from {least} to {most}')
  return found


def share(values: Mapping[str, object], key: str, default: float) -> float:
  """Returns an entry, which must be a number from 0 to below 1."""
  found = values.get(key, default)
  if type(found) not in (int, float) or not 0 <= found < 1:
    raise ValueError(f'{key} is {found!r}, no number from 0 to below 1')
  return float(found)
