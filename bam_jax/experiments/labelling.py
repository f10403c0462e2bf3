"""What the teachers of a plan say: written once they are trained, then taught.

A teacher's logits lie in `teachers/RUN/TASK`, those on rows without labels in
`teachers/RUN/TASK.unlabelled`. How good the former are goes into the record of
its run, which nothing that decides an outcome is made from.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from pathlib import Path

import numpy as np

from bam_jax import config as config_lib
from bam_jax import schema
from bam_jax.data import prepare
from bam_jax.data import shards
from bam_jax.distillation import logit_sets
from bam_jax.distillation import outside
from bam_jax.distillation import quality as quality_lib
from bam_jax.distillation import teachers
from bam_jax.experiments import background as background_lib
from bam_jax.experiments import identity as identity_lib
from bam_jax.experiments import jobs
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import workspace as workspace_lib
from bam_jax.runtime import preemption
from bam_jax.runtime import processes
from bam_jax.runtime import telemetry
from bam_jax.tasks import task as task_lib
from bam_jax.training import evaluate
from bam_jax.training import programs as programs_lib

_FEW_ROWS = 4096

# task -> `dev` or `train` -> name -> value
Quality = dict[str, dict[str, dict[str, float]]]


@dataclasses.dataclass(frozen=True)
class TeacherLogits:
  """All of a plan, in its work directory.

  Attributes:
    config: of the plan.
    workspace: the work directory.
    tasks: the tasks of the plan.
    features: of all of them.
    runs: the plan, by name.
    identities: of all runs by name.
    background: writes logits while the next rows are labelled.
    preemption_signal: checked while rows are labelled.
  """

  config: config_lib.Config
  workspace: workspace_lib.Workspace
  tasks: task_lib.TaskTable
  features: jobs.Features
  runs: Mapping[str, plan_lib.Run]
  identities: Mapping[str, identity_lib.Identity]
  background: background_lib.Background
  preemption_signal: preemption.Signal

  def write(
    self,
    run: plan_lib.Run,
    students: Sequence[plan_lib.Run],
    model: Callable[[], tuple[programs_lib.Programs, Mapping[str, object]]],
  ) -> None:
    """Writes what students yet to be trained need and is not there yet.

    Args:
      run: finished.
      students: the runs that are not.
      model: the programs and the run's parameters; asked for only where there
        is something to label.
    """
    for name, split in jobs.to_label(run, students, self.tasks, self.features):
      self._write_split(run, name, split, model)

  def _write_split(
    self,
    run: plan_lib.Run,
    name: str,
    split: str,
    model: Callable[[], tuple[programs_lib.Programs, Mapping[str, object]]],
  ) -> None:
    """The same of one task's rows, with labels or without."""
    task, columns = self.tasks[name], self.features[name][split]
    logits = self._logits(run.name, name, split)
    has_gold = split != task_lib.UNLABELLED
    if processes.run_on_first(shards.exists, logits.directory):
      if has_gold:
        self._measure(run, name, logits)
      return
    programs, params = model()
    share = logits.fold.of if logits.fold else 1
    with telemetry.progress(
      f'{run.name} labels {logit_sets.folder(name, split)}',
      len(columns) // share,
      'examples',
    ) as progress:

      def advance(count: int) -> None:
        progress.advance(count)
        self.preemption_signal.check()

      rows, values = teachers.label(
        programs,
        params,
        columns,
        task,
        self.config.packing,
        logits.fold,
        advance,
      )
    uids = [columns.uids[row] for row in rows]
    lengths = logit_sets.token_lengths(columns, task, rows)
    metadata = prepare.label_metadata(task)
    processes.run_on_first(self._write, logits, uids, values, metadata, lengths)
    if has_gold:
      self._record_quality(run, name, rows, values)

  def _write(
    self,
    target: logit_sets.LogitSet,
    uids: Sequence[str],
    values: np.ndarray,
    metadata: Mapping[str, object],
    lengths: np.ndarray | None,
  ) -> None:
    """Few rows are written before a process would have started to."""
    if len(uids) < _FEW_ROWS:
      logit_sets.write(target, uids, values, metadata, lengths)
    else:
      self.background.call(
        logit_sets.write, target, uids, values, metadata, lengths
      )

  def targets(self, run: plan_lib.Run, task: str) -> np.ndarray | None:
    """The teachers' predictions on the rows that a run learns a task from.

    Those with labels first, then those without. None without teachers.
    """
    if run.logits:
      said = self._outside
    elif task in run.teachers:
      processes.run_on_first(self.background.wait)
      said = self._inside
    else:
      return None
    return processes.run_on_all(
      lambda: np.concatenate(
        [
          said(run, task, split)
          for split in jobs.splits_learnt(run, self.tasks[task], self.features)
        ]
      )
    )

  def _inside(self, run: plan_lib.Run, task: str, split: str) -> np.ndarray:
    """What the runs of the plan that teach another say of some rows."""
    names = run.teachers[task]
    if split == task_lib.UNLABELLED:
      # None was told a label of them: each run is a teacher of all.
      by_teacher = [[name] for name in names]
    else:
      by_seed: dict[int, list[str]] = {}
      for name in names:
        by_seed.setdefault(self.runs[name].seed, []).append(name)
      by_teacher = list(by_seed.values())
    return self._mean(
      run,
      [[self._logits(n, task, split) for n in each] for each in by_teacher],
      task,
      split,
      self.config.model.regression_head,
    )

  def _outside(self, run: plan_lib.Run, task: str, split: str) -> np.ndarray:
    """What is said of some rows by logits from outside."""
    rows = self.features[task][split]
    found = outside.find(Path(run.logits), task, split).values()
    sets = [[outside.opened(path, rows, self.tasks[task])] for path in found]
    return self._mean(run, sets, task, split, outside.HEAD)

  def _mean(
    self,
    run: plan_lib.Run,
    sets: Sequence[Sequence[logit_sets.LogitSet]],
    task: str,
    split: str,
    regression_head: str,
  ) -> np.ndarray:
    """As `teachers.targets`."""
    return teachers.targets(
      sets,
      self.features[task][split],
      self.tasks[task],
      run.config.distill.temperature,
      regression_head,
    )

  @processes.runs_on_first
  def check_outside(self, students: Sequence[plan_lib.Run]) -> None:
    """Reads all logits from outside that some runs learn from.

    Raises:
      errors.UserError: a set is damaged, lacks a row, or is not finite.
    """
    found = {
      (run.logits, task, split): run
      for run in students
      if run.logits
      for task in run.tasks
      for split in jobs.splits_learnt(run, self.tasks[task], self.features)
    }
    for (_, task, split), run in found.items():
      self._outside(run, task, split)

  @processes.runs_on_first
  def _measure(
    self, run: plan_lib.Run, task: str, logits: logit_sets.LogitSet
  ) -> None:
    """Records the quality of logits that are there, unless it is known."""
    if not self._has_quality(run, task):
      said = logit_sets.read(logits, self._train(task), self.tasks[task])
      self._record_quality(run, task, *said)

  def _has_quality(self, run: plan_lib.Run, task: str) -> bool:
    record = self.workspace.finished(run.name)
    return 'train' in record.get('quality', {}).get(task, {})

  def _record_quality(
    self, run: plan_lib.Run, task: str, rows: np.ndarray, logits: np.ndarray
  ) -> None:
    """Says in the run's record how good its logits on some rows are."""
    found = quality_lib.measure(
      self.tasks[task],
      logits,
      self._train(task).take('label', rows),
      self.config.model.regression_head,
    )
    record = self.workspace.finished(run.name)
    self.workspace.finish(
      run.name, with_quality(record, {task: {'train': found}})
    )

  def _train(self, task: str) -> shards.Columns:
    return self.features[task][self.tasks[task].train_split]

  def _logits(self, run: str, task: str, split: str) -> logit_sets.LogitSet:
    """Where a run's logits on some rows are, and what decides them."""
    fold = None if split == task_lib.UNLABELLED else self.runs[run].fold
    return logit_sets.LogitSet(
      self.workspace.teacher(run, logit_sets.folder(task, split)),
      logit_sets.fingerprint(
        self.features[task][split],
        schema.digest(self.identities[run]),
        self.workspace.finished(run)['parameters'],
        fold,
      ),
      fold,
    )


def dev_quality(
  dev: evaluate.Splits,
  outputs: evaluate.Outputs,
  tasks: task_lib.TaskTable,
  regression_head: str,
) -> Quality:
  """Quality of a run's outputs on the first dev split of each task."""
  result: Quality = {}
  for name, splits in dev.items():
    split = tasks[name].dev_splits[0]
    found = quality_lib.measure(
      tasks[name],
      outputs[name][split],
      splits[split].take('label', np.arange(len(splits[split]))),
      regression_head,
    )
    result[name] = {'dev': found}
  return result


def with_quality(
  record: Mapping[str, object], found: Quality
) -> dict[str, object]:
  """A run's record, its `quality` brought up to date."""
  quality = dict(record.get('quality', {}))
  for task, by_rows in found.items():
    quality[task] = quality.get(task, {}) | by_rows
  return {**record, 'quality': quality}
