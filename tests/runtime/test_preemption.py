"""Signals sent to this process and to ones of its own."""

import gc
import os
import signal
import subprocess
import sys

import pytest

from bam_jax.runtime import preemption

_NUMBERS = [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_raised_by_the_next_check(number):
  with preemption.Signal() as preemption_signal:
    preemption_signal.check()
    os.kill(os.getpid(), number)
    with pytest.raises(preemption.Preempted) as raised:
      preemption_signal.check()
  assert raised.value.exit_code == 75
  assert str(raised.value) == (
    f'stopped by {signal.Signals(number).name}; run the same command again to'
    ' continue'
  )


def test_ctrl_c_is_noted_too():
  with preemption.Signal() as preemption_signal:
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(preemption.Preempted, match='interrupted') as raised:
      preemption_signal.check()
  assert raised.value.exit_code == 130


class _Doomed:
  """Sends a signal when it is deleted."""

  def __init__(self, number):
    self._number = number

  def __del__(self):
    os.kill(os.getpid(), self._number)


@pytest.mark.parametrize('number', _NUMBERS)
def test_a_signal_in_a_destructor_is_not_lost(number):
  with preemption.Signal() as preemption_signal:
    doomed = _Doomed(number)
    del doomed
    with pytest.raises(preemption.Preempted):
      preemption_signal.check()


@pytest.mark.parametrize('number', _NUMBERS)
def test_a_signal_in_a_callback_of_the_collector_is_not_lost(number):
  sent = []

  def send(phase, info):
    if not sent:
      sent.append(phase)
      os.kill(os.getpid(), number)

  gc.callbacks.append(send)
  try:
    with preemption.Signal() as preemption_signal:
      gc.collect()
      assert sent
      with pytest.raises(preemption.Preempted):
        preemption_signal.check()
  finally:
    gc.callbacks.remove(send)


def test_deferred_work_comes_to_its_end_and_checks():
  done = []
  with (
    preemption.Signal() as preemption_signal,
    pytest.raises(preemption.Preempted),
  ):
    with preemption_signal.defer_exit():
      os.kill(os.getpid(), signal.SIGTERM)
      done.append('the step')
    done.append('what comes after it')
  assert done == ['the step']


def test_without_a_signal_nothing_is_raised():
  with preemption.Signal() as preemption_signal, preemption_signal.defer_exit():
    preemption_signal.check()


def test_the_handlers_from_before_are_back():
  before = [signal.getsignal(number) for number in _NUMBERS]
  with preemption.Signal() as preemption_signal:
    assert signal.getsignal(signal.SIGTERM) is not before[0]
    preemption_signal.trigger()
  assert [signal.getsignal(number) for number in _NUMBERS] == before


def test_a_second_signal_can_meet_the_handler_from_before(request):
  """Python's own for Ctrl-C, as in a notebook; the process goes on."""
  # A job that a shell starts in the background has none.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
  with preemption.Signal(restores=True) as preemption_signal:
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
      os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(preemption.Preempted):
      preemption_signal.check()


def test_an_error_of_what_is_held_comes_first():
  with (
    preemption.Signal() as preemption_signal,
    pytest.raises(ZeroDivisionError),
    preemption_signal.defer_exit(),
  ):
    os.kill(os.getpid(), signal.SIGTERM)
    _ = 1 / 0


def test_signals_that_are_left_to_another_are_not_noted():
  heard = []
  with preemption.Signal() as preemption_signal:
    with preemption_signal.handled_by(lambda number, _: heard.append(number)):
      os.kill(os.getpid(), signal.SIGTERM)
      os.kill(os.getpid(), signal.SIGINT)
    preemption_signal.check()
    assert heard == [signal.SIGTERM, signal.SIGINT]
    os.kill(os.getpid(), signal.SIGTERM)
    with (
      pytest.raises(preemption.Preempted),
      preemption_signal.handled_by(lambda number, _: heard.append(number)),
    ):
      heard.append('begun')
  assert heard == [signal.SIGTERM, signal.SIGINT]


# Of a process that is ended wherever it is.
_BEGIN = """
import os, signal, threading, time
from bam_jax import errors
from bam_jax.runtime import preemption
preemption._PATIENCE = 0.3
preemption_signal = preemption.Signal().__enter__()
preemption_signal.enable_forced_exit()
def send(number, after=0.0):
  threading.Timer(after, os.kill, (os.getpid(), number)).start()
"""


def _run(program: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, '-c', _BEGIN + program],
    capture_output=True,
    text=True,
    timeout=60,
  )


