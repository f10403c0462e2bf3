"""A plan in several processes; the oracle is the same plan in one.

Real processes over loopback, their CPU devices talking through gloo.
"""

from collections.abc import Mapping, Sequence
import json
import os
from pathlib import Path
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from bam_jax import config as config_lib
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import train
from tests.configs import kinds
from tests.kinds import rows as rows_lib

_ROOT = Path(__file__).parents[2]
_TEACHER = 'single-s0-demo_sentiment'
_STUDENT = 'single_to_multi-s0'
_UNSAVED = '--config.train.checkpoint_every=0'
_SHORT = (
  "--config.variants=('single_to_multi',)",
  '--config.single.max_steps=4',
  '--config.multi.max_steps=4',
  '--config.train.log_every=1',
  _UNSAVED,
)


class Several:
  """The processes of one command."""

  def __init__(
    self,
    workdir: Path,
    number: int,
    devices: int,
    *flags: str,
    of: Mapping[int, Sequence[str]] | None = None,
    config: str = 'tiny',
    hook: str = '',
  ):
    """Starts them.

    Args:
      workdir: of all.
      number: of processes.
      devices: of each.
      *flags: of all.
      of: process -> flags of it alone.
      config: a file of `tests/configs`.
      hook: Python that the last process runs when it starts.
    """
    with socket.socket() as s:
      s.bind(('localhost', 0))
      address = f'localhost:{s.getsockname()[1]}'
    environment = os.environ | {
      'JAX_NUM_CPU_DEVICES': str(devices),
      'PYTHONPATH': str(_ROOT),
    }
    self._logs = [
      workdir.with_name(f'{workdir.name}-{i}.log') for i in range(number)
    ]
    self.processes = []
    hooks = workdir.with_name(f'{workdir.name}-hooks')
    hooks.mkdir(exist_ok=True)
    (hooks / 'sitecustomize.py').write_text(hook)
    for i, log in enumerate(self._logs):
      if i == number - 1:
        environment['PYTHONPATH'] = f'{hooks}:{_ROOT}'
      join = (
        f'--coordinator={address}',
        f'--num_processes={number}',
        f'--process_id={i}',
      )
      with log.open('w') as file:
        self.processes.append(
          subprocess.Popen(
            [
              sys.executable,
              '-m',
              'bam_jax.main',
              f'--config={_ROOT}/tests/configs/{config}.py',
              f'--workdir={workdir}',
              *(join if number > 1 else ()),
              *flags,
              *(of or {}).get(i, ()),
            ],
            cwd=workdir.parent,
            env=environment,
            stdout=file,
            stderr=file,
          )
        )

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    for process in self.processes:
      process.kill()
      process.wait()

  def log(self, number: int) -> str:
    return self._logs[number].read_text()

  def ends(self, timeout: float = 300) -> list[int]:
    """The statuses of all."""
    end = time.monotonic() + timeout
    return [p.wait(max(end - time.monotonic(), 0.1)) for p in self.processes]

  def finish(self) -> None:
    statuses = self.ends()
    logs = ''.join(path.read_text() for path in self._logs)
    assert statuses == [0] * len(statuses), logs

  def wait_for(self, workdir: Path, step: int) -> None:
    """Until a run has the checkpoint of a step, or a later one."""
    while _latest(workdir) < step:
      assert all(p.poll() is None for p in self.processes), self.log(0)
      time.sleep(0.01)


def _losses(workdir: Path, run: str) -> dict[tuple[int, str], float]:
  """(step, name) -> loss, of every line of a run's log."""
  lines = (workdir / 'runs' / run / 'metrics.jsonl').read_text().splitlines()
  return {
    (line['step'], key): value
    for line in map(json.loads, lines)
    for key, value in line.items()
    if key.startswith(('loss', 'examples/'))
  }


def _assert_same_plan(workdir: Path, expected: Path, rtol: float) -> None:
  runs = sorted(path.name for path in (expected / 'runs').iterdir())
  assert runs == sorted(path.name for path in (workdir / 'runs').iterdir())
  for run in runs:
    ours, theirs = _losses(workdir, run), _losses(expected, run)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
      np.testing.assert_allclose(ours[key], value, rtol=rtol, err_msg=str(key))
    _assert_same_rows(workdir / 'runs' / run, expected / 'runs' / run)


def _assert_same_rows(run: Path, expected: Path) -> None:
  """Every uid of the dev splits once, in the same order, with its outputs."""
  ours, theirs = (np.load(path / 'outputs.npz') for path in (run, expected))
  assert set(ours) == set(theirs)
  for key in theirs:
    if key.endswith('/uid'):
      assert len(set(ours[key])) == len(ours[key])
    if key.endswith(('/logits', '/confidence')):
      np.testing.assert_allclose(ours[key], theirs[key], rtol=0, atol=1e-5)
    else:
      np.testing.assert_array_equal(ours[key], theirs[key])


