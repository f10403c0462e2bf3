"""Train one model: evaluate, save, next batch, step."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import time

import numpy as np

from bam_jax import config as config_lib
from bam_jax.data import batches as batches_lib
from bam_jax.runtime import peers
from bam_jax.runtime import preemption
from bam_jax.runtime import processes
from bam_jax.runtime import profiling
from bam_jax.runtime import telemetry as telemetry_lib
from bam_jax.tasks import task as task_lib
from bam_jax.training import checkpoints as checkpoints_lib
from bam_jax.training import evaluate
from bam_jax.training import job as job_lib
from bam_jax.training import programs as programs_lib
from bam_jax.training import step as step_lib
from bam_jax.training import step_log
from bam_jax.training import transfer

CHECKPOINTS_DIR = 'checkpoints'
PROFILE_DIR = 'profile'


@dataclasses.dataclass(frozen=True)
class Result:
  """What a finished run leaves: the last step's parameters and its scores."""

  params: Mapping[str, object]
  outputs: evaluate.Outputs
  scores: evaluate.Scores
  best_step: int


def train(
  jobs: Sequence[job_lib.Job],
  programs: programs_lib.Programs,
  make_params: Callable[[int], Mapping[str, object]],
  config: config_lib.Config,
  preemption_signal: preemption.Signal,
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
    preemption_signal: checked before each step and within evaluations.

  Returns:
    A result for each job.

  Raises:
    errors.UserError: a loss is not finite, naming run, step and task.
    preemption.Preempted: a signal came; the steps so far are saved.
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
    stack.enter_context(peers.exit_on_peer_error())
    (start,) = {saved.latest_step or 0 for saved in checkpoints}

    def first_state(
      job: job_lib.Job, saved: checkpoints_lib.Checkpoints
    ) -> step_lib.TrainState:
      state = programs.init_state(make_params(job.seed), job.seed)
      return state if saved.latest_step is None else saved.restore(state)

    state = programs.seeds.stack(map(first_state, jobs, checkpoints), len(jobs))
    unlogged = [saved.unlogged() for saved in checkpoints]
    for writer, saved, steps in zip(telemetry, checkpoints, unlogged):
      # A score of the last step is made, and written, once more.
      scored = start < first.num_steps and saved.score(start) is not None
      writer.truncate(start - len(steps), with_score=scored or len(steps) > 0)
    progress.start_at(start * examples)
    log = step_log.StepLog(jobs, config, programs.tasks, telemetry, progress)
    log.go_on(start, unlogged)
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

    def evaluated(
      index: int, step: int, state: step_lib.TrainState
    ) -> tuple[evaluate.Outputs, evaluate.Scores, float]:
      outputs, scores = evaluate.evaluate(
        programs,
        state.params,
        jobs[index].dev,
        config,
        lambda _: preemption_signal.check(),
      )
      score = _mean_score(scores, programs.tasks)
      telemetry[index].write(step, {'dev_score': score})
      return outputs, scores, score

    def save(
      index: int,
      state: step_lib.TrainState,
      score: float | None = None,
      with_optimizer: bool = True,
    ) -> None:
      """Saves a step, or gives the score of one that a stop has saved."""
      saved = checkpoints[index]
      if saved.latest_step != int(state.step):
        saved.save(state, score, with_optimizer)
      elif score is not None:
        saved.add_score(score)

    prefetched = batches_lib.prefetch(
      make_batch, range(start, first.num_steps), config.train.prefetch
    )
    step, results = start, []
    try:
      for step in range(start, first.num_steps):
        preemption_signal.check()
        evaluates = _is_due(step, config.train.evaluate_every)
        if evaluates or _is_due(step, config.train.checkpoint_every):
          log.flush()
          for index, saved in enumerate(checkpoints):
            score, own = None, state_of(index)
            if evaluates and saved.score(step) is None:
              score = evaluated(index, step, own)[-1]
            save(index, own, score)
        profiler.before(step)
        waiting = time.perf_counter()
        batch = next(prefetched)
        log.waited(time.perf_counter() - waiting)
        schedule = job_lib.step_schedule(step, first, config)
        state, metrics = programs.train_step(state, batch, schedule)
        if step == start:
          # Until now the process could have been ended without a loss.
          stack.enter_context(preemption_signal.defer_exit())
        log.add(step, metrics)
        if told := profiler.after(step, state):
          telemetry[0].write(step, told)
      step = first.num_steps
      preemption_signal.check()
      log.flush()
      for index, saved in enumerate(checkpoints):
        last = state_of(index)
        outputs, scores, score = evaluated(index, step, last)
        save(index, last, score, config.train.keep_optimizer)
        if not config.train.keep_optimizer:
          saved.drop_optimizer()
        saved.wait()
        results.append(Result(last.params, outputs, scores, saved.best_step))
    except preemption.Preempted:
      unlogged = log.unlogged()
      log.flush()
      for index, saved in enumerate(checkpoints):
        if step != (saved.latest_step or 0):
          saved.save(state_of(index), unlogged=unlogged[index])
        saved.wait()
      raise
    finally:
      profiler.close()
      prefetched.close()
  return results


def _is_due(step: int, every: int) -> bool:
  return every > 0 and step > 0 and step % every == 0


def _mean_score(scores: evaluate.Scores, tasks: task_lib.TaskTable) -> float:
  """What the best checkpoint is chosen by: the mean of the first metrics.

  nan if one of them is undefined: the mean of the others can't be compared with
  that of another step.
  """
  return float(
    np.mean(
      [
        scores[name][tasks[name].dev_splits[0]][tasks[name].metrics[0]]
        for name in scores
      ]
    )
  )
