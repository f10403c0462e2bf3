"""A trace is taken of the steps asked for; busy time by a grid as oracle."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bam_jax.runtime import profiling


@pytest.mark.parametrize('seed', range(5))
def test_busy_seconds_is_the_length_of_the_union(seed):
  rng = np.random.default_rng(seed)
  starts = np.sort(rng.integers(0, 100, 12))
  ends = starts + rng.integers(1, 15, 12)
  busy = np.zeros(200, bool)
  for start, end in zip(starts, ends):
    busy[start:end] = True
  events = [(float(s), float(e), '') for s, e in zip(starts, ends)]
  assert profiling.busy_seconds(events) == busy.sum()


def test_the_steps_asked_for_are_traced(tmp_path):
  directory = tmp_path / 'profile'
  directory.mkdir()
  (directory / 'of_another_run').touch()
  profiler = profiling.StepProfiler((1, 3), directory)
  step = jax.jit(lambda x: x + 1)
  state = jnp.zeros(3)
  traced = []
  for number in range(5):
    profiler.before(number)
    state = step(state)
    # A CPU has no device line: nothing is said of its idle time.
    assert profiler.after(number, state) == {}
    traced.append(bool(list(directory.glob('**/*.xplane.pb'))))
  assert traced == [False, False, True, True, True]
  assert profiling.read_events(directory) == []
  assert not (directory / 'of_another_run').exists()


def test_idle_is_what_the_steps_timed_leave(tmp_path, monkeypatch):
  """By hand: busy for 2 s of two steps, as many steps take 5 s."""
  events = [(0.0, 0.5, 'a'), (3.0, 4.5, 'b')]
  monkeypatch.setattr(profiling, 'read_events', lambda directory: events)
  now = iter([10.0, 15.0])
  clock = types.SimpleNamespace(perf_counter=lambda: next(now))
  monkeypatch.setattr(profiling, 'time', clock)
  profiler = profiling.StepProfiler((1, 3), tmp_path / 'profile')
  told = []
  for number in range(7):
    profiler.before(number)
    told.append(profiler.after(number, jnp.zeros(1)))
  assert told == [{}, {}, {}, {}, {'device_idle': pytest.approx(0.6)}, {}, {}]


def test_without_steps_nothing_is_written(tmp_path):
  profiler = profiling.StepProfiler((), tmp_path / 'profile')
  profiler.before(0)
  assert profiler.after(0, jnp.zeros(1)) == {}
  profiler.close()
  assert not (tmp_path / 'profile').exists()
