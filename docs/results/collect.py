"""Gathers what is worth keeping of a work directory into a small folder.

  python docs/results/collect.py work/minilm docs/results/minilm

Takes the report, the scores, and each run's record, configuration and metrics;
leaves checkpoints, features and the teachers' logits. With --outputs it also
takes the dev outputs that the report's tests read. There, logits are replaced
by 1 for the class, or for each of several labels, that is predicted, and by 0
for the others, which take a tenth of the room. No test of the report depends on
them, and no score but roc_auc and average_precision; what config.decisions
fits does.
"""

import argparse
import io
from pathlib import Path
import shutil
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


def main(workdir: Path, target: Path, has_outputs: bool) -> None:
  target.mkdir(parents=True, exist_ok=True)
  for name in _REPORT:
    shutil.copy(workdir / name, target / name)
  runs = sorted(path.parent for path in workdir.glob('runs/*/DONE'))
  with tarfile.open(target / 'runs.tar.xz', 'w:xz') as archive:
    for run in runs:
      for name in _RECORDS:
        data = (run / name).read_bytes()
        _add(archive, f'runs/{run.name}/{name}', data)
      # The report reads none of teachers of folds and of the search.
      if has_outputs and '-fold' not in run.name and 'heldout' not in run.name:
        data = _predictions(run / 'outputs.npz')
        _add(archive, f'runs/{run.name}/outputs.npz', data)


def _predictions(path: Path) -> bytes:
  """Returns an outputs.npz in which logits are zeros and ones."""
  with np.load(path) as stored:
    arrays = dict(stored)
  for name, values in arrays.items():
    if not name.endswith('/logits') or values.shape[1] == 1:
      continue
    if arrays[f'{name.removesuffix("logits")}label'].ndim == 2:
      chosen = values > 0  # Each label is a decision of its own.
    else:
      best = values.argmax(axis=1, keepdims=True)
      chosen = np.arange(values.shape[1]) == best
    arrays[name] = chosen.astype(values.dtype)
  file = io.BytesIO()
  np.savez(file, **arrays)
  return file.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
  info = tarfile.TarInfo(name)
  info.size = len(data)
  archive.addfile(info, io.BytesIO(data))


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('workdir', type=Path)
  parser.add_argument('target', type=Path, help='folder to write')
  parser.add_argument('--outputs', action='store_true', help='see above')
  arguments = parser.parse_args()
  main(arguments.workdir, arguments.target, arguments.outputs)
