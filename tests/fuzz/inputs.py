"""What strangers might send: damaged files, and values of any kind."""

import json

from hypothesis import strategies as st

# Where lengths, counts and offsets overflow something.
_EDGES = [
  n + d
  for n in (0, 2**7, 2**15, 2**31, 2**32, 2**63, 2**64)
  for d in (-1, 0, 1)
]

_SCALARS = (
  st.none()
  | st.booleans()
  | st.sampled_from([*_EDGES, -(2**63), 10**4000])
  | st.floats()
  | st.sampled_from(
    [
      '',
      '..',
      '/etc/passwd',
      '../x',
      'a\nb',
      '\x1b[2J',
      '\ud800',
      '\0',
      'é' * 99,
    ]
  )
  | st.text(max_size=20)
)


def _nested(depth: int) -> object:
  result: object = 0
  for _ in range(depth):
    result = [result]
  return result


# JSON values of any kind, some of them nested deep.
VALUES = st.recursive(
  _SCALARS,
  lambda inner: (
    st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    | st.builds(_nested, st.sampled_from([90, 101, 3000]))
  ),
  max_leaves=8,
)


def dumps(value: object) -> str:
  """JSON of any depth, which Python's encoder does not follow."""
  if isinstance(value, list) and len(value) == 1:
    depth = 0
    while isinstance(value, list) and len(value) == 1:
      depth, value = depth + 1, value[0]
    return '[' * depth + dumps(value) + ']' * depth
  if isinstance(value, list):
    return f'[{", ".join(map(dumps, value))}]'
  if isinstance(value, dict):
    items = (f'{json.dumps(k)}: {dumps(v)}' for k, v in value.items())
    return f'{{{", ".join(items)}}}'
  return str(value) if type(value) is int else json.dumps(value)


@st.composite
def edited(draw: st.DrawFn, good: object) -> object:
  """A JSON value with one to three of its parts replaced, removed or added."""
  value = json.loads(json.dumps(good))
  for _ in range(draw(st.integers(1, 3))):
    place = value
    while True:
      keys = list(place) if isinstance(place, dict) else range(len(place))
      if not keys:
        break
      key = draw(st.sampled_from(keys))
      inner = place[key]
      if isinstance(inner, (dict, list)) and inner and draw(st.booleans()):
        place = inner
        continue
      action = draw(st.sampled_from(['replace', 'remove', 'add', 'repeat']))
      if action == 'replace':
        place[key] = draw(VALUES)
      elif action == 'remove':
        del place[key]
      elif isinstance(place, list):
        place.append(inner if action == 'repeat' else draw(VALUES))
      else:
        place[draw(st.text(max_size=8))] = draw(VALUES)
      break
  return value


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
  """The bytes of a file with one to four damages."""
  data = good
  for _ in range(draw(st.integers(1, 4))):
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(len(data), start + 64)))
    span = data[start:end]
    kind = draw(st.sampled_from(
      ['flip', 'cut', 'write', 'insert', 'remove', 'repeat', 'move', 'edge']
    ))  # fmt: skip
    if kind == 'flip' and start < len(data):
      bit = 1 << draw(st.integers(0, 7))
      data = data[:start] + bytes([data[start] ^ bit]) + data[start + 1 :]
    elif kind == 'cut':
      data = data[:start]
    elif kind in ('write', 'insert'):
      new = draw(st.binary(max_size=16))
      kept = start if kind == 'insert' else start + len(new)
      data = data[:start] + new + data[kept:]
    elif kind == 'remove':
      data = data[:start] + data[end:]
    elif kind == 'repeat':
      data = data[:end] + span * draw(st.sampled_from([1, 2, 50])) + data[end:]
    elif kind == 'move':
      place = draw(st.integers(0, len(data)))
      data = data[:place] + span + data[place:]
    elif kind == 'edge':
      number = draw(st.sampled_from(_EDGES)) % 2**64
      data = data[:start] + number.to_bytes(8, 'little') + data[start + 8 :]
  return data
