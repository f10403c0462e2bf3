"""Single bits of a finished plan flipped, one of each kind of file."""

from pathlib import Path
import subprocess
import sys

import pytest

_ROOT = Path(__file__).parent.parent


@pytest.mark.fault
def test_a_flipped_bit_is_found_or_harmless(tmp_path):
  """It exits with 1 where a flip changed a result or ended in a traceback.

  In a process of its own: from a checkpoint that it refuses Orbax leaves reads
  behind, which end after their event loop.
  """
  workdir = tmp_path / 'work'
  ended = subprocess.run(
    [
      *(sys.executable, '-m', 'benchmarks.bit_flips'),
      *(f'--workdir={workdir}', '--flips=6', '--seed=1'),
    ],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert ended.returncode == 0, ended.stdout + ended.stderr
  assert ended.stdout.count(': bit ') == 6
