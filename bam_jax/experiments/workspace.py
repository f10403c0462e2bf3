"""The work directory: where its files are, and the records of its runs.

DIR/config.json
DIR/labels/TASK.json         labels found in the training rows, if the task is
                             declared without labels
DIR/divisions/TASK.json      development rows that were taken from training rows
DIR/features/TASK/SPLIT/     shard sets
DIR/runs/RUN/                config.json, checkpoints/, metrics.jsonl,
                             outputs.npz, DONE
DIR/teachers/RUN/TASK/       shard sets; also TASK.unlabelled/
DIR/baselines/TASK/          majority.npz, frozen_encoder.npz, DONE
DIR/choices.json             scores and chosen settings of the search
DIR/report.{json,md,html,tex}, DIR/report_PLOT.png, DIR/scores.csv
DIR/errors.jsonl             rows that the student gets wrong
"""

from collections.abc import Mapping
import math
from pathlib import Path
import re
from types import MappingProxyType

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import files
from bam_jax import schema
from bam_jax.runtime import processes
from bam_jax.runtime import telemetry
from bam_jax.training import checkpoint_scores
from bam_jax.training import loop

_DIGEST = 'digest'
# Key of the model's tasks, in the order of its heads. These tasks decide the
# order of heads in checkpoints, and the random weights of new heads. They do
# not decide whether a finished run belongs to a plan; `run.tasks` does.
TASKS = 'config.tasks'
# Prefix of the keys of a pretrained encoder's settings.
ENCODER = 'encoder.'
# A task's field that is in an identity only if it is set.
CLASS_WEIGHTS = 'class_weights'
# Keys that the record of a finished run must have, and types of their values.
_RECORD_TYPES = {
  'steps': (int,),
  'parameters': (str,),
  'seconds': (int, float),
  'device': (str,),
  'scores': (dict,),
}
# The same for the record of a task's baselines.
_BASELINE_TYPES = {
  'identity': (dict,),
  'scores': (dict,),
  'undefined': (dict,),
  'about': (dict,),
}


