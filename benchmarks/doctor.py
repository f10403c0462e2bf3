"""Times the doctor on a million generated rows.

  python -m benchmarks.doctor [--rows=1000000]

Two tasks of TSV files, one text and two texts a row, in words as frequent as
those of English; every thousandth dev row is a training row, and every
thousandth but one word of it.
"""

import argparse
import json
from pathlib import Path
import resource
import tempfile
import time

import numpy as np

from bam_jax import config as config_lib
from bam_jax.data import features
from bam_jax.data import registry
from bam_jax.data.doctor import examine
from bam_jax.tasks import demo

_WORDS = 50_000
_WORDS_A_TEXT = 12
_HELD_OUT = 0.1
_EVERY = 1000


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--rows', default=1_000_000, type=int)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as directory:
    config = config_lib.default_config()
    config.data.dir = directory
    config.tasks = ('one', 'two')
    generator = np.random.default_rng(0)
    for name, texts, rows in (
      ('one', ('text_a',), args.rows // 4),
      ('two', ('text_a', 'text_b'), args.rows - args.rows // 4),
    ):
      _write(Path(directory), name, texts, rows, generator)
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
  result = {
    'rows': sum(split.rows for split in report.splits),
    'seconds': round(seconds, 1),
    'peak_memory_gb': round(peak * 1024 / 1e9, 2),
    'found': {f'{f.check} {f.task}': f.count for f in report.findings},
  }
  print(json.dumps(result, indent=1))


def _write(
  directory: Path,
  name: str,
  columns: tuple[str, ...],
  rows: int,
  generator: np.random.Generator,
) -> None:
  """Training and dev file of a task, the dev rows a tenth of all."""
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
