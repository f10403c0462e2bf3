"""The training loop: evaluate, save, next batch, step."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses

import numpy as np

from bam_jax import config as config_lib
from bam_jax.core import step as step_lib
from bam_jax.data import batches as batches_lib
from bam_jax.runtime import peers
from bam_jax.runtime import preemption
from bam_jax.runtime import processes
from bam_jax.runtime import profiling
from bam_jax.runtime import telemetry as telemetry_lib
from bam_jax.training import checkpoints as checkpoints_lib
from bam_jax.training import evaluate
from bam_jax.training import job as job_lib
from bam_jax.training import programs as programs_lib
from bam_jax.training import step_log
from bam_jax.training import transfer

CHECKPOINTS_DIR = 'checkpoints'
PROFILE_DIR = 'profile'


@dataclasses.dataclass(frozen=True)
class Result:
  """What a finished run returns.

  Attributes:
    params: after the last step.
    outputs: logits of those parameters.
    scores: scores of those parameters.
    best_step: the step of the best checkpoint.
  """

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
  """Trains to the last step, from the latest checkpoint if there is one.

  Everything about step s follows from (config, seed, s), so that a resumed run
  takes the same steps as an undisturbed one.

  Args:
    jobs: one run, or runs that differ in their seed alone and are at the same
      step; one program trains them, each as it would be trained alone.
    programs: the compiled steps; shared by all runs of a plan.
    make_params: seed -> the initial parameters, host arrays.
    config: the whole configuration.
    preemption_signal: checked before each step and during evaluations.

  Returns:
    A result for each job.

  Raises:
    errors.UserError: a loss is not finite, naming run, step and task.
    preemption.Preempted: a signal came; the steps so far are saved.
  """
  num_steps = jobs[0].num_steps
  with contextlib.ExitStack() as stack:
    group = _Group(jobs, programs, config, preemption_signal, stack)
    stack.enter_context(peers.exit_on_peer_error())
    start = step = group.start
    state, log = group.restore(make_params)
    profiler = profiling.StepProfiler(
      config.train.profile if processes.is_first() else (),
      jobs[0].directory / PROFILE_DIR,
    )
    stack.callback(profiler.close)
    batches = stack.enter_context(
      contextlib.closing(
        batches_lib.prefetch(
          group.make_batch, range(start, num_steps), config.train.prefetch
        )
      )
    )
    try:
      for step in range(start, num_steps):
        preemption_signal.check()
        evaluates = _is_due(step, config.train.evaluate_every)
        if evaluates or _is_due(step, config.train.checkpoint_every):
          log.flush()
          group.save(step, state, evaluates)
        profiler.before(step)
        with log.waiting():
          batch = next(batches)
        schedule = job_lib.step_schedule(step, jobs[0], config)
        state, metrics = programs.train_step(state, batch, schedule)
        if step == start:
          # Before this step a forced exit would have lost nothing.
          stack.enter_context(preemption_signal.defer_exit())
        log.add(step, metrics)
        if profile := profiler.after(step, state):
          group.telemetry[0].write(step, profile)
      step = num_steps
      preemption_signal.check()
      log.flush()
      return group.finish(step, state)
    except preemption.Preempted:
      unlogged = log.unlogged()
      log.flush()
      group.save_stopped(step, state, unlogged)
      raise


class _Group:
  """Runs that one program trains: their states, batches and files.

  Attributes:
    start: the first step to take.
    telemetry: of each run.
  """

  def __init__(
    self,
    jobs: Sequence[job_lib.Job],
    programs: programs_lib.Programs,
    config: config_lib.Config,
    preemption_signal: preemption.Signal,
    stack: contextlib.ExitStack,
  ):
    """Opens the checkpoints and logs; the stack closes them."""
    self._jobs = jobs
    self._programs = programs
    self._config = config
    self._preemption_signal = preemption_signal
    self._checkpoints = [
      stack.enter_context(
        checkpoints_lib.Checkpoints(job.directory / CHECKPOINTS_DIR)
      )
      for job in jobs
    ]
    self.telemetry = [
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
    (self.start,) = {saved.latest_step or 0 for saved in self._checkpoints}
    others = f' and {len(jobs) - 1} other seeds' if len(jobs) > 1 else ''
    self._examples = jobs[0].length.batch_size * len(jobs)
    self._progress = stack.enter_context(
      telemetry_lib.progress(
        jobs[0].name + others, jobs[0].num_steps * self._examples, 'examples'
      )
    )

  def restore(
    self, make_params: Callable[[int], Mapping[str, object]]
  ) -> tuple[step_lib.TrainState, step_log.StepLog]:
    """The state of all runs at `start`, and their log up to there."""

    def restore_one(
      job: job_lib.Job, saved: checkpoints_lib.Checkpoints
    ) -> step_lib.TrainState:
      state = self._programs.init_state(make_params(job.seed), job.seed)
      return state if saved.latest_step is None else saved.restore(state)

    jobs, start = self._jobs, self.start
    state = self._programs.seeds.stack(
      map(restore_one, jobs, self._checkpoints), len(jobs)
    )
    unlogged = [saved.unlogged() for saved in self._checkpoints]
    for writer, saved, steps in zip(
      self.telemetry, self._checkpoints, unlogged
    ):
      # The last step is evaluated, and its score written, once more.
      has_score = start < jobs[0].num_steps and saved.score(start) is not None
      writer.truncate(
        start - len(steps), with_score=has_score or len(steps) > 0
      )
    self._progress.start_at(start * self._examples)
    log = step_log.StepLog(
      jobs, self._config, self._programs.tasks, self.telemetry, self._progress
    )
    log.resume(start, unlogged)
    return state, log

  def make_batch(self, step: int) -> transfer.PackedBatch:
    """The batch of a step, of all runs, on the devices."""
    if len(self._jobs) == 1:
      return self._programs.put(self._jobs[0].batches(step))
    return self._programs.put_seeds([job.batches(step) for job in self._jobs])

  def save(
    self, step: int, state: step_lib.TrainState, evaluates: bool
  ) -> None:
    """Saves each run before a step, with its score if that is due."""
    for index, saved in enumerate(self._checkpoints):
      own, score = self._take(state, index), None
      if evaluates and saved.score(step) is None:
        score = self._evaluate(index, step, own)[-1]
      _save_once(saved, step, own, score)

  def save_stopped(
    self,
    step: int,
    state: step_lib.TrainState,
    unlogged: Sequence[step_log.Unlogged],
  ) -> None:
    """Saves each run where a preemption signal stops it."""
    for index, saved in enumerate(self._checkpoints):
      if step != (saved.latest_step or 0):
        saved.save(self._take(state, index), unlogged=unlogged[index])
      saved.wait()

  def finish(self, step: int, state: step_lib.TrainState) -> list[Result]:
    """Evaluates and saves each run after its last step."""
    keep_optimizer = self._config.train.keep_optimizer
    results = []
    for index, saved in enumerate(self._checkpoints):
      own = self._take(state, index)
      outputs, scores, score = self._evaluate(index, step, own)
      _save_once(saved, step, own, score, keep_optimizer)
      if not keep_optimizer:
        saved.drop_optimizer()
      saved.wait()
      results.append(Result(own.params, outputs, scores, saved.best_step))
    return results

  def _take(
    self, state: step_lib.TrainState, index: int
  ) -> step_lib.TrainState:
    """The state of one run."""
    if len(self._jobs) == 1:
      return state
    return self._programs.seeds.take(state, index)

  def _evaluate(
    self, index: int, step: int, state: step_lib.TrainState
  ) -> tuple[evaluate.Outputs, evaluate.Scores, float]:
    """Outputs, scores and mean score of one run; logs the last."""
    outputs, scores = evaluate.evaluate(
      self._programs,
      state.params,
      self._jobs[index].dev,
      self._config,
      lambda _: self._preemption_signal.check(),
    )
    tasks = self._programs.tasks
    # nan if one metric is undefined: the mean of the others would not be
    # comparable with that of another step.
    score = float(
      np.mean(
        [
          by_split[tasks[name].dev_splits[0]][tasks[name].metrics[0]]
          for name, by_split in scores.items()
        ]
      )
    )
    self.telemetry[index].write(step, {'dev_score': score})
    return outputs, scores, score


def _save_once(
  saved: checkpoints_lib.Checkpoints,
  step: int,
  state: step_lib.TrainState,
  score: float | None,
  with_optimizer: bool = True,
) -> None:
  """Saves a step; only adds the score if a stop has saved it before."""
  if saved.latest_step != step:
    saved.save(state, score, with_optimizer)
  elif score is not None:
    saved.add_score(score)


def _is_due(step: int, every: int) -> bool:
  return every > 0 and step > 0 and step % every == 0
