"""Generated rows of the kinds that the demo suite lacks, as files."""

import json
from pathlib import Path

import numpy as np

_SIZES = {'train': 48, 'dev': 16, 'test': 6}
# Words of the demo vocabulary; one with a capital is spelt by its letters.
_PEOPLE = ('doctor', 'teacher', 'lawyer', 'singer', 'Zoe')
_THINGS = ('car', 'boat', 'house', 'church', 'soup')
_MOODS = {'joy': 'lovely', 'anger': 'nasty', 'fear': 'horrible'}


def write(folder: Path) -> None:
  """Writes every file that `tests.configs.kinds` names."""
  for split, size in _SIZES.items():
    rng = np.random.default_rng(list(_SIZES).index(split))
    for name, make in {'moods/{}.jsonl': _moods}.items():
      path = folder / name.format(split)
      path.parent.mkdir(exist_ok=True)
      path.write_text(make(rng, size, split != 'test'))


def _moods(rng: np.random.Generator, size: int, labelled: bool) -> str:
  lines = []
  for _ in range(size):
    chosen = [mood for mood in _MOODS if rng.integers(2)]
    words = [_MOODS[mood] for mood in chosen]
    row = {'text': f'the {rng.choice(_THINGS)} was {" and ".join(words)} .'}
    lines.append(json.dumps(row | ({'moods': chosen} if labelled else {})))
  return '\n'.join(lines) + '\n'
