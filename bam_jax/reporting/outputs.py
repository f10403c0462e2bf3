"""Reads the dev predictions and gold labels of a report's runs."""

from collections.abc import Mapping
import math
import os
from pathlib import Path
from typing import IO, NamedTuple
import zipfile

import numpy as np

from bam_jax import files
from bam_jax.tasks import metrics
from bam_jax.tasks import task as task_lib

_MOST_BYTES = 1 << 31
_HEADERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}


class Missing(Exception):
  """Raised if predictions are missing; the report shows the message."""


class Predicted(NamedTuple):
  """Predictions of one variant on a task's first dev split.

  Attributes:
    seeds: seeds of the S runs.
    uids: [N] uids of the examples.
    predictions: [S, N] class indices, or scores on the task's own scale; or
      tallies, [S, N, ...].
    gold: [N] in the same form, without a meaning beside tallies; None if no run
      wrote any.
  """

  seeds: tuple[int, ...]
  uids: np.ndarray
  predictions: np.ndarray
  gold: np.ndarray | None


def read(
  task: task_lib.Task, paths: Mapping[int, Path], split: str = ''
) -> Predicted:
  """Reads the dev predictions on a task from one outputs.npz per seed.

  `split` is by default the first dev split.

  Raises:
    Missing: there is no run, or one has no predictions, or those of other
      examples than the first run.
  """
  if not paths:
    raise Missing(f'no run of {task.name}')
  split = split or task.dev_splits[0]
  found, by_seed = [], dict(sorted(paths.items()))
  for path in by_seed.values():
    name = f'runs/{path.parent.name}/{path.name}'
    try:
      arrays = _arrays(path, f'{task.name}/{split}/')
      found.append((arrays['uid'], *task.kind.read_outputs(task, arrays)))
    except FileNotFoundError:
      raise Missing(f'{name} is missing') from None
    except Exception:  # NumPy and zipfile raise a dozen types.
      raise Missing(f'{name} is damaged') from None
    if not np.array_equal(found[-1][0], found[0][0]):
      raise Missing(f'{name} has other examples than the first seed')
  uids, predictions, gold = zip(*found)
  return Predicted(
    seeds=tuple(by_seed),
    uids=uids[0],
    predictions=np.stack(predictions),
    gold=next((labels for labels in gold if labels is not None), None),
  )


def score(
  task: task_lib.Task, path: Path, split: str
) -> tuple[dict[str, float], dict[str, str]]:
  """Computes a run's scores from its outputs.npz, like `Kind.score`.

  Returns:
    The task's metrics, 0-100, and why some are undefined, by name.

  Raises:
    Missing: see `read`.
  """
  found = read(task, {0: path}, split)
  measured = found.predictions[0], found.gold
  scores = metrics.compute(task.metrics, *measured)
  return scores, {
    name: metrics.why_undefined(name, *measured)
    for name, value in scores.items()
    if math.isnan(value)
  }


def _arrays(path: Path, prefix: str) -> dict[str, np.ndarray]:
  """Reads the arrays of an archive whose names start with a prefix.

  The file may be hostile, so its sizes are checked before anything is
  allocated: `evaluate.save` doesn't compress, so that all members together are
  no larger than the file.

  Raises:
    Exception: `evaluate.save` did not write the file.
  """
  with files.open_file(path) as file, zipfile.ZipFile(file) as archive:
    size = os.fstat(file.fileno()).st_size
    members = archive.infolist()
    held = sum(member.file_size for member in members)
    stored = {member.compress_type for member in members}
    if not held <= size <= _MOST_BYTES or stored - {zipfile.ZIP_STORED}:
      raise ValueError('its arrays are compressed or larger than the file')
    arrays = {}
    for member in members:
      if member.filename.startswith(prefix):
        name = member.filename.removeprefix(prefix).removesuffix('.npy')
        with archive.open(member) as stream:
          arrays[name] = _array(stream)
    return arrays


def _array(stream: IO[bytes]) -> np.ndarray:
  """Reads an array in NumPy's format; the result is read-only."""
  read_header = _HEADERS[np.lib.format.read_magic(stream)]
  shape, by_column, dtype = read_header(stream)
  data = stream.read()
  # Objects would be pickles; other types may claim any number of values.
  if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data):
    raise ValueError('an array has another size than its header says')
  values = np.frombuffer(data, dtype)
  return values.reshape(shape, order='F' if by_column else 'C')
