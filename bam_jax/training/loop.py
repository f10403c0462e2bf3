"""Train one model: evaluate, save, next batch, step."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from pathlib import Path
import time

import jax
import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import batches as batches_lib
from bam_jax.tasks import task as task_lib
from bam_jax.training import annealing
from bam_jax.training import checkpoints as checkpoints_lib
from bam_jax.training import evaluate
from bam_jax.training import optimizer
from bam_jax.training import profiling
from bam_jax.training import programs as programs_lib
from bam_jax.training import step as step_lib
from bam_jax.training import telemetry as telemetry_lib
from bam_jax.training import transfer

CHECKPOINTS_DIR = 'checkpoints'
PROFILE_DIR = 'profile'

# Dispatched and not fetched when an interval's metrics are.
_STEPS_AHEAD = 16


@dataclasses.dataclass(frozen=True)
class Job:
  """One model to train, everything resolved.

  Attributes:
    name: for the progress bar and the logs.
    directory: where checkpoints and metrics go.
    seed: of dropout; initialisation and data order already follow theirs.
    batches: step -> batch.
    num_steps: the length of the run.
    length: batch size, peak learning rate, layer decay.
    taught: whether the targets slide from a teacher's to the gold labels.
    dev: what to score, by task and split.
  """

  name: str
  directory: Path
  seed: int
  batches: batches_lib.TrainBatches
  num_steps: int
  length: config_lib.RunLengthConfig
  taught: bool
  dev: evaluate.Splits


@dataclasses.dataclass(frozen=True)
class Result:
  """What a finished run leaves: the last step's state, outputs and scores."""

  state: step_lib.TrainState
  outputs: evaluate.Outputs
  scores: evaluate.Scores
  best_step: int


def train(
  job: Job,
  programs: programs_lib.Programs,
  make_params: Callable[[], Mapping[str, object]],
  config: config_lib.Config,
) -> Result:
  """Trains to the last step, going on from the latest checkpoint if any.

  Everything about step s follows from (config, seed, s), so that a resumed run
  takes the same steps as an undisturbed one.

  Args:
    job: the run.
    programs: the compiled steps; shared by all runs of a plan.
    make_params: the initial parameters, host arrays.
    config: the whole configuration.

  Raises:
    errors.UserError: a loss is not finite, naming step and task.
  """
  checkpoints = checkpoints_lib.Checkpoints(job.directory / CHECKPOINTS_DIR)
  telemetry = telemetry_lib.Telemetry(
    job.directory, config.train.tensorboard, job.name
  )
  progress = telemetry_lib.progress(
    job.name, job.num_steps * job.length.batch_size, 'examples'
  )
  with checkpoints, telemetry, progress:
    state = programs.init_state(make_params(), job.seed)
    if checkpoints.latest_step is not None:
      state = checkpoints.restore(state)
    start = int(state.step)
    telemetry.truncate(start)
    progress.start_at(start * job.length.batch_size)
    log = _Log(job, config, programs.tasks, telemetry, progress)
    profiler = profiling.StepProfiler(
      config.train.profile, job.directory / PROFILE_DIR
    )
    prefetched = batches_lib.prefetch(
      lambda step: programs.put(job.batches(step)),
      range(start, job.num_steps),
      config.train.prefetch,
    )
    try:
      for step in range(start, job.num_steps):
        if step > start:
          evaluates = _is_due(step, config.train.evaluate_every)
          if evaluates or _is_due(step, config.train.checkpoint_every):
            log.flush()
            score = None
            if evaluates:
              _, scores = evaluate.evaluate(
                programs, state.params, job.dev, config
              )
              score = _mean_score(scores, programs.tasks)
              telemetry.write(step, {'dev_score': score})
            checkpoints.save(state, score)
        profiler.before(step)
        waiting = time.perf_counter()
        batch = next(prefetched)
        log.waited(time.perf_counter() - waiting)
        schedule = step_schedule(step, job, config)
        state, metrics = programs.train_step(state, batch, schedule)
        log.add(step, metrics)
        if told := profiler.after(step, state):
          telemetry.write(step, told)
    finally:
      profiler.close()
      prefetched.close()
    log.flush()
    outputs, scores = evaluate.evaluate(programs, state.params, job.dev, config)
    score = _mean_score(scores, programs.tasks)
    telemetry.write(job.num_steps, {'dev_score': score})
    if checkpoints.latest_step != job.num_steps:
      checkpoints.save(state, score, with_optimizer=config.train.keep_optimizer)
    if not config.train.keep_optimizer:
      checkpoints.drop_optimizer()
    checkpoints.wait()
    best_step = checkpoints.best_step
  return Result(
    state=state, outputs=outputs, scores=scores, best_step=best_step
  )


