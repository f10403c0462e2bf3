"""Bring together what several work directories have finished."""

from collections.abc import Mapping
from collections.abc import Sequence
import logging
from pathlib import Path
import shutil

from bam_jax import errors
from bam_jax.data import shards
from bam_jax.experiments import workspace as workspace_lib


def merge(
  into: workspace_lib.Workspace, sources: Sequence[workspace_lib.Workspace]
) -> None:
  """Copies finished runs, whole, and their logits on training rows.

  What is there already is left as it is. All runs are compared before the first
  one is copied.

  Args:
    into: the work directory that gets them.
    sources: those they are taken from; of equal runs the first one counts.

  Raises:
    errors.UserError: there is no source, or one without a finished run, two
      runs of one name are not the same run, or a file can't be copied.
  """
  if not sources:
    raise errors.UserError(
      '--from is missing: --mode=merge takes --from=DIR, or several with ,'
      ' between them'
    )
  origins: dict[str, workspace_lib.Workspace] = {}
  for source in sources:
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
  for name, source in origins.items():
    _copy(source.run(name), into.run(name))
  copied = 0
  for source in sources:
    for name in source.finished_runs():
      # A run trained twice may have ended with other parameters.
      if _parameters(source, name) == _parameters(into, name):
        copied += _copy_logits(name, source, into)
  logging.info(
    '%d runs and %d sets of logits copied into %s',
    len(origins),
    copied,
    into.root,
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


def _copy_logits(
  name: str,
  source: workspace_lib.Workspace,
  into: workspace_lib.Workspace,
) -> int:
  """Copies the sets of a run that are not there; returns how many."""
  copied = 0
  for task in source.taught_tasks(name):
    there = into.teacher(name, task)
    if not shards.exists(there):
      _copy(source.teacher(name, task), there)
      copied += 1
  return copied


def _copy(source: Path, target: Path) -> None:
  """Copies a folder beside its place and renames it; replaces what is there."""
  temporary = target.with_name(f'.{target.name}.tmp')
  try:
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary)
    if target.exists():
      shutil.rmtree(target)
    temporary.rename(target)
  except (OSError, shutil.Error) as e:
    raise errors.UserError(
      f'{target}: cannot be copied from {source} ({e}); mend what it names and'
      ' run the same command again'
    ) from e
