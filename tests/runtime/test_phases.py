"""The time of a command by phase, on a clock that the test moves."""

import threading

import jax
import pytest

from bam_jax.runtime import phases


@pytest.fixture
def now() -> list[float]:
  return [0.0]


@pytest.fixture
def phase(now) -> phases.Phases:
  return phases.Phases(lambda: now[0])


def test_each_moment_counts_for_the_innermost_phase(now, phase):
  now[0] = 1
  with phase('training'):
    now[0] = 3
    with phase('evaluation'):
      now[0] = 7
    now[0] = 15
  now[0] = 31
  with phase('training'):
    now[0] = 63
  assert phase.so_far() == {
    'start': 1 + 16, 'training': 2 + 8 + 32, 'evaluation': 4
  }  # fmt: skip


def test_another_thread_changes_no_phase(now, phase):
  def work():
    with phase('labelling'):
      now[0] = 2

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert phase.so_far() == {'start': 2}


def test_compiling_is_taken_from_the_phase_around_it(now, phase):
  """Spans lie inside of each other, and long compilations are on the disk."""
  event = '/jax/core/compile/{}_duration'.format
  with phase('training'):
    phase._add_span(event('backend_compile'), 2, 2.0625)
    phase._add_span(event('jaxpr_trace'), 4, 5)
    phase._add_span(event('jaxpr_trace'), 1, 7)
    phase._add_span(event('backend_compile'), 8, 12)
    phase._add_span('/jax/other', 12, 13)
    now[0] = 16
  assert phase.so_far() == {'compiling': 10, 'training': 6}
  assert phase.compiled_again == pytest.approx(6 + phases.LEAST_KEPT)


def test_a_second_in_which_two_threads_compile_counts_once(now, phase):
  """The main thread compiles while another one traces."""
  event = '/jax/core/compile/{}_duration'.format

  def trace(*spans):
    for start, end in spans:
      phase._add_span(event('jaxpr_trace'), start, end)

  with phase('training'):
    thread = threading.Thread(target=trace, args=[(2, 3), (5, 6), (9, 12)])
    thread.start()
    thread.join()
    phase._add_span(event('backend_compile'), 1, 10)
    phase._add_span(event('backend_compile'), 13, 14)
    now[0] = 16
  assert phase.so_far() == {'compiling': 11 + 1, 'training': 16 - 12}


def test_the_phases_add_up_to_the_time_that_passed(now, phase):
  """A span is reported after the phase in which it began."""
  with phase('training'):
    now[0] = 10
  with phase('report'):
    now[0] = 11
    phase._add_span('/jax/core/compile/jaxpr_trace_duration', 4, 10)
    assert sum(phase.so_far().values()) == 11


def test_jax_reports_its_compilations(phase):
  phase.watch_compiler()
  try:
    jax.jit(lambda x: x + 1)(1.0)
  finally:
    jax.monitoring.unregister_event_time_span_listener(phase._add_span)
  assert phase.seconds[phases.COMPILING] > 0 < phase.compiled_again