class Workspace:
  """Paths below one work directory, and the records of its runs.

  In a multi-host plan, only process 0 reads and writes the records.
  """

  def __init__(self, root: Path):
    self.root = root

  def features(self, task: str, split: str) -> Path:
    return self.root / 'features' / task / split

  def division(self, task: str) -> Path:
    return self.root / 'divisions' / f'{task}.json'

  def run(self, name: str) -> Path:
    return self.root / 'runs' / name

  def checkpoints(self, name: str) -> Path:
    return self.run(name) / loop.CHECKPOINTS_DIR

  def metrics(self, name: str) -> Path:
    return self.run(name) / telemetry.METRICS_FILE

  def outputs(self, name: str) -> Path:
    return self.run(name) / 'outputs.npz'

  def teacher(self, run: str, folder: str) -> Path:
    return self.root / 'teachers' / run / folder

  def baselines(self, task: str) -> Path:
    return self.root / 'baselines' / task

  def _identity(self, name: str) -> Path:
    return self.run(name) / 'config.json'

  @processes.runs_on_first
  def open_runs(self, identities: Mapping[str, Mapping[str, object]]) -> None:
    """Makes the folders of runs, after checking existing folders.

    Raises:
      errors.UserError: a folder holds a run with another identity, or an
        unfinished run with other tasks in `config.tasks`.
    """
    new = []
    for name, identity in identities.items():
      record = self.identity(name)
      if record is None or self._is_reopened(name, identity, record):
        new.append(name)
      else:
        self.check_run(name, _complete(identity, record))
    for name in new:
      files.write_json(self._identity(name), _seal(identities[name]))

  def _is_reopened(
    self,
    name: str,
    identity: Mapping[str, object],
    record: Mapping[str, object],
  ) -> bool:
    """Whether a run has not trained yet, so its identity may be replaced.

    Raises:
      errors.UserError: the run was interrupted under other `config.tasks`.
    """
    if not self._has_trained(name):
      return True
    if record.get(TASKS) == identity.get(TASKS) or self._is_finished(name):
      return False
    before = ', '.join(record.get(TASKS, ()))
    raise errors.UserError(
      f'{self.run(name)}: was interrupted when config.tasks was {before};'
      ' finish it with these tasks first, or remove that folder to start it'
      ' again'
    )

  @processes.runs_on_first
  def learnt_tasks(self) -> list[str]:
    """Returns the names of the tasks that at least one run has trained on.

    Until a run has trained on a task, the user may correct the rows and
    settings of the task. Files that were made from them are then made again.

    Raises:
      errors.UserError: see `identity`.
    """
    found: dict[str, None] = {}
    for name in self.find('runs', 'config.json'):
      if self._has_trained(name):
        found |= dict.fromkeys(self.identity(name).get('run.tasks', ()))
    return list(found)

  def _has_trained(self, name: str) -> bool:
    """Whether a run is finished, or has a checkpoint."""
    sentinels = f'step_*/{checkpoint_scores.SENTINEL}'
    return self._is_finished(name) or any(
      self.checkpoints(name).glob(sentinels)
    )

  def _is_finished(self, name: str) -> bool:
    return (self.run(name) / 'DONE').exists()

  @processes.runs_on_first
  def check_run(self, name: str, settings: Mapping[str, object]) -> None:
    """Raises a `UserError` if a run's folder was made with other settings."""
    changes = differences(_read_sealed(self._identity(name)), settings)
    if changes:
      raise errors.UserError(
        f'{self.run(name)}: was trained with other settings or other data'
        f' ({", ".join(changes[:3])}); give these as they were, choose another'
        ' --workdir, or remove that folder to train it again'
      )

  @processes.runs_on_first
  def identity(self, name: str) -> dict[str, object] | None:
    """Reads the identity in a run's folder; None if there is no such run.

    Raises:
      errors.UserError: the file is damaged, or is missing in a folder that
        holds other files of a run.
    """
    path = self._identity(name)
    if path.exists():
      return _read_sealed(path)
    # This file is written first. If it is missing, other files in the folder
    # may belong to another configuration.
    found = sorted(path.parent.glob('[!.]*'))
    if found:
      raise errors.UserError(
        f'{path}: is missing, so the settings that made {found[0].name} are'
        f' unknown; {_remedy(path)}'
      )
    return None

  @processes.runs_on_first
  def recorded(
    self, name: str, identity: Mapping[str, object]
  ) -> Mapping[str, object]:
    """Returns the identity in a run's folder if it matches the given one.

    The recorded identity lacks fields that are newer than the run. It is still
    preferred, because the identities of students and of logits contain its
    digest. Returns the given identity if the folder has no identity or a
    different one, or if its run is unfinished and `config.tasks` has changed.
    """
    record = self.identity(name)
    if record is None or differences(record, _complete(identity, record)):
      return identity
    if record.get(TASKS) != identity.get(TASKS):
      return record if self._is_finished(name) else identity
    return record

  @processes.runs_on_first
  def trained_tasks(self, name: str) -> list[str] | None:
    """Returns the tasks of a run; None if it has no folder."""
    return (self.identity(name) or {}).get('run.tasks')

  @processes.runs_on_first
  def find(self, parent: str, file: str) -> list[str]:
    """Returns the names of the folders in `parent` that hold a given file."""
    # The folder of an unfinished copy has a name that begins with a dot.
    paths = (self.root / parent).glob(f'[!.]*/{file}')
    return sorted(path.parent.name for path in paths)

  @processes.runs_on_first
  def read_record(self, name: str) -> dict[str, object] | None:
    """Returns the record of a finished run; None if it is not finished.

    Undefined scores are null in the file, and nan in the returned record.

    Raises:
      errors.UserError: the record is damaged; or see `identity`.
    """
    if self._is_finished(name):
      self.identity(name)
    return _read_done(self.run(name), _RECORD_TYPES)

  @processes.runs_on_first
  def write_record(self, name: str, record: Mapping[str, object]) -> None:
    """Writes the record of a finished run; nan becomes null."""
    _write_done(self.run(name), record)

  @processes.runs_on_first
  def read_baselines(
    self, task: str, identity: Mapping[str, object]
  ) -> dict[str, object] | None:
    """Reads the record of a task's baselines; None if the identity differs.

    Raises:
      errors.UserError: the record is damaged.
    """
    record = _read_done(self.baselines(task), _BASELINE_TYPES)
    if record is None or differences(record['identity'], identity):
      return None
    return record

  @processes.runs_on_first
  def write_baselines(self, task: str, record: Mapping[str, object]) -> None:
    """Writes the record of a task's baselines; nan becomes null."""
    _write_done(self.baselines(task), record)

  @processes.runs_on_first
  def save_config(self, config: config_lib.Config) -> None:
    """Writes the configuration, which commands without --config read."""
    files.write_json(self.root / config_lib.FILE, schema.to_dict(config))


