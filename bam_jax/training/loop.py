"""The training loop: evaluates, saves, makes the next batch, takes a step."""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
import logging

import numpy as np

from bam_jax import schema
from bam_jax.core import step as step_lib
from bam_jax.data import batches as batches_lib
from bam_jax.runtime import peers
from bam_jax.runtime import phases
from bam_jax.runtime import preemption
from bam_jax.runtime import processes
from bam_jax.runtime import profiling
from bam_jax.runtime import progress as progress_lib
from bam_jax.runtime import telemetry as telemetry_lib
from bam_jax.runtime import trackers as trackers_lib
from bam_jax.tasks import metrics as metrics_lib
from bam_jax.tasks import task as task_lib
from bam_jax.training import checkpoints as checkpoints_lib
from bam_jax.training import evaluate
from bam_jax.training import programs as programs_lib
from bam_jax.training import spec as spec_lib
from bam_jax.training import step_log
from bam_jax.training import transfer

CHECKPOINTS_DIR = 'checkpoints'
PROFILE_DIR = 'profile'
_DEV_SCORE, _HELD_OUT_SCORE = 'dev_score', 'held_out_score'


@dataclasses.dataclass(frozen=True)
class Result:
  """The parameters of a finished run, with their outputs and scores."""

  # Parameters after the last step; with patience, those of the best step.
  params: Mapping[str, object]
  outputs: evaluate.Outputs  # Logits of `params` on the rows to score.
  scores: evaluate.Scores
  best_step: int  # Step of the best checkpoint.
  stopped_at: int  # Number of steps taken.


@phases.phase(phases.TRAINING)
def train(
  specs: Sequence[spec_lib.TrainSpec],
  programs: programs_lib.Programs,
  make_params: Callable[[int], Mapping[str, object]],
  preemption_signal: preemption.Signal,
) -> list[Result]:
  """Trains runs to their last step, starting from their latest checkpoints.

  The batch, schedule and dropout of step s depend only on the config, the seed
  and s. So a resumed run takes the same steps as an uninterrupted run.

  With patience, a run ends after `patience` evaluations in a row without a
  better score. The program goes on until all its runs have ended. Its further
  results for a run that has ended are neither logged nor saved.

  Args:
    specs: one run, or several runs that differ only in their seed and are at
      the same step. One program trains all of them, each as if it were the only
      run.
    programs: the compiled programs.
    make_params: function from a seed to the initial parameters (host arrays).
    preemption_signal: checked before each step and during evaluation.

  Raises:
    errors.UserError: a loss or a gradient is not finite. The message names the
      run, the step and, for a loss, its tasks.
    preemption.Preempted: a signal came; the steps so far are saved.
  """
  config, num_steps = specs[0].config.train, specs[0].num_steps
  with contextlib.ExitStack() as stack:
    group = _Group(specs, programs, preemption_signal, stack)
    stack.enter_context(peers.exit_on_peer_error())
    start = step = group.start
    state, log = group.restore(make_params)
    profiler = profiling.StepProfiler(
      config.profile if processes.is_first() else (),
      specs[0].directory / PROFILE_DIR,
    )
    stack.callback(profiler.close)
    batches = batches_lib.prefetch(
      group.make_batch, range(start, num_steps), config.prefetch
    )
    stack.enter_context(contextlib.closing(batches))
    try:
      for step in range(start, num_steps):
        preemption_signal.check()
        evaluates = _is_due(step, config.evaluate_every)
        if evaluates or _is_due(step, config.checkpoint_every):
          log.flush()
          group.save(step, state, evaluates)
          if group.has_ended:
            break
        profiler.before(step)
        with log.waiting():
          batch = next(batches)
        state, metrics = programs.train_step(
          state, batch, specs[0].schedule(step)
        )
        if step == start:
          # From now on, a forced exit would lose steps.
          stack.enter_context(preemption_signal.defer_exit())
        log.add(step, metrics)
        if profile := profiler.after(step, state):
          group.telemetry[0].write(step, profile)
      else:
        step = num_steps
      preemption_signal.check()
      log.flush()
      phases.phase.steps += len(specs) * (step - start)
      return group.finish(step, state)
    except preemption.Preempted:
      unlogged = log.unlogged()
      log.flush()
      group.save_stopped(step, state, unlogged)
      raise


