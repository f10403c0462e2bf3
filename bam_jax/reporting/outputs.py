"""Reads the dev predictions and gold labels of a report's runs."""

from collections.abc import Callable, Mapping
import math
import os
from pathlib import Path
from typing import IO, NamedTuple, TypeVar
import zipfile

import numpy as np

from bam_jax import files
from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import metrics
from bam_jax.tasks import task as task_lib

_Result = TypeVar('_Result')

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
    measured: [S, N, ...] predictions; gold labels, or None if no run wrote gold
      labels; and [S, N, c] class scores, or None if a run has no class scores.
      If the predictions are tallies, the gold labels are only placeholders.
  """

  seeds: tuple[int, ...]
  uids: np.ndarray
  measured: metrics.Measured

  @property
  def predictions(self) -> np.ndarray:
    return self.measured.predictions

  @property
  def gold(self) -> np.ndarray | None:
    return self.measured.gold


def read(task: task_lib.Task, paths: Mapping[int, Path]) -> Predicted:
  """Reads the predictions on the first dev split, from one file per seed.

  Raises:
    Missing: `paths` is empty; or the file of a run is missing or damaged, lacks
      what a metric needs, or has other examples than the first seed's file.
  """
  if not paths:
    raise Missing(f'no run of {task.name}')
  by_seed, split = dict(sorted(paths.items())), task.dev_splits[0]
  uids, measured = zip(*(_read(task, p, split) for p in by_seed.values()))
  for path, own in zip(by_seed.values(), uids):
    if not np.array_equal(own, uids[0]):
      raise Missing(f'{_name(path)} has other examples than the first seed')
  predictions, gold, scores = zip(*measured)
  has_scores = all(each is not None for each in scores)
  return Predicted(
    seeds=tuple(by_seed),
    uids=uids[0],
    measured=metrics.Measured(
      np.stack(predictions),
      next((labels for labels in gold if labels is not None), None),
      np.stack(scores) if has_scores else None,
    ),
  )


def score(
  task: task_lib.Task, path: Path, split: str
) -> tuple[dict[str, float], dict[str, str]]:
  """Computes a run's scores from its outputs.npz, like `Kind.score`.

  Returns:
    Two dicts: metric -> score, 0-100 or nan; and metric -> why its score is
    undefined, only for undefined scores.

  Raises:
    Missing: see `read`.
  """
  _, measured = _read(task, path, split)
  scores = metrics.compute(task.metrics, measured)
  return scores, {
    name: metrics.why_undefined(name, measured)
    for name, value in scores.items()
    if math.isnan(value)
  }


def read_run(
  task: task_lib.Task, path: Path
) -> tuple[np.ndarray, metrics.Measured]:
  """Reads the uids, predictions, gold labels and logits of a run.

  The split is the first dev split.

  Raises:
    Missing: see `read`; also if gold labels or logits are missing.
  """
  uids, measured = _read(task, path, task.dev_splits[0])
  if measured.gold is None or measured.class_scores is None:
    raise Missing(f'{_name(path)} has no gold labels or no logits')
  return uids, measured


def read_decided(
  task: task_lib.Task, path: Path
) -> tuple[list[str], list[kind_lib.Decided]]:
  """Reads the uids and predictions of a run on the first dev split.

  Raises:
    Missing: see `read`.
  """

  def decide(
    arrays: Mapping[str, np.ndarray],
  ) -> tuple[list[str], list[kind_lib.Decided]]:
    task.kind.read_outputs(task, arrays)  # Checks the shapes.
    return arrays['uid'].tolist(), task.kind.decided(task, arrays)

  return _from_arrays(task, path, task.dev_splits[0], decide)


def _name(path: Path) -> str:
  return f'runs/{path.parent.name}/{path.name}'


def _read(
  task: task_lib.Task, path: Path, split: str
) -> tuple[np.ndarray, metrics.Measured]:
  """Reads one run's uids, and the inputs of the task's metrics."""
  uids, measured = _from_arrays(
    *(task, path, split),
    lambda arrays: (arrays['uid'], task.kind.read_outputs(task, arrays)),
  )
  for name in task.metrics:
    if metrics.METRICS[name].first_argument(measured) is None:
      raise Missing(f'{_name(path)} has no logits for {name}')
  return uids, measured


def _from_arrays(
  task: task_lib.Task,
  path: Path,
  split: str,
  read: Callable[[Mapping[str, np.ndarray]], _Result],
) -> _Result:
  """Applies `read` to the arrays of a split; any error becomes a `Missing`."""
  try:
    return read(_arrays(path, f'{task.name}/{split}/'))
  except FileNotFoundError:
    raise Missing(f'{_name(path)} is missing') from None
  except Exception:  # NumPy and zipfile raise a dozen types of errors.
    raise Missing(f'{_name(path)} is damaged') from None


def _arrays(path: Path, prefix: str) -> dict[str, np.ndarray]:
  """Reads the arrays of a split from an outputs.npz.

  In the file, the name of each of these arrays starts with `prefix`, which is
  removed. The file may be hostile, so the sizes of all its arrays are checked
  before anything is allocated. `evaluate.save` doesn't compress, so all arrays
  together are no larger than the file.

  Raises:
    Exception: the file is damaged, or was not written by `evaluate.save`.
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
  # An array of objects would have to be unpickled, which can run code. For
  # other dtypes, the header may claim a wrong number of values.
  if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data):
    raise ValueError('an array has another size than its header says')
  values = np.frombuffer(data, dtype)
  return values.reshape(shape, order='F' if by_column else 'C')
