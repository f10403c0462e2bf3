"""Carry a plan out: what is finished stays, what is missing is made."""

from collections.abc import Mapping
import hashlib
import logging
from pathlib import Path
import time

import jax
import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import batches
from bam_jax.data import prepare as prepare_lib
from bam_jax.data import registry
from bam_jax.data import sampling
from bam_jax.data import shards
from bam_jax.data import sources
from bam_jax.distillation import teachers
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import report as report_lib
from bam_jax.experiments import workspace as workspace_lib
from bam_jax.inference import predict as predict_lib
from bam_jax.inference import submission
from bam_jax.tasks import task as task_lib
from bam_jax.training import checkpoints
from bam_jax.training import evaluate as evaluate_lib
from bam_jax.training import loop
from bam_jax.training import mesh as mesh_lib
from bam_jax.training import setup as setup_lib
from bam_jax.training import telemetry

# Configuration that says where rows come from or what they mean. The rows'
# own digests stand for it in a run's identity.
_COVERED_BY_ROWS = ('data.', 'custom_tasks.')


class Runner:
  """One plan in one work directory.

  Everything cheap is checked when this is made, before anything is trained:
  tasks, weights, raw rows, and the configuration against what is there.
  """

  def __init__(self, config: config_lib.Config, workdir: Path):
    self.config = config
    self.workspace = workspace_lib.Workspace(workdir)
    self.tasks = registry.resolve(config)
    self.runs = plan_lib.plan(config)
    self.encoder = setup_lib.load_encoder(config)
    self.features: dict[str, dict[str, shards.Columns]] = {}
    self._setup: setup_lib.Setup | None = None

  @property
  def setup(self) -> setup_lib.Setup:
    """The model and its programs; made when first needed."""
    if self._setup is None:
      self._setup = setup_lib.Setup(self.config, self.tasks, self.encoder)
    return self._setup

  def prepare(self) -> None:
    """Features of every training and dev split, as shard sets."""
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
    self.workspace.save_config(self.config)

  def run(self) -> None:
    """The whole plan, from raw rows to the report."""
    self.prepare()
    identities = self._identities()
    for run in self.runs:
      self.workspace.open_run(run.name, identities[run.name])
    todo = [r for r in self.runs if not self.workspace.finished(r.name)]
    logging.info(
      '%d runs: %d finished, %d to train',
      len(self.runs),
      len(self.runs) - len(todo),
      len(todo),
    )
    for run in self.runs:
      params = None
      if self.workspace.finished(run.name) is None:
        params = self._train(run, identities)
      self._label(run, identities, params)
    self.report()

  def report(self) -> None:
    """Writes the report over the finished runs of the plan."""
    scores, seconds = [], 0.0
    for run in self.runs:
      record = self.workspace.finished(run.name)
      if record is None or run.variant not in self.config.variants:
        continue
      seconds += record['seconds']
      scores += [
        report_lib.RunScores(
          variant=run.variant,
          seed=run.seed,
          task=task,
          scores=splits,
          curve=self.workspace.run(run.name) / 'metrics.jsonl',
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
      'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    }
    report_lib.write(
      self.workspace.root, self.config, self.tasks, scores, notes
    )
    logging.info('report: %s', self.workspace.root / 'report.html')

  def evaluate(self) -> None:
    """Scores the finished runs' last checkpoints again, and reports."""
    self.prepare()
    for run in self.runs:
      record = self.workspace.finished(run.name)
      if record is None:
        continue
      params = self.restore(run, record)
      outputs, scores = evaluate_lib.evaluate(
        self.setup.programs, params, self._dev(run), self.config
      )
      self._save_outputs(run, outputs)
      self.workspace.finish(run.name, {**record, 'scores': scores})
    self.report()

  def predict(self, group: str | None) -> None:
    """Predictions of one group of runs on the unlabelled splits.

    Writes `predictions/GROUP/TASK-SPLIT.tsv`, and `submission.zip` beside them
    where a task belongs to GLUE.

    Args:
      group: `VARIANT-sSEED`; by default the last variant of the first seed.
    """
    group = group or plan_lib.group_name(
      self.config.variants[-1], self.config.seeds[0]
    )
    runs = [run for run in self.runs if run.group == group]
    if not runs:
      known = ', '.join(dict.fromkeys(run.group for run in self.runs))
      raise errors.UserError(f'--group={group}: is none of {known}')
    directory = self.workspace.root / 'predictions' / group
    submitted: dict[str, dict[str, list[str]]] = {}
    for run in runs:
      record = self.workspace.finished(run.name)
      if record is None:
        raise errors.UserError(
          f'{self.workspace.run(run.name)}: the run is not finished; finish'
          ' it with --mode=run'
        )
      params = self.restore(run, record, best=True)
      for name in run.tasks:
        task = self.tasks[name]
        for split in task.test_splits:
          columns = self._test_features(task, split)
          if columns is None:
            continue
          logits = evaluate_lib.predict(
            self.setup.programs,
            params,
            columns,
            self.tasks.index[name],
            self.config.packing,
          )
          predict_lib.write_tsv(
            directory / f'{name}-{split}.tsv',
            task,
            columns,
            logits,
            self.config,
          )
          submitted.setdefault(name, {})[split] = predict_lib.as_text(
            task, logits, self.config.model.regression_head
          )
    if any(
      self.tasks[name].tables[split].submission
      for name, splits in submitted.items()
      for split in splits
    ):
      submission.write(directory / 'submission.zip', self.tasks, submitted)
    logging.info('predictions: %s', directory)

  def _test_features(
    self, task: task_lib.Task, split: str
  ) -> shards.Columns | None:
    """The features of an unlabelled split; None, and said, without a file."""
    if not sources.is_present(task, split, self.config.data):
      logging.warning(
        '%s/%s: no file %s; it is left out',
        task.name,
        split,
        task.tables[split].file,
      )
      return None
    return prepare_lib.prepare(
      task,
      split,
      self.config.data,
      self.encoder.tokenizer,
      self.workspace.features(task.name, split),
    )

  def restore(
    self, run: plan_lib.Run, record: Mapping[str, object], best: bool = False
  ) -> Mapping[str, object]:
    """The parameters of a finished run, from its last or best checkpoint."""
    directory = self.workspace.run(run.name) / 'checkpoints'
    with checkpoints.Checkpoints(directory) as saved:
      return saved.restore_params(
        self.setup.programs.abstract_state.params,
        record['best_step'] if best else record['steps'],
      )

  def _identities(self) -> dict[str, dict[str, object]]:
    """Run name -> dotted key -> everything that decides its outcome."""
    identities: dict[str, dict[str, object]] = {}
    for run in self.runs:
      identity: dict[str, object] = {
        'run.variant': run.variant,
        'run.seed': run.seed,
        'run.tasks': list(run.tasks),
        'weights': self.encoder.digest,
      }
      unused = ['multi.' if run.is_single else 'single.', *_COVERED_BY_ROWS]
      if not run.teachers:
        unused.append('distill.')
      if run.is_single:
        unused.append('sampling.')
      identity |= {
        f'config.{key}': value
        for key, value in config_lib.fingerprint_values(self.config).items()
        if not key.startswith(tuple(unused))
      }
      for task in run.tasks:
        for split, columns in self.features[task].items():
          identity[f'data.{task}.{split}'] = config_lib.digest(
            columns.fingerprint
          )
      for names in run.teachers.values():
        for name in names:
          identity[f'teacher.{name}'] = config_lib.digest(identities[name])
      identities[run.name] = identity
    return identities

  def _dev(self, run: plan_lib.Run) -> evaluate_lib.Splits:
    return {
      task: {
        split: self.features[task][split]
        for split in self.tasks[task].dev_splits
      }
      for task in run.tasks
    }

  def _train(
    self, run: plan_lib.Run, identities: Mapping[str, Mapping[str, object]]
  ) -> Mapping[str, object]:
    """Trains one run to its end and records it; returns its parameters."""
    started = time.perf_counter()
    job = self._job(run, identities)
    result = loop.train(
      job,
      self.setup.programs,
      lambda: self.setup.initial_params(run.seed),
      self.config,
    )
    self._save_outputs(run, result.outputs)
    self.workspace.finish(
      run.name,
      {
        'steps': job.num_steps,
        'best_step': result.best_step,
        'parameters': parameters_digest(result.state.params),
        'seconds': round(time.perf_counter() - started, 2),
        'compilations': self.setup.programs.compilations,
        'peak_device_bytes': _peak_device_bytes(),
        'scores': result.scores,
      },
    )
    return result.state.params

  def _job(
    self, run: plan_lib.Run, identities: Mapping[str, Mapping[str, object]]
  ) -> loop.Job:
    config = self.config
    length = run.length(config)
    train = [
      self.features[name][self.tasks[name].train_split] for name in run.tasks
    ]
    rows = [len(columns) for columns in train]
    num_steps = sampling.num_steps(length.epochs, sum(rows), length.batch_size)
    if length.max_steps:
      num_steps = min(num_steps, length.max_steps)
    if config.sampling.mode == 'sampled':
      mix = sampling.SampledMix(
        sizes=[
          n // 2 if name in config.data.swap else n
          for name, n in zip(run.tasks, rows)
        ],
        rows=rows,
        exponent=config.sampling.exponent,
        batch_size=length.batch_size,
        num_steps=num_steps,
        seed=run.seed,
      )
    else:
      mix = sampling.CopiesMix(
        rows=rows,
        exponent=config.sampling.exponent,
        batch_size=length.batch_size,
        num_steps=num_steps,
        seed=run.seed,
      )
    return loop.Job(
      name=run.name,
      directory=self.workspace.run(run.name),
      seed=run.seed,
      batches=batches.TrainBatches(
        self.tasks,
        [self.tasks.index[name] for name in run.tasks],
        train,
        [
          self._targets(run, name, columns, identities)
          for name, columns in zip(run.tasks, train)
        ],
        mix,
        config.packing,
        mesh_lib.rows_multiple(self.setup.mesh) * config.train.accumulate,
      ),
      num_steps=num_steps,
      length=length,
      taught=bool(run.teachers),
      dev=self._dev(run),
    )

  def _targets(
    self,
    run: plan_lib.Run,
    task: str,
    columns: shards.Columns,
    identities: Mapping[str, Mapping[str, object]],
  ) -> np.ndarray | None:
    """The teachers' predictions on the rows, or None without teachers."""
    if task not in run.teachers:
      return None
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
      self.config.distill.temperature,
      self.config.model.regression_head,
    )

  def _logit_fingerprint(
    self,
    name: str,
    columns: shards.Columns,
    identities: Mapping[str, Mapping[str, object]],
  ) -> dict[str, object]:
    return teachers.logit_fingerprint(
      columns,
      config_lib.digest(identities[name]),
      self.workspace.finished(name)['parameters'],
    )

  def _label(
    self,
    run: plan_lib.Run,
    identities: Mapping[str, Mapping[str, object]],
    params: Mapping[str, object] | None,
  ) -> None:
    """Writes what students yet to be trained need and is not there yet."""
    students = [r for r in self.runs if not self.workspace.finished(r.name)]
    for name in plan_lib.is_teacher_of(students, run.name):
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

  def _save_outputs(
    self, run: plan_lib.Run, outputs: evaluate_lib.Outputs
  ) -> None:
    """Dev logits by uid, in `outputs.npz` of the run."""
    arrays = {}
    for task, splits in outputs.items():
      for split, logits in splits.items():
        arrays[f'{task}/{split}/uid'] = np.array(
          list(self.features[task][split].uids)
        )
        arrays[f'{task}/{split}/logits'] = logits
    np.savez(self.workspace.run(run.name) / 'outputs.npz', **arrays)


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
