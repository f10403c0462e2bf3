"""What of a work directory is complete, while others write in it.

Shard sets, checkpoints and finished runs are told by a mark, which is there
when everything else is. All other files are whole at any time: they are
replaced by a rename, or grow by whole lines.
"""

from collections.abc import Iterator
from collections.abc import Mapping
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

# What stands last where a folder is put together, and goes first.
MARKS = frozenset(
  {manifest.NAME, checkpoint_scores.MARK, 'commit_success.txt', 'DONE'}
)

_STEP = re.compile(r'(runs/[^/]+/checkpoints)/step_(\d+)/(\w+)')
# In a folder with a mark everything is as when the mark was set.
_FOLDER = re.compile(rf'(features|teachers)/|{_STEP.pattern}')
_SETS = (f'features/*/*/{manifest.NAME}', f'teachers/*/*/{manifest.NAME}')
_DONE = 'runs/*/DONE'
_ATTEMPTS = 100
_PAUSE = 0.05  # seconds between two
# Made anew from the rest, of this process alone, or not yet in place.
_LEFT_OUT = re.compile(
  r'(^|/)\.|^LOCK$|^(features|teachers)/[^/]+/[^/]+/columns|\.(tmp|old)-'
  r'|orbax-checkpoint-tmp|^compiled/.*-atime$'
)

# Name of a mark -> what changes when its folder does.
Marks = Mapping[str, tuple[int, ...]]


class Found(NamedTuple):
  """What a work directory holds that is complete.

  Attributes:
    marks: of all that has one.
    files: name -> where its content stays, of all that may have changed.
    steps: folder of a run's checkpoints -> the steps that are to be kept.
  """

  marks: Marks
  files: Mapping[str, Path]
  steps: Mapping[str, list[int]]


def names(root: Path) -> Iterator[str]:
  """The files below a folder but for those that are left out, complete or not.

  Args:
    root: the work directory.
  """
  return _names(root, root)


def is_left_out(name: str) -> bool:
  """Whether a file is never copied up, whatever it holds."""
  return _LEFT_OUT.search(name) is not None


def is_of_folder(name: str) -> bool:
  """Whether a file belongs to a folder with a mark, and so never changes."""
  return _FOLDER.match(name) is not None


def is_checkpoint(name: str) -> bool:
  """Whether a file belongs to a step of a checkpoint."""
  return _STEP.match(name) is not None


def is_outgrown(root: Path, name: str, steps: Mapping[str, list[int]]) -> bool:
  """Whether a file that was once complete has been deleted by its run.

  A file that is missing for any other reason, such as a folder of a run that
  someone removed, is not.
  """
  match = _STEP.match(name)
  if match is None or match[1] not in steps:
    return False
  if int(match[2]) not in steps[match[1]]:
    return True
  # A finished run drops what only a resumed one would need.
  return match[3] == 'train' and not (root / match[0]).exists()


def find(root: Path, stage: Path, known: Marks) -> Found:
  """Looks for what is complete at one moment.

  Args:
    root: the work directory.
    stage: a folder on the same file system that checkpoints are linked into,
      as their run may delete them at any time; emptied first.
    known: marks of an earlier call; what they stand for is not looked into
      again while they stay as they are.

  Raises:
    OSError: something can't be read, or the file system knows no hard links.
  """
  for attempt in itertools.count(1):
    before = _marks(root)
    shutil.rmtree(stage, ignore_errors=True)
    try:
      found = _find(root, stage, known, before)
      # Nothing is deleted before what replaces it is there.
      if _marks(root) == before:
        return found
    except (OSError, ValueError):
      # A step that has just been outgrown, if it is gone the next time.
      if attempt == _ATTEMPTS:
        raise
    time.sleep(_PAUSE)


def _find(root: Path, stage: Path, known: Marks, marks: Marks) -> Found:
  files: dict[str, Path] = {}
  steps: dict[str, list[int]] = {}

  def add(folder: Path) -> None:
    files.update({name: root / name for name in _names(root, folder)})

  for mark in marks:
    if not mark.startswith('runs/') and known.get(mark) != marks[mark]:
      add((root / mark).parent)
  for run in sorted(root.glob('runs/[!.]*')):
    done = f'runs/{run.name}/DONE'
    checkpoints_dir = run / 'checkpoints'
    if kept := checkpoint_scores.kept(checkpoints_dir):
      steps[f'runs/{run.name}/checkpoints'] = kept
    if done in marks and known.get(done) == marks[done]:
      continue
    for step in kept:
      mark = f'runs/{run.name}/checkpoints/step_{step}/{checkpoint_scores.MARK}'
      if known.get(mark) == marks.get(mark):
        continue
      folder = (root / mark).parent
      linked = stage / folder.relative_to(root)
      shutil.copytree(folder, linked, copy_function=os.link)
      files.update({name: stage / name for name in _names(stage, linked)})
    for entry in run.iterdir():
      if entry != checkpoints_dir and (entry.name != 'DONE' or done in marks):
        add(entry)
  for entry in root.iterdir():
    if entry.name not in ('features', 'teachers', 'runs'):
      add(entry)
  return Found(marks, files, steps)


def _marks(root: Path) -> Marks:
  """All marks, and when they and their folders were changed."""
  paths = [path for pattern in (*_SETS, _DONE) for path in root.glob(pattern)]
  paths += root.glob(f'runs/*/checkpoints/step_*/{checkpoint_scores.MARK}')
  result = {}
  for path in paths:
    name = path.relative_to(root).as_posix()
    if not is_left_out(name):
      try:
        stats = (path.stat(), path.parent.stat())
      except FileNotFoundError:
        continue
      result[name] = tuple(stat.st_mtime_ns for stat in stats)
  return result


def _names(root: Path, place: Path) -> Iterator[str]:
  """The regular files at or below a place, relative to `root`."""
  if place.is_dir() and not place.is_symlink():
    folders = os.walk(place)
  else:
    folders = [(str(place.parent), [], [place.name])]
  for folder, _, entries in folders:
    for entry in sorted(entries):
      path = Path(folder, entry)
      name = path.relative_to(root).as_posix()
      if is_left_out(name):
        continue
      # A link leads elsewhere, and a pipe never ends.
      with contextlib.suppress(FileNotFoundError):
        if stat.S_ISREG(path.lstat().st_mode):
          yield name
