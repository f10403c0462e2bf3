"""Launch scripts: lint, usage, mistakes, and dry runs as written down."""

from pathlib import Path
import re
import shlex
import subprocess
import sys

import launching
import pytest

_TRANSCRIPT = Path(__file__).parent / 'golden' / 'dry_runs.txt'
_DRY_RUNS = dict(
  re.findall(
    r'^\$ (.+)\n((?:(?!\$ ).*\n)*)', _TRANSCRIPT.read_text(), re.MULTILINE
  )
)
_RUNNABLE = [path for path in launching.SCRIPTS if path.name != 'common.sh']

_GKE = '--name=bam --accelerator=type'


@pytest.mark.parametrize('path', launching.SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path):
  shellcheck = Path(sys.executable).with_name('shellcheck')
  for command in (
    [shellcheck, '--external-sources', '--source-path=SCRIPTDIR', path],
    ['bash', '-n', path],
  ):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize('path', _RUNNABLE, ids=lambda path: path.name)
def test_usage_names_every_option(path):
  text = path.read_text()
  assert '\nset -euo pipefail\n' in text
  done = launching.run(path.name, '--help')
  assert done.returncode == 0
  assert done.stderr == ''
  assert done.stdout.startswith('usage: ')
  options = set(re.findall(r'^ +(--[a-z-]+)=?\*?\)', text, re.MULTILINE))
  assert '--dry-run' in options
  for option in options - {'--help'}:
    assert re.search(rf'^  {option}\b', done.stdout, re.MULTILINE), option


@pytest.mark.parametrize('command', _DRY_RUNS)
def test_a_dry_run_prints_what_would_run_and_does_nothing(command, tmp_path):
  script, *arguments = shlex.split(command)
  done = launching.run(
    Path(script).name,
    *arguments,
    environment=launching.few_tools(tmp_path) | {'SLURM_ARRAY_TASK_ID': '1'},
  )
  assert done.returncode == 0, done.stderr
  assert done.stderr == ''
  assert done.stdout.replace(str(launching.ROOT), '/ROOT') == _DRY_RUNS[command]
  # Each printed command is one that a shell takes apart again.
  for line in done.stdout.splitlines():
    if line.startswith('+ '):
      assert shlex.join(shlex.split(line[2:]))
  assert not (launching.ROOT / 'a b').exists()


@pytest.mark.parametrize(
  ('command', 'message'),
  [
    ('again.sh', 'COMMAND is missing; see --help'),
    ('again.sh --twice true', '--twice: no such option; see --help'),
    ('gpu.sh', 'CONFIG is missing; see --help'),
    ('gpu.sh configs/bm.py', 'configs/bm.py: no such config; give a file, or'),
    ('gpu.sh bm:paper', 'bm:paper: no such config; give a file, or a name in'),
    ('gpu.sh configs/bm.py:paper', 'configs/bm.py:paper: no such config'),
    ('gpu.sh configs/bam.py', '--workdir is missing'),
    ('gpu.sh --gpu=1 configs/bam.py', '--gpu=1: no such option before CONFIG'),
    ('gpu.sh --workdir=gs://a/b configs/bam.py', 'give a local directory'),
    ('gpu.sh --workdir=w --gpus=0,,1 configs/bam.py', '--gpus=0,,1: give 0 or'),
    ('gpu.sh --workdir=w --python=none configs/bam.py', '--python=none: no s'),
    ('gpu.sh --workdir=w configs/bam.py', 'nvidia-smi lists no GPU; say which'),
    ('slurm.sh --nodes=0 configs/bam.py', '--nodes=0: is not a number from 1'),
    (
      'slurm.sh --nodes=2 --shards=2 --workdir=w configs/bam.py',
      'exclude each',
    ),
    (
      'slurm.sh --workdir=a,b configs/bam.py',
      '--workdir=a,b: give a directory',
    ),
    ('tpu_vm.sh bam', 'NAME and ZONE are missing'),
    ('tpu_vm.sh bam zone configs/bm.py', 'configs/bm.py: no such config'),
    ('tpu_host.sh stop', 'stop: give begin or work'),
    ('tpu_queue.sh bam zone type', 'NAME, ZONE, TYPE and VERSION are needed'),
    (
      'tpu_queue.sh --every=0 b z t v configs/bam.py',
      '--every=0: is not a number',
    ),
    ('gke.sh', 'KIND: give tpu, gpu or shards first'),
    ('gke.sh gpu configs/bam.py', '--name=: needs a name of at most 40'),
    (
      f'gke.sh gpu {_GKE} --image=a;b configs/bam.py',
      '--image=a;b: is no image',
    ),
    (
      f'gke.sh tpu {_GKE} --image=i configs/bam.py',
      '--topology=: give one such',
    ),
    ('slurm_job.sh shard w 2', 'PART, DIR, N and COMMAND are needed'),
    ('slurm_job.sh all w 2 true', 'all: is none of nodes, shard, merge'),
    ('slurm_job.sh shard w 2 true', 'SLURM_ARRAY_TASK_ID is not set'),
  ],
)
def test_a_mistake_ends_with_2_and_one_line(command, message, tmp_path):
  script, *arguments = command.split()
  done = launching.run(
    script, *arguments, environment=launching.few_tools(tmp_path)
  )
  assert done.returncode == 2
  assert done.stdout == ''
  assert re.fullmatch(
    rf'launch/{script}: .*{re.escape(message)}.*\n', done.stderr
  )
