"""Writes and reads teacher logits for students.

Logits for students of the same plan are in `teachers/RUN/TASK`, and in
`teachers/RUN/TASK.unlabelled` for rows without labels. The quality of the
logits on labelled rows is added to the record of the run that computed them.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from pathlib import Path

import numpy as np

from bam_jax import errors
from bam_jax import schema
from bam_jax.data import prepare
from bam_jax.data import shards
from bam_jax.distillation import external
from bam_jax.distillation import logit_sets
from bam_jax.distillation import quality
from bam_jax.experiments import background as background_lib
from bam_jax.experiments import identity as identity_lib
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import records
from bam_jax.experiments import runs as runs_lib
from bam_jax.experiments import workspace as workspace_lib
from bam_jax.runtime import phases
from bam_jax.runtime import processes
from bam_jax.runtime import progress as progress_lib
from bam_jax.tasks import task as task_lib
from bam_jax.training import evaluate

# Fewer rows are written in this process, because starting another process would
# take longer.
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
  is_external: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
  """Computes a run's logits on the rows of a split and writes them to disk.

  The fold of `target` selects the rows. If `is_external` and the task has a
  scale, the predicted scores on 0-1 are written instead of the head's outputs,
  because external sets hold scores.

  Returns:
    Indices of the n selected rows, ascending, [n] int64, and the values written
    for these rows, float32 [n, c], or [tokens, c] for tasks with outputs per
    token.

  Raises:
    errors.UserError: a logit is not finite.
  """
  rows = logit_sets.labelled_rows(features, target.fold)
  lengths = logit_sets.token_lengths(features, task, rows)
  uids = [features.uids[row] for row in rows]
  with progress_lib.show(
    f'{run.name} labels {target.directory.name}', len(rows), 'examples'
  ) as progress:

    def advance(count: int) -> None:
      progress.advance(count)
      plan.preemption_signal.check()

    logits = evaluate.predict(
      plan.setup.programs,
      params,
      features,
      plan.tasks.index[task.name],
      plan.config.packing,
      advance,
      rows,
    )
  bad = logit_sets.first_not_finite(logits, lengths)
  if bad is not None:
    raise errors.UserError(
      f'{uids[bad]}: the logits of {run.name} are not finite; lower the'
      ' learning rate and train that run again'
    )

  if is_external and task.kind.has_scale:
    logits = task.kind.teacher_probs(logits, 1.0)

  processes.run_on_first(
    logit_sets.write
    if len(uids) < _MIN_BACKGROUND_ROWS
    else functools.partial(background.call, logit_sets.write),
    *(target, uids, logits, prepare.label_metadata(task), lengths),
  )
  return rows, logits


def find_set(
  workspace: workspace_lib.Workspace,
  run: runs_lib.Run,
  identity: identity_lib.Identity,
  task: str,
  split: str,
  features: shards.Columns,
) -> logit_sets.LogitSet:
  """Returns folder and fingerprint of a finished run's logits on a split."""
  fold = None if split == task_lib.UNLABELLED else run.fold
  return logit_sets.LogitSet(
    workspace.teacher(run.name, logit_sets.folder_name(task, split)),
    logit_sets.fingerprint(
      features,
      schema.digest(identity),
      workspace.read_record(run.name)['parameters'],
      fold,
    ),
    fold,
  )


