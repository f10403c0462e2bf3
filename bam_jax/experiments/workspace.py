"""The work directory: where each thing is, and whether it is still valid.

DIR/config.json
DIR/features/TASK/SPLIT/     shard sets
DIR/runs/RUN/                config.json, checkpoints/, metrics.jsonl,
                             outputs.npz, DONE
DIR/teachers/RUN/TASK/       shard sets; TASK.unlabelled/ too
DIR/choices.json             what a search tried and chose
DIR/report.{json,md,html,tex}, DIR/report_PLOT.png, DIR/scores.csv
"""

from collections.abc import Mapping
from pathlib import Path

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import files
from bam_jax import schema
from bam_jax.data import manifest
from bam_jax.runtime import processes
from bam_jax.runtime import telemetry
from bam_jax.training import loop

_DIGEST = 'digest'
# What is asked of the record of a finished run.
_RECORD = {
  'steps': (int,),
  'parameters': (str,),
  'seconds': (int, float),
  'device': (str,),
  'scores': (dict,),
}


class Workspace:
  """Paths below one work directory, and the records of its runs.

  Of several processes the first one reads and writes the records.
  """

  def __init__(self, root: Path):
    self.root = root

  def features(self, task: str, split: str) -> Path:
    return self.root / 'features' / task / split

  def run(self, name: str) -> Path:
    return self.root / 'runs' / name

  def checkpoints(self, name: str) -> Path:
    return self.run(name) / loop.CHECKPOINTS_DIR

  def metrics(self, name: str) -> Path:
    return self.run(name) / telemetry.METRICS_FILE

  def outputs(self, name: str) -> Path:
    return self.run(name) / 'outputs.npz'

  def teacher(self, run: str, task: str) -> Path:
    return self.root / 'teachers' / run / task

  @processes.runs_on_first
  def open_runs(self, identities: Mapping[str, Mapping[str, object]]) -> None:
    """Makes the folders of runs; those that are there must be of the same.

    All are checked before the first one is made.

    Args:
      identities: run -> dotted key -> value: everything that decides the run's
        outcome.

    Raises:
      errors.UserError: a folder holds a run of another identity; names the
        first keys that differ.
    """
    new = []
    for name, identity in identities.items():
      record = self.identity(name)
      if record is None:
        new.append(name)
      else:
        self._compare(name, _complete(identity, record))
    for name in new:
      files.write_json(self._identity(name), _sealed(identities[name]))

  @processes.runs_on_first
  def check_run(self, name: str, settings: Mapping[str, object]) -> None:
    """Checks a run's folder against a part of its identity.

    Raises:
      errors.UserError: as `open_runs`.
    """
    self._compare(name, settings)

  @processes.runs_on_first
  def identity(self, name: str) -> dict[str, object] | None:
    """The identity that a run was begun with; None where there is no run.

    Raises:
      errors.UserError: the record is damaged, or it is missing in a folder that
        holds something else of a run.
    """
    path = self._identity(name)
    if path.exists():
      return _unsealed(path)
    # Without its record nobody knows what a run was trained with, so it must
    # not be taken for one of this configuration. The record is written first.
    found = sorted(path.parent.glob('[!.]*'))
    if found:
      raise errors.UserError(
        f'{path}: is missing, so nobody knows with what configuration'
        f' {found[0].name} beside it was made; {_make_anew(path)}'
      )
    return None

  @processes.runs_on_first
  def recorded(
    self, name: str, identity: Mapping[str, object]
  ) -> Mapping[str, object]:
    """An identity as the record of its run has it.

    Without the fields that are newer than the record, so that its digest, which
    the run's students and its logits carry, stays what it was. An identity
    without a record, or that the record contradicts, is returned as it is.
    """
    record = self.identity(name)
    if record is None:
      return identity
    wanted = _complete(identity, record)
    return identity if differences(record, wanted) else record

  def _identity(self, name: str) -> Path:
    return self.run(name) / 'config.json'

  def _compare(self, name: str, wanted: Mapping[str, object]) -> None:
    """Raises where the record of a run has other values for these keys."""
    changes = differences(_unsealed(self._identity(name)), wanted)
    if changes:
      raise errors.UserError(
        f'{self.run(name)}: was run with another configuration or other data'
        f' ({", ".join(changes[:3])}); choose another --workdir, or remove that'
        ' folder'
      )

  @processes.runs_on_first
  def finished_runs(self) -> list[str]:
    """Names of all runs that are finished, of this plan or not."""
    # A folder that a copy left unfinished begins with a dot.
    paths = self.root.glob('runs/[!.]*/DONE')
    return sorted(path.parent.name for path in paths)

  @processes.runs_on_first
  def taught_tasks(self, name: str) -> list[str]:
    """The tasks whose training rows a run has labelled."""
    paths = (self.root / 'teachers' / name).glob(f'[!.]*/{manifest.NAME}')
    return sorted(path.parent.name for path in paths)

  @processes.runs_on_first
  def finished(self, name: str) -> Mapping[str, object] | None:
    """The record of a finished run, or None.

    Raises:
      errors.UserError: the record is damaged, or as `identity`.
    """
    path = self.run(name) / 'DONE'
    if not path.exists():
      return None
    self.identity(name)
    return _unsealed(path, _RECORD)

  @processes.runs_on_first
  def finish(self, name: str, record: Mapping[str, object]) -> None:
    """Writes the record of a finished run; nan as null."""
    # The digest is of what a reader gets back.
    files.write_json(self.run(name) / 'DONE', _sealed(files.finite(record)))

  @processes.runs_on_first
  def save_config(self, config: config_lib.Config) -> None:
    """Keeps the configuration of the last command, for the reader."""
    files.write_json(self.root / 'config.json', schema.to_dict(config))


