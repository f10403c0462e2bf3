"""The work directory: where each thing is, and whether it is still valid.

DIR/config.json
DIR/features/TASK/SPLIT/     shard sets
DIR/runs/RUN/                config.json, checkpoints/, metrics.jsonl,
                             outputs.npz, DONE
DIR/teachers/RUN/TASK/       shard sets
DIR/report.{json,md,html}, DIR/scores.csv
"""

from collections.abc import Mapping
from pathlib import Path

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import files
from bam_jax import schema
from bam_jax.training import loop
from bam_jax.training import telemetry


class Workspace:
  """Paths below one work directory, and the records of its runs."""

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
      path = self._identity(name)
      if path.exists():
        self._compare(
          name, {**dict.fromkeys(files.read_json(path)), **identity}
        )
      else:
        new.append(path)
    for path in new:
      files.write_json(path, identities[path.parent.name])

  def check_run(self, name: str, settings: Mapping[str, object]) -> None:
    """Checks a run's folder against a part of its identity.

    Raises:
      errors.UserError: as `open_runs`.
    """
    self._compare(name, settings)

  def _identity(self, name: str) -> Path:
    return self.run(name) / 'config.json'

  def _compare(self, name: str, wanted: Mapping[str, object]) -> None:
    """Raises where the record of a run has other values for these keys.

    A field that the record lacks is newer than the run, and its default is what
    was done before there was a choice.
    """
    before = _defaults() | files.read_json(self._identity(name))
    keys = [key for key in sorted(wanted) if before.get(key) != wanted[key]]
    if keys:
      changes = ', '.join(
        f'{key} was {before.get(key)!r}, is {wanted[key]!r}' for key in keys[:3]
      )
      raise errors.UserError(
        f'{self.run(name)}: was run with another configuration or other data'
        f' ({changes}); choose another --workdir, or remove that folder'
      )

  def finished(self, name: str) -> Mapping[str, object] | None:
    """The record of a finished run, or None."""
    path = self.run(name) / 'DONE'
    return files.read_json(path) if path.exists() else None

  def finish(self, name: str, record: Mapping[str, object]) -> None:
    files.write_json(self.run(name) / 'DONE', record)

  def save_config(self, config: config_lib.Config) -> None:
    """Keeps the configuration of the last command, for the reader."""
    files.write_json(self.root / 'config.json', schema.to_dict(config))


def _defaults() -> dict[str, object]:
  """Key of an identity -> value, of every field of the configuration."""
  fields = schema.flatten(config_lib.Config())
  return {f'config.{key}': value for key, value in fields.items()}
