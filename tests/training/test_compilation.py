import logging
import threading
from types import SimpleNamespace

import pytest

from bam_jax.training import compilation


@pytest.fixture
def gate():
  """Closed until a test or its end opens it."""
  event = threading.Event()
  yield event
  event.set()


def lowered(program):
  """As tracing ends: something to compile."""
  return lambda: SimpleNamespace(compile=lambda: program)


def behind(gate, traced):
  def trace():
    traced.set()
    assert gate.wait(600)
    return lowered('slow')()

  return trace


def test_what_is_asked_for_is_traced_before_what_waits(gate, caplog):
  """The first is being traced, and the second would come after it."""
  ahead, traced = compilation.AheadCompiler(), threading.Event()
  ahead.start('slow', behind(gate, traced))
  ahead.start('asked', lowered('asked'))
  with caplog.at_level(logging.INFO):
    assert ahead['asked'] == 'asked'
    assert ahead['asked'] == 'asked'
  (told,) = caplog.messages
  assert told.startswith('Compiled the first training step in ')
  gate.set()
  assert ahead.wait() == {'slow': 'slow', 'asked': 'asked'}


def test_compiling_holds_up_no_tracing(gate):
  ahead = compilation.AheadCompiler()
  waits = SimpleNamespace(compile=lambda: gate.wait(600) and 'late')
  ahead.start('late', lambda: waits)
  traced = threading.Event()
  ahead.start('next', lambda: traced.set() or lowered('next')())
  assert traced.wait(600)
  gate.set()
  assert ahead.wait() == {'late': 'late', 'next': 'next'}


def test_a_program_is_made_once():
  ahead, made = compilation.AheadCompiler(), []
  for _ in range(2):
    ahead.start('one', lambda: made.append('one') or lowered('one')())
  assert 'one' in ahead
  ahead.wait()
  assert made == ['one']


def test_dropped_programs_are_never_traced(gate):
  ahead, traced, made = compilation.AheadCompiler(), threading.Event(), []
  ahead.start('slow', behind(gate, traced))
  ahead.start('dropped', lambda: made.append('dropped'))
  assert traced.wait(600)
  ahead.cancel_queued()
  assert 'slow' in ahead and 'dropped' not in ahead
  gate.set()
  assert ahead.wait() == {'slow': 'slow'}
  assert made == []
  ahead.start('dropped', lowered('dropped'))
  assert ahead['dropped'] == 'dropped'


def test_an_error_is_raised_where_the_program_is_asked_for():
  def fails():
    raise ValueError('no kernel for this')

  ahead = compilation.AheadCompiler()
  ahead.start('bad', fails)
  for _ in range(2):
    with pytest.raises(ValueError, match='no kernel'):
      ahead['bad']