def test_two_processes_train_as_one(tmp_path):
  """Teachers, their logits, a student of all kinds: 2 x 4 devices as 8."""
  rows_lib.write(tmp_path)
  flags = (
    *_SHORT,
    f'--config.data.dir={tmp_path}',
    '--config.model.num_layers=1',
  )
  with Several(tmp_path / 'two', 2, 4, *flags, config='kinds') as two:
    config = kinds.get_config()
    config.update_from_flattened_dict({
      'data.dir': str(tmp_path),
      'model.num_layers': 1,
      'variants': ('single_to_multi',),
      'single.max_steps': 4,
      'multi.max_steps': 4,
      'train.log_every': 1,
      'train.checkpoint_every': 0,
    })  # fmt: skip
    train.run(
      plan_lib.make_plan(config_lib.from_config_dict(config), tmp_path / 'one')
    )
    two.finish()
  _assert_same_plan(tmp_path / 'two', tmp_path / 'one', rtol=1e-6)
  record = json.loads(
    (tmp_path / 'two' / 'runs' / _STUDENT / 'DONE').read_text()
  )
  assert record['device'].startswith('8 x')
  assert set(record['scores']) == set(config.tasks)
  for task in config.tasks:
    alone, shared = (
      json.loads((tmp_path / name / 'baselines' / task / 'DONE').read_text())
      for name in ('one', 'two')
    )
    assert shared['about'] == alone['about']
    assert shared['scores']['majority'] == alone['scores']['majority']
  assert (tmp_path / 'two' / 'report.html').exists()
  assert not (tmp_path / 'two' / 'LOCK').exists()
  assert not list((tmp_path / 'two').glob('.seen*'))


_LONG = (
  "--config.variants=('multi',)",
  '--config.multi.max_steps=40',
  '--config.train.checkpoint_every=2',
  '--config.train.log_every=1',
)
_RUN = 'multi-s0'


def _latest(workdir: Path) -> int:
  """The step of a run's latest checkpoint."""
  saved = (workdir / 'runs' / _RUN / 'checkpoints').glob('step_*')
  numbers = [path.name.removeprefix('step_') for path in saved]
  return max((int(n) for n in numbers if n.isdecimal()), default=0)


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory) -> Path:
  workdir = tmp_path_factory.mktemp('undisturbed') / 'work'
  with Several(workdir, 1, 8, *_LONG, _UNSAVED) as one:
    one.finish()
  return workdir


@pytest.mark.fault
def test_four_processes_train_as_one(tmp_path, undisturbed):
  """40 steps of 4 x 2 devices as 8."""
  workdir = tmp_path / 'four'
  with Several(workdir, 4, 2, *_LONG, _UNSAVED) as four:
    four.finish()
  _assert_same_plan(workdir, undisturbed, rtol=1e-6)


def _stop(workdir, number, devices, after, told, preemption_signal) -> None:
  """Tells one process to stop after a step; all of them must."""
  with Several(workdir, number, devices, *_LONG) as several:
    several.wait_for(workdir, after)
    several.processes[told].send_signal(preemption_signal)
    assert several.ends() == [75] * number, several.log(0)
    for i in range(number):
      assert several.log(i).splitlines()[-1] == (
        'bam_jax: stopped by SIGTERM; run the same command again to continue'
      )
  lines = (workdir / 'runs' / _RUN / 'metrics.jsonl').read_text()
  last = json.loads(lines.splitlines()[-1])['step']
  assert after <= last + 1 == _latest(workdir) < 40


@pytest.mark.fault
def test_stopped_and_gone_on_with_on_other_devices(undisturbed, tmp_path):
  """8 devices, then 4, then 8 again, each time in other processes."""
  workdir = tmp_path / 'work'
  _stop(workdir, 2, 4, 2, 1, signal.SIGTERM)
  _stop(workdir, 2, 2, _latest(workdir) + 2, 0, signal.SIGUSR1)
  with Several(workdir, 4, 2, *_LONG, _UNSAVED) as four:
    four.finish()
  _assert_same_plan(workdir, undisturbed, rtol=1e-5)


@pytest.mark.fault
@pytest.mark.parametrize('told', [0, 1], ids=['coordinator', 'other'])
@pytest.mark.parametrize('seconds', [1.5, 2.5, 3.5])
def test_stopped_while_the_processes_meet(tmp_path, told, seconds):
  """A signal to one of them stops both, or leaves the other one waiting."""
  with Several(tmp_path / 'work', 2, 2, *_LONG) as two:
    time.sleep(seconds)
    two.processes[told].send_signal(signal.SIGTERM)
    assert two.processes[told].wait(60) == 75, two.log(told)
    other = two.processes[1 - told]
    try:
      other.wait(15)
    except subprocess.TimeoutExpired:
      # It waits for a process that had not joined yet; a launcher stops it.
      assert '--join_seconds' in two.log(1 - told).splitlines()[-1]
      other.send_signal(signal.SIGTERM)
    assert other.wait(60) == 75, two.log(1 - told)


