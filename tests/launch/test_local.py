"""Plans that the GPU and Slurm scripts really carry out, on CPUs."""

from pathlib import Path
import signal
import subprocess
import sys
import time

import launching
import pytest

# What Slurm's own do here: the step runs, what is queued again is noted.
_SRUN = """while [[ "$1" == -* ]]; do shift; done
exec "$@"
"""
_SCONTROL = 'printf "%s\\n" "$*" >>"$0.log"\n'


@pytest.fixture
def workdir(tmp_path) -> Path:
  return tmp_path / 'a b'


@pytest.fixture
def slurm(tmp_path) -> Path:
  """A folder with stand-ins for srun and scontrol."""
  directory = tmp_path / 'bin'
  directory.mkdir()
  launching.program(directory, 'srun', _SRUN)
  launching.program(directory, 'scontrol', _SCONTROL)
  return directory


def _check_merged(workdir: Path) -> None:
  """Each shard has run its own seed, and the report is on both."""
  for i in range(2):
    assert launching.finished(workdir / 'shards' / str(i)) == {
      f'single-s{i}-demo_sentiment'
    }
  assert launching.finished(workdir) == launching.RUNS
  header, *rows = (workdir / 'scores.csv').read_text().splitlines()
  place = header.split(',').index('seed')
  assert {row.split(',')[place] for row in rows} == {'0', '1'}


def _wait_for(path: Path, process: subprocess.Popen) -> None:
  while not path.exists():
    assert process.poll() is None, process.communicate()
    time.sleep(0.05)


def _job(
  slurm: Path, part: str, workdir: Path, *command: str, task: int = 0
) -> subprocess.Popen:
  """A job of an array of two, as Slurm would start it."""
  return launching.start(
    'slurm_job.sh',
    part,
    str(workdir),
    '2',
    *command,
    path=slurm,
    environment={
      'SLURM_JOB_ID': str(70 + task),
      'SLURM_ARRAY_JOB_ID': '71',
      'SLURM_ARRAY_TASK_ID': str(task),
    },
  )


@pytest.mark.fault
def test_gpus_share_a_plan_and_merge_it(workdir):
  """With real programs, what `test_what_becomes_of_a_shard` does without."""
  done = launching.run(
    'gpu.sh',
    '--gpus=0,1',
    f'--python={sys.executable}',
    f'--workdir={workdir}',
    *launching.PLAN,
  )
  assert done.returncode == 0, done.stderr
  _check_merged(workdir)


# In the place of Python: notes its GPU and shard, and ends as it is told.
_STAND_IN = """for argument in "$@"; do
  case "${argument}" in
    --workdir=*) workdir=${argument#*=} ;;
    --mode=merge) echo merged; exit 0 ;;
    --config.note=*) note=${argument#*=} ;;
  esac
done
echo "${CUDA_VISIBLE_DEVICES}" >>"${workdir}.gpus"
echo 'the last line'
eval "${note}"
"""


@pytest.mark.parametrize(
  ('note', 'status', 'gpus', 'message'),
  [
    ('exit 0', 0, ['3'], ''),
    ('exit 2', 2, ['3'], 'shard 1 ended with 2: the last line'),
    # Each is given the same command again, once.
    ('[[ $(wc -l <"${workdir}.gpus") == 2 ]] || exit 75', 0, ['3', '3'], ''),
  ],
  ids=['done', 'mistake', 'preempted'],
)
def test_what_becomes_of_a_shard(tmp_path, note, status, gpus, message):
  launching.program(tmp_path, 'stand-in', _STAND_IN)
  done = launching.run(
    'gpu.sh',
    '--gpus=5,3',
    f'--python={tmp_path}/stand-in',
    f'--workdir={tmp_path}/w',
    'configs/demo.py',
    f'--config.note={note}',
  )
  assert done.returncode == status, done.stderr
  assert message in done.stderr
  assert (tmp_path / 'w/shards/1.gpus').read_text().split() == gpus
  assert done.stdout.endswith('merged\n') == (status == 0)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_plan_tells_its_shards_and_ends_with_75(tmp_path, number):
  launching.program(tmp_path, 'stand-in', _STAND_IN)
  process = launching.start(
    'gpu.sh',
    '--gpus=0,1',
    f'--python={tmp_path}/stand-in',
    f'--workdir={tmp_path}/w',
    'configs/demo.py',
    '--config.note=trap "sleep 0.3; touch $workdir.saved; exit 75" TERM;'
    ' touch $workdir.up; for i in {1..400}; do sleep 0.05; done',
  )
  for i in range(2):
    _wait_for(tmp_path / f'w/shards/{i}.up', process)
  process.send_signal(number)
  process.communicate(timeout=20)
  assert process.returncode == 75
  for i in range(2):
    assert (tmp_path / f'w/shards/{i}.saved').exists()
    # Not given again.
    assert (tmp_path / f'w/shards/{i}.gpus').read_text() == f'{i}\n'


@pytest.mark.parametrize('status', [0, 1, 2, 75])
def test_a_slurm_job_is_queued_again_after_75_alone(workdir, slurm, status):
  job = _job(slurm, 'shard', workdir, 'bash', '-c', f'exit {status}', task=1)
  job.communicate(timeout=20)
  assert job.returncode == status
  log = slurm / 'scontrol.log'
  assert log.exists() == (status == 75)
  if status == 75:
    assert log.read_text() == 'requeue 71_1\n'


@pytest.mark.fault
def test_a_slurm_array_told_to_stop_goes_on_and_is_merged(workdir, slurm):
  """Half a minute of programs: asked for by `-m fault`."""
  program = (
    sys.executable,
    '-m',
    'bam_jax.main',
    f'--config={launching.PLAN[0]}',
  )
  shard = (*program, *launching.PLAN[1:])
  first = _job(slurm, 'shard', workdir, *shard)
  _wait_for(workdir / 'shards/0/runs', first)
  # Slurm signals a job's steps, not the script around them: its only child.
  children = Path(f'/proc/{first.pid}/task/{first.pid}/children').read_text()
  subprocess.run(['kill', '-USR1', *children.split()], check=True)
  _, err = first.communicate(timeout=120)
  assert first.returncode == 75, err
  assert (slurm / 'scontrol.log').read_text() == 'requeue 71_0\n'
  for part, task in (('shard', 0), ('shard', 1), ('merge', 0)):
    job = _job(slurm, part, workdir, *shard, task=task)
    _, err = job.communicate(timeout=120)
    assert job.returncode == 0, err
  _check_merged(workdir)
