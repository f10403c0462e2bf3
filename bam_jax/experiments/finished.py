"""The runs of a plan that are finished, and what is taken out of them."""

from collections.abc import Mapping
from collections.abc import Sequence
import functools
import itertools
import logging
from pathlib import Path

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import files
from bam_jax.data import prepare as prepare_lib
from bam_jax.experiments import handing_on
from bam_jax.experiments import identity as identity_lib
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import records
from bam_jax.experiments import search
from bam_jax.experiments import trainer
from bam_jax.inference import card
from bam_jax.inference import export as export_lib
from bam_jax.inference import model as model_lib
from bam_jax.inference import predict as predict_lib
from bam_jax.inference import stablehlo
from bam_jax.inference import submission
from bam_jax.modeling import layers
from bam_jax.runtime import preemption
from bam_jax.runtime import processes
from bam_jax.training import mesh as mesh_lib


class Finished(trainer.Trainer):
  """One plan in one work directory: predictions, models and logits from it.

  Attributes:
    searched: the runs of the search that comes before the plan, if any.
  """

  def __init__(
    self,
    config: config_lib.Config,
    workdir: Path,
    preemption_signal: preemption.Signal | None = None,
  ):
    """As `Trainer`; resolves the runs of the search too."""
    super().__init__(config, workdir, preemption_signal)
    self.searched = search.runs(config)

  @functools.cached_property
  def tried(self) -> search.Tried:
    """What the search has found; empty where nothing is searched.

    Raises:
      errors.UserError: some of its runs are not finished.
    """
    left = [r for r in self.searched if self._finished(r) is None]
    if left:
      raise errors.UserError(
        f'{self.workspace.root}: {len(left)} of the {len(self.searched)} runs'
        ' of config.search are not finished, so nothing is chosen yet; run'
        ' --mode=run first'
      )
    if not self.searched:
      return {}
    result = search.tried(self.searched, self._finished, self.tasks)
    for task in search.without_choice(result):
      logging.warning(
        'config.search: no pair has a defined median score of %s; the smallest'
        ' learning rate and layer decay are taken',
        task,
      )
    processes.run_on_first(
      files.write_json,
      self.workspace.root / search.FILE,
      search.table(result, self.tasks),
    )
    return result

  @functools.cached_property
  def runs(self) -> list[plan_lib.Run]:
    """The plan, in an order it can be trained in.

    Raises:
      errors.UserError: what the runs train with is still being searched.
    """
    return plan_lib.plan(self.config, search.choose(self.tried))

  def predict(self, group: str | None, majority: Sequence[str] = ()) -> None:
    """Predictions of one group of runs on the test splits.

    Writes `predictions/GROUP/TASK-SPLIT.tsv`, and `submission.zip` beside them
    where a task belongs to GLUE.

    Args:
      group: `VARIANT-sSEED`; by default the last variant of the first seed.
      majority: tasks whose majority label is submitted; their other files keep
        the predictions.

    Raises:
      errors.UserError: no such group, one of its runs is not finished or had
        other settings, there is nothing to predict, or as
        `submission.check_majority`.
    """
    submission.check_majority(majority, self.tasks)
    group, runs = self._of_group(group)
    directory = self.workspace.root / 'predictions' / group
    predictions: dict[str, dict[str, dict[str, str]]] = {}
    for run, record in runs:
      params = self.restore(run.name, record, best=True)
      for name in run.tasks:
        task = self.tasks[name]
        for split in task.test_splits:
          columns = self._columns(prepare_lib.prepare_if_present, task, split)
          if columns is None:
            continue
          predictions.setdefault(name, {})[split] = predict_lib.predict(
            self.setup.programs,
            params,
            task,
            columns,
            self.config,
            directory / f'{name}-{split}.tsv',
          )
    if not predictions:
      raise errors.UserError(
        f'config.data: none of the tasks {", ".join(self.tasks.names)} has a'
        ' test file; add one to config.data.dir or to the custom task, or give'
        ' any file by --input and --task'
      )
    for name in majority:
      task = self.tasks[name]
      train = self._columns(prepare_lib.prepare, task, task.train_split)
      predictions[name] = submission.majority(
        task, train, predictions.get(name, {})
      )
    processes.run_on_first(
      submission.write, directory / 'submission.zip', self.tasks, predictions
    )
    logging.info('predictions: %s', directory)

  def model(self, group: str | None) -> model_lib.Model:
    """The models of one group of runs, for texts of a user's own.

    Args:
      group: as for `predict`.

    Raises:
      errors.UserError: no such group, or one of its runs is not finished or
        had other settings.
    """
    _, runs = self._of_group(group)
    return model_lib.Model(
      self.setup.programs,
      [
        (run.tasks, self.restore(run.name, record, best=True))
        for run, record in runs
      ],
      self.encoder.tokenizer,
      self.config,
    )

  def export(self, group: str | None, form: str = 'hf') -> None:
    """The models of one group of runs, for use without this package.

    Writes `exports/GROUP/TASK/`, and `exports/GROUP/all/` for a model of
    several tasks; as programs `exports/GROUP-stablehlo/TASK/`, or `all/`.

    Args:
      group: as for `predict`.
      form: `hf`: Hugging Face directories; `stablehlo`: programs.

    Raises:
      errors.UserError: no such group, or one of its runs is not finished or
        had other settings.
    """
    group, runs = self._of_group(group)
    directory = self.workspace.root / 'exports' / group
    write = export_lib.export
    if form == 'stablehlo':
      directory = directory.with_name(f'{group}-stablehlo')
      write = stablehlo.export
    for run, record in runs:
      params = self.restore(run.name, record, best=True)
      taught_by = itertools.chain(
        *run.teachers.values(), self._outside_teachers(run)
      )
      processes.run_on_first(
        write,
        directory,
        self.encoder.config,
        self.encoder.tokenizer,
        mesh_lib.fetch(layers.unstack(params)),
        {task: self.tasks.index[task] for task in run.tasks},
        self.tasks,
        card.Facts(
          name=self.config.name,
          run=run.name,
          variant=run.variant,
          teachers=tuple(dict.fromkeys(taught_by)),
          encoder=self.encoder.description,
          note=self.config.note,
          versions=record.get('versions', 'versions that were not recorded'),
          scores=records.scores_of(record),
          undefined=records.reasons_of(record),
          max_length=self.config.data.max_length,
          regression_head=self.config.model.regression_head,
        ),
      )
    logging.info('exported: %s', directory)

  def label(
    self, group: str | None, output: Path, data_dir: str | None
  ) -> None:
    """What one group of runs says of training rows, for other plans.

    Args:
      group: as for `predict`.
      output: what `config.distill.logits` of such a plan names.
      data_dir: of that plan, where its training rows are not those of this one;
        None: they are.

    Raises:
      errors.UserError: no such group, one of its runs is not finished or had
        other settings, or as `handing_on`.
    """
    _, runs = self._of_group(group)
    if data_dir is None:
      self._open(self.runs, [run for run, _ in runs])
      features = self.features
    else:
      features = handing_on.rows_of_others(
        data_dir,
        [self.tasks[name] for run, _ in runs for name in run.tasks],
        self.config.data,
        self.encoder.tokenizer,
        self.workspace,
      )
    handing_on.write(
      output,
      runs,
      self.tasks,
      features,
      self.config,
      self.encoder.description,
      self.setup.programs,
      self.restore,
    )

  def _outside_teachers(self, run: plan_lib.Run) -> tuple[str, ...]:
    return identity_lib.outside_teachers(
      self.workspace.identity(run.name) if run.logits else {}
    )

  def _of_group(
    self, group: str | None
  ) -> tuple[str, list[tuple[plan_lib.Run, Mapping[str, object]]]]:
    """A group's name, its runs and their records.

    Args:
      group: `VARIANT-sSEED`; None: the last variant of the first seed.

    Raises:
      errors.UserError: no such group, or one of its runs is not finished.
    """
    group = group or plan_lib.group_name(
      self.config.variants[-1], config_lib.seeds_of_shard(self.config)[0]
    )
    runs = [run for run in self.runs if run.group == group]
    if not runs:
      known = ', '.join(dict.fromkeys(run.group for run in self.runs))
      raise errors.UserError(f'--group={group}: is none of {known}')
    found = [(run, self._finished(run)) for run in runs]
    for run, record in found:
      if record is None:
        raise errors.UserError(
          f'{self.workspace.run(run.name)}: the run is not finished; finish'
          ' it with --mode=run'
        )
    return group, found

  def _finished(self, run: plan_lib.Run) -> Mapping[str, object] | None:
    """The record of a finished run, its settings checked; else None."""
    record = self.workspace.finished(run.name)
    if record is not None:
      self.workspace.check_run(
        run.name,
        identity_lib.settings(run, self.tasks, self.encoder.digest),
      )
      self._check_teachers(run)
    return record

  def _check_teachers(self, run: plan_lib.Run) -> None:
    """Raises where a run was taught by its plan, and is not now, or so.

    Its settings leave out where logits from outside are.
    """
    recorded = self.workspace.identity(run.name)
    if bool(run.logits) != bool(identity_lib.outside_teachers(recorded)):
      taught = 'runs of its plan' if run.logits else 'logits from outside'
      raise errors.UserError(
        f'{self.workspace.run(run.name)}: was taught by {taught}, and'
        f' config.distill.logits is {run.logits!r}; set it as it was, or choose'
        ' another --workdir'
      )
