"""Agreement between real processes, over loopback; the flags of a start."""

import os
from pathlib import Path
import socket
import subprocess
import sys

import pytest

from bam_jax import errors
from bam_jax.training import processes

_ROOT = Path(__file__).parents[2]


def _ask(function, *arguments) -> str:
  """What a function returns, or says is wrong, as text."""
  try:
    return repr(function(*arguments))
  except errors.UserError as e:
    return f'UserError: {e}'
  except OSError as e:
    return f'OSError: {e}'


def _fail(message: str) -> None:
  raise errors.UserError(message)


def _fail_by_disk() -> None:
  raise OSError(28, 'No space left on device', 'a')


def _process(address: str, me: int, directory: Path) -> None:
  """One of two processes: prints what it sees."""
  processes.join(address, 2, me)
  first, together = processes.first, processes.together

  @processes.by_first
  def pair(value: int) -> list[int]:
    return [me, first(lambda: value)]

  def told(case: str, function, *arguments) -> None:
    print(f'{case}: {_ask(function, *arguments)}', flush=True)

  told('is_first', processes.is_first)
  told('first', first, lambda: [me, None, 'ü' * 1000])
  told('by_first', pair, 7)
  told('first fails', first, lambda: _fail(f'é {me}'))
  told('first has no disk', first, _fail_by_disk)
  told('second has no disk', together, lambda: me and _fail_by_disk())
  told('together', together, lambda: me)
  told('second fails', together, lambda: me and _fail('mine'))
  told('found', processes.found, lambda: f'made by {me}', lambda: 'found')
  told('none', processes.found, lambda: None, lambda: 'found')
  told('alike', processes.check_alike, 'config', 'same')
  told('differ', processes.check_alike, 'config', str(me))
  directory.mkdir(exist_ok=True)
  told('shared', processes.check_shared, directory)
  own = directory / str(me)
  own.mkdir()
  told('own', processes.check_shared, own)
  processes.leave(3)


def test_two_processes_agree(tmp_path):
  with socket.socket() as s:
    s.bind(('localhost', 0))
    address = f'localhost:{s.getsockname()[1]}'
  started = [
    subprocess.Popen(
      [sys.executable, __file__, address, str(me), str(tmp_path / 'work')],
      env=os.environ
      | {'PYTHONPATH': str(_ROOT), 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ''},
      stdout=subprocess.PIPE,
      text=True,
    )
    for me in range(2)
  ]
  told = []
  for process in started:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 3, out
    told.append(dict(line.split(': ', 1) for line in out.splitlines()))
  work = tmp_path / 'work'
  unshared = 'is not shared: what process 0 writes there is not seen; choose a'
  full = "[Errno 28] No space left on device: 'a'"
  expected = {
    'is_first': ('True', 'False'),
    'first': (repr([0, None, 'ü' * 1000]),) * 2,
    'by_first': ('[0, 7]', '[0, 7]'),
    'first fails': ('UserError: é 0', 'UserError: é 0'),
    # Whose disk it is raises what it met, to be told as its own.
    'first has no disk': (f'OSError: {full}', f'UserError: {full}'),
    'second has no disk': (f'UserError: process 1: {full}', f'OSError: {full}'),
    'together': ('0', '1'),
    'second fails': ('UserError: process 1: mine', 'UserError: mine'),
    'found': ("'made by 0'", "'found'"),
    'none': ('None', 'None'),
    'alike': ('None', 'None'),
    'shared': ('None', 'None'),
  }
  for case, values in expected.items():
    assert (told[0][case], told[1][case]) == values, case
  differs = 'config: differs from that of process 0; start all processes with'
  assert told[0]['differ'].startswith(f'UserError: process 1: {differs}')
  assert told[1]['differ'].startswith(f'UserError: {differs}')
  assert told[0]['own'].startswith(
    f'UserError: process 1: {work}/1: {unshared}'
  )
  assert told[1]['own'].startswith(f'UserError: {work}/1: {unshared}')
  assert sorted(path.name for path in work.rglob('*')) == ['0', '1']


def test_one_process_asks_nobody(tmp_path):
  assert processes.first(lambda: {1, 2}) == {1, 2}
  assert processes.found(lambda: 'made', lambda: 'found') == 'made'
  assert processes.found(lambda: None, lambda: 'found') is None
  assert processes.is_first() and not processes.several()
  with pytest.raises(errors.UserError, match='mine'):
    processes.together(lambda: _fail('mine'))


if __name__ == '__main__':
  _process(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
