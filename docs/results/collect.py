"""Gathers what is worth keeping of a work directory into a small folder.

  python docs/results/collect.py work/minilm docs/results/minilm

Takes the report, the scores, each run's record, configuration and metrics, and
all dev logits by uid as float16; leaves checkpoints, features, teachers' logits
and gold labels. A run that came out of an earlier `runs.tar.xz` has no outputs
of its own any more: those that the folder holds of it stay.
"""

import io
from pathlib import Path
import shutil
import sys
import tarfile

import numpy as np

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
  for path in sorted(workdir.glob('predictions/*/submission.zip')):
    shutil.copy(path, target / f'submission-{path.parent.name}.zip')
  runs = sorted(path.parent for path in workdir.glob('runs/*/DONE'))
  with tarfile.open(target / 'runs.tar.xz', 'w:xz') as archive:
    for run in runs:
      for name in _RECORDS:
        data = (run / name).read_bytes()
        info = tarfile.TarInfo(f'runs/{run.name}/{name}')
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
  arrays = {}
  if (target / 'outputs.npz').exists():
    with np.load(target / 'outputs.npz') as kept:
      arrays = dict(kept)
  for run in runs:
    if not (run / 'outputs.npz').exists():
      continue
    with np.load(run / 'outputs.npz') as outputs:
      for key in outputs:
        split, kind = key.rsplit('/', 1)
        if kind == 'uid':
          arrays[f'uid/{split}'] = outputs[key].astype('S')
        elif kind == 'logits':
          arrays[f'logits/{run.name}/{split}'] = outputs[key].astype('f2')
  np.savez_compressed(target / 'outputs.npz', **arrays)


if __name__ == '__main__':
  main(Path(sys.argv[1]), Path(sys.argv[2]))
