"""The commands on one plan in one work directory."""

from collections.abc import Sequence
import logging
from pathlib import Path

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import shards
from bam_jax.distillation import logit_sets
from bam_jax.experiments import estimate as estimate_lib
from bam_jax.experiments import finished
from bam_jax.experiments import jobs
from bam_jax.experiments import labelling
from bam_jax.experiments import merge as merge_lib
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import records
from bam_jax.experiments import remaining
from bam_jax.experiments import search
from bam_jax.experiments import workspace as workspace_lib
from bam_jax.reporting import scores as scores_lib
from bam_jax.runtime import processes
from bam_jax.training import evaluate as evaluate_lib


class Runner(finished.Finished):
  """One plan in one work directory: from raw rows to the report.

  What its finished runs are good for besides, `finished` has.
  """

  def prepare(self) -> None:
    """Features of every training and dev split, as shard sets."""
    self._prepare()
    self.workspace.save_config(self.config)

  def run(self) -> None:
    """The whole plan, from raw rows to the report.

    Raises:
      errors.UserError: nobody would learn of rows without labels.
    """
    config_lib.check_students(self.config)
    self._carry_out(self.searched)
    self._carry_out(self.runs)
    self.report()

  def estimate(self) -> None:
    """How long what is left of the plan will take, and how much.

    Prepares features, writes `estimate.json`, trains nothing. Where a search
    has not chosen yet, its choices change no number of steps.

    Raises:
      errors.UserError: nobody would learn of rows without labels, logits from
        outside are not there or of other rows, a run that is there was run with
        other settings, or a step needs more memory than a device has.
    """
    config_lib.check_students(self.config)
    self._prepare()
    searched = [self._finished(run) is None for run in self.searched]
    runs = plan_lib.plan(self.config) if any(searched) else self.runs
    runs = [*self.searched, *runs]
    self._identities(runs)
    todo = [run for run in runs if self._finished(run) is None]
    works = remaining.of_plan(
      runs,
      todo,
      self.tasks,
      self.features,
      self._latest_step,
      lambda run, *rows: shards.exists(
        self.workspace.teacher(run, logit_sets.folder(*rows))
      ),
    )
    estimate_lib.Estimator(
      self.config,
      self.tasks,
      self.features,
      self.packing,
      self.setup,
      self.workspace.root,
    ).report(works, list(self._together(todo)))

  @processes.runs_on_first
  def merge(self, sources: Sequence[Path]) -> None:
    """Brings in what other work directories have finished, and reports.

    Raises:
      errors.UserError: as `merge.merge` and `report`.
    """
    merge_lib.merge(
      self.workspace, [workspace_lib.Workspace(path) for path in sources]
    )
    self.workspace.save_config(self.config)
    self.report()

  @processes.runs_on_first
  def report(self) -> None:
    """Writes the report over the finished runs of the plan."""
    scores, seconds, devices, versions = [], 0.0, set(), set()
    outsiders: dict[str, None] = {}
    older: list[str] = []
    for run in self.runs:
      record = self._finished(run)
      reported = run.variant in self.config.variants and not run.fold
      if record is None or not reported:
        continue
      seconds += record['seconds']
      devices.add(record['device'])
      versions.add(record.get('versions', 'not recorded'))
      if records.may_hide_undefined(record):
        older.append(run.name)
      outsiders |= dict.fromkeys(self._outside_teachers(run))
      scores += [
        scores_lib.RunScores(
          variant=run.variant,
          seed=run.seed,
          task=task,
          scores=splits,
          undefined=records.reasons_of(record).get(task, {}),
          curve=self.workspace.metrics(run.name),
          outputs=self.workspace.outputs(run.name),
          quality=record.get('quality', {}).get(task, {}),
          share=record.get('shares', {}).get(task),
        )
        for task, splits in records.scores_of(record).items()
      ]
    if not scores:
      raise errors.UserError(
        f'{self.workspace.root}: no finished run to report on; run'
        ' --mode=run first'
      )
    notes = {'note': self.config.note} if self.config.note else {}
    if self.config.plan.shard:
      notes['shard'] = (
        f'{self.config.plan.shard} of the plan, whose seeds are'
        f' {", ".join(map(str, self.config.seeds))}'
      )
    if self.config.data.unlabelled:
      notes['rows without labels'] = (
        f'{", ".join(self.config.data.unlabelled)}; taught variants alone'
      )
    if self.tried:
      notes['learning rate and layer decay of single-task runs'] = search.note(
        self.tried
      )
    if outsiders:
      notes['teachers from outside'] = '; '.join(outsiders)
    if older:
      notes['scores of 0'] = (
        f'{len(older)} runs ({older[0]} is the first) have a score of 0 from a'
        ' version that wrote 0 for an undefined score; --mode=evaluate scores'
        ' them again'
      )
    notes |= {
      'pretrained weights': self.encoder.description,
      'encoder': (
        f'{self.encoder.config.num_layers} layers x'
        f' {self.encoder.config.hidden_size}'
      ),
      'training time': f'{seconds:.0f} s over all runs',
      'trained on': ', '.join(sorted(devices)),
      'trained with': '; '.join(sorted(versions)),
    }
    # It imports pandas and matplotlib, for which other commands don't wait.
    from bam_jax.reporting import report as report_lib

    report_lib.write(
      self.workspace.root, self.config, self.tasks, scores, notes
    )
    logging.info('report: %s', self.workspace.root / 'report.html')

  def evaluate(self) -> None:
    """Scores the finished runs' last checkpoints again, and reports."""
    finished = [r for r in self.runs if self.workspace.finished(r.name)]
    self._open(self.runs, finished)
    for run in finished:
      record = self.workspace.finished(run.name)
      dev = jobs.dev_splits(run, self.tasks, self.features)
      outputs, scores = evaluate_lib.evaluate(
        self.setup.programs,
        self.restore(run.name, record),
        dev,
        self.config,
        lambda _: self._preemption_signal.check(),
      )
      processes.run_on_first(
        evaluate_lib.save,
        self.workspace.outputs(run.name),
        self.tasks,
        dev,
        outputs,
        self.config.model.regression_head,
      )
      record = labelling.with_quality(
        record
        | records.scored(
          run.name, dev, outputs, scores, self.tasks, self.config
        ),
        labelling.dev_quality(
          dev, outputs, self.tasks, self.config.model.regression_head
        ),
      )
      self.workspace.finish(run.name, record)
    self.report()