@pytest.mark.parametrize(
  ('first', 'pause', 'second'),
  [
    ('SIGTERM', 0.0, 'SIGUSR1'),
    ('SIGINT', 0.0, 'SIGINT'),
    ('SIGTERM', 1.1, 'SIGTERM'),
  ],
)
def test_a_second_signal_ends_the_process_at_once(first, pause, second):
  process = _run(
    f"""
with preemption_signal.defer_exit():
  os.kill(os.getpid(), signal.{first})
  time.sleep({pause})
  os.kill(os.getpid(), signal.{second})
  print('still here', flush=True)
"""
  )
  number = getattr(signal, second)
  # By the signal, or by the thread that watches, as shells tell both.
  assert process.returncode in (-number, 128 + number)
  assert process.stdout == ''


@pytest.mark.parametrize('number', ['SIGTERM', 'SIGUSR1'])
def test_a_signal_that_comes_twice_at_once_is_one(number):
  """As from GNU's timeout, and from launchers that signal a process group."""
  process = _run(
    f"""
try:
  with preemption_signal.defer_exit():
    for pause in (0.0, 0.2, 0.2):
      time.sleep(pause)
      os.kill(os.getpid(), signal.{number})
    print('the step', flush=True)
except preemption.Preempted as e:
  print(e, flush=True)
"""
  )
  assert process.returncode == 0
  told = f'stopped by {number}; run the same command again to continue'
  assert process.stdout == f'the step\n{told}\n'


_LONG_CALLS = {
  'loop': 'while True: pass',
  # Runs no Python, and so no handler either.
  'library': """
import ctypes
mutex, library = ctypes.create_string_buffer(64), ctypes.CDLL(None)
library.pthread_mutex_lock(mutex)
library.pthread_mutex_lock(mutex)
""",
  'lock': 'lock = threading.Lock(); lock.acquire(); lock.acquire()',
  # A library that takes every exception for its own.
  'exceptions': """
while True:
  try:
    while True: time.sleep(0.01)
  except BaseException: pass
""",
}


@pytest.mark.parametrize(
  ('long_call', 'number', 'code', 'told'),
  [
    ('loop', 'SIGTERM', 75, 'stopped by SIGTERM'),
    ('loop', 'SIGUSR1', 75, 'stopped by SIGUSR1'),
    ('library', 'SIGINT', 130, 'interrupted'),
    ('lock', 'SIGINT', 130, 'interrupted'),
    ('exceptions', 'SIGTERM', 75, 'stopped by SIGTERM'),
  ],
)
def test_a_long_call_is_ended(long_call, number, code, told):
  process = _run(f'send(signal.{number}, 0.2)\n{_LONG_CALLS[long_call]}')
  assert process.returncode == code
  remedy = 'run the same command again to continue'
  assert process.stderr == f'bam_jax: {told}; {remedy}\n'


def test_what_is_held_is_not_ended():
  process = _run(
    """
send(signal.SIGTERM)
try:
  with preemption_signal.defer_exit():
    time.sleep(1.5)
    print('held', flush=True)
except preemption.Preempted:
  time.sleep(1.0)  # What ends in order may take its time.
  print('raised', flush=True)
os._exit(7)
"""
  )
  assert (process.returncode, process.stdout) == (7, 'held\nraised\n')


def test_what_is_to_be_done_last_is_done():
  process = _run(
    """
def fail():
  raise errors.UserError('the store is gone')
with preemption_signal.before_exit(lambda: print('outer', flush=True)):
  with preemption_signal.before_exit(fail):
    with preemption_signal.before_exit(lambda: print('inner', flush=True)):
      send(signal.SIGTERM)
      time.sleep(30)
"""
  )
  assert process.stdout == 'inner\nouter\n'
  assert process.returncode == 2
  assert process.stderr == 'bam_jax: the store is gone\n'


def test_without_a_signal_a_process_is_not_ended():
  process = _run('time.sleep(1)\nprint("whole")')
  assert (process.returncode, process.stdout) == (0, 'whole\n')