def _sealed(record: Mapping[str, object]) -> dict[str, object]:
  """A record with a digest of itself."""
  return {**record, _DIGEST: schema.digest(record)}


def _unsealed(
  path: Path, kinds: Mapping[str, tuple[type, ...]] | None = None
) -> dict[str, object]:
  """The record in a file, checked against its digest.

  Args:
    path: of the file.
    kinds: key -> types of which its value is one; None: not known.

  Raises:
    errors.UserError: it is damaged.
  """
  record = files.read_json(path, _make_anew(path))
  # Records that are older than the digest have none.
  digest = record.pop(_DIGEST, None)
  wrong = [
    key
    for key, allowed in (kinds or {}).items()
    if type(record.get(key)) not in allowed
  ]
  if digest not in (None, schema.digest(record)):
    wrong.append(_DIGEST)
  if wrong:
    raise errors.UserError(
      f'{path}: is damaged: {wrong[0]} is not what a run leaves;'
      f' {_make_anew(path)}'
    )
  return record


def _make_anew(path: Path) -> str:
  """The remedy for a record of a run that tells nothing.

  The whole folder goes: without a record what is left could be taken for the
  work of another configuration.
  """
  return f'remove {path.parent} and run the same command again'


def _complete(
  identity: Mapping[str, object], record: Mapping[str, object]
) -> dict[str, object]:
  """An identity with None for what only a record of it has.

  A field of the configuration that no identity holds any more decides nothing.
  """
  alone = (key for key in record if not key.startswith('config.'))
  return {**dict.fromkeys(alone), **identity}


def differences(
  before: Mapping[str, object], wanted: Mapping[str, object]
) -> list[str]:
  """What a record has otherwise than wanted, each key in words.

  A field of the configuration that the record lacks is newer than the run, and
  its default is what was done before there was a choice.
  """
  before = {**defaults(), **before}
  return [
    f'{key} was {before.get(key)!r}, is {wanted[key]!r}'
    for key in sorted(wanted)
    if before.get(key) != wanted[key]
  ]


def defaults() -> dict[str, object]:
  """Key of an identity -> default, of every field of the configuration."""
  fields = schema.flatten(config_lib.Config())
  return {f'config.{key}': value for key, value in fields.items()}
