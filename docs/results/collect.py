"""Gathers what is worth keeping of a work directory into a small folder.

  python docs/results/collect.py work/minilm docs/results/minilm

Takes the report, the scores, and each run's record, configuration and metrics;
leaves checkpoints, features and all logits.
"""

import io
from pathlib import Path
import shutil
import sys
import tarfile

_REPORT = (
  'report.json',
  'report.md',
  'report.html',
  'report.tex',
  'scores.csv',
)
_RECORDS = ('DONE', 'config.json', 'metrics.jsonl')


def main(workdir: Path, target: Path) -> None:
  target.mkdir(parents=True, exist_ok=True)
  for name in _REPORT:
    shutil.copy(workdir / name, target / name)
  runs = sorted(path.parent for path in workdir.glob('runs/*/DONE'))
  with tarfile.open(target / 'runs.tar.xz', 'w:xz') as archive:
    for run in runs:
      for name in _RECORDS:
        data = (run / name).read_bytes()
        info = tarfile.TarInfo(f'runs/{run.name}/{name}')
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))


if __name__ == '__main__':
  main(Path(sys.argv[1]), Path(sys.argv[2]))
