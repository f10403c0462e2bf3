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


class Workspace:
  """Paths below one work directory, and the records of its runs."""

  def __init__(self, root: Path):
    self.root = root

  def features(self, task: str, split: str) -> Path:
    return self.root / 'features' / task / split

  def run(self, name: str) -> Path:
    return self.root / 'runs' / name

  def teacher(self, run: str, task: str) -> Path:
    return self.root / 'teachers' / run / task

  def open_run(self, name: str, identity: Mapping[str, object]) -> None:
    """Makes the folder of a run, or checks that it is of the same run.

    Args:
      name: of the run.
      identity: dotted key -> value: everything that decides its outcome.

    Raises:
      errors.UserError: the folder holds a run of another identity; names the
        first keys that differ.
    """
    path = self.run(name) / 'config.json'
    if not path.exists():
      files.write_json(path, identity)
      return
    before = files.read_json(path)
    keys = [
      key
      for key in sorted(before.keys() | identity.keys())
      if before.get(key) != identity.get(key)
    ]
    if keys:
      changes = ', '.join(
        f'{key} was {before.get(key)!r}, is {identity.get(key)!r}'
        for key in keys[:3]
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
    files.write_json(self.root / 'config.json', config_lib.to_dict(config))
