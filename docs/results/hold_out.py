"""Makes a copy of GLUE whose development rows are taken from the training rows.

  python docs/results/hold_out.py $GLUE_DIR held_out
  python docs/results/hold_out.py $GLUE_DIR small --train=60 --dev=1000 --draw=1

Some of each task's training rows become its development set: by default a
tenth, at most 2,000. The official development set is not used. With --train
only that many of the other rows are kept, and with --unlabelled the texts of
as many more become TASK/unlabelled.jsonl, TASK being its name in a config.
"""

import argparse
import json
from pathlib import Path
import random

from bam_jax.tasks import glue


def main(
  old: Path,
  new: Path,
  train: int | None,
  dev: int | None,
  draw: str,
  unlabelled: int,
) -> None:
  for file in sorted(old.glob('*/train.tsv')):
    task = file.parent.name
    lines = file.read_bytes().split(b'\n')
    if not lines[-1]:
      lines.pop()
    heading = int(task != 'CoLA')
    head, rows = lines[:heading], lines[heading:]
    size = min(len(rows) // 10, 2000) if dev is None else dev
    # Without `draw`, the rows of docs/results/settings.
    generator = random.Random(task + draw)
    drawn = generator.sample(
      range(len(rows)), size if train is None else size + train
    )
    held = set(drawn[:size])
    kept = set(range(len(rows)) if train is None else drawn) - held
    (new / task).mkdir(parents=True, exist_ok=True)
    if unlabelled:
      rest = sorted({*range(len(rows))} - held - kept)
      more = generator.sample(rest, min(unlabelled, len(rest)))
      _write_texts(new, task, [rows[i] for i in sorted(more)])
    _write(new / task / 'train.tsv', head, rows, kept)
    if task != 'MNLI':
      _write(new / task / 'dev.tsv', head, rows, held)
      continue
    # The official development files have four more columns of labels.
    lines = [b'\t'.join(_widen(row.split(b'\t'))) for row in [*head, *rows]]
    for name in ('dev_matched.tsv', 'dev_mismatched.tsv'):
      _write(new / task / name, lines[:1], lines[1:], held)


def _write_texts(new: Path, folder: str, rows: list[bytes]) -> None:
  file = f'{folder}/train.tsv'
  (task,) = (t for t in glue.TASKS.values() if t.tables['train'].file == file)
  (new / task.name).mkdir(exist_ok=True)
  with (new / task.name / 'unlabelled.jsonl').open('w') as lines:
    for row in rows:
      cells = row.decode().split('\t')
      texts = (cells[i] for i in task.tables['train'].text)
      lines.write(json.dumps(dict(zip(('text', 'text_pair'), texts))) + '\n')


def _widen(cells: list[bytes]) -> list[bytes]:
  return [*cells[:-1], b'', b'', b'', b'', cells[-1]]


def _write(
  path: Path, head: list[bytes], rows: list[bytes], kept: set[int]
) -> None:
  path.write_bytes(b'\n'.join([*head, *(rows[i] for i in sorted(kept)), b'']))


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('old', type=Path, help='GLUE as TSV files')
  parser.add_argument('new', type=Path, help='folder to write')
  parser.add_argument('--train', type=int, help='training rows to keep')
  parser.add_argument('--dev', type=int, help='rows of development sets')
  parser.add_argument('--draw', default='', help='another draw of the rows')
  parser.add_argument(
    '--unlabelled', type=int, default=0, help='texts without labels'
  )
  args = parser.parse_args()
  main(**vars(args))
