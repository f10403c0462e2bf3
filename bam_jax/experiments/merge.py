"""Bring together what several work directories have finished."""

from collections.abc import Mapping
from collections.abc import Sequence
import logging
from pathlib import Path
import shutil

from bam_jax import errors
from bam_jax import files
from bam_jax.data import shards
from bam_jax.experiments import workspace as workspace_lib


def merge(
  into: workspace_lib.Workspace, sources: Sequence[workspace_lib.Workspace]
) -> None:
  """Copies finished runs, whole, and their logits on training rows.

  What is there already is left as it is. All runs are compared before the first
  one is copied. No link is followed in a source.

  Args:
    into: the work directory that gets them.
    sources: those they are taken from; of equal runs the first one counts.

  Raises:
    errors.UserError: there is no source, or one without a finished run, two
      runs of one name are not the same run, a source holds a link, or a file
      can't be copied.
  """
  if not sources:
    raise errors.UserError(
      '--from is missing: --mode=merge takes --from=DIR, or several with ,'
      ' between them'
    )
  origins: dict[str, workspace_lib.Workspace] = {}
  for source in sources:
    # Before anything is read: it may come from a stranger.
    for folder in (source.root / 'runs', source.root / 'teachers'):
      files.check_directory(folder)
    names = source.finished_runs()
    if not names:
      raise errors.UserError(
        f'--from={source.root}: has no finished run; give work directories,'
        ' with , between them'
      )
    for name in names:
      other = origins.get(name, into)
      _check_same(name, other, source)
      if into.finished(name) is None:
        origins.setdefault(name, source)
  _check_room(into, [space.run(name) for name, space in origins.items()])
  for name, source in origins.items():
    files.copy_directory(source.run(name), into.run(name))
  sets = {}
  for source in sources:
    for name in source.finished_runs():
      # A run trained twice may have ended with other parameters.
      if _parameters(source, name) == _parameters(into, name):
        sets = _logits_missing(name, source, into) | sets
  _check_room(into, list(sets.values()))
  for target, folder in sets.items():
    files.copy_directory(folder, target)
  logging.info(
    '%d runs and %d sets of logits copied into %s',
    len(origins),
    len(sets),
    into.root,
  )


def _check_room(into: workspace_lib.Workspace, folders: Sequence[Path]) -> None:
  """Raises where folders don't fit on the disk; a file may be a huge hole."""
  needed = sum(
    entry.stat(follow_symlinks=False).st_size
    for folder in folders
    for entry in files.walk_files(folder)
  )
  into.root.mkdir(parents=True, exist_ok=True)
  free = shutil.disk_usage(into.root).free
  if needed > free:
    raise errors.UserError(
      f'{into.root}: {needed} bytes are to be copied there and {free} are free;'
      ' make room, or choose another --workdir'
    )


def _check_same(
  name: str,
  there: workspace_lib.Workspace,
  here: workspace_lib.Workspace,
) -> None:
  """Raises where two folders of one name hold different runs."""
  before, new = there.identity(name), here.identity(name)
  if before is None:
    return
  changes = workspace_lib.differences(
    before, {**dict.fromkeys(before), **workspace_lib.defaults(), **new}
  )
  if changes:
    raise errors.UserError(
      f'{here.run(name)}: is another run than {there.run(name)}'
      f' ({", ".join(changes[:3])}); choose another --workdir, or remove one of'
      ' the two folders'
    )


def _parameters(workspace: workspace_lib.Workspace, name: str) -> object:
  """Digest of the parameters that a finished run ended with."""
  record: Mapping[str, object] = workspace.finished(name)
  return record['parameters']


def _logits_missing(
  name: str,
  source: workspace_lib.Workspace,
  into: workspace_lib.Workspace,
) -> dict[Path, Path]:
  """Target -> folder, of the sets of a run that are not there yet."""
  pairs = {
    into.teacher(name, task): source.teacher(name, task)
    for task in source.taught_tasks(name)
  }
  return {
    target: folder
    for target, folder in pairs.items()
    if not shards.exists(target)
  }
