import threading
from types import SimpleNamespace

import pytest

from bam_jax.training import ahead as ahead_lib


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


def test_what_is_asked_for_is_traced_before_what_waits(gate):
  """The first is being traced, and the second would come after it."""
  ahead, traced = ahead_lib.Ahead(), threading.Event()
  ahead.begin('slow', behind(gate, traced))
  ahead.begin('asked', lowered('asked'))
  assert ahead.get('asked') == 'asked'
  assert ahead.get('asked') == 'asked'
  gate.set()
  assert ahead.get_all() == {'slow': 'slow', 'asked': 'asked'}


def test_compiling_holds_up_no_tracing(gate):
  ahead = ahead_lib.Ahead()
  waits = SimpleNamespace(compile=lambda: gate.wait(600) and 'late')
  ahead.begin('late', lambda: waits)
  traced = threading.Event()
  ahead.begin('next', lambda: traced.set() or lowered('next')())
  assert traced.wait(600)
  assert ahead.get('next') == 'next'
  gate.set()
  assert ahead.get('late') == 'late'


def test_a_program_is_made_once():
  ahead, made = ahead_lib.Ahead(), []
  for _ in range(2):
    ahead.begin('one', lambda: made.append('one') or lowered('one')())
  assert 'one' in ahead
  ahead.get_all()
  assert made == ['one']


def test_dropped_programs_are_never_traced(gate):
  ahead, traced, made = ahead_lib.Ahead(), threading.Event(), []
  ahead.begin('slow', behind(gate, traced))
  ahead.begin('dropped', lambda: made.append('dropped'))
  assert traced.wait(600)
  ahead.drop()
  assert 'slow' in ahead and 'dropped' not in ahead
  gate.set()
  assert ahead.get_all() == {'slow': 'slow'}
  assert made == []
  ahead.begin('dropped', lowered('dropped'))
  assert ahead.get('dropped') == 'dropped'


def test_an_error_is_raised_where_the_program_is_asked_for():
  def fails():
    raise ValueError('no kernel for this')

  ahead = ahead_lib.Ahead()
  ahead.begin('bad', fails)
  for _ in range(2):
    with pytest.raises(ValueError, match='no kernel'):
      ahead.get('bad')
