"""Writes the metrics of training steps to the log."""

from collections.abc import Container, Iterator, Mapping, Sequence
import contextlib
import time

import jax
import numpy as np

from bam_jax import errors
from bam_jax.runtime import progress as progress_lib
from bam_jax.runtime import telemetry as telemetry_lib
from bam_jax.tasks import task as task_lib
from bam_jax.training import mesh as mesh_lib
from bam_jax.training import spec as spec_lib
from bam_jax.training import transfer

# The metrics of an interval are fetched when this many steps after it have been
# dispatched.
_STEPS_AHEAD = 16

# A run that is stopped has to wait for the steps in flight. So the number of
# steps in flight is limited to what the device computes in one second, or to
# two steps if they take longer.
_SECONDS_AHEAD = 1.0
_LEAST_AHEAD = 2

# Metrics of steps that are not in the log yet: 2T + 1 numbers per step for T
# tasks.
Unlogged = Sequence[Sequence[float]]


class StepLog:
  """Fetches the metrics of steps from the devices and writes them to the log.

  Each line covers an interval of `config.train.log_every` steps. The metrics of
  an interval are fetched some steps after its end, so that the device always
  has other steps to do.

  The intervals must not depend on where a run was stopped. So a run that is
  stopped within an interval saves the metrics of that interval in its
  checkpoint, and `resume` continues with these metrics.
  """

  def __init__(
    self,
    specs: Sequence[spec_lib.TrainSpec],
    tasks: task_lib.TaskTable,
    telemetry: Sequence[telemetry_lib.Telemetry],
    progress: progress_lib.Progress,
    ended: Container[int] = (),
  ):
    """Starts a log.

    `ended` has the indices of the runs that are no longer logged. The caller
    may add indices to it later.
    """
    self._specs = specs
    self._ended = ended
    self._every = specs[0].config.train.log_every
    self._names: Sequence[str] = tasks.names
    self._telemetry = telemetry
    self._progress = progress
    self._pending: list[tuple[int, jax.Array | np.ndarray]] = []
    self._ahead = _LEAST_AHEAD  # Steps that may be in flight.
    self._first = 0  # The first step that this process takes.
    self._interval_start = time.perf_counter()
    self._waited = 0.0

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """Context manager that logs the time spent in it as waiting for data."""
    began = time.perf_counter()
    yield
    self._waited += time.perf_counter() - began

  def add(self, step: int, metrics: jax.Array) -> None:
    """Adds the metrics of a step; writes the oldest interval if it is due.

    Waits for older steps if too many steps are in flight.

    Raises:
      errors.UserError: a loss or gradient of the written interval is not
        finite.
    """
    self._pending.append((step, metrics))
    if len(self._pending) > self._ahead:
      jax.block_until_ready(self._pending[-1 - self._ahead][1])
    if len(self._pending) == self._every + _STEPS_AHEAD:
      self._write(self._every, share=1.0)

  def resume(self, start: int, unlogged: Sequence[Unlogged]) -> None:
    """Continues the log of runs that were stopped.

    Args:
      start: the first step to take.
      unlogged: for each run, the metrics of those steps before `start` that the
        run's log does not have yet.
    """
    self._first = start
    rows = [np.asarray(each, np.float32) for each in unlogged]
    steps = [range(start - len(each), start) for each in rows]
    if len(set(steps)) == 1:
      # [steps, seeds, 2T + 1]
      self._pending += zip(steps[0], np.stack(rows, 1))
      return
    for index, each in enumerate(rows):
      if len(each):
        self._write_run(index, steps[index], each, 1.0, 0.0)

  def unlogged(self) -> list[Unlogged]:
    """Fetches the metrics of the pending steps, for each run."""
    values = self._fetch(len(self._pending))
    return [values[:, index].tolist() for index in range(len(self._specs))]

  def flush(self) -> None:
    """Fetches, checks and writes all pending steps."""
    while self._pending:
      count = min(self._every, len(self._pending))
      self._write(count, share=count / len(self._pending))

  def _write(self, number: int, share: float) -> None:
    """Fetches, checks and writes the oldest pending steps.

    Args:
      number: how many steps to write.
      share: fraction (0-1) of the time since the last call that counts as the
        time of these steps.
    """
    steps = [step for step, _ in self._pending[:number]]
    values = self._fetch(number)
    del self._pending[:number]
    seconds = (time.perf_counter() - self._interval_start) * share
    self._ahead = max(_LEAST_AHEAD, int(_SECONDS_AHEAD * number / seconds))
    waited = self._waited * share
    losses = [
      self._write_run(index, steps, values[:, index], seconds, waited)
      for index in range(len(self._specs))
      if index not in self._ended
    ]
    counts = transfer.unpack_metrics(values)['count'][self._taken_here(steps)]
    self._progress.advance(int(counts.sum()), loss=float(np.mean(losses)))
    self._interval_start += seconds
    self._waited -= waited

  def _fetch(self, number: int) -> np.ndarray:
    """Fetches metrics of the oldest pending steps, [steps, runs, 2T + 1]."""
    fetched = mesh_lib.fetch([values for _, values in self._pending[:number]])
    shape = (len(self._specs), -1)
    rows = [np.reshape(values, shape) for values in fetched]
    return np.stack(rows) if rows else np.empty((0, len(self._specs), 0))

  def _write_run(
    self,
    index: int,
    steps: Sequence[int],
    values: np.ndarray,
    seconds: float,
    waited: float,
  ) -> float:
    """Writes one line for some steps of one run; returns their mean loss.

    Args:
      index: index of the run.
      steps: the steps that the line covers.
      values: metrics of these steps, [steps, 2T + 1].
      seconds: duration of the steps.
      waited: how many of these seconds were spent waiting for data.
    """
    spec = self._specs[index]
    metrics = transfer.unpack_metrics(values)
    self._check_finite(spec, steps, metrics)
    loss, count = (
      metrics[name].sum(axis=0, dtype=np.float64) for name in ('loss', 'count')
    )
    schedule = spec.schedule(steps[-1])
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
    return np.asarray(steps) >= self._first

  def _check_finite(
    self,
    spec: spec_lib.TrainSpec,
    steps: Sequence[int],
    metrics: Mapping[str, np.ndarray],
  ) -> None:
    for step, loss, norm in zip(steps, metrics['loss'], metrics['grad_norm']):
      bad = ', '.join(np.asarray(self._names)[~np.isfinite(loss)])
      if bad or not np.isfinite(norm):
        what = f'the loss of {bad}' if bad else 'the gradient'
        raise errors.UserError(
          f'{spec.name}: {what} is not finite at step {step}; lower the'
          f' learning rate ({spec.length.learning_rate}) or look at the'
          " task's rows"
        )
