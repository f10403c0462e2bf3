"""Makes a copy of GLUE whose dev rows are taken from the training rows.

  python hold_out.py GLUE_DIR NEW_DIR

A tenth of each task's training rows, at most 2,000, drawn by a fixed seed,
becomes the development set; the official development set is left out.
"""

from pathlib import Path
import random
import sys

_HEADER = {'CoLA': 0}
_DEV = {'MNLI': 'dev_matched.tsv'}


def main(old: Path, new: Path) -> None:
  for file in sorted(old.glob('*/train.tsv')):
    task = file.parent.name
    lines = file.read_bytes().split(b'\n')
    if not lines[-1]:
      lines.pop()
    head, rows = lines[: _HEADER.get(task, 1)], lines[_HEADER.get(task, 1) :]
    held = set(
      random.Random(task).sample(range(len(rows)), min(len(rows) // 10, 2000))
    )
    (new / task).mkdir(parents=True, exist_ok=True)
    for name, is_dev in (
      ('train.tsv', False),
      (_DEV.get(task, 'dev.tsv'), True),
    ):
      kept = [row for i, row in enumerate(rows) if (i in held) == is_dev]
      (new / task / name).write_bytes(b'\n'.join([*head, *kept, b'']))
      if task == 'MNLI' and is_dev:
        # The official development files have four more columns of labels.
        text = [
          b'\t'.join([*cells[:-1], b'', b'', b'', b'', cells[-1]])
          for cells in (row.split(b'\t') for row in [*head, *kept])
        ]
        for dev in (name, 'dev_mismatched.tsv'):
          (new / task / dev).write_bytes(b'\n'.join([*text, b'']))


if __name__ == '__main__':
  main(*map(Path, sys.argv[1:]))
