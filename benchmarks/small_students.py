"""Writes rows for a small student: few with labels, more without.

  python -m benchmarks.small_students work/small

Writes, of each task of the generated suite,

  labelled/TASK/train.tsv  the suite's training rows, with their labels
  labelled/TASK/dev.tsv    its dev rows, and more of them
  more/TASK/               the same, and further training rows without a label:
                           other texts, of the words of dev
  vocab.txt                a vocabulary of the training texts' words and of
                           letters, which spell the rare ones

A file must have a label for every row: those further ones all have the first
one, or the lowest score, which a student does not see that learns from its
teachers alone (`distill.annealing=constant`, `distill.constant=0`).
"""

import argparse
import collections
from collections.abc import Iterable
from pathlib import Path
import re
import string

from bam_jax.tasks import demo
from bam_jax.tasks import task as task_lib

_DEV = 300  # rows a task, of which the suite's are the first
_MORE = 1000  # rows without a label, a task
_TIMES = 5  # that a word of the vocabulary stands in the training texts
_SPECIAL = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('directory', type=Path, help='is made')
  directory = parser.parse_args().directory
  texts = []
  for task in (demo.TASKS[name] for name in demo.NEW_WORDS):
    train = demo.generate(task.name, 'train')
    dev = demo.generate(task.name, 'dev', _DEV)
    more = _more(task, {(row.text_a, row.text_b) for row in dev})
    for folder, rows in (('labelled', train), ('more', [*train, *more])):
      place = directory / folder / task.name.removeprefix('demo_')
      place.mkdir(parents=True, exist_ok=True)
      _write(place / 'train.tsv', task, rows)
      _write(place / 'dev.tsv', task, dev)
    texts += [f'{row.text_a} {row.text_b or ""}' for row in (*train, *more)]
  words = collections.Counter(re.findall(r'\w+|[^\w\s]', ' '.join(texts)))
  pieces = [
    *string.ascii_lowercase,
    *(f'##{c}' for c in string.ascii_lowercase),
  ]
  frequent = (word for word, times in words.items() if times >= _TIMES)
  vocabulary = [*_SPECIAL, *pieces, *sorted({*frequent} - {*pieces})]
  (directory / 'vocab.txt').write_text('\n'.join(vocabulary) + '\n')


def _more(
  task: task_lib.Task, taken: set[tuple[str, str | None]]
) -> list[task_lib.Example]:
  """Generates texts of the held-out words that are not in dev."""
  rows = demo.generate(task.name, 'test', _MORE + len(taken))
  new = [row for row in rows if (row.text_a, row.text_b) not in taken]
  return new[:_MORE]


def _write(
  file: Path, task: task_lib.Task, rows: Iterable[task_lib.Example]
) -> None:
  columns = task.tables['train'].text
  lines = ['\t'.join((*columns, 'label'))]
  for row in rows:
    texts = (row.text_a, row.text_b)[: len(columns)]
    label = row.label or 0
    lines.append(
      '\t'.join((*texts, task.labels[label] if task.labels else str(label)))
    )
  file.write_text('\n'.join(lines) + '\n')


if __name__ == '__main__':
  main()
