"""Reads what the runs of a report predicted on dev, and the gold labels."""

from collections.abc import Mapping
import math
import os
from pathlib import Path
import tokenize
from typing import IO
from typing import NamedTuple
import zipfile
import zlib

import numpy as np

from bam_jax import files
from bam_jax.tasks import task as task_lib

_MOST_BYTES = 1 << 31
_HEADERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}
# What NumPy and zipfile raise for a damaged archive.
_DAMAGED = (
  ArithmeticError,
  EOFError,
  LookupError,
  MemoryError,
  OSError,
  RuntimeError,
  SyntaxError,
  TypeError,
  ValueError,
  tokenize.TokenError,
  zipfile.BadZipFile,
  zlib.error,
)


class Missing(Exception):
  """Predictions are missing; the message is the reason that a report gives."""


class Predicted(NamedTuple):
  """Predictions of a task's first dev split by one variant.

  Attributes:
    seeds: of the S runs.
    uids: [N] of the examples.
    predictions: [S, N] class indices, or scores on the task's own scale; or
      tallies, [S, N, ...].
    gold: [N] in the same form, without a meaning beside tallies; None if no run
      wrote any.
  """

  seeds: tuple[int, ...]
  uids: np.ndarray
  predictions: np.ndarray
  gold: np.ndarray | None


class Outputs:
  """The outputs that `evaluate.save` wrote, each read when it is asked for."""

  def __init__(
    self,
    paths: Mapping[str, Mapping[str, Mapping[int, Path]]],
    tasks: task_lib.TaskTable,
  ):
    """Opens nothing yet.

    Args:
      paths: task -> variant -> seed -> outputs.npz; a file may be missing.
      tasks: the tasks of the plan.
    """
    self._paths = paths
    self._tasks = tasks

  def of(self, task: str, variant: str) -> Predicted:
    """Predictions of all runs of a variant.

    Raises:
      Missing: a run has none, or those of other examples than the first one.
    """
    paths = dict(sorted(self._paths.get(task, {}).get(variant, {}).items()))
    if not paths:
      raise Missing(f'{variant} has no run of {task}')
    found = [self._read(path, task) for path in paths.values()]
    for (uids, _, _), path in zip(found, paths.values()):
      if not np.array_equal(uids, found[0][0]):
        raise Missing(f'{_name(path)} is of other examples')
    labelled = [gold for _, _, gold in found if gold is not None]
    return Predicted(
      seeds=tuple(paths),
      uids=found[0][0],
      predictions=np.stack([values for _, values, _ in found]),
      gold=labelled[0] if labelled else None,
    )

  def _read(
    self, path: Path, name: str
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """uids, predictions or tallies, and gold of one run, [N, ...] each."""
    task = self._tasks[name]
    key = f'{name}/{task.dev_splits[0]}/'
    try:
      found = _arrays(path, key)
      kept = task.kind.read_outputs(task, found)
    except FileNotFoundError:
      raise Missing(f'{_name(path)} is not there') from None
    except _DAMAGED:
      raise Missing(f'{_name(path)} is damaged') from None
    return found['uid'], *kept


def _arrays(path: Path, prefix: str) -> dict[str, np.ndarray]:
  """The arrays of an archive whose names have a prefix, named without it.

  The file may come from a stranger, so the sizes it claims are checked before
  anything is allocated. `evaluate.save` doesn't compress, so that its members
  together are no larger than the file.

  Raises:
    One of `_DAMAGED`: `evaluate.save` writes no such file.
  """
  with files.open_file(path) as file, zipfile.ZipFile(file) as archive:
    size = os.fstat(file.fileno()).st_size
    members = archive.infolist()
    held = sum(member.file_size for member in members)
    stored = {member.compress_type for member in members}
    if not held <= size <= _MOST_BYTES or stored - {zipfile.ZIP_STORED}:
      raise ValueError('the sizes of its members do not match the file')
    arrays = {}
    for member in members:
      if member.filename.startswith(prefix):
        name = member.filename.removeprefix(prefix).removesuffix('.npy')
        with archive.open(member) as stream:
          arrays[name] = _array(stream)
    return arrays


def _array(stream: IO[bytes]) -> np.ndarray:
  """An array as NumPy writes it; read-only."""
  read_header = _HEADERS[np.lib.format.read_magic(stream)]
  shape, by_column, dtype = read_header(stream)
  data = stream.read()
  # Objects would be pickles; other types may claim any number of values.
  if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data):
    raise ValueError('its values are not as many as its header says')
  values = np.frombuffer(data, dtype)
  return values.reshape(shape, order='F' if by_column else 'C')


def _name(path: Path) -> str:
  """The path of a run's file inside the work directory."""
  return f'runs/{path.parent.name}/{path.name}'
