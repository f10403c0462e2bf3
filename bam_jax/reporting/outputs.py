"""What the runs of a report predicted on dev, beside the gold labels."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
import zipfile
import zlib

import numpy as np

from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib

# What NumPy and zipfile raise over an archive that is none, or not whole.
_DAMAGED = (
  EOFError,
  KeyError,
  MemoryError,
  OSError,
  RuntimeError,
  ValueError,
  zipfile.BadZipFile,
  zlib.error,
)


class Missing(Exception):
  """There are no predictions to be had; says why, in words of the report."""


class Predicted(NamedTuple):
  """Predictions of a task's first dev split by one variant.

  Attributes:
    seeds: of the S runs.
    uids: [N] of the examples.
    predictions: [S, N] class indices, or scores on the task's own scale; or
      tallies, [S, N, ...].
    gold: [N] likewise, of no meaning beside tallies; None where the runs wrote
      none.
  """

  seeds: tuple[int, ...]
  uids: np.ndarray
  predictions: np.ndarray
  gold: np.ndarray | None


class Outputs:
  """Reads the outputs that `evaluate.save` wrote, as they are asked for."""

  def __init__(
    self,
    paths: Mapping[str, Mapping[str, Mapping[int, Path]]],
    tasks: task_lib.TaskTable,
    regression_head: str,
  ):
    """Opens nothing yet.

    Args:
      paths: task -> variant -> seed -> outputs.npz; a file may be missing.
      tasks: of the plan.
      regression_head: `sigmoid` or `linear`.
    """
    self._paths = paths
    self._tasks = tasks
    self._head = regression_head

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
      with np.load(path) as arrays:
        found = {
          entry.removeprefix(key): arrays[entry]
          for entry in arrays
          if entry.startswith(key)
        }
      kept = kinds.of(task).kept(task, found, self._head)
    except FileNotFoundError:
      raise Missing(f'{_name(path)} is not there') from None
    except _DAMAGED:
      raise Missing(f'{_name(path)} is damaged') from None
    return found['uid'], *kept


def _name(path: Path) -> str:
  """Of a run's file, without the work directory."""
  return f'runs/{path.parent.name}/{path.name}'
