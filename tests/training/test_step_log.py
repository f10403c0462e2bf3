"""How far training runs ahead of the devices: a stop waits for these steps."""

from unittest import mock

import numpy as np
import pytest

from bam_jax.core import step as step_lib
from bam_jax.training import step_log

_EVERY = 4


class _Metrics:
  """Metrics on a device, of one task; waiting for them is recorded."""

  def __init__(self, step: int, waits: list[int]):
    self._step, self._waits = step, waits

  def block_until_ready(self) -> '_Metrics':
    self._waits.append(self._step)
    return self

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    return np.array([1.0, 2.0, 3.0], np.float32)


@pytest.mark.parametrize(
  ('seconds_per_step', 'ahead'), [(4.0, 2), (0.6, 2), (0.25, 4), (0.1, 10)]
)
def test_about_a_second_of_steps_is_under_way(
  monkeypatch, seconds_per_step, ahead
):
  clock = mock.Mock(return_value=0.0)
  monkeypatch.setattr(step_log.time, 'perf_counter', clock)
  spec = mock.Mock()
  spec.config.train.log_every = _EVERY
  spec.schedule.return_value = step_lib.StepSchedule(1e-4, 1.0, 0.9)
  log = step_log.StepLog(
    [spec], mock.Mock(names=['a']), [mock.Mock()], mock.Mock()
  )
  waits = []
  for step in range(60):
    clock.return_value = (step + 1) * seconds_per_step
    before = len(waits)
    log.add(step, _Metrics(step, waits))
    if step < 2:
      assert waits == []
    elif step < 20:  # Nothing is known of the speed.
      assert waits[before:] == [step - 2]
  # Rates are those of an interval, so they differ by a step or two.
  assert 59 - ahead - 2 <= waits[-1] <= 59 - ahead + 2
