"""Combines a configuration with its training runs and its work directory."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import copy
import dataclasses
import functools
import logging
from pathlib import Path

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import files
from bam_jax.data import labels
from bam_jax.data import prepare as prepare_lib
from bam_jax.data import registry
from bam_jax.data import shards
from bam_jax.data import sources
from bam_jax.data import tfds_source
from bam_jax.experiments import divisions
from bam_jax.experiments import identity as identity_lib
from bam_jax.experiments import run_data
from bam_jax.experiments import runs as runs_lib
from bam_jax.experiments import search
from bam_jax.experiments import workspace as workspace_lib
from bam_jax.inference import decisions
from bam_jax.modeling import pretrained
from bam_jax.reporting import outputs
from bam_jax.runtime import phases
from bam_jax.runtime import preemption
from bam_jax.runtime import processes
from bam_jax.runtime import progress as progress_lib
from bam_jax.tasks import task as task_lib
from bam_jax.training import checkpoints as checkpoints_lib
from bam_jax.training import moved_heads
from bam_jax.training import setup as setup_lib


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
  """Configuration, runs and work directory of a plan; see `make_plan`.

  Properties are computed when they are first read. In a multi-host plan, all
  processes must read a property at the same point.

  Attributes:
    config: the configuration.
    workspace: the work directory.
    tasks: the tasks, in the order of the heads.
    learnt_tasks: names of the tasks that runs had trained on when the plan was
      made.
    found_labels: result of `labels.find`, for tasks that declare no labels.
    encoder: the encoder, pretrained or random, that runs start from, unless
      their variant starts from another run.
    preemption_signal: checked between pieces of work.
    shared_setup: setup of another plan with an equal model. This plan then uses
      the compiled programs of that setup. None: this plan makes its own setup.
  """

  config: config_lib.Config
  workspace: workspace_lib.Workspace
  tasks: task_lib.TaskTable
  learnt_tasks: Sequence[str]
  found_labels: labels.Found
  encoder: pretrained.Encoder
  preemption_signal: preemption.Signal
  shared_setup: setup_lib.Setup | None = None

  @functools.cached_property
  def search_runs(self) -> list[runs_lib.Run]:
    """The runs of the hyperparameter search; may be empty."""
    return search.plan_runs(self.config, self.workspace.trained_tasks)

  @functools.cached_property
  def search_result(self) -> search.Result:
    """Scores of the hyperparameter search; also written to `choices.json`.

    Raises:
      errors.UserError: a run of the search is not finished.
    """
    records = [self.read_record(run) for run in self.search_runs]
    if missing := records.count(None):
      raise errors.UserError(
        f'{self.workspace.root}: {missing} of the {len(records)} runs of'
        ' config.search are not finished, so nothing is chosen yet; run'
        ' --mode=run first'
      )
    result = search.collect(self.search_runs, records, self.tasks)
    if result.scores:
      processes.run_on_first(
        files.write_json,
        self.workspace.root / search.FILE,
        search.to_json(result),
      )
    return result

  @functools.cached_property
  def runs(self) -> list[runs_lib.Run]:
    """All training runs in training order, without runs of the search."""
    return self.plan_runs(search.choose(self.search_result.scores))

  def plan_runs(
    self, choices: Mapping[str, runs_lib.Choice]
  ) -> list[runs_lib.Run]:
    """Plans the training runs with the settings that a search chose."""
    return runs_lib.plan_runs(
      self.config, choices, self.workspace.trained_tasks
    )

  @functools.cached_property
  @phases.phase(phases.FEATURES)
  def features(self) -> dict[str, dict[str, shards.Columns]]:
    """Features of all training, dev and unlabelled splits; made if missing.

    Raises:
      errors.UserError: raw rows can't be read, or existing features were made
        from other rows.
    """
    if self.config.data.source == 'tfds':
      processes.run_on_first(self._download)
    result: dict[str, dict[str, shards.Columns]] = {}
    with progress_lib.show('features', len(self.tasks), 'tasks') as progress:
      for task in self.tasks.tasks:
        divided = self._divide(task)
        result[task.name] = {
          split: self.prepare_split(task, split, examples=divided.get(split))
          for split in (task.train_split, *task.dev_splits, task_lib.UNLABELLED)
          if split in task.tables
        }
        progress.advance(1)
    processes.run_on_first(labels.keep, self.found_labels, self.workspace.root)
    return result

  def _divide(self, task: task_lib.Task) -> dict[str, list[task_lib.Example]]:
    """Checks a task's division; see `divisions.check`.

    Returns split -> examples in process 0, and {} in other processes.
    """
    path = self.workspace.division(task.name)
    is_final = task.name in self.learnt_tasks
    return processes.make_on_first(
      lambda: divisions.check(task, self.config.data, path, is_final), dict
    )

  def _download(self) -> None:
    data = self.config.data
    if names := tfds_source.missing(self.tasks.tasks, data):
      waits = tfds_source.download(names, data.tfds_dir)
      with contextlib.closing(waits):
        for _ in waits:
          self.preemption_signal.check()

  def prepare_split(
    self,
    task: task_lib.Task,
    split: str,
    is_optional: bool = False,
    examples: Sequence[task_lib.Example] | None = None,
  ) -> shards.Columns | None:
    """Makes a split's features in process 0; every process then opens them.

    `examples` are the split's examples, if they have been read already. Returns
    None if `is_optional` and the split's raw file is missing.
    """
    directory = self.workspace.features(task.name, split)
    source = sources.Source(task, split, self.config.data)

    def make() -> shards.Columns | None:
      if is_optional and not source.is_present():
        logging.warning(
          '%s/%s: %s is missing, so the split is left out; %s',
          *(task.name, split, source.name, source.remedy),
        )
        return None
      data, tokenizer = self.config.data, self.encoder.tokenizer
      # No run learns from test rows, so their features may be replaced.
      replaces = split in task.test_splits or task.name not in self.learnt_tasks
      return prepare_lib.prepare(
        task, split, data, tokenizer, directory, replaces, examples
      )

    return processes.make_on_first(
      make,
      lambda: shards.open(directory, prepare_lib.feature_fields(task), None),
    )

  @functools.cached_property
  def data(self) -> run_data.PlanData:
    """All datasets, with methods that select the rows of one run."""
    return run_data.PlanData(self.tasks, self.features)

  @functools.cached_property
  def packing(self) -> config_lib.PackingConfig:
    """Settings for packing examples into rows, with the row buckets set."""
    runs = search.possible_runs(self.config)
    return self.data.choose_packing(runs, self.config.packing)

  @functools.cached_property
  def setup(self) -> setup_lib.Setup:
    """The model, its compiled functions and its initial parameters."""
    if self.shared_setup is not None:
      return self.shared_setup
    return setup_lib.Setup(self.config, self.tasks, self.encoder)

  def read_record(self, run: runs_lib.Run) -> Mapping[str, object] | None:
    """Returns the record of a finished run; None if it is not finished.

    If the metrics of a task have changed, its scores are computed again from
    the run's outputs. If the record lacks temperatures or thresholds that
    `config.decisions` asks for, they are fitted to the outputs.

    Raises:
      errors.UserError: the run was trained with other settings or teachers, its
        record is damaged, or outputs are missing.
    """
    record = self.workspace.read_record(run.name)
    if record is None:
      return None
    self.workspace.check_run(run.name, identity_lib.settings(self, run))
    # The settings in an identity don't include `config.distill.logits`.
    if bool(run.logits) != bool(self.external_teachers(run)):
      teachers = 'runs of its plan' if run.logits else 'external logits'
      raise errors.UserError(
        f'{self.workspace.run(run.name)}: was taught by {teachers}, but'
        f' config.distill.logits is now {run.logits!r}; restore its old value,'
        ' or choose another --workdir'
      )
    changed = [
      (self.tasks[name], split)
      for name, by_split in record['scores'].items()
      for split, scores in by_split.items()
      if scores.keys() != {*self.tasks[name].metrics}
    ]
    if changed:
      record = processes.run_on_first(self._score_again, run, record, changed)
    kept = record.get('decisions', {})
    undecided = [
      self.tasks[name]
      for name in ([] if run.fold else record['scores'])
      if not decisions.wanted(self.tasks[name], self.config).items()
      <= kept.get(name, {}).items()
    ]
    if undecided:
      record = processes.run_on_first(self._decide, run, record, undecided)
    return record

  def _score_again(
    self,
    run: runs_lib.Run,
    record: Mapping[str, object],
    changed: Sequence[tuple[task_lib.Task, str]],
  ) -> dict[str, object]:
    """Returns a copy of the record with new scores for the changed splits."""
    record = {'undefined': {}, **copy.deepcopy(record)}
    path = self.workspace.outputs(run.name)
    for task, split in changed:
      by_split = record['scores'][task.name]
      try:
        scores, reasons = outputs.score(task, path, split)
      except outputs.Missing as e:
        raise errors.UserError(
          f'{path.parent}: was scored by {", ".join(by_split[split])}, not by'
          f' {", ".join(task.metrics)}, and {e}; restore the metrics of'
          f' {task.name} and run --mode=evaluate, which writes that file again'
        ) from e
      by_split[split] = scores
      record['undefined'].setdefault(task.name, {})[split] = reasons
    return record

  def _decide(
    self,
    run: runs_lib.Run,
    record: Mapping[str, object],
    tasks: Sequence[task_lib.Task],
  ) -> dict[str, object]:
    """Returns a copy of the record with fitted temperatures and thresholds."""
    found = dict(record.get('decisions', {}))
    for task in tasks:
      try:
        read = outputs.read_run(task, self.workspace.outputs(run.name))
      except outputs.Missing as e:
        raise errors.UserError(
          f'config.decisions: {task.name}: {e}; remove config.decisions, run'
          ' --mode=evaluate, which writes that file again, and set it again'
        ) from e
      found[task.name] = decisions.fit(task, self.config, *read)
    return {**record, 'decisions': found}

  def decided_tasks(self, run: runs_lib.Run) -> dict[str, task_lib.Task]:
    """Returns a finished run's tasks with their temperatures and thresholds.

    Raises:
      errors.UserError: the run predicts with a step that has no dev outputs.
    """
    record, tasks = self.read_record(run), {}
    for name in run.tasks:
      tasks[name] = self.tasks[name]
      if decisions.wanted(tasks[name], self.config):
        if record['best_step'] != record['steps']:
          raise errors.UserError(
            f'config.decisions: {run.name} predicts with its best step,'
            f' {record["best_step"]}, but dev outputs are kept of its last,'
            f' {record["steps"]}; remove config.decisions, or train with'
            ' config.train.evaluate_every=0 in another --workdir'
          )
        tasks[name] = decisions.decide(tasks[name], record['decisions'][name])
    return tasks

  def external_teachers(self, run: runs_lib.Run) -> tuple[str, ...]:
    """Returns the names of a finished run's external teachers."""
    found = {}
    for key, value in sorted(self.workspace.identity(run.name).items()):
      if key.startswith('logits.') and key.endswith('.teacher'):
        found[value] = None
    return tuple(found)

  def find_group(self, group: str | None) -> tuple[str, list[runs_lib.Run]]:
    """Returns the name `VARIANT-sSEED` and the runs of a finished group.

    If `group` is None, it is the group of the last variant and the first seed.

    Raises:
      errors.UserError: there is no such group, or one of its runs is not
        finished or was trained with other settings.
    """
    group = group or runs_lib.group_name(
      self.config.variants[-1], config_lib.seeds_of_shard(self.config)[0]
    )
    runs = [run for run in self.runs if run.group == group]
    if not runs:
      known = ', '.join(dict.fromkeys(run.group for run in self.runs))
      raise errors.UserError(f'--group={group}: no such group; give {known}')
    for run in runs:
      if self.read_record(run) is None:
        raise errors.UserError(
          f'{self.workspace.run(run.name)}: the run is not finished; finish'
          ' it with --mode=run'
        )
    return group, runs

  def open_runs(
    self,
    runs: Sequence[runs_lib.Run],
    opened: Sequence[runs_lib.Run] | None = None,
  ) -> dict[str, identity_lib.Identity]:
    """Makes or checks the folders of runs, and prepares their features.

    Args:
      runs: the runs, in training order, with every run that they build on.
      opened: the runs whose folders are made or checked; None: all.

    Returns:
      Run name -> identity, for all `runs`.

    Raises:
      errors.UserError: a folder holds a run with another identity.
    """
    identities = identity_lib.identities(self, runs)
    opened = runs if opened is None else opened
    self.workspace.open_runs({r.name: identities[r.name] for r in opened})
    self.workspace.save_config(self.config)
    return identities

  def group_runs(
    self, runs: Sequence[runs_lib.Run]
  ) -> Iterator[list[runs_lib.Run]]:
    """Groups runs that one XLA program trains together."""
    return runs_lib.group_runs(
      runs,
      self.config.train.seeds_at_once,
      self.latest_step,
      self.setup.programs.mesh.size,
    )

  def latest_step(self, run: runs_lib.Run) -> int:
    """Returns the step of a run's latest checkpoint; 0 if there is none."""
    directory = self.workspace.checkpoints(run.name)
    if not processes.run_on_first(directory.is_dir):
      return 0
    with checkpoints_lib.Checkpoints(directory) as saved:
      return saved.latest_step or 0

  def restore_params(
    self, name: str, best: bool = False
  ) -> Mapping[str, object]:
    """Restores a finished run's parameters from its last or best checkpoint.

    If the run was trained with other `config.tasks`, its heads are moved to
    their rows in the current table of heads; the heads of other tasks are 0.

    Raises:
      errors.UserError: the checkpoint is missing or damaged, or does not show
        which task each pair head belongs to.
    """
    record = self.workspace.read_record(name)
    step = record['best_step' if best else 'steps']
    identity = self.workspace.identity(name)
    before = tuple(identity.get(workspace_lib.TASKS, self.tasks.names))
    like = self.setup.programs.abstract_state.params
    with checkpoints_lib.Checkpoints(self.workspace.checkpoints(name)) as saved:
      if before == self.tasks.names:
        return saved.restore_params(like, step)
      own = identity['run.tasks']
      return moved_heads.restore(saved, like, step, self.tasks, before, own)


