"""Launch scripts: usage, and a dry run that a shell takes apart again."""

from pathlib import Path
import shlex
import subprocess

import pytest

_ROOT = Path(__file__).parent.parent
_SCRIPT = 'launch/tpu_vm.sh'


def _run(*arguments):
  return subprocess.run(
    ['bash', _SCRIPT, *arguments],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=False,
  )


def test_dry_run_names_the_machine_and_quotes_the_flags():
  result = _run(
    '--dry-run', 'my-tpu', 'us-east1-c', 'configs/bam.py', '--config.note=a b'
  )
  assert result.returncode == 0
  copy, start, _ = result.stdout.splitlines()
  assert shlex.split(copy)[:3] == ['+', 'bash', '-c']
  command = shlex.split(start)[-1].removeprefix('--command=')
  # The words after `bam`, the session's name, are one command for tmux.
  words = shlex.split(command)
  inner = shlex.split(words[words.index('bam') + 1])
  assert '--config=configs/bam.py' in inner
  assert '--config.note=a b' in inner
  assert "'.[tpu,tfds,gcs]'" in words[-1]


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('my-tpu',), 'usage: launch/tpu_vm.sh'),
    (('my-tpu', 'zone', 'configs/bm.py'), 'configs/bm.py: no such file'),
  ],
  ids=['too-few', 'no-config'],
)
def test_mistakes_exit_with_2(arguments, message):
  result = _run(*arguments)
  assert result.returncode == 2
  assert message in result.stderr