@dataclasses.dataclass(frozen=True)
class TeacherLogits:
  """Writes teachers' logits, and reads them for their students.

  `identities` and `runs` are keyed by run name, and include every run that the
  trained runs build on.
  """

  plan: plan_lib.Plan
  identities: Mapping[str, identity_lib.Identity]
  runs: Mapping[str, runs_lib.Run]
  background: background_lib.Background

  @phases.phase(phases.LABELLING)
  def write(
    self,
    run: runs_lib.Run,
    students: Sequence[runs_lib.Run],
    params: Params | None = None,
  ) -> None:
    """Writes a finished run's logits for its students, if they are missing.

    `params` are the run's parameters on the devices; None: they are restored
    from the last checkpoint.
    """
    for task, split in self.plan.data.splits_to_label(run, students):
      target = self._find_set(run.name, task, split)
      labelled = None
      if not processes.run_on_first(shards.exists, target.directory):
        params = params or self.plan.restore_params(run.name)
        labelled = write_logits(
          self.plan,
          run,
          target,
          self.plan.tasks[task],
          self.plan.features[task][split],
          params,
          self.background,
        )
      if split != task_lib.UNLABELLED:
        self._record_quality(run.name, self.plan.tasks[task], target, labelled)

  @processes.runs_on_first
  def _record_quality(
    self,
    run: str,
    task: task_lib.Task,
    source: logit_sets.LogitSet,
    labelled: tuple[np.ndarray, np.ndarray] | None,
  ) -> None:
    """Adds accuracy and calibration of a teacher's logits to its run record.

    `labelled` holds the row indices and logits of a set that was just written;
    None: the set is read from disk if its quality is not recorded yet.
    """
    record = self.plan.workspace.read_record(run)
    features = self.plan.features[task.name][task.train_split]
    if labelled is None:
      if 'train' in record.get('quality', {}).get(task.name, {}):
        return
      labelled = logit_sets.read(source, features, task)
    rows, logits = labelled
    measured = quality.measure(task, logits, features.take('label', rows))
    record = records.add_quality(record, task.name, 'train', measured)
    self.plan.workspace.write_record(run, record)

  def read_probs(self, run: runs_lib.Run, task: str) -> np.ndarray | None:
    """Returns the teachers' predictions on the rows that a run learns from.

    Returns:
      float32 [rows, outputs], or [tokens, outputs] for tasks with outputs per
      token; rows with gold labels come first, then rows without labels. None if
      the run has no teacher for the task.
    """
    if not run.logits:
      if task not in run.teachers:
        return None
      processes.run_on_first(self.background.wait)
    splits = self.plan.data.learnt_splits(run, task)
    return processes.run_on_all(
      lambda: np.concatenate([self._read_split(run, task, s) for s in splits])
    )

  @processes.runs_on_first
  def check_external(self, students: Sequence[runs_lib.Run]) -> None:
    """Reads and checks all external logits that the given runs learn from.

    Logs how well they agree with the gold labels.

    Raises:
      errors.UserError: a set is damaged, lacks a row, or has a value that is
        not finite.
    """
    found = {
      (run.logits, task, split): run
      for run in students
      if run.logits
      for task in run.tasks
      for split in self.plan.data.learnt_splits(run, task)
    }
    for (_, task, split), run in found.items():
      table = self._external_table(task)
      features = self.plan.features[task][split]
      for each in self._external_sets(run, task, split):
        rows, logits = logit_sets.read(each, features, table)
        if split != task_lib.UNLABELLED:
          label = features.take('label', rows)
          quality.log_agreement(str(each.directory), table, logits, label)

  def _external_table(self, name: str) -> task_lib.Task:
    return self.plan.tasks[name].with_head(external.REGRESSION_HEAD)

  def _external_sets(
    self, run: runs_lib.Run, task: str, split: str
  ) -> list[logit_sets.LogitSet]:
    """Opens the external logits on a split that a run learns from."""
    features = self.plan.features[task][split]
    table = self._external_table(task)
    found = external.find_sets(Path(run.logits), task, split)
    return [external.open_set(path, features, table) for path in found.values()]

  def _read_split(self, run: runs_lib.Run, task: str, split: str) -> np.ndarray:
    """Reads the mean prediction of a run's teachers on the rows of a split."""
    table, features = self.plan.tasks[task], self.plan.features[task][split]
    if run.logits:
      table = self._external_table(task)
      sets = [[each] for each in self._external_sets(run, task, split)]
    else:
      by_teacher: dict[object, list[logit_sets.LogitSet]] = {}
      for name in run.teachers[task]:
        # On rows with labels, the runs of one seed (one per fold) form one
        # teacher. Rows without labels are in no fold, so on those rows each
        # run is a separate teacher.
        is_joined = split != task_lib.UNLABELLED
        key = self.runs[name].seed if is_joined else name
        found_set = self._find_set(name, task, split)
        by_teacher.setdefault(key, []).append(found_set)
      sets = list(by_teacher.values())
    return logit_sets.read_probs(
      sets, features, table, run.config.distill.temperature
    )

  def _find_set(self, run: str, task: str, split: str) -> logit_sets.LogitSet:
    """Returns the folder and fingerprint of a run's logits on a split."""
    return find_set(
      *(self.plan.workspace, self.runs[run], self.identities[run]),
      *(task, split, self.plan.features[task][split]),
    )
