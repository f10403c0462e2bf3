"""Finds the complete parts of a work directory that is still being written.

The folder of a shard set, a checkpoint or a finished run has a sentinel file,
which is written last. Files outside such folders are complete at any time: they
are replaced by a rename, or grow by whole lines.
"""

from collections.abc import Iterator, Mapping
import contextlib
import itertools
import os
from pathlib import Path
import re
import shutil
import stat
import time
from typing import NamedTuple

from bam_jax.data import manifest
from bam_jax.training import checkpoint_scores

# Files that are written last and deleted first.
SENTINELS = frozenset(
  {manifest.NAME, checkpoint_scores.SENTINEL, 'commit_success.txt', 'DONE'}
)

_STEP = re.compile(r'(runs/[^/]+/checkpoints)/step_(\d+)/(\w+)')
# Folders that never change once they have a sentinel.
_FOLDER = re.compile(rf'(features|teachers)/|{_STEP.pattern}')
_PATTERNS = (
  f'features/*/*/{manifest.NAME}',
  f'teachers/*/*/{manifest.NAME}',
  'runs/*/DONE',
  f'runs/*/checkpoints/step_*/{checkpoint_scores.SENTINEL}',
)
_ATTEMPTS = 100
_PAUSE = 0.05  # seconds between two attempts
# Never copied: files that can be made again, belong to one process, or are
# unfinished.
_LEFT_OUT = re.compile(
  r'(^|/)\.|^LOCK$|^(features|teachers)/[^/]+/[^/]+/columns|\.(tmp|old)-'
  r'|orbax-checkpoint-tmp|^compiled/.*-atime$'
)

# Name of a sentinel file -> time stamps that change if its folder changes.
Sentinels = Mapping[str, tuple[int, ...]]


class Found(NamedTuple):
  """The complete parts of a work directory.

  Attributes:
    sentinels: the sentinel files of all complete folders.
    files: name -> path to read, for all files that may have changed. For a file
      of a checkpoint, the path is a hard link, which the run does not delete.
    steps: folder of a run's checkpoints -> the steps to keep.
  """

  sentinels: Sentinels
  files: Mapping[str, Path]
  steps: Mapping[str, list[int]]


def is_left_out(name: str) -> bool:
  """Whether a file is never copied to the store."""
  return _LEFT_OUT.search(name) is not None


def is_in_folder(name: str) -> bool:
  """Whether a file is in a folder with a sentinel; such files never change."""
  return _FOLDER.match(name) is not None


def is_checkpoint(name: str) -> bool:
  """Whether a file belongs to a checkpoint."""
  return _STEP.match(name) is not None


def is_superseded(
  root: Path, name: str, steps: Mapping[str, list[int]]
) -> bool:
  """Whether a file belongs to a checkpoint that its run no longer keeps.

  Also returns True for the training state that a finished run has deleted.
  Returns False for a file that is missing for another reason, for example
  because someone removed the folder of the run. `steps` is `Found.steps`.
  """
  match = _STEP.match(name)
  if match is None or match[1] not in steps:
    return False
  if int(match[2]) not in steps[match[1]]:
    return True
  # A finished run deletes the state that only a resumed run would need.
  return match[3] == 'train' and not (root / match[0]).exists()


def find(root: Path, stage: Path, known: Sentinels) -> Found:
  """Finds all complete files in a work directory at one moment.

  Args:
    root: the work directory.
    stage: a folder on the same file system, which is emptied first. The files
      of checkpoints are hard-linked into it, because a run may delete its
      checkpoints at any time.
    known: sentinels of an earlier call; folders that have not changed since
      that call are skipped.

  Raises:
    OSError: a file cannot be read, or the file system has no hard links.
  """
  for attempt in itertools.count(1):
    before = _find_sentinels(root)
    shutil.rmtree(stage, ignore_errors=True)
    try:
      found = _find(root, stage, known, before)
      # A checkpoint is deleted only after its successor has a sentinel. So if
      # no sentinel has changed, `found` has everything.
      if _find_sentinels(root) == before:
        return found
    except (OSError, ValueError):
      # A checkpoint was probably deleted meanwhile; the next attempt will not
      # see it.
      if attempt == _ATTEMPTS:
        raise
    time.sleep(_PAUSE)


def _find(
  root: Path, stage: Path, known: Sentinels, sentinels: Sentinels
) -> Found:
  files: dict[str, Path] = {}
  steps: dict[str, list[int]] = {}
  # Sentinels of folders that are new or have changed.
  new = {name for name in sentinels if known.get(name) != sentinels[name]}

  def add(place: Path, base: Path = root) -> None:
    files.update({name: base / name for name in names(base, place)})

  for sentinel in sorted(new):
    if not sentinel.startswith('runs/'):
      add((root / sentinel).parent)
  for run in sorted(root.glob('runs/[!.]*')):
    done = f'runs/{run.name}/DONE'
    checkpoints = f'runs/{run.name}/checkpoints'
    if kept := checkpoint_scores.kept(root / checkpoints):
      steps[checkpoints] = kept
    if done in sentinels and done not in new:
      continue
    for step in kept:
      folder = f'{checkpoints}/step_{step}'
      if f'{folder}/{checkpoint_scores.SENTINEL}' in new:
        shutil.copytree(root / folder, stage / folder, copy_function=os.link)
        add(stage / folder, stage)
    for entry in run.iterdir():
      if entry.name != 'checkpoints' and (entry.name != 'DONE' or done in new):
        add(entry)
  for entry in root.iterdir():
    if entry.name not in ('features', 'teachers', 'runs'):
      add(entry)
  return Found(sentinels, files, steps)


def _find_sentinels(root: Path) -> Sentinels:
  """Returns all sentinels with the mtimes of the file and of its folder."""
  result = {}
  for path in itertools.chain.from_iterable(map(root.glob, _PATTERNS)):
    name = path.relative_to(root).as_posix()
    if not is_left_out(name):
      with contextlib.suppress(FileNotFoundError):
        result[name] = (path.stat().st_mtime_ns, path.parent.stat().st_mtime_ns)
  return result


def names(root: Path, place: Path | None = None) -> Iterator[str]:
  """Yields names of regular files that may be copied, relative to `root`.

  `place` is a file or folder below `root`; None means all of `root`.
  """
  place = place or root
  if place.is_dir() and not place.is_symlink():
    folders = os.walk(place)
  else:
    folders = [(str(place.parent), [], [place.name])]
  for folder, _, entries in folders:
    for entry in sorted(entries):
      path = Path(folder, entry)
      name = path.relative_to(root).as_posix()
      # Not links or pipes: a link may lead anywhere, and a pipe may never end.
      with contextlib.suppress(FileNotFoundError):
        if not is_left_out(name) and stat.S_ISREG(path.lstat().st_mode):
          yield name
