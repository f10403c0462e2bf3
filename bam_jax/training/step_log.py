"""Steps' metrics on their way from the device to the log."""

from collections.abc import Mapping
from collections.abc import Sequence
import time

import jax
import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.tasks import task as task_lib
from bam_jax.training import job as job_lib
from bam_jax.training import mesh as mesh_lib
from bam_jax.training import telemetry as telemetry_lib
from bam_jax.training import transfer

# Dispatched and not fetched when an interval's metrics are.
_STEPS_AHEAD = 16


class StepLog:
  """Steps' metrics on their way from the device to the log.

  They are fetched an interval at a time, and some steps later than they were
  dispatched: a fetch waits for the step it is of, and the device must have
  others to go on with.
  """

  def __init__(
    self,
    jobs: Sequence[job_lib.Job],
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
    schedule = job_lib.step_schedule(steps[-1], job, self._config)
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
    self, job: job_lib.Job, step: int, metrics: Mapping[str, np.ndarray]
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
