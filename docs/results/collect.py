"""Gathers what is worth keeping of a work directory into a small folder.

  python docs/results/collect.py work/minilm docs/results/minilm
  python docs/results/collect.py work/some work/others docs/results/settings

Takes the report, the scores, the record, configuration and metrics of each run,
and the records of baselines; leaves checkpoints, features and the teachers'
logits. Of several work directories it takes no report, and each one's records
go into a folder of its name. With --outputs it also takes the dev outputs that
the report's tests read. There, logits are replaced by 1 for the class, or for
each of several labels, that is predicted, and by 0 for the others, which take a
tenth of the room. No test of the report depends on them, and no score but
roc_auc and average_precision; what config.decisions fits does. Answers to
questions are text of the data, and are left empty; their scores stay.
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


def main(workdirs: list[Path], target: Path, has_outputs: bool) -> None:
  target.mkdir(parents=True, exist_ok=True)
  if len(workdirs) == 1:
    for name in _REPORT:
      shutil.copy(workdirs[0] / name, target / name)
  with tarfile.open(target / 'runs.tar.xz', 'w:xz') as archive:
    for workdir in workdirs:
      plan = '' if len(workdirs) == 1 else f'{workdir.name}/'
      for run in sorted(path.parent for path in workdir.glob('runs/*/DONE')):
        folder = f'{plan or "runs/"}{run.name}'
        _add_run(archive, folder, run, has_outputs)
      for record in sorted(workdir.glob('baselines/*/DONE')):
        folder = f'{plan}baselines/{record.parent.name}'
        _add(archive, f'{folder}/DONE', record.read_bytes())
        for path in sorted(record.parent.glob('*.npz') if has_outputs else ()):
          _add(archive, f'{folder}/{path.name}', _predictions(path))


def _add_run(
  archive: tarfile.TarFile, folder: str, run: Path, has_outputs: bool
) -> None:
  for name in _RECORDS:
    _add(archive, f'{folder}/{name}', (run / name).read_bytes())
  # The report reads none of teachers of folds and of the search.
  if has_outputs and '-fold' not in run.name and 'heldout' not in run.name:
    data = _predictions(run / 'outputs.npz')
    _add(archive, f'{folder}/outputs.npz', data)


def _predictions(path: Path) -> bytes:
  """Returns an outputs.npz with logits of zeros and ones, without answers."""
  with np.load(path) as stored:
    arrays = dict(stored)
  for name, values in arrays.items():
    if name.endswith('/prediction') and not all(map(_is_tags, values)):
      arrays[name] = np.full_like(values, '')
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


def _is_tags(prediction: str) -> bool:
  return all(tag[:2] in ('O', 'B-', 'I-') for tag in prediction.split())


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
  info = tarfile.TarInfo(name)
  info.size = len(data)
  archive.addfile(info, io.BytesIO(data))


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('workdirs', type=Path, nargs='+')
  parser.add_argument('target', type=Path, help='folder to write')
  parser.add_argument('--outputs', action='store_true', help='see above')
  arguments = parser.parse_args()
  main(arguments.workdirs, arguments.target, arguments.outputs)