def step_schedule(
  step: int, job: Job, config: config_lib.Config
) -> step_lib.StepSchedule:
  """What changes with the step: data of the compiled program, no constants."""
  gold_weight = 1.0
  if job.taught:
    gold_weight = annealing.gold_weight(
      config.distill.annealing,
      step / job.num_steps,
      config.distill.constant,
      config.distill.step_at,
    )
  return step_lib.StepSchedule(
    learning_rate=optimizer.learning_rate(
      step,
      job.num_steps,
      job.length.learning_rate,
      config.optimizer.warmup,
      config.optimizer.schedule,
    ),
    gold_weight=gold_weight,
    layer_decay=job.length.layer_decay,
  )


def _is_due(step: int, every: int) -> bool:
  return every > 0 and step % every == 0


def _mean_score(scores: evaluate.Scores, tasks: task_lib.TaskTable) -> float:
  """What the best checkpoint is chosen by: the mean of the first metrics."""
  return float(
    np.mean(
      [
        scores[name][tasks[name].dev_splits[0]][tasks[name].metrics[0]]
        for name in scores
      ]
    )
  )


class _Log:
  """Steps' metrics on their way from the device to the log.

  They are fetched an interval at a time, and some steps later than they were
  dispatched: a fetch waits for the step it is of, and the device must have
  others to go on with.
  """

  def __init__(
    self,
    job: Job,
    config: config_lib.Config,
    tasks: task_lib.TaskTable,
    telemetry: telemetry_lib.Telemetry,
    progress: telemetry_lib.Progress,
  ):
    self._job = job
    self._config = config
    self._names: Sequence[str] = tasks.names
    self._telemetry = telemetry
    self._progress = progress
    self._pending: list[tuple[int, jax.Array]] = []
    self._interval_start = time.perf_counter()
    self._waited = 0.0

  def waited(self, seconds: float) -> None:
    """Counts time in which no batch was ready."""
    self._waited += seconds

  def add(self, step: int, metrics: jax.Array) -> None:
    self._pending.append((step, metrics))
    every = self._config.train.log_every
    if len(self._pending) == every + _STEPS_AHEAD:
      self._write(every, share=1.0)

  def flush(self) -> None:
    """Fetches, checks and writes what is pending."""
    while self._pending:
      count = min(self._config.train.log_every, len(self._pending))
      self._write(count, share=count / len(self._pending))

  def _write(self, number: int, share: float) -> None:
    """Fetches, checks and writes the oldest steps that are pending.

    Args:
      number: of steps.
      share: of the time since the last call that they took.
    """
    steps = [step for step, _ in self._pending[:number]]
    fetched = [
      transfer.unpack_metrics(metrics)
      for metrics in jax.device_get(
        [metrics for _, metrics in self._pending[:number]]
      )
    ]
    del self._pending[:number]
    for step, metrics in zip(steps, fetched):
      self._check_finite(step, metrics)
    loss = np.sum([m['loss'] for m in fetched], axis=0, dtype=np.float64)
    count = np.sum([m['count'] for m in fetched], axis=0, dtype=np.float64)
    seconds = (time.perf_counter() - self._interval_start) * share
    waited = self._waited * share
    schedule = step_schedule(steps[-1], self._job, self._config)
    values = {
      'loss': loss.sum() / count.sum(),
      'gold_weight': schedule.gold_weight,
      'learning_rate': schedule.learning_rate,
      'grad_norm': np.mean([m['grad_norm'] for m in fetched]),
      'examples_per_second': count.sum() / seconds,
      'waiting_for_batch': waited / seconds,
    }
    for name, task_loss, task_count in zip(self._names, loss, count):
      if task_count:
        values[f'loss/{name}'] = task_loss / task_count
    self._telemetry.write(
      steps[-1], {key: float(value) for key, value in values.items()}
    )
    self._progress.advance(int(count.sum()), loss=float(values['loss']))
    self._interval_start += seconds
    self._waited -= waited

  def _check_finite(self, step: int, metrics: Mapping[str, np.ndarray]) -> None:
    bad = [
      name
      for name, loss in zip(self._names, metrics['loss'])
      if not np.isfinite(loss)
    ]
    if bad or not np.isfinite(metrics['grad_norm']):
      what = f'the loss of {", ".join(bad)}' if bad else 'the gradient'
      raise errors.UserError(
        f'{self._job.name}: {what} is not finite at step {step}; lower the'
        f' learning rate ({self._job.length.learning_rate}) or look at the'
        " task's rows"
      )
