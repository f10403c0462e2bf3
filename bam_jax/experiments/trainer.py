"""Carry runs out: what is finished stays, what is missing is made."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import functools
import logging
from pathlib import Path
import time

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import prepare as prepare_lib
from bam_jax.data import registry
from bam_jax.data import shards
from bam_jax.data import tfds_source
from bam_jax.experiments import background as background_lib
from bam_jax.experiments import identity as identity_lib
from bam_jax.experiments import jobs
from bam_jax.experiments import labelling
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import records
from bam_jax.experiments import workspace as workspace_lib
from bam_jax.runtime import preemption
from bam_jax.runtime import processes
from bam_jax.runtime import telemetry
from bam_jax.tasks import task as task_lib
from bam_jax.training import checkpoints as checkpoints_lib
from bam_jax.training import evaluate as evaluate_lib
from bam_jax.training import loop
from bam_jax.training import mesh as mesh_lib
from bam_jax.training import programs as programs_lib
from bam_jax.training import setup as setup_lib


class Trainer:
  """What the runs of a plan share, and their training in a work directory.

  Attributes:
    config: what is asked for.
    workspace: the work directory.
    tasks: in the order of the heads.
    encoder: what every run starts from, unless it says otherwise.
    features: task -> split -> rows, once prepared.
  """

  def __init__(
    self,
    config: config_lib.Config,
    workdir: Path,
    preemption_signal: preemption.Signal | None = None,
  ):
    """Resolves tasks and pretrained weights; reads no row.

    Args:
      config: what is asked for.
      workdir: the work directory.
      preemption_signal: checked between pieces of work; None: no signal is
        listened for.

    Raises:
      errors.UserError: a task is unknown or does not hold together, or the
        weights can't be found.
    """
    self.config = config
    self.workspace = workspace_lib.Workspace(workdir)
    self.tasks = registry.resolve(config)
    plan_lib.plan(config)  # Raises if runs would have one name.
    self.encoder = setup_lib.load_encoder(config)
    self.features: dict[str, dict[str, shards.Columns]] = {}
    self._preemption_signal = preemption_signal or preemption.Signal()
    self._setup: setup_lib.Setup | None = None
    self._packing: config_lib.PackingConfig | None = None

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

  def _download(self) -> None:
    """Gets the data sets of TFDS that are missing."""
    names = tfds_source.missing(self.tasks.tasks, self.config.data)
    if not names:
      return
    with contextlib.closing(
      tfds_source.download(names, self.config.data.tfds_dir)
    ) as waits:
      for _ in waits:
        self._preemption_signal.check()

  def _prepare(self) -> None:
    if self.config.data.source == 'tfds':
      processes.run_on_first(self._download)
    wanted = [
      (task, split)
      for task in self.tasks.tasks
      for split in (task.train_split, *task.dev_splits, task_lib.UNLABELLED)
      if split in task.tables and split not in self.features.get(task.name, {})
    ]
    with telemetry.progress('features', len(wanted), 'splits') as progress:
      for task, split in wanted:
        columns = self._columns(prepare_lib.prepare, task, split)
        self.features.setdefault(task.name, {})[split] = columns
        progress.advance(1)

  def _columns(
    self,
    prepare: Callable[..., shards.Columns | None],
    task: task_lib.Task,
    split: str,
  ) -> shards.Columns | None:
    """A split's features: made by one process, opened by all.

    Raw rows are read by that one alone.
    """
    directory = self.workspace.features(task.name, split)
    return processes.make_on_first(
      lambda: prepare(
        task, split, self.config.data, self.encoder.tokenizer, directory
      ),
      lambda: shards.open(directory, prepare_lib.feature_fields(task), None),
    )

  def _carry_out(self, runs: Sequence[plan_lib.Run]) -> None:
    """Trains those of some runs that are not finished."""
    if not runs:
      return
    identities = self._open(runs, runs)
    with background_lib.Background() as background:
      teachers = labelling.TeacherLogits(
        self.config,
        self.workspace,
        self.tasks,
        self.features,
        {run.name: run for run in runs},
        identities,
        background,
        self._preemption_signal,
      )
      self._train_and_label(runs, teachers)

  def _train_and_label(
    self, runs: Sequence[plan_lib.Run], teachers: labelling.TeacherLogits
  ) -> None:
    todo = [r for r in runs if not self.workspace.finished(r.name)]
    logging.info(
      '%d runs: %d finished, %d to train, %s steps',
      len(runs),
      len(runs) - len(todo),
      len(todo),
      f'{sum(self._steps_left(run) for run in todo):,}',
    )
    self._check_starts(todo)
    teachers.check_outside(todo)
    for run in runs:
      self._preemption_signal.check()
      if run not in todo:
        self._label(run, todo, teachers, None)
    if not todo:
      return
    try:
      self._compile(todo)
      for group in self._together(todo):
        for run, params in zip(group, self._train(group, teachers)):
          self._label(run, todo, teachers, params)
    finally:
      self.setup.programs.stop_compiling()

  def restore(
    self, name: str, record: Mapping[str, object], best: bool = False
  ) -> Mapping[str, object]:
    """The parameters of a finished run, from its last or best checkpoint."""
    directory = self.workspace.checkpoints(name)
    with checkpoints_lib.Checkpoints(directory) as saved:
      return saved.restore_params(
        self.setup.programs.abstract_state.params,
        record['best_step'] if best else record['steps'],
      )

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
    identities = self._identities(plan)
    self.workspace.open_runs({r.name: identities[r.name] for r in runs})
    self.workspace.save_config(self.config)
    return identities

  def _identities(
    self, plan: Sequence[plan_lib.Run]
  ) -> dict[str, identity_lib.Identity]:
    """Of a plan's runs by name; raises where logits from outside are amiss."""
    return identity_lib.identities(
      plan,
      self.tasks,
      self.encoder.digest,
      self.features,
      self.workspace.recorded,
    )

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
    if not processes.run_on_first(directory.is_dir):
      return 0
    with checkpoints_lib.Checkpoints(directory) as saved:
      return saved.latest_step or 0

  def _steps_left(self, run: plan_lib.Run) -> int:
    steps = jobs.num_steps(run, self.tasks, self.features)
    return steps - self._latest_step(run)

  def _train(
    self,
    group: Sequence[plan_lib.Run],
    teachers: labelling.TeacherLogits,
  ) -> list[Mapping[str, object]]:
    """Trains runs to their end and records them; returns their parameters."""
    started = time.perf_counter()
    mesh = self.setup.programs.mesh
    own_rows = None
    if len(group) == 1 and processes.is_multi_process():
      own_rows = functools.partial(mesh_lib.own_rows, mesh)
    runs = [
      jobs.make(
        run,
        self.packing,
        self.tasks,
        self.features,
        [teachers.targets(run, name) for name in run.tasks],
        self.setup.programs.rows_multiple,
        self.workspace.run(run.name),
        own_rows,
      )
      for run in group
    ]
    results = loop.train(
      runs,
      self.setup.programs,
      self._initial_params(group),
      group[0].config,
      self._preemption_signal,
    )
    seconds = (time.perf_counter() - started) / len(group)
    for job, result in zip(runs, results):
      processes.run_on_first(
        evaluate_lib.save,
        self.workspace.outputs(job.name),
        self.tasks,
        job.dev,
        result.outputs,
        self.config.model.regression_head,
      )
      self.workspace.finish(
        job.name,
        records.record(
          job,
          result,
          seconds,
          len(group),
          self.setup.programs.compilations,
          records.scored(
            job.name,
            job.dev,
            result.outputs,
            result.scores,
            self.tasks,
            self.config,
          ),
          labelling.dev_quality(
            job.dev,
            result.outputs,
            self.tasks,
            self.config.model.regression_head,
          ),
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
      if processes.run_on_first(directory.is_dir):
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

    def last_params(seed: int) -> Mapping[str, object]:
      record = self.workspace.finished(starts[seed])
      return mesh_lib.fetch(self.restore(starts[seed], record))

    return last_params

  def _compile(self, todo: Sequence[plan_lib.Run]) -> None:
    """The training step in every shape that the runs need."""
    packing = self.packing
    if packing.enabled:
      sizes = sorted({len(group) for group in self._together(todo)})
      self.setup.programs.compile_ahead(packing, sizes)
      logging.info(
        'steps of %s rows are being compiled',
        ', '.join(map(str, packing.row_buckets)),
      )

  def _label(
    self,
    run: plan_lib.Run,
    students: Sequence[plan_lib.Run],
    teachers: labelling.TeacherLogits,
    params: Mapping[str, object] | None,
  ) -> None:
    """Writes a finished run's logits; its parameters are restored if None."""

    @functools.cache
    def model() -> tuple[programs_lib.Programs, Mapping[str, object]]:
      if params is not None:
        return self.setup.programs, params
      record = self.workspace.finished(run.name)
      return self.setup.programs, self.restore(run.name, record)

    teachers.write(run, students, model)
