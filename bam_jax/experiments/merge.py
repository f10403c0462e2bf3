"""The command `merge`: copies finished runs from other work directories."""

from collections.abc import Sequence
import logging
from pathlib import Path
import shutil

from bam_jax import errors
from bam_jax import files
from bam_jax.data import manifest
from bam_jax.data import shards
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import report
from bam_jax.experiments import workspace as workspace_lib
from bam_jax.runtime import processes


@processes.runs_on_first
def merge(plan: plan_lib.Plan, sources: Sequence[Path]) -> None:
  """Copies finished runs from other work directories; writes the report."""
  copy_runs(plan.workspace, [workspace_lib.Workspace(path) for path in sources])
  plan.workspace.save_config(plan.config)
  report.report(plan)


def copy_runs(
  into: workspace_lib.Workspace, sources: Sequence[workspace_lib.Workspace]
) -> None:
  """Copies finished runs, the logits that they wrote, and baselines.

  Existing runs, logits and baselines are kept. If several sources hold the same
  run, logits or baselines, the copy is made from the first of these sources.
  All runs are compared before anything is copied. Symbolic links are not
  followed.

  Raises:
    errors.UserError: no source is given, or a source has no finished run; two
      runs with the same name have different settings; a source holds a link;
      the disk has too little space; or a file can't be copied.
  """
  if not sources:
    raise errors.UserError(
      '--from is missing: --mode=merge takes --from=DIR, or several directories'
      ' separated by commas'
    )
  finished: dict[workspace_lib.Workspace, list[str]] = {}
  origins: dict[str, workspace_lib.Workspace] = {}
  for source in sources:
    # Checked before any file is read, because the source may be untrusted.
    for folder in ('runs', 'teachers', 'baselines'):
      files.check_directory(source.root / folder)
    finished[source] = source.find('runs', 'DONE')
    if not finished[source]:
      raise errors.UserError(
        f'--from={source.root}: has no finished run; give work directories'
        ' that have one, separated by commas'
      )
    for name in finished[source]:
      _check_equal(name, origins.get(name, into), source)
      if into.read_record(name) is None:
        origins.setdefault(name, source)
  _copy(into, {into.run(n): source.run(n) for n, source in origins.items()})
  sets: dict[Path, Path] = {}
  for source, names in finished.items():
    for name in names:
      # Equal runs on different machines may end with different parameters, and
      # logits belong to one set of parameters.
      digests = [
        each.read_record(name)['parameters'] for each in (source, into)
      ]
      if digests[0] == digests[1]:
        for folder in source.find(f'teachers/{name}', manifest.NAME):
          target = into.teacher(name, folder)
          if not shards.exists(target):
            sets.setdefault(target, source.teacher(name, folder))
  _copy(into, sets)
  tasks = {
    into.baselines(task): source.baselines(task)
    for source in reversed(sources)
    for task in source.find('baselines', 'DONE')
  }
  _copy(into, {to: folder for to, folder in tasks.items() if not to.exists()})
  logging.info(
    '%d runs and %d sets of logits copied into %s',
    *(len(origins), len(sets), into.root),
  )


def _copy(into: workspace_lib.Workspace, sources: dict[Path, Path]) -> None:
  """Copies folders (target -> source); raises if the disk lacks space."""
  # A source file may be sparse and its copy is not, so apparent sizes count.
  needed = sum(
    entry.stat(follow_symlinks=False).st_size
    for folder in sources.values()
    for entry in files.walk_files(folder)
  )
  into.root.mkdir(parents=True, exist_ok=True)
  free = shutil.disk_usage(into.root).free
  if needed > free:
    raise errors.UserError(
      f'{into.root}: copying needs {needed} bytes, but only {free} are free;'
      ' free some space, or choose another --workdir'
    )
  for target, folder in sources.items():
    files.copy_directory(folder, target)


def _check_equal(
  name: str, there: workspace_lib.Workspace, here: workspace_lib.Workspace
) -> None:
  """Raises if two work directories have different runs with the same name."""
  before, new = there.identity(name), here.identity(name)
  if before is None:
    return
  changes = workspace_lib.differences(
    before, {**dict.fromkeys(before), **workspace_lib.defaults(), **new}
  )
  if changes:
    raise errors.UserError(
      f'{here.run(name)}: has other settings than {there.run(name)}'
      f' ({", ".join(changes[:3])}); choose another --workdir, or remove one of'
      ' the two folders'
    )