def make_plan(
  config: config_lib.Config,
  workdir: Path,
  preemption_signal: preemption.Signal | None = None,
  setup: setup_lib.Setup | None = None,
  reads_rows: bool = False,
) -> Plan:
  """Makes a plan: resolves its tasks and finds the pretrained weights.

  `setup` becomes `Plan.shared_setup`. If `reads_rows`, TFDS is checked before
  any weights are downloaded.

  Raises:
    errors.UserError: a task is unknown or inconsistent, two runs would have the
      same name, or the weights can't be found.
  """
  tasks = registry.resolve(config)
  if reads_rows:
    processes.run_on_first(tfds_source.check, tasks.tasks, config.data)
  workspace = workspace_lib.Workspace(workdir)
  learnt = workspace.learnt_tasks()
  found = processes.run_on_first(
    labels.find, tasks, config.data, workdir, learnt
  )
  tasks = labels.add(tasks, found, workdir)
  errors.raise_first(registry.threshold_mistakes(config, tasks))
  records = {name: workspace.division(name) for name in learnt}
  tasks = divisions.add(
    tasks, processes.run_on_first(divisions.recorded, tasks, records)
  )
  runs_lib.plan_runs(config)  # Raises if two runs would have the same name.
  return Plan(
    config,
    workspace,
    tasks,
    learnt,
    found,
    pretrained.load_encoder(config),
    preemption_signal or preemption.Signal(),
    setup,
  )
