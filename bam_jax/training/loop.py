"""Train one model: evaluate, save, next batch, step."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
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
from bam_jax.training import lost
from bam_jax.training import mesh as mesh_lib
from bam_jax.training import optimizer
from bam_jax.training import preemption
from bam_jax.training import processes
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
  """What a finished run leaves: the last step's parameters and its scores."""

  params: Mapping[str, object]
  outputs: evaluate.Outputs
  scores: evaluate.Scores
  best_step: int


def train(
  jobs: Sequence[Job],
  programs: programs_lib.Programs,
  make_params: Callable[[int], Mapping[str, object]],
  config: config_lib.Config,
  notice: preemption.Notice,
) -> list[Result]:
  """Trains to the last step, going on from the latest checkpoint if any.

  Everything about step s follows from (config, seed, s), so that a resumed run
  takes the same steps as an undisturbed one.

  Args:
    jobs: one run, or runs that differ in their seed alone and stand at the same
      step; they are trained by one program, each as it would be by itself.
    programs: the compiled steps; shared by all runs of a plan.
    make_params: seed -> the initial parameters, host arrays.
    config: the whole configuration.
    notice: that the machine is wanted back.

  Returns:
    A result for each job.

  Raises:
    errors.UserError: a loss is not finite, naming run, step and task.
    preemption.Preempted: a notice came; the steps so far are saved.
  """
  first = jobs[0]
  with contextlib.ExitStack() as stack:
    checkpoints = [
      stack.enter_context(
        checkpoints_lib.Checkpoints(job.directory / CHECKPOINTS_DIR)
      )
      for job in jobs
    ]
    telemetry = [
      stack.enter_context(
        telemetry_lib.Telemetry(
          job.directory,
          config.train.tensorboard,
          job.name,
          processes.is_first(),
        )
      )
      for job in jobs
    ]
    others = f' and {len(jobs) - 1} other seeds' if len(jobs) > 1 else ''
    examples = first.length.batch_size * len(jobs)
    progress = stack.enter_context(
      telemetry_lib.progress(
        first.name + others, first.num_steps * examples, 'examples'
      )
    )
    stack.enter_context(lost.ends_this())
    (start,) = {saved.latest_step or 0 for saved in checkpoints}

    def first_state(
      job: Job, saved: checkpoints_lib.Checkpoints
    ) -> step_lib.TrainState:
      state = programs.init_state(make_params(job.seed), job.seed)
      return state if saved.latest_step is None else saved.restore(state)

    state = programs.seeds.stack(map(first_state, jobs, checkpoints), len(jobs))
    for writer in telemetry:
      writer.truncate(start)
    progress.start_at(start * examples)
    log = _Log(jobs, config, programs.tasks, telemetry, progress)
    profiler = profiling.StepProfiler(
      config.train.profile if processes.is_first() else (),
      first.directory / PROFILE_DIR,
    )

    def state_of(index: int) -> step_lib.TrainState:
      return programs.seeds.take(state, index) if len(jobs) > 1 else state

    def make_batch(step: int) -> transfer.PackedBatch:
      if len(jobs) == 1:
        return programs.put(first.batches(step))
      return programs.put_seeds([job.batches(step) for job in jobs])

    prefetched = batches_lib.prefetch(
      make_batch, range(start, first.num_steps), config.train.prefetch
    )
    try:
      for step in range(start, first.num_steps):
        # A checkpoint has the score of its step or none: nothing comes between.
        with notice.held():
          if step > start:
            evaluates = _is_due(step, config.train.evaluate_every)
            if evaluates or _is_due(step, config.train.checkpoint_every):
              log.flush()
              for index, saved in enumerate(checkpoints):
                score, own = None, state_of(index)
                if evaluates:
                  _, scores = evaluate.evaluate(
                    programs, own.params, jobs[index].dev, config
                  )
                  score = _mean_score(scores, programs.tasks)
                  telemetry[index].write(step, {'dev_score': score})
                saved.save(own, score)
          profiler.before(step)
          waiting = time.perf_counter()
          batch = next(prefetched)
          log.waited(time.perf_counter() - waiting)
          schedule = step_schedule(step, first, config)
          state, metrics = programs.train_step(state, batch, schedule)
          log.add(step, metrics)
          if told := profiler.after(step, state):
            telemetry[0].write(step, told)
    except preemption.Preempted:
      log.flush()
      for index, saved in enumerate(checkpoints):
        saved.save(state_of(index))
        saved.wait()
      raise
    finally:
      profiler.close()
      prefetched.close()
    log.flush()
    with notice.held():
      results = []
      for index, saved in enumerate(checkpoints):
        last = state_of(index)
        outputs, scores = evaluate.evaluate(
          programs, last.params, jobs[index].dev, config
        )
        score = _mean_score(scores, programs.tasks)
        telemetry[index].write(first.num_steps, {'dev_score': score})
        if saved.latest_step != first.num_steps:
          saved.save(last, score, with_optimizer=config.train.keep_optimizer)
        if not config.train.keep_optimizer:
          saved.drop_optimizer()
        saved.wait()
        results.append(Result(last.params, outputs, scores, saved.best_step))
  return results


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
    jobs: Sequence[Job],
    config: config_lib.Config,
    tasks: task_lib.TaskTable,
    telemetry: Sequence[telemetry_lib.Telemetry],
    progress: telemetry_lib.Progress,
  ):
    self._jobs = jobs
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
    fetched = mesh_lib.fetch([values for _, values in self._pending[:number]])
    del self._pending[:number]
    # [steps, seeds, 2T + 1]
    values = np.reshape(fetched, (number, len(self._jobs), -1))
    seconds = (time.perf_counter() - self._interval_start) * share
    waited = self._waited * share
    timing = {'seconds': seconds, 'waited': waited}
    losses = [
      self._write_run(index, steps, values[:, index], **timing)
      for index in range(len(self._jobs))
    ]
    counts = transfer.unpack_metrics(values)['count']
    self._progress.advance(int(counts.sum()), loss=float(np.mean(losses)))
    self._interval_start += seconds
    self._waited -= waited

  def _write_run(
    self,
    index: int,
    steps: Sequence[int],
    values: np.ndarray,
    seconds: float,
    waited: float,
  ) -> float:
    """Writes the steps of one run, [steps, 2T + 1]; returns their loss."""
    job = self._jobs[index]
    metrics = transfer.unpack_metrics(values)
    for number, step in enumerate(steps):
      self._check_finite(
        job, step, {name: array[number] for name, array in metrics.items()}
      )
    loss, count = (
      metrics[name].sum(axis=0, dtype=np.float64) for name in ('loss', 'count')
    )
    schedule = step_schedule(steps[-1], job, self._config)
    told = {
      'loss': loss.sum() / count.sum(),
      'gold_weight': schedule.gold_weight,
      'learning_rate': schedule.learning_rate,
      'grad_norm': np.mean(metrics['grad_norm']),
      'examples_per_second': count.sum() / seconds,
      'waiting_for_batch': waited / seconds,
    }
    for name, task_loss, task_count in zip(self._names, loss, count):
      if task_count:
        told[f'loss/{name}'] = task_loss / task_count
        told[f'examples/{name}'] = task_count
    self._telemetry[index].write(
      steps[-1], {key: float(value) for key, value in told.items()}
    )
    return float(told['loss'])

  def _check_finite(
    self, job: Job, step: int, metrics: Mapping[str, np.ndarray]
  ) -> None:
    bad = [
      name
      for name, loss in zip(self._names, metrics['loss'])
      if not np.isfinite(loss)
    ]
    if bad or not np.isfinite(metrics['grad_norm']):
      what = f'the loss of {", ".join(bad)}' if bad else 'the gradient'
      raise errors.UserError(
        f'{job.name}: {what} is not finite at step {step}; lower the'
        f' learning rate ({job.length.learning_rate}) or look at the'
        " task's rows"
      )