def _read_done(
  folder: Path, types: Mapping[str, tuple[type, ...]]
) -> dict[str, object] | None:
  """Reads `DONE`, the record of finished work; None if it does not exist."""
  path = folder / 'DONE'
  if not path.exists():
    return None
  record = _read_sealed(path, types)
  return record | {'scores': _null_to_nan(record['scores'])}


def _write_done(folder: Path, record: Mapping[str, object]) -> None:
  # The digest covers the values as they are in the file, without nan.
  files.write_json(folder / 'DONE', _seal(files.finite(record)))


def _null_to_nan(value: object) -> object:
  if isinstance(value, Mapping):
    return {key: _null_to_nan(item) for key, item in value.items()}
  return math.nan if value is None else value


def _seal(record: Mapping[str, object]) -> dict[str, object]:
  """Returns a copy of a record with an added digest of its content."""
  return {**record, _DIGEST: schema.digest(record)}


def _read_sealed(
  path: Path, types: Mapping[str, tuple[type, ...]] = MappingProxyType({})
) -> dict[str, object]:
  """Reads a record and verifies its digest and the types of its values."""
  record = files.read_json(path, _remedy(path))
  # Older records have no digest.
  digest = record.pop(_DIGEST, None)
  wrong = [
    key
    for key, allowed in types.items()
    if type(record.get(key)) not in allowed
  ]
  if digest not in (None, schema.digest(record)):
    wrong.append(_DIGEST)
  if wrong:
    raise errors.UserError(
      f'{path}: is damaged: {wrong[0]} is not valid; {_remedy(path)}'
    )
  return record


def _remedy(path: Path) -> str:
  # The whole folder must be removed, because the next run could mistake the
  # other files in that folder for its own.
  return f'remove {path.parent} and run the same command again'


def _complete(
  identity: Mapping[str, object], record: Mapping[str, object]
) -> dict[str, object]:
  """Returns an identity, with None for keys that only the saved record has.

  Such a key is not added if it begins with `config.`, because its field was
  removed from the configuration after the record was written.
  """
  keys = (key for key in record if not key.startswith('config.'))
  return {**dict.fromkeys(keys), **identity}


def differences(
  before: Mapping[str, object], wanted: Mapping[str, object]
) -> list[str]:
  """Describes which values of `wanted` differ from those in a record.

  If the record lacks a configuration field, the field is newer than the run.
  The record then counts as having the field's default, because runs were
  trained that way before the field existed. An encoder setting is compared only
  if both sides have it. Of a task's metrics, only the first one is compared,
  and only if it chooses the best checkpoint. Class weights are also compared if
  only the record has them.
  """
  before = {**defaults(), **before}
  weighted = {key for key in before if key.endswith(f'.{CLASS_WEIGHTS}')}
  is_chosen = bool(wanted.get('config.train.evaluate_every'))

  def deciding(key: str, value: object) -> object:
    if re.fullmatch(r'config\.custom_tasks\.[^.]+\.metrics', key) and value:
      return value[:is_chosen]
    return value

  return [
    f'{key} {schema.describe_change(before.get(key), wanted.get(key))}'
    for key in sorted({*wanted, *weighted})
    if key != TASKS
    and not (
      key.startswith(ENCODER) and None in (before.get(key), wanted.get(key))
    )
    and deciding(key, before.get(key)) != deciding(key, wanted.get(key))
  ]


def defaults() -> dict[str, object]:
  """Returns the default of each configuration field, by its key in records."""
  fields = config_lib.default_values()
  return {f'config.{key}': value for key, value in fields.items()}
