"""Carry a plan out: what is finished stays, what is missing is made."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import logging
from pathlib import Path
import time

import jax
import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import files
from bam_jax import schema
from bam_jax.data import prepare as prepare_lib
from bam_jax.data import registry
from bam_jax.data import shards
from bam_jax.distillation import teachers
from bam_jax.experiments import identity as identity_lib
from bam_jax.experiments import jobs
from bam_jax.experiments import merge as merge_lib
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import records
from bam_jax.experiments import report as report_lib
from bam_jax.experiments import search
from bam_jax.experiments import workspace as workspace_lib
from bam_jax.inference import predict as predict_lib
from bam_jax.inference import submission
from bam_jax.training import checkpoints as checkpoints_lib
from bam_jax.training import evaluate as evaluate_lib
from bam_jax.training import loop
from bam_jax.training import setup as setup_lib
from bam_jax.training import telemetry


class Runner:
  """One plan in one work directory.

  Attributes:
    config: what is asked for.
    workspace: the work directory.
    tasks: in the order of the heads.
    searched: the runs of the search that comes before the plan, if any.
    encoder: what every run starts from.
    features: task -> split -> rows, once prepared.
  """

  def __init__(self, config: config_lib.Config, workdir: Path):
    """Resolves tasks, plan and pretrained weights; reads no row.

    Raises:
      errors.UserError: a task is unknown or does not hold together, or the
        weights can't be found.
    """
    self.config = config
    self.workspace = workspace_lib.Workspace(workdir)
    self.tasks = registry.resolve(config)
    self.searched = search.runs(config)
    self.encoder = setup_lib.load_encoder(config)
    self.features: dict[str, dict[str, shards.Columns]] = {}
    self._tried: search.Tried = {}
    self._runs: list[plan_lib.Run] = []
    self._setup: setup_lib.Setup | None = None
    self._packing: config_lib.PackingConfig | None = None

  @property
  def runs(self) -> list[plan_lib.Run]:
    """The plan, in an order it can be trained in.

    Raises:
      errors.UserError: what the runs train with is still being searched.
    """
    if not self._runs:
      left = [r for r in self.searched if self._finished(r) is None]
      if left:
        raise errors.UserError(
          f'{self.workspace.root}: {len(left)} of the {len(self.searched)} runs'
          ' of config.search are not finished, so nothing is chosen yet; run'
          ' --mode=run first'
        )
      self._tried = search.tried(self.searched, self._finished, self.tasks)
      self._runs = plan_lib.plan(self.config, search.choose(self._tried))
    return self._runs

  @property
  def packing(self) -> config_lib.PackingConfig:
    """How examples are put into rows; chosen when first needed."""
    if self._packing is None:
      self._packing = jobs.choose_packing(
        # What a search chooses changes no row.
        plan_lib.plan(self.config),
        self.config.packing,
        self.tasks,
        self.features,
      )
    return self._packing

  @property
  def setup(self) -> setup_lib.Setup:
    """The model and its programs; made when first needed."""
    if self._setup is None:
      self._setup = setup_lib.Setup(self.config, self.tasks, self.encoder)
    return self._setup

  def prepare(self) -> None:
    """Features of every training and dev split, as shard sets."""
    self._prepare()
    self.workspace.save_config(self.config)

  def _prepare(self) -> None:
    wanted = [
      (task, split)
      for task in self.tasks.tasks
      for split in (task.train_split, *task.dev_splits)
      if split not in self.features.get(task.name, {})
    ]
    with telemetry.progress('features', len(wanted), 'splits') as progress:
      for task, split in wanted:
        columns = prepare_lib.prepare(
          task,
          split,
          self.config.data,
          self.encoder.tokenizer,
          self.workspace.features(task.name, split),
        )
        self.features.setdefault(task.name, {})[split] = columns
        progress.advance(1)

  def run(self) -> None:
    """The whole plan, from raw rows to the report."""
    self._carry_out(self.searched)
    self._carry_out(self.runs)
    self.report()

  def _carry_out(self, runs: Sequence[plan_lib.Run]) -> None:
    """Trains those of some runs that are not finished."""
    if not runs:
      return
    identities = self._open(runs, runs)
    todo = [r for r in runs if not self.workspace.finished(r.name)]
    logging.info(
      '%d runs: %d finished, %d to train',
      len(runs),
      len(runs) - len(todo),
      len(todo),
    )
    self._check_starts(todo)
    for run in runs:
      if run not in todo:
        self._label(run, todo, identities, None)
    if todo:
      self._compile(todo)
    for group in self._together(todo):
      for run, params in zip(group, self._train(group, identities)):
        self._label(run, todo, identities, params)

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

  def report(self) -> None:
    """Writes the report over the finished runs of the plan."""
    scores, seconds, devices, versions = [], 0.0, set(), set()
    for run in self.runs:
      record = self._finished(run)
      if record is None or run.variant not in self.config.variants:
        continue
      seconds += record['seconds']
      devices.add(record['device'])
      versions.add(record.get('versions', 'not recorded'))
      scores += [
        report_lib.RunScores(
          variant=run.variant,
          seed=run.seed,
          task=task,
          scores=splits,
          curve=self.workspace.metrics(run.name),
        )
        for task, splits in record['scores'].items()
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
    if self._tried:
      notes['learning rate and layer decay of single-task runs'] = search.note(
        self._tried
      )
      files.write_json(
        self.workspace.root / search.FILE,
        search.table(self._tried, self.tasks),
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
        self.setup.programs, self.restore(run, record), dev, self.config
      )
      evaluate_lib.save(self.workspace.outputs(run.name), dev, outputs)
      self.workspace.finish(run.name, {**record, 'scores': scores})
    self.report()

  def predict(self, group: str | None) -> None:
    """Predictions of one group of runs on the unlabelled splits.

    Writes `predictions/GROUP/TASK-SPLIT.tsv`, and `submission.zip` beside them
    where a task belongs to GLUE.

    Args:
      group: `VARIANT-sSEED`; by default the last variant of the first seed.

    Raises:
      errors.UserError: no such group, one of its runs is not finished or had
        other settings, or there is nothing to predict.
    """
    group = group or plan_lib.group_name(
      self.config.variants[-1], config_lib.seeds_of_shard(self.config)[0]
    )
    runs = [run for run in self.runs if run.group == group]
    if not runs:
      known = ', '.join(dict.fromkeys(run.group for run in self.runs))
      raise errors.UserError(f'--group={group}: is none of {known}')
    directory = self.workspace.root / 'predictions' / group
    predictions: dict[str, dict[str, dict[str, str]]] = {}
    for run in runs:
      record = self._finished(run)
      if record is None:
        raise errors.UserError(
          f'{self.workspace.run(run.name)}: the run is not finished; finish'
          ' it with --mode=run'
        )
      params = self.restore(run, record, best=True)
      for name in run.tasks:
        task = self.tasks[name]
        for split in task.test_splits:
          columns = prepare_lib.prepare_if_present(
            task,
            split,
            self.config.data,
            self.encoder.tokenizer,
            self.workspace.features(name, split),
          )
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
        f'config.data: none of the tasks {", ".join(self.tasks.names)} has an'
        ' unlabelled file; add one to config.data.dir or to the custom task'
      )
    submission.write(directory / 'submission.zip', self.tasks, predictions)
    logging.info('predictions: %s', directory)

  def restore(
    self, run: plan_lib.Run, record: Mapping[str, object], best: bool = False
  ) -> Mapping[str, object]:
    """The parameters of a finished run, from its last or best checkpoint."""
    directory = self.workspace.checkpoints(run.name)
    with checkpoints_lib.Checkpoints(directory) as saved:
      return saved.restore_params(
        self.setup.programs.abstract_state.params,
        record['best_step'] if best else record['steps'],
      )

  def _finished(self, run: plan_lib.Run) -> Mapping[str, object] | None:
    """The record of a finished run, its settings checked; else None."""
    record = self.workspace.finished(run.name)
    if record is not None:
      self.workspace.check_run(
        run.name,
        identity_lib.settings(run, self.tasks, self.encoder.digest),
      )
    return record

  def _open(
    self, plan: Sequence[plan_lib.Run], runs: Sequence[plan_lib.Run]
  ) -> dict[str, identity_lib.Identity]:
    """Prepares, and checks that the folders of some runs are theirs.

    Args:
      plan: with all that the runs build on.
      runs: those to be opened.

    Returns:
      The identities of the plan's runs by name.
    """
    self._prepare()
    identities = identity_lib.identities(
      plan,
      self.tasks,
      self.encoder.digest,
      self.features,
      self.workspace.recorded,
    )
    self.workspace.open_runs({r.name: identities[r.name] for r in runs})
    self.workspace.save_config(self.config)
    return identities

  def _together(
    self, runs: Sequence[plan_lib.Run]
  ) -> Iterator[list[plan_lib.Run]]:
    """The runs in groups that one program trains."""
    return plan_lib.together(
      runs,
      self.config.train.seeds_at_once,
      self._latest_step,
      self.setup.programs.mesh.size,
    )

  def _latest_step(self, run: plan_lib.Run) -> int:
    """The step that a run would go on from."""
    directory = self.workspace.checkpoints(run.name)
    if not directory.is_dir():
      return 0
    with checkpoints_lib.Checkpoints(directory) as saved:
      return saved.latest_step or 0

  def _train(
    self,
    group: Sequence[plan_lib.Run],
    identities: Mapping[str, identity_lib.Identity],
  ) -> list[Mapping[str, object]]:
    """Trains runs to their end and records them; returns their parameters."""
    started = time.perf_counter()
    runs = [
      jobs.make(
        run,
        self.packing,
        self.tasks,
        self.features,
        [self._targets(run, name, identities) for name in run.tasks],
        self.setup.programs.rows_multiple,
        self.workspace.run(run.name),
      )
      for run in group
    ]
    results = loop.train(
      runs,
      self.setup.programs,
      self._initial_params(group),
      group[0].config,
    )
    seconds = (time.perf_counter() - started) / len(group)
    for job, result in zip(runs, results):
      evaluate_lib.save(
        self.workspace.outputs(job.name), job.dev, result.outputs
      )
      self.workspace.finish(
        job.name,
        records.record(
          job,
          result,
          seconds,
          len(group),
          self.setup.programs.compilations,
        ),
      )
    return [result.params for result in results]

  def _check_starts(self, todo: Sequence[plan_lib.Run]) -> None:
    """Raises where what runs start from was trained but is not there."""
    trained = {run.name for run in todo}
    for run in todo:
      if not run.start or run.start in trained:
        continue
      steps = self.workspace.finished(run.start)['steps']
      directory = self.workspace.checkpoints(run.start)
      if directory.is_dir():
        with checkpoints_lib.Checkpoints(directory) as saved:
          if saved.has(steps):
            continue
      raise errors.UserError(
        f'{directory}: the checkpoint of step {steps}, which {run.name} starts'
        f' from, is not there; copy it from where {run.start} was trained, or'
        f' remove {self.workspace.run(run.start)} to train that again'
      )

  def _initial_params(
    self, group: Sequence[plan_lib.Run]
  ) -> Callable[[int], Mapping[str, object]]:
    """Seed -> the parameters that the run of that seed starts from."""
    starts = {run.seed: run.start for run in group}
    if not any(starts.values()):
      return self.setup.initial_params
    by_name = {run.name: run for run in self.runs}

    def last_params(seed: int) -> Mapping[str, object]:
      start = by_name[starts[seed]]
      record = self.workspace.finished(start.name)
      return jax.device_get(self.restore(start, record))

    return last_params

  def _compile(self, todo: Sequence[plan_lib.Run]) -> None:
    """The training step in every shape that the runs need."""
    packing = self.packing
    if packing.enabled:
      start = time.perf_counter()
      sizes = sorted({len(group) for group in self._together(todo)})
      self.setup.programs.compile_ahead(packing, sizes)
      logging.info(
        'steps of %s rows compiled in %.0f s',
        ', '.join(map(str, packing.row_buckets)),
        time.perf_counter() - start,
      )

  def _targets(
    self,
    run: plan_lib.Run,
    task: str,
    identities: Mapping[str, identity_lib.Identity],
  ) -> np.ndarray | None:
    """The teachers' predictions on training rows; None without teachers."""
    if task not in run.teachers:
      return None
    columns = self.features[task][self.tasks[task].train_split]
    return teachers.targets(
      [
        (
          self.workspace.teacher(name, task),
          self._logit_fingerprint(name, columns, identities),
        )
        for name in run.teachers[task]
      ],
      columns,
      self.tasks[task],
      run.config.distill.temperature,
      self.config.model.regression_head,
    )

  def _logit_fingerprint(
    self,
    name: str,
    columns: shards.Columns,
    identities: Mapping[str, identity_lib.Identity],
  ) -> dict[str, object]:
    return teachers.logit_fingerprint(
      columns,
      schema.digest(identities[name]),
      self.workspace.finished(name)['parameters'],
    )

  def _label(
    self,
    run: plan_lib.Run,
    students: Sequence[plan_lib.Run],
    identities: Mapping[str, identity_lib.Identity],
    params: Mapping[str, object] | None,
  ) -> None:
    """Writes what students yet to be trained need and is not there yet."""
    for name in plan_lib.tasks_taught_by(students, run.name):
      task = self.tasks[name]
      columns = self.features[name][task.train_split]
      directory = self.workspace.teacher(run.name, name)
      if shards.exists(directory):
        continue
      if params is None:
        params = self.restore(run, self.workspace.finished(run.name))
      with telemetry.progress(
        f'{run.name} labels {name}', len(columns), 'examples'
      ) as progress:
        teachers.label(
          self.setup.programs,
          params,
          columns,
          task,
          self.config.packing,
          directory,
          self._logit_fingerprint(run.name, columns, identities),
          progress.advance,
        )
