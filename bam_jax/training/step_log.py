"""Fetches the metrics of steps from the devices and writes them to the log."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import time

import jax
import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.runtime import telemetry as telemetry_lib
from bam_jax.tasks import task as task_lib
from bam_jax.training import job as job_lib
from bam_jax.training import mesh as mesh_lib
from bam_jax.training import transfer

# Steps that are dispatched before an older interval is fetched.
_STEPS_AHEAD = 16

# Metrics of steps that are not in the log yet: 2T + 1 numbers per step.
Unlogged = Sequence[Sequence[float]]


class StepLog:
  """Fetches the metrics of steps from the devices and writes them to the log.

  Each line covers `config.train.log_every` steps. They are fetched some steps
  after they were dispatched: fetching waits for the last of them, and meanwhile
  the device must have other steps to do.

  Which steps share a line depends on their numbers alone. So a run that is
  stopped within an interval saves the metrics of its steps in the checkpoint,
  and `resume` starts with them.
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
    self._pending: list[tuple[int, jax.Array | np.ndarray]] = []
    self._first = 0  # The first step that this process takes.
    self._interval_start = time.perf_counter()
    self._waited = 0.0

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """Context whose time is logged as waiting for a batch."""
    began = time.perf_counter()
    yield
    self._waited += time.perf_counter() - began

  def add(self, step: int, metrics: jax.Array) -> None:
    """Adds the metrics of a step; writes a line if an interval is due.

    Raises:
      errors.UserError: a loss or gradient of that interval is not finite.
    """
    self._pending.append((step, metrics))
    every = self._config.train.log_every
    if len(self._pending) == every + _STEPS_AHEAD:
      self._write(every, share=1.0)

  def resume(self, start: int, unlogged: Sequence[Unlogged]) -> None:
    """Continues the log of runs that were stopped.

    Args:
      start: the first step to take.
      unlogged: for each run, the metrics of the steps before `start` that are
        not in its log.
    """
    self._first = start
    rows = [np.asarray(each, np.float32) for each in unlogged]
    if len({len(each) for each in rows}) == 1:
      # [steps, seeds, 2T + 1]
      self._pending += zip(_steps_before(start, rows[0]), np.stack(rows, 1))
      return
    for index, each in enumerate(rows):
      if len(each):
        self._write_run(index, _steps_before(start, each), each, 1.0, 0.0)

  def unlogged(self) -> list[Unlogged]:
    """For each run, the metrics of the pending steps."""
    values = self._fetch(len(self._pending))
    return [values[:, index].tolist() for index in range(len(self._jobs))]

  def flush(self) -> None:
    """Fetches, checks and writes all pending steps."""
    while self._pending:
      count = min(self._config.train.log_every, len(self._pending))
      self._write(count, share=count / len(self._pending))

  def _write(self, number: int, share: float) -> None:
    """Fetches, checks and writes the oldest pending steps.

    Args:
      number: how many steps.
      share: their share of the time since the last call, 0-1.
    """
    steps = [step for step, _ in self._pending[:number]]
    values = self._fetch(number)
    del self._pending[:number]
    seconds = (time.perf_counter() - self._interval_start) * share
    waited = self._waited * share
    timing = {'seconds': seconds, 'waited': waited}
    losses = [
      self._write_run(index, steps, values[:, index], **timing)
      for index in range(len(self._jobs))
    ]
    counts = transfer.unpack_metrics(values)['count'][self._taken_here(steps)]
    self._progress.advance(int(counts.sum()), loss=float(np.mean(losses)))
    self._interval_start += seconds
    self._waited -= waited

  def _fetch(self, number: int) -> np.ndarray:
    """Metrics of the oldest pending steps, [steps, seeds, 2T + 1]."""
    fetched = mesh_lib.fetch([values for _, values in self._pending[:number]])
    shape = (len(self._jobs), -1)
    rows = [np.reshape(values, shape) for values in fetched]
    return np.stack(rows) if rows else np.empty((0, len(self._jobs), 0))

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
    line = {
      'loss': loss.sum() / count.sum(),
      'gold_weight': schedule.gold_weight,
      'learning_rate': schedule.learning_rate,
      'grad_norm': np.mean(metrics['grad_norm']),
      'examples_per_second': (
        metrics['count'][self._taken_here(steps)].sum() / seconds
      ),
      'waiting_for_batch': waited / seconds,
    }
    for name, task_loss, task_count in zip(self._names, loss, count):
      if task_count:
        line[f'loss/{name}'] = task_loss / task_count
        line[f'examples/{name}'] = task_count
    self._telemetry[index].write(
      steps[-1], {key: float(value) for key, value in line.items()}
    )
    return float(line['loss'])

  def _taken_here(self, steps: Sequence[int]) -> np.ndarray:
    """Whether this process took each of the steps, [steps] bool."""
    return np.asarray(steps) >= self._first

  def _check_finite(
    self, job: job_lib.Job, step: int, metrics: Mapping[str, np.ndarray]
  ) -> None:
    """Raises if the metrics of a step have a nan or an infinity."""
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


def _steps_before(start: int, rows: Unlogged) -> range:
  return range(start - len(rows), start)
