"""The processes of one command, and whether their plan is that of another.

Real processes over loopback, their CPU devices talking through gloo.
"""

from collections.abc import Mapping, Sequence
import json
import os
from pathlib import Path
import time

import numpy as np

from tests import starting

RUN = 'multi-s0'


def latest(workdir: Path) -> int:
  """The step of a run's latest checkpoint."""
  saved = (workdir / 'runs' / RUN / 'checkpoints').glob('step_*')
  numbers = [path.name.removeprefix('step_') for path in saved]
  return max((int(n) for n in numbers if n.isdecimal()), default=0)


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
    self._workdir = workdir
    environment = os.environ | {
      'JAX_NUM_CPU_DEVICES': str(devices),
      'PYTHONPATH': str(starting.ROOT),
    }
    hooks = workdir.with_name(f'{workdir.name}-hooks')
    hooks.mkdir(exist_ok=True)
    (hooks / 'sitecustomize.py').write_text(hook)
    last = environment | {'PYTHONPATH': f'{hooks}:{starting.ROOT}'}
    self.processes = starting.start(
      f'tests/configs/{config}.py',
      workdir,
      [environment] * (number - 1) + [last],
      *flags,
      of=of,
    )

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    starting.kill(self.processes)

  def log(self, number: int) -> str:
    return starting.log(self._workdir, number).read_text()

  def ends(self, timeout: float = 300) -> list[int]:
    """The statuses of all."""
    end = time.monotonic() + timeout
    return [p.wait(max(end - time.monotonic(), 0.1)) for p in self.processes]

  def finish(self) -> None:
    statuses = self.ends()
    logs = ''.join(map(self.log, range(len(statuses))))
    assert statuses == [0] * len(statuses), logs

  def wait_for(self, workdir: Path, step: int) -> None:
    """Until a run has the checkpoint of a step, or a later one."""
    while latest(workdir) < step:
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


def assert_same_plan(workdir: Path, expected: Path, rtol: float) -> None:
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
