"""Notices sent to this process and to one of its own."""

import os
import signal
import subprocess
import sys

import pytest

from bam_jax.training import preemption


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
def test_a_notice_is_raised_where_nothing_holds_it(number):
  with (
    preemption.Notice(),
    pytest.raises(preemption.Preempted, match=signal.Signals(number).name),
  ):
    os.kill(os.getpid(), number)


def test_a_notice_waits_for_what_holds_it():
  done = []
  with preemption.Notice() as notice, pytest.raises(preemption.Preempted):
    with notice.held():
      os.kill(os.getpid(), signal.SIGTERM)
      done.append('the step')
    done.append('what comes after it')
  assert done == ['the step']


def test_a_library_that_turns_exceptions_into_its_own_does_not_take_it():
  """As JAX does while its backends start, and hub downloads here."""
  with preemption.Notice(), pytest.raises(preemption.Preempted):
    try:
      os.kill(os.getpid(), signal.SIGTERM)
    except Exception as error:
      raise RuntimeError('no backend') from error


def test_without_a_notice_nothing_is_raised():
  with preemption.Notice() as notice, notice.held():
    notice.check()


def test_the_handlers_from_before_are_back():
  before = signal.getsignal(signal.SIGTERM)
  with preemption.Notice():
    assert signal.getsignal(signal.SIGTERM) is not before
  assert signal.getsignal(signal.SIGTERM) is before


def test_an_error_of_what_holds_it_comes_first():
  with (
    preemption.Notice() as notice,
    pytest.raises(ZeroDivisionError),
    notice.held(),
  ):
    os.kill(os.getpid(), signal.SIGTERM)
    _ = 1 / 0


_STUBBORN = """
import os, signal
from bam_jax.training import preemption
with preemption.Notice() as notice, notice.held():
  for _ in range(2):
    os.kill(os.getpid(), signal.SIGTERM)
  print('still here', flush=True)
"""


def test_a_second_notice_ends_the_process_at_once():
  process = subprocess.run(
    [sys.executable, '-c', _STUBBORN], capture_output=True, text=True
  )
  assert process.returncode == -signal.SIGTERM
  assert process.stdout == ''