@pytest.mark.fault
@pytest.mark.parametrize('victim', [0, 1], ids=['coordinator', 'other'])
def test_a_dead_process_ends_the_others(tmp_path, victim):
  """Within a minute, or at once where a program on the devices tells so."""
  workdir = tmp_path / 'work'
  with Several(workdir, 2, 2, *_LONG) as two:
    two.wait_for(workdir, 4)
    two.processes[victim].kill()
    start = time.monotonic()
    status = two.processes[1 - victim].wait(120)
    print(f'ended {time.monotonic() - start:.1f} s later')
    told = two.log(1 - victim)
    if victim == 0:  # JAX aborts where its coordinator is gone.
      assert status == -signal.SIGABRT
      assert 'This most likely indicates that another task died' in told
    else:
      lines = re.findall('^bam_jax: .*', told, re.MULTILINE)
      assert len(lines) == 1 and re.fullmatch(
        r'bam_jax: (another process of the run is gone \(.*\)|process 1 has'
        ' sent no heartbeat for 6[0-9] s); run the same command again in all'
        ' processes',
        lines[0],
      )
      assert status == 75
  with Several(workdir, 2, 2, *_LONG, _UNSAVED) as two:
    two.finish()


# Every program that the steps and the state are made of takes 35 s to compile,
# where the devices of CPUs wait for each other for 30 s.
_SLOW = """
import time
from jax._src import compiler
compile_or_get_cached = compiler.compile_or_get_cached
def slow(backend, computation, *arguments, **named):
  if 'counted' in str(computation.operation.attributes['sym_name']):
    time.sleep(35)
  return compile_or_get_cached(backend, computation, *arguments, **named)
compiler.compile_or_get_cached = slow
"""
_BROKEN = """
from bam_jax.training import step_log
def add(*unused):
  raise RuntimeError('a bug')
step_log.StepLog.add = add
"""
_OTHER_JAX = """
from importlib import metadata
version = metadata.version
metadata.version = lambda name: '0.1' if name == 'jax' else version(name)
"""


@pytest.mark.fault
def test_a_process_that_compiles_for_long_is_waited_for(tmp_path):
  """As after a restart where the others find their programs in the cache."""
  flags = (*_SHORT[1:], "--config.variants=('multi',)")
  with Several(tmp_path / 'work', 2, 2, *flags, hook=_SLOW) as two:
    two.finish()


@pytest.mark.fault
def test_a_process_with_an_error_of_its_own_ends_the_others(tmp_path):
  """Launchers don't repeat it: the same command would end the same way."""
  with Several(tmp_path / 'work', 2, 2, *_SHORT, hook=_BROKEN) as two:
    assert two.ends(120) == [1, 1]
    assert 'RuntimeError: a bug' in two.log(1)
    told = re.findall('^bam_jax: .*', two.log(0), re.MULTILINE)
    assert told == [
      'bam_jax: process 1 has ended with status 1; its own log shows the reason'
    ]


@pytest.mark.fault
def test_seeds_at_once_and_compiled_programs(tmp_path):
  """A seed on each process; then again, with nothing to compile."""
  flags = (
    "--config.variants=('multi',)",
    *_SHORT[1:],
    '--config.seeds=(0,1)',
    '--config.train.seeds_at_once=2',
  )
  one, two, again = (tmp_path / name for name in ('one', 'two', 'again'))
  with Several(two, 2, 1, *flags) as processes:
    processes.finish()
  with Several(one, 1, 2, *flags) as process:
    process.finish()
  _assert_same_plan(two, one, rtol=1e-6)
  shutil.copytree(two / 'compiled', again / 'compiled')
  with Several(again, 2, 1, *flags) as processes:
    processes.finish()
  _assert_same_plan(again, two, rtol=0)


@pytest.mark.fault
def test_processes_that_do_not_go_together_end_together(tmp_path):
  """Their configurations differ; or they do not share the work directory."""
  workdir = tmp_path / 'work'
  with Several(workdir, 2, 1, of={1: ['--config.multi.max_steps=3']}) as two:
    assert two.ends(60) == [2, 2]
    for number in range(2):
      assert two.log(number).splitlines()[-1] == (
        'bam_jax: config.multi.max_steps differs: 20 in process 0; 3 in process'
        ' 1; start all processes with the same flags, files and code'
      )
  with Several(workdir, 2, 1, hook=_OTHER_JAX) as two:
    assert two.ends(60) == [2, 2]
    assert re.search('jax differs: "[0-9.]+" in process 0; "0.1"', two.log(0))
  with Several(workdir, 2, 1, of={1: [f'--workdir={tmp_path}/other']}) as two:
    assert two.ends(60) == [2, 2]
    assert 'is not shared' in two.log(0)
    assert 'is not shared' in two.log(1)
