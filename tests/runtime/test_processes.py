"""Agreement between real processes, over loopback; the flags of a start."""

import os
from pathlib import Path
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from bam_jax import errors
from bam_jax.runtime import joining
from bam_jax.runtime import peers
from bam_jax.runtime import preemption
from bam_jax.runtime import processes
from bam_jax.training import compilation
from tests import starting


def _ask(function, *arguments) -> str:
  """What a function returns, or says is wrong, as text."""
  try:
    return repr(function(*arguments))
  except (errors.UserError, errors.RetryError) as e:
    return f'{type(e).__name__}: {e}'
  except OSError as e:
    return f'OSError: {e}'


def _fail(message: str, kind: type[Exception] = errors.UserError) -> None:
  raise kind(message)


def _seconds_to_run(seconds: float) -> float:
  """Until a program has run that takes some time to compile here."""

  def double(x: jax.Array) -> jax.Array:
    time.sleep(seconds)
    return 2 * x

  began = time.monotonic()
  # It uses devices of this process alone: only `synchronized` waits.
  compilation.synchronized(jax.jit(double))(np.float32(1)).block_until_ready()
  return time.monotonic() - began


def _fail_by_disk() -> None:
  raise OSError(28, 'No space left on device', 'a')


def _process(address: str, me: int, directory: Path) -> None:
  """One of two processes: prints what it sees."""
  joining.join(address, 2, me, 60, preemption.Signal())
  on_first, on_all = processes.run_on_first, processes.run_on_all
  facts = {'alike': 1, '--mode': ['run', 'report'][me]}
  same = _ask(joining.check_same, facts, me, 60)

  @processes.runs_on_first
  def pair(value: int) -> list[int]:
    return [me, on_first(lambda: value)]

  def told(case: str, function, *arguments) -> None:
    print(f'{case}: {_ask(function, *arguments)}', flush=True)

  told('same', lambda: same)
  told('is_first', processes.is_first)
  told('first', on_first, lambda: [me, None, 'ü' * 1000])
  told('decorated', pair, 7)
  told('first fails', on_first, lambda: _fail(f'é {me}'))
  told('first has no disk', on_first, _fail_by_disk)
  told('second has no disk', on_all, lambda: me and _fail_by_disk())
  told('retry', on_first, lambda: _fail('gone', errors.RetryError))
  told('second retries', on_all, lambda: me and _fail('r', errors.RetryError))
  told('meet', lambda: _seconds_to_run(3 * me) > 2)
  told('on all', on_all, lambda: me)
  told('second fails', on_all, lambda: me and _fail('mine'))
  told(
    'made', processes.make_on_first, lambda: f'made by {me}', lambda: 'found'
  )
  told('none', processes.make_on_first, lambda: None, lambda: 'found')
  told('alike', joining.check_same, {'config': 'same'}, me, 60)
  told('differ', joining.check_same, {'config': str(me)}, me, 60)
  client = ocp.multihost.get_jax_distributed_client()
  kept = len(client.key_value_dir_get('bam_jax/gathered/'))
  # What comes next is not counted.
  client.wait_at_barrier('kept', 60_000)
  told('kept', lambda: kept)
  directory.mkdir(exist_ok=True)
  told('shared', processes.check_shared, directory)
  own = directory / str(me)
  own.mkdir()
  told('own', processes.check_shared, own)
  peers.leave(3)
  sys.exit(3)


def test_two_processes_agree(tmp_path):
  address = starting.free_address()
  started = [
    subprocess.Popen(
      [sys.executable, __file__, address, str(me), str(tmp_path / 'work')],
      env=os.environ | {'PYTHONPATH': str(starting.ROOT)},
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
  unshared = 'is not shared: other processes do not see files of process 0; ch'
  full = "[Errno 28] No space left on device: 'a'"
  expected = {
    'is_first': ('True', 'False'),
    'first': (repr([0, None, 'ü' * 1000]),) * 2,
    'decorated': ('[0, 7]', '[0, 7]'),
    'first fails': ('UserError: é 0', 'UserError: é 0'),
    # Whose disk it is raises what it met, to be told as its own.
    'first has no disk': (f'OSError: {full}', f'UserError: {full}'),
    'second has no disk': (f'UserError: process 1: {full}', f'OSError: {full}'),
    'retry': ('RetryError: gone',) * 2,
    'second retries': ('RetryError: process 1: r', 'RetryError: r'),
    'meet': ('True', 'True'),
    'on all': ('0', '1'),
    'second fails': ('UserError: process 1: mine', 'UserError: mine'),
    'made': ("'made by 0'", "'found'"),
    'none': ('None', 'None'),
    'alike': ('None', 'None'),
    # The last two exchanges of both: older ones are deleted.
    'kept': ('4', '4'),
    'shared': ('None', 'None'),
  }
  for case, values in expected.items():
    assert (told[0][case], told[1][case]) == values, case
  for each in told:
    assert each['same'] == repr(
      'UserError: --mode differs: "run" in process 0; "report" in process 1;'
      ' start all processes with the same flags, files and code'
    )
    assert 'config differs: "0" in process 0; "1" in process' in each['differ']
  assert told[0]['own'].startswith(
    f'UserError: process 1: {work}/1: {unshared}'
  )
  assert told[1]['own'].startswith(f'UserError: {work}/1: {unshared}')
  assert sorted(path.name for path in work.rglob('*')) == ['0', '1']


def test_the_digest_of_the_code_tells_any_change(tmp_path):
  def digest(**files: str) -> str:
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    for name, text in files.items():
      path = folder / name.replace('__', '/')
      path.parent.mkdir(parents=True, exist_ok=True)
      path.with_suffix('.py').write_text(text)
    (folder / 'cached.pyc').write_text(str(folder))
    return joining.source_digest(folder)

  same = {'a': 'x = 1', 'b__c': ''}
  assert digest(**same) == digest(**same)
  others = [{**same, 'a': 'x = 2'}, {'a': 'x = 1', 'b__d': ''}, {'a': 'x = 1'}]
  digests = [digest(**each) for each in [same, *others]]
  assert len(set(digests)) == len(digests)


def test_one_process_asks_nobody(tmp_path):
  assert processes.run_on_first(lambda: {1, 2}) == {1, 2}
  assert processes.make_on_first(lambda: 'made', lambda: 'found') == 'made'
  assert processes.make_on_first(lambda: None, lambda: 'found') is None
  assert processes.is_first() and not processes.is_multi_process()
  with pytest.raises(errors.UserError, match='mine'):
    processes.run_on_all(lambda: _fail('mine'))


if __name__ == '__main__':
  _process(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
