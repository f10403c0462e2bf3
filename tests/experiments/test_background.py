"""Other processes: what they raise, and how they end."""

import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest

from bam_jax import errors
from bam_jax.experiments import background as background_lib


def _write_pid(path: Path) -> None:
  path.write_text(str(os.getpid()))


def _fail(where: str) -> None:
  raise errors.UserError(f'{where}: is full; free some space')


def _wait_for(path: Path) -> int:
  """The number that is written to a file, some time."""
  for _ in range(600):
    if path.exists() and path.read_text():
      return int(path.read_text())
    time.sleep(0.05)
  raise AssertionError(f'{path} never came')


def test_calls_are_made_elsewhere(tmp_path):
  with background_lib.Background() as background:
    background.call(_write_pid, tmp_path / 'pid')
    background.wait()
    assert int((tmp_path / 'pid').read_text()) != os.getpid()


def test_what_a_call_raises_comes_out_at_the_end():
  with (
    pytest.raises(errors.UserError, match='here: is full; free some space'),
    background_lib.Background() as background,
  ):
    background.call(_fail, 'here')


def test_a_notice_to_all_processes_breaks_off_no_call(tmp_path):
  with background_lib.Background() as background:
    background.call(_write_pid, tmp_path / 'first')
    os.kill(_wait_for(tmp_path / 'first'), signal.SIGTERM)
    background.call(_write_pid, tmp_path / 'second')
  assert (tmp_path / 'second').exists()


def test_a_killed_process_is_told_of(tmp_path):
  with (
    pytest.raises(errors.RetryError, match='process that writes results was'),
    background_lib.Background() as background,
  ):
    background.call(_write_pid, tmp_path / 'pid')
    os.kill(_wait_for(tmp_path / 'pid'), signal.SIGKILL)
    background.call(_write_pid, tmp_path / 'other')


def test_processes_end_with_their_parent(tmp_path):
  script = tmp_path / 'parent.py'
  script.write_text(
    'import os, pathlib, sys, time\n'
    'from bam_jax.experiments import background\n'
    'from tests.experiments import test_background\n'
    "if __name__ == '__main__':\n"
    '  with background.Background() as it:\n'
    '    it.call(test_background._write_pid, pathlib.Path(sys.argv[1]))\n'
    '    it.wait()\n'
    '    time.sleep(600)\n'
  )
  root = Path(__file__).parents[2]
  parent = subprocess.Popen(
    [sys.executable, str(script), str(tmp_path / 'pid')],
    env={**os.environ, 'PYTHONPATH': str(root)},
  )
  child = _wait_for(tmp_path / 'pid')
  parent.kill()
  parent.wait()
  for _ in range(200):
    stat = Path(f'/proc/{child}/stat')
    # Z: it has ended, and whoever is to collect it has not.
    if (
      not stat.exists() or stat.read_text().rpartition(')')[2].split()[0] == 'Z'
    ):
      return
    time.sleep(0.05)
  raise AssertionError(f'{child} lives on')
