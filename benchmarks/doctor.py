"""Times the doctor on a million generated rows, or checks it on real ones.

  python -m benchmarks.doctor [--rows=1000000]
  python -m benchmarks.doctor --check=$GLUE_DIR

Two tasks of TSV files, one text and two texts a row, in words as frequent as
those of English; every thousandth dev row is a training row, and every
thousandth but one word of it.

The check compares all pairs of training and held-out rows of five tasks of
GLUE, by products of sparse matrices, with the near-duplicates that the doctor
finds.
"""

import argparse
import collections
import itertools
import json
from pathlib import Path
import re
import resource
import tempfile
import time

import numpy as np
from scipy import sparse

from bam_jax import config as config_lib
from bam_jax.data import features
from bam_jax.data import registry
from bam_jax.data import sources
from bam_jax.doctor import examine
from bam_jax.doctor import near
from bam_jax.tasks import demo
from bam_jax.tasks import glue

_WORDS = 50_000
_WORDS_A_TEXT = 12
_HELD_OUT = 0.1
_EVERY = 1000


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--rows', default=1_000_000, type=int)
  parser.add_argument('--check', help='GLUE as TSV files')
  args = parser.parse_args()
  print(json.dumps(check(args.check) if args.check else measure(args.rows)))


def measure(rows: int) -> dict[str, object]:
  """Measures seconds and memory of the doctor on generated files."""
  with tempfile.TemporaryDirectory() as directory:
    config = config_lib.default_config()
    config.data.dir = directory
    config.tasks = ('one', 'two')
    generator = np.random.default_rng(0)
    for name, texts, size in (
      ('one', ('text_a',), rows // 4),
      ('two', ('text_a', 'text_b'), rows - rows // 4),
    ):
      _write(Path(directory), name, texts, size, generator)
      config.custom_tasks[name] = config_lib.custom_task(
        labels=('no', 'yes'),
        train=f'{name}-train.tsv',
        dev=f'{name}-dev.tsv',
        text=texts,
        label='label',
      )
    config = config_lib.from_config_dict(config)
    tokenizer = features.Tokenizer.from_vocab(demo.vocabulary(), lowercase=True)
    start = time.perf_counter()
    report = examine.examine(registry.resolve(config), config.data, tokenizer)
    seconds = time.perf_counter() - start
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
  return {
    'rows': sum(split.rows for split in report.splits),
    'seconds': round(seconds, 1),
    'peak_memory_gb': round(peak * 1024 / 1e9, 2),
    'found': {f'{f.check} {f.task}': f.count for f in report.findings},
  }


def check(directory: str) -> dict[str, int]:
  """Counts nearly equal rows by the doctor's join and by all pairs."""
  data = config_lib.DataConfig(dir=directory)
  result = collections.Counter()
  for names in (('cola',), ('mrpc', 'stsb', 'rte', 'wnli')):
    sides: list[list[tuple[str, ...]]] = [[], []]
    for task in (glue.TASKS[name] for name in names):
      for split in task.tables:
        for row in sources.read(task, split, data):
          texts = (row.text_a,) if row.text_b is None else row[1:3]
          clean = tuple(' '.join(text.lower().split()) for text in texts)
          sides[split != 'train'].append(clean)
    train, held = (list(dict.fromkeys(side)) for side in sides)
    number = {}
    for text in itertools.chain(*train, *held):
      number.setdefault(text, len(number))
    one, other, _ = near.find(
      near.word_pairs(list(number)),
      *(np.array([[number[t] for t in r] for r in s]) for s in (train, held)),
    )
    mine = set(zip(one.tolist(), other.tolist()))
    wanted = _all_pairs(train, held)
    result['pairs compared'] += len(train) * len(held)
    result['nearly equal'] += len(wanted)
    result['missed'] += len(wanted - mine)
    result['wrong'] += len(mine - wanted)
  return dict(result)


def _all_pairs(
  train: list[tuple[str, ...]], held: list[tuple[str, ...]]
) -> set[tuple[int, int]]:
  """Finds nearly equal rows as `near` defines them, but without hashes."""
  column: dict[tuple[str, str], int] = {}

  def pairs(text: str) -> set[tuple[str, str]]:
    words = re.findall(r'\w+', text)
    return set(itertools.pairwise([*words, ''])) if words else set()

  def matrix(rows: list[tuple[str, ...]]) -> sparse.csr_array:
    ends, columns = [0], []
    for row in rows:
      both = set().union(*map(pairs, row))
      columns += [column.setdefault(pair, len(column)) for pair in both]
      ends.append(len(columns))
    return sparse.csr_array(
      (np.ones(len(columns), np.int32), columns, ends), (len(rows), 1 << 30)
    )

  def alike(a: str, b: str) -> bool:
    a, b = pairs(a), pairs(b)
    return len(a & b) >= near.TEXT_THRESHOLD * len(a | b)

  one, other = matrix(train), matrix(held)
  one, other = one[:, : len(column)], other[:, : len(column)]
  sizes = one.sum(axis=1), other.sum(axis=1)
  result = set()
  for first in range(0, len(train), 500):
    shared = (one[first : first + 500] @ other.T).tocoo()
    here, there = shared.row + first, shared.col
    n, m = sizes[0][here], sizes[1][there]
    keep = shared.data >= near.THRESHOLD * (n + m - shared.data)
    keep &= np.minimum(n, m) >= near.MIN_WORDS
    for i, j in zip(here[keep].tolist(), there[keep].tolist()):
      a, b = train[i], held[j]
      if sorted(a) != sorted(b) and (
        len(a) == 1 or any(all(map(alike, a, order)) for order in (b, b[::-1]))
      ):
        result.add((i, j))
  return result


def _write(
  directory: Path,
  name: str,
  columns: tuple[str, ...],
  rows: int,
  generator: np.random.Generator,
) -> None:
  """Writes training and dev file of a task; a tenth of the rows are dev."""
  words = np.array([f'w{number:x}' for number in range(_WORDS)])
  frequency = 1 / np.arange(3, _WORDS + 3)
  ends = np.cumsum(frequency / frequency.sum())

  def text(size: int) -> list[str]:
    return words[np.searchsorted(ends[:-1], generator.random(size))].tolist()

  held = int(rows * _HELD_OUT)
  kept: dict[int, list[list[str]]] = {}
  for split, size in (('train', rows - held), ('dev', held)):
    with (directory / f'{name}-{split}.tsv').open('w') as file:
      file.write('\t'.join((*columns, 'label')) + '\n')
      for row in range(size):
        lengths = 2 + generator.poisson(_WORDS_A_TEXT - 2, len(columns))
        texts = [text(length) for length in lengths]
        if row % _EVERY < 2:
          texts = kept.setdefault(row, texts)
          if split == 'dev' and not row % _EVERY:
            texts[0][-1] += 'x'
        label = ('no', 'yes')[generator.integers(2)]
        file.write('\t'.join((*map(' '.join, texts), label)) + '\n')


if __name__ == '__main__':
  main()
