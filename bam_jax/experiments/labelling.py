"""Teacher logits: a finished run labels rows, and students read what it wrote.

Logits for the students of the same plan are in `teachers/RUN/TASK`, those on
rows without labels in `teachers/RUN/TASK.unlabelled`. The quality of the former
is written into the record of the run that computed them.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
from pathlib import Path

import numpy as np

from bam_jax import schema
from bam_jax.data import prepare
from bam_jax.data import shards
from bam_jax.distillation import external
from bam_jax.distillation import logit_sets
from bam_jax.distillation import quality
from bam_jax.distillation import teacher_logits
from bam_jax.experiments import background as background_lib
from bam_jax.experiments import identity as identity_lib
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import records
from bam_jax.experiments import run_data
from bam_jax.experiments import runs as runs_lib
from bam_jax.runtime import processes
from bam_jax.runtime import telemetry
from bam_jax.tasks import task as task_lib

# Fewer rows are written at once: a process would take longer to start.
_MIN_BACKGROUND_ROWS = 4096

Params = Mapping[str, object]


def write_logits(
  plan: plan_lib.Plan,
  run: runs_lib.Run,
  target: logit_sets.LogitSet,
  task: task_lib.Task,
  features: shards.Columns,
  params: Params,
  background: background_lib.Background,
  convert: Callable[[np.ndarray], np.ndarray] = lambda logits: logits,
) -> tuple[np.ndarray, np.ndarray]:
  """Computes a run's logits on the rows of a split, and writes them as a set.

  Args:
    plan: the plan of the run.
    run: the teacher.
    target: the set; its fold gives the rows that are labelled.
    task: the task.
    features: the rows of the split.
    params: of the run, on the devices.
    background: writes large sets while the devices go on.
    convert: applied to the logits before they are written.

  Returns:
    The rows and the logits; see `teacher_logits.predict_logits`.
  """
  num_runs = target.fold.of if target.fold else 1
  with telemetry.progress(
    f'{run.name} labels {target.directory.name}',
    len(features) // num_runs,
    'examples',
  ) as progress:

    def advance(count: int) -> None:
      progress.advance(count)
      plan.preemption_signal.check()

    rows, logits = teacher_logits.predict_logits(
      plan.setup.programs,
      params,
      features,
      task,
      plan.config.packing,
      target.fold,
      advance,
    )

  def write() -> None:
    uids = [features.uids[row] for row in rows]
    lengths = logit_sets.token_lengths(features, task, rows)
    metadata = prepare.label_metadata(task)
    arguments = (target, uids, convert(logits), metadata, lengths)
    if len(uids) < _MIN_BACKGROUND_ROWS:
      logit_sets.write(*arguments)
    else:
      background.call(logit_sets.write, *arguments)

  processes.run_on_first(write)
  return rows, logits


@dataclasses.dataclass(frozen=True)
class TeacherLogits:
  """Writes and reads the logits that the runs of a plan learn from.

  Attributes:
    plan: the plan.
    identities: of the runs that are trained, and of all that they build on.
    runs: these runs by name.
    background: writes logits while the next rows are labelled.
  """

  plan: plan_lib.Plan
  identities: Mapping[str, identity_lib.Identity]
  runs: Mapping[str, runs_lib.Run]
  background: background_lib.Background

  def write(
    self,
    run: runs_lib.Run,
    students: Sequence[runs_lib.Run],
    get_params: Callable[[], Params],
  ) -> None:
    """Writes the logits of a finished run that students need and lack.

    Args:
      run: the teacher.
      students: runs that are not trained yet.
      get_params: returns the run's parameters on the devices; called at most
        once, if something is to be labelled.
    """
    get_params = functools.cache(get_params)
    for name, split in run_data.splits_to_label(
      run, students, self.plan.tasks, self.plan.features
    ):
      target = self._find_set(run.name, name, split)
      rows = None
      if not processes.run_on_first(shards.exists, target.directory):
        rows, logits = write_logits(
          self.plan,
          run,
          target,
          self.plan.tasks[name],
          self.plan.features[name][split],
          get_params(),
          self.background,
        )
      if split == task_lib.UNLABELLED:
        continue
      if rows is not None:
        self._write_quality(run, name, rows, logits)
      else:
        self._complete_quality(run, name, target)

  @processes.runs_on_first
  def _complete_quality(
    self, run: runs_lib.Run, task: str, source: logit_sets.LogitSet
  ) -> None:
    """Adds the quality of existing logits to their run's record if missing."""
    record = self.plan.workspace.read_record(run.name)
    if 'train' not in record.get('quality', {}).get(task, {}):
      table = self.plan.tasks[task]
      rows = self.plan.features[task][table.train_split]
      self._write_quality(run, task, *logit_sets.read(source, rows, table))

  def _write_quality(
    self, run: runs_lib.Run, task: str, rows: np.ndarray, logits: np.ndarray
  ) -> None:
    """Writes the quality of a run's logits on training rows into its record."""
    table = self.plan.tasks[task]
    found = quality.measure(
      table,
      logits,
      self.plan.features[task][table.train_split].take('label', rows),
    )
    record = self.plan.workspace.read_record(run.name)
    self.plan.workspace.write_record(
      run.name, records.add_quality(record, {task: {'train': found}})
    )

  def read_probs(self, run: runs_lib.Run, task: str) -> np.ndarray | None:
    """Returns the teachers' predictions on the rows that a run learns from.

    Returns:
      [rows, outputs] float32, or [tokens, outputs]: rows with labels first,
      then those without; None if the run has no teacher.
    """
    if not run.logits and task not in run.teachers:
      return None
    if not run.logits:
      processes.run_on_first(self.background.wait)
    splits = run_data.learnt_splits(
      run, self.plan.tasks[task], self.plan.features
    )
    return processes.run_on_all(
      lambda: np.concatenate(
        [self._read_split(run, task, split) for split in splits]
      )
    )

  @processes.runs_on_first
  def check_external(self, students: Sequence[runs_lib.Run]) -> None:
    """Reads all external logits that some runs learn from.

    Raises:
      errors.UserError: a set is damaged, lacks a row, or is not finite.
    """
    found = {
      (run.logits, task, split): run
      for run in students
      if run.logits
      for task in run.tasks
      for split in run_data.learnt_splits(
        run, self.plan.tasks[task], self.plan.features
      )
    }
    for (_, task, split), run in found.items():
      self._read_split(run, task, split)

  def _read_split(self, run: runs_lib.Run, task: str, split: str) -> np.ndarray:
    """Returns the predictions of a run's teachers on the rows of a split."""
    table, features = self.plan.tasks[task], self.plan.features[task][split]
    if run.logits:
      table = table.with_head(external.REGRESSION_HEAD)
      found = external.find_sets(Path(run.logits), task, split)
      sets = [
        [external.open_set(path, features, table)] for path in found.values()
      ]
    else:
      by_teacher: dict[object, list[str]] = {}
      for name in run.teachers[task]:
        # All folds of a seed make up one teacher. None of them was trained on
        # rows without labels, so on these each is a teacher of its own.
        is_joined = split != task_lib.UNLABELLED
        key = self.runs[name].seed if is_joined else name
        by_teacher.setdefault(key, []).append(name)
      sets = [
        [self._find_set(name, task, split) for name in names]
        for names in by_teacher.values()
      ]
    return teacher_logits.read_probs(
      sets, features, table, run.config.distill.temperature
    )

  def _find_set(self, run: str, task: str, split: str) -> logit_sets.LogitSet:
    """Returns where a run's logits on a split are, and what decides them."""
    fold = None if split == task_lib.UNLABELLED else self.runs[run].fold
    return logit_sets.LogitSet(
      self.plan.workspace.teacher(run, logit_sets.folder_name(task, split)),
      logit_sets.fingerprint(
        self.plan.features[task][split],
        schema.digest(self.identities[run]),
        self.plan.workspace.read_record(run)['parameters'],
        fold,
      ),
      fold,
    )
