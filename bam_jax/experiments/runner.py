"""Carry a plan out: what is finished stays, what is missing is made."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import hashlib
from importlib import metadata
import logging
from pathlib import Path
import platform
import time

import jax
import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import schema
from bam_jax.data import prepare as prepare_lib
from bam_jax.data import registry
from bam_jax.data import shards
from bam_jax.distillation import teachers
from bam_jax.experiments import identity as identity_lib
from bam_jax.experiments import jobs
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import report as report_lib
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
    runs: the plan, teachers before students.
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
    self.runs = plan_lib.plan(config)
    self.encoder = setup_lib.load_encoder(config)
    self.features: dict[str, dict[str, shards.Columns]] = {}
    self._setup: setup_lib.Setup | None = None
    self._packing: config_lib.PackingConfig | None = None

  @property
  def packing(self) -> config_lib.PackingConfig:
    """How examples are put into rows; chosen when first needed."""
    if self._packing is None:
      self._packing = jobs.choose_packing(
        self.runs, self.config.packing, self.tasks, self.features
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
    identities = self._open(self.runs)
    todo = [r for r in self.runs if not self.workspace.finished(r.name)]
    logging.info(
      '%d runs: %d finished, %d to train',
      len(self.runs),
      len(self.runs) - len(todo),
      len(todo),
    )
    for run in self.runs:
      if run not in todo:
        self._label(run, todo, identities, None)
    if todo:
      self._compile(todo)
    for group in self._together(todo):
      for run, params in zip(group, self._train(group, identities)):
        self._label(run, todo, identities, params)
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
          outputs=self.workspace.outputs(run.name),
        )
        for task, splits in record['scores'].items()
      ]
    if not scores:
      raise errors.UserError(
        f'{self.workspace.root}: no finished run to report on; run'
        ' --mode=run first'
      )
    notes = {'note': self.config.note} if self.config.note else {}
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
    self._open(finished)
    for run in finished:
      record = self.workspace.finished(run.name)
      dev = jobs.dev_splits(run, self.tasks, self.features)
      outputs, scores = evaluate_lib.evaluate(
        self.setup.programs, self.restore(run, record), dev, self.config
      )
      evaluate_lib.save(
        self.workspace.outputs(run.name), self.tasks, dev, outputs
      )
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
      self.config.variants[-1], self.config.seeds[0]
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
    self, runs: Sequence[plan_lib.Run]
  ) -> dict[str, identity_lib.Identity]:
    """Prepares, and checks that the folders of some runs are theirs.

    Returns:
      The identities of all runs by name.
    """
    self._prepare()
    identities = identity_lib.identities(
      self.runs, self.tasks, self.encoder.digest, self.features
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
      runs, self.setup.programs, self.setup.initial_params, group[0].config
    )
    seconds = (time.perf_counter() - started) / len(group)
    for job, result in zip(runs, results):
      evaluate_lib.save(
        self.workspace.outputs(job.name), self.tasks, job.dev, result.outputs
      )
      self.workspace.finish(
        job.name,
        {
          'steps': job.num_steps,
          'best_step': result.best_step,
          'parameters': parameters_digest(result.params),
          'seconds': round(seconds, 2),
          'seeds_at_once': len(group),
          'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
          'versions': _versions(),
          'compilations': self.setup.programs.compilations,
          'peak_device_bytes': _peak_device_bytes(),
          'scores': result.scores,
        },
      )
    return [result.params for result in results]

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


def _versions() -> str:
  """Of Python and of the packages that decide what a run computes."""
  packages = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
  found = (f'{name} {metadata.version(name)}' for name in packages)
  return ', '.join([f'python {platform.python_version()}', *found])


def _peak_device_bytes() -> int | None:
  """Most memory in use on a device since the process began; None on a CPU."""
  stats = jax.local_devices()[0].memory_stats()
  return stats and stats['peak_bytes_in_use']


def parameters_digest(params: Mapping[str, object]) -> str:
  """sha256 over names, shapes and float32 bytes of all parameters."""
  digest = hashlib.sha256()
  leaves, _ = jax.tree.flatten_with_path(jax.device_get(params))
  for path, leaf in leaves:
    digest.update(f'{jax.tree_util.keystr(path)}{leaf.shape}'.encode())
    digest.update(np.ascontiguousarray(leaf).tobytes())
  return digest.hexdigest()
