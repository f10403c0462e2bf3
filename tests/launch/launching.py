"""Launch scripts as processes, and a plan that takes them seconds."""

from collections.abc import Mapping
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / 'launch').glob('*.sh'))
# One single-task run of two steps for each of two seeds.
PLAN = (
  'tests/configs/tiny.py',
  '--config.seeds=(0, 1)',
  "--config.variants=('single',)",
  "--config.tasks=('demo_sentiment',)",
  '--config.model.num_layers=1',
  '--config.single.max_steps=2',
  '--config.single.batch_size=4',
  '--config.packing.row_buckets=(4,)',
)
RUNS = {'single-s0-demo_sentiment', 'single-s1-demo_sentiment'}
# All that a dry run may call; no gcloud, kubectl, sbatch, srun or tmux.
_TOOLS = ('bash', 'cat', 'dirname', 'env', 'git', 'python', 'python3')


def start(
  script: str,
  *arguments: str,
  environment: Mapping[str, str] | None = None,
  path: Path | None = None,
) -> subprocess.Popen:
  """Starts a script from the root, as a user does.

  Args:
    script: its name in launch/.
    *arguments: its own.
    environment: variables beside those of this process.
    path: a folder whose programs come before those of this machine.

  Returns:
    The process; its output is text.
  """
  if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Such is a shell's background, and its children could trap no SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
  variables = dict(os.environ)
  if path is not None:
    variables['PATH'] = f'{path}{os.pathsep}{variables["PATH"]}'
  return subprocess.Popen(
    [ROOT / 'launch' / script, *arguments],
    cwd=ROOT,
    env=variables | (environment or {}),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def run(
  script: str, *arguments: str, **named: object
) -> subprocess.CompletedProcess[str]:
  """As `start`, to the end."""
  process = start(script, *arguments, **named)
  out, err = process.communicate(timeout=300)
  return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def few_tools(directory: Path) -> dict[str, str]:
  """A PATH with what a dry run needs and nothing that could act."""
  for tool in _TOOLS:
    (directory / tool).symlink_to(shutil.which(tool) or sys.executable)
  return {'PATH': str(directory)}


def program(directory: Path, name: str, text: str) -> None:
  """Makes a shell script that stands in for a machine's own program."""
  path = directory / name
  path.write_text(f'#!/usr/bin/env bash\n{text}')
  path.chmod(0o755)


def finished(workdir: Path) -> set[str]:
  """Names of the runs that a work directory has finished."""
  return {path.parent.name for path in workdir.glob('runs/*/DONE')}
