"""A plan in several processes; the oracle is the same plan in one.

What of it is quick is in `tests/kinds/test_plan.py`.
"""

import json
from pathlib import Path
import re
import shutil
import signal
import subprocess
import time

import pytest

from tests.experiments import several

pytestmark = pytest.mark.fault
_UNSAVED = '--config.train.checkpoint_every=0'
_SHORT = (
  "--config.variants=('single_to_multi',)",
  '--config.single.max_steps=4',
  '--config.multi.max_steps=4',
  '--config.train.log_every=1',
  _UNSAVED,
)
_LONG = (
  "--config.variants=('multi',)",
  '--config.multi.max_steps=40',
  '--config.train.checkpoint_every=2',
  '--config.train.log_every=1',
)


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory) -> Path:
  workdir = tmp_path_factory.mktemp('undisturbed') / 'work'
  with several.Several(workdir, 1, 8, *_LONG, _UNSAVED) as one:
    one.finish()
  return workdir


def test_four_processes_train_as_one(tmp_path, undisturbed):
  """40 steps of 4 x 2 devices as 8."""
  workdir = tmp_path / 'four'
  with several.Several(workdir, 4, 2, *_LONG, _UNSAVED) as four:
    four.finish()
  several.assert_same_plan(workdir, undisturbed, rtol=1e-6)


def _stop(workdir, number, devices, after, told, preemption_signal) -> None:
  """Tells one process to stop after a step; all of them must."""
  with several.Several(workdir, number, devices, *_LONG) as started:
    started.wait_for(workdir, after)
    started.processes[told].send_signal(preemption_signal)
    assert started.ends() == [75] * number, started.log(0)
    for i in range(number):
      assert started.log(i).splitlines()[-1] == (
        'bam_jax: stopped by SIGTERM; run the same command again to continue'
      )
  lines = (workdir / 'runs' / several.RUN / 'metrics.jsonl').read_text()
  last = json.loads(lines.splitlines()[-1])['step']
  assert after <= last + 1 == several.latest(workdir) < 40


def test_stopped_and_gone_on_with_on_other_devices(undisturbed, tmp_path):
  """8 devices, then 4, then 8 again, each time in other processes."""
  workdir = tmp_path / 'work'
  _stop(workdir, 2, 4, 2, 1, signal.SIGTERM)
  _stop(workdir, 2, 2, several.latest(workdir) + 2, 0, signal.SIGUSR1)
  with several.Several(workdir, 4, 2, *_LONG, _UNSAVED) as four:
    four.finish()
  several.assert_same_plan(workdir, undisturbed, rtol=1e-5)


@pytest.mark.parametrize('told', [0, 1], ids=['coordinator', 'other'])
@pytest.mark.parametrize('seconds', [1.5, 2.5, 3.5])
def test_stopped_while_the_processes_meet(tmp_path, told, seconds):
  """A signal to one of them stops both, or leaves the other one waiting."""
  with several.Several(tmp_path / 'work', 2, 2, *_LONG) as two:
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


@pytest.mark.parametrize('victim', [0, 1], ids=['coordinator', 'other'])
def test_a_dead_process_ends_the_others(tmp_path, victim):
  """Within a minute, or at once where a program on the devices tells so."""
  workdir = tmp_path / 'work'
  with several.Several(workdir, 2, 2, *_LONG) as two:
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
  with several.Several(workdir, 2, 2, *_LONG, _UNSAVED) as two:
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


def test_a_process_that_compiles_for_long_is_waited_for(tmp_path):
  """As after a restart where the others find their programs in the cache."""
  flags = (*_SHORT[1:], "--config.variants=('multi',)")
  with several.Several(tmp_path / 'work', 2, 2, *flags, hook=_SLOW) as two:
    two.finish()


def test_a_process_with_an_error_of_its_own_ends_the_others(tmp_path):
  """Launchers don't repeat it: the same command would end the same way."""
  with several.Several(tmp_path / 'work', 2, 2, *_SHORT, hook=_BROKEN) as two:
    assert two.ends(120) == [1, 1]
    assert 'RuntimeError: a bug' in two.log(1)
    told = re.findall('^bam_jax: .*', two.log(0), re.MULTILINE)
    assert told == [
      'bam_jax: process 1 has ended with status 1; its own log shows the reason'
    ]


def test_seeds_at_once_and_compiled_programs(tmp_path):
  """A seed on each process; then again, with nothing to compile."""
  flags = (
    "--config.variants=('multi',)",
    *_SHORT[1:],
    '--config.seeds=(0,1)',
    '--config.train.seeds_at_once=2',
  )
  one, two, again = (tmp_path / name for name in ('one', 'two', 'again'))
  with several.Several(two, 2, 1, *flags) as processes:
    processes.finish()
  with several.Several(one, 1, 2, *flags) as process:
    process.finish()
  several.assert_same_plan(two, one, rtol=1e-6)
  shutil.copytree(two / 'compiled', again / 'compiled')
  with several.Several(again, 2, 1, *flags) as processes:
    processes.finish()
  several.assert_same_plan(again, two, rtol=0)


def test_processes_that_do_not_go_together_end_together(tmp_path):
  """Their configurations differ; or they do not share the work directory."""
  workdir = tmp_path / 'work'
  with several.Several(
    workdir, 2, 1, of={1: ['--config.multi.max_steps=3']}
  ) as two:
    assert two.ends(60) == [2, 2]
    for number in range(2):
      assert two.log(number).splitlines()[-1] == (
        'bam_jax: config.multi.max_steps differs: 20 in process 0; 3 in process'
        ' 1; start all processes with the same flags, files and code'
      )
  with several.Several(workdir, 2, 1, hook=_OTHER_JAX) as two:
    assert two.ends(60) == [2, 2]
    assert re.search('jax differs: "[0-9.]+" in process 0; "0.1"', two.log(0))
  with several.Several(
    workdir, 2, 1, of={1: [f'--workdir={tmp_path}/other']}
  ) as two:
    assert two.ends(60) == [2, 2]
    assert 'is not shared' in two.log(0)
    assert 'is not shared' in two.log(1)