def _open_trackers(spec: spec_lib.TrainSpec) -> trackers_lib.Trackers | None:
  """Starts or resumes a run in its trackers, in the first process only.

  Returns None in the other processes.
  """
  if not processes.is_first():
    return None
  return trackers_lib.Trackers(
    spec.config.train.trackers,
    spec.directory,
    spec.config.name,
    spec.name,
    schema.flatten(spec.config) | schema.flatten({'run': spec.length}),
  )


def _is_due(step: int, every: int) -> bool:
  return every > 0 and step > 0 and step % every == 0


class _Group:
  """Runs that one program trains; makes their batches, evaluates and saves."""

  @phases.phase(phases.BEGINNING)
  def __init__(
    self,
    specs: Sequence[spec_lib.TrainSpec],
    programs: programs_lib.Programs,
    preemption_signal: preemption.Signal,
    stack: contextlib.ExitStack,
  ):
    """Opens checkpoints and logs, which `stack` closes."""
    first, config = specs[0], specs[0].config.train
    self._specs = specs
    self._programs = programs
    self._keep_optimizer = config.keep_optimizer
    self._preemption_signal = preemption_signal
    self._checkpoints = [
      stack.enter_context(
        checkpoints_lib.Checkpoints(spec.directory / CHECKPOINTS_DIR)
      )
      for spec in specs
    ]
    self.telemetry = [
      stack.enter_context(
        telemetry_lib.Telemetry(
          spec.directory,
          config.tensorboard,
          spec.name,
          processes.is_first(),
          _open_trackers(spec),
        )
      )
      for spec in specs
    ]
    # Index of each run that has run out of patience -> step at which it ended.
    self._ended: dict[int, int] = {}
    # The first step to take.
    (self.start,) = {saved.latest_step or 0 for saved in self._checkpoints}
    count = len(specs) - 1
    others = f' and {count} other seed{"s" * (count > 1)}' if count else ''
    self._name = first.name + others
    self._examples = first.length.batch_size * len(specs)
    self._progress = stack.enter_context(
      progress_lib.show(
        self._name, first.num_steps * self._examples, 'examples'
      )
    )

  @phases.phase(phases.BEGINNING)
  def restore(
    self, make_params: Callable[[int], Mapping[str, object]]
  ) -> tuple[step_lib.TrainState, step_log.StepLog]:
    """Restores or initializes the states, and continues the logs."""

    def restore_one(
      spec: spec_lib.TrainSpec, saved: checkpoints_lib.Checkpoints
    ) -> step_lib.TrainState:
      state = self._programs.init_state(make_params(spec.seed), spec.seed)
      return state if saved.latest_step is None else saved.restore(state)

    specs, start = self._specs, self.start
    state = self._programs.seeds.stack(
      map(restore_one, specs, self._checkpoints), len(specs)
    )
    unlogged = [saved.unlogged for saved in self._checkpoints]
    for writer, saved, steps in zip(
      self.telemetry, self._checkpoints, unlogged
    ):
      # A run without patience that resumes at its last step evaluates this step
      # again and writes its score again. So its old score is removed here.
      is_again = start == specs[0].num_steps and not specs[0].choosing
      has_score = not is_again and saved.score(start) is not None
      writer.truncate(
        start - len(steps),
        _score_name(specs[0]) if has_score or len(steps) > 0 else '',
      )
    self._progress.start_at(start * self._examples)
    log = step_log.StepLog(
      *(specs, self._programs.tasks, self.telemetry, self._progress),
      self._ended,
    )
    log.resume(start, unlogged)
    return state, log

  def make_batch(self, step: int) -> transfer.PackedBatch:
    """Makes the batch of a step for all runs; moves it to the devices."""
    host = [spec.batches(step) for spec in self._specs]
    if len(host) == 1:
      return self._programs.put(host[0])
    return self._programs.put_seeds(host)

  @property
  def has_ended(self) -> bool:
    """Whether all runs have run out of patience."""
    return len(self._ended) == len(self._specs)

  @phases.phase(phases.CHECKPOINTS)
  def save(
    self, step: int, state: step_lib.TrainState, evaluates: bool
  ) -> None:
    """Saves a checkpoint of each run; evaluates the run first if `evaluates`.

    A run that runs out of patience at this step is saved now, but not at later
    steps.
    """
    found = []
    for index, (spec, saved) in enumerate(zip(self._specs, self._checkpoints)):
      if index in self._ended:
        continue
      own, score = self._take(state, index), None
      if evaluates and saved.score(step) is None:
        _, scores, score = self._evaluate(
          index, step, own.params, _score_name(spec)
        )
        found.append(scores)
      _save_once(saved, step, own, score)
      waits = spec.length.patience * spec.config.train.evaluate_every
      if evaluates and waits and saved.is_out_of_patience(waits):
        self._ended[index] = step
    self._log_scores(f'after {step:,} steps', found)

  def save_stopped(
    self,
    step: int,
    state: step_lib.TrainState,
    unlogged: Sequence[step_log.Unlogged],
  ) -> None:
    """Saves each run after a preemption signal."""
    for index, saved in enumerate(self._checkpoints):
      if index not in self._ended and step != (saved.latest_step or 0):
        saved.save(self._take(state, index), unlogged=unlogged[index])
      saved.wait()

  @phases.phase(phases.CHECKPOINTS)
  def finish(self, step: int, state: step_lib.TrainState) -> list[Result]:
    """Evaluates and saves each run after its last step.

    With patience, it first saves the last step. Then it chooses the best step,
    restores the parameters of that step and evaluates them.
    """
    results = []
    if self._specs[0].choosing:
      self.save(step, state, evaluates=True)
    for index, (spec, saved) in enumerate(zip(self._specs, self._checkpoints)):
      own, stopped_at = self._take(state, index), self._ended.get(index, step)
      params = own.params
      if spec.choosing:
        saved.wait()
        params = saved.restore_params(params, saved.best_step)
      outputs, scores, score = self._evaluate(index, stopped_at, params)
      if not spec.choosing:
        _save_once(saved, step, own, score, self._keep_optimizer)
      if not self._keep_optimizer:
        saved.drop_optimizer()
      saved.wait()
      results.append(
        Result(params, outputs, scores, saved.best_step, stopped_at)
      )
    when = 'at the best step' if self._specs[0].choosing else 'at the end'
    self._log_scores(when, [result.scores for result in results])
    return results

  def _log_scores(self, when: str, found: Sequence[evaluate.Scores]) -> None:
    """Logs the first metric of each task as the median over the runs."""
    if not found:
      return
    tasks = self._programs.tasks
    medians = np.median([self._main_scores(scores) for scores in found], axis=0)
    described = (
      f'{name} {tasks[name].metrics[0]} {metrics_lib.describe(median)}'
      for name, median in zip(found[0], medians)
    )
    is_held_out = task_lib.HELD_OUT in next(iter(found[0].values()))
    logging.info(
      '%s, %s scores %s%s: %s',
      *(self._name, 'held-out' if is_held_out else 'dev', when),
      *(' (medians)' if len(found) > 1 else '', ', '.join(described)),
    )

  def _main_scores(self, scores: evaluate.Scores) -> list[float]:
    """Returns each task's first metric on its first split."""
    return [
      next(iter(by_split.values()))[self._programs.tasks[name].metrics[0]]
      for name, by_split in scores.items()
    ]

  def _take(
    self, state: step_lib.TrainState, index: int
  ) -> step_lib.TrainState:
    is_single = len(self._specs) == 1
    return state if is_single else self._programs.seeds.take(state, index)

  @phases.phase(phases.EVALUATION)
  def _evaluate(
    self,
    index: int,
    step: int,
    params: Mapping[str, object],
    name: str = _DEV_SCORE,
  ) -> tuple[evaluate.Outputs, evaluate.Scores, float]:
    """Evaluates one run; logs the mean score of its tasks under `name`.

    If `name` is `_DEV_SCORE`, it evaluates the dev rows, else the held-out
    rows.

    Returns:
      The outputs, the scores, and the mean over tasks of the first metric.
    """
    spec = self._specs[index]
    outputs, scores = evaluate.evaluate(
      self._programs,
      params,
      spec.dev if name == _DEV_SCORE else spec.choosing,
      spec.config.packing,
      lambda _: self._preemption_signal.check(),
    )
    # The mean is nan if one metric is undefined: a mean over fewer tasks could
    # not be compared with the mean of another step.
    score = float(np.mean(self._main_scores(scores)))
    self.telemetry[index].write(step, {name: score})
    return outputs, scores, score


def _score_name(spec: spec_lib.TrainSpec) -> str:
  """Returns the name of the score that chooses a run's best step."""
  return _HELD_OUT_SCORE if spec.choosing else _DEV_SCORE


def _save_once(
  saved: checkpoints_lib.Checkpoints,
  step: int,
  state: step_lib.TrainState,
  score: float | None,
  with_optimizer: bool = True,
) -> None:
  """Saves a step, or adds its score if the step is already saved."""
  if saved.latest_step != step:
    saved.save(state, score, with_optimizer)
  elif score is not None:
    saved.add_score(score)
