"""Stops a plan at random moments, many times over; it must end bit-equal.

  python -m benchmarks.stops --terms=200 --kills=50 --jobs=8

A plan with evaluations and checkpoints on the way is begun, gets SIGTERM or
SIGKILL at a random moment, and the same command is given again, until it is
finished; then the next plan is begun, until all signals have been sent. Each
exit code must be right. Each plan must end with the parameters, scores,
outputs, teachers' logits, logs (without their times) and report of a plan that
was not disturbed.

Of several processes one gets the signal. Before they have met, a stop is sent
to the others too, as a launcher does, since they would wait for that one.
"""

import argparse
from collections.abc import Iterator, Sequence
from concurrent import futures
import contextlib
import dataclasses
import json
import os
from pathlib import Path
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np

_ROOT = Path(__file__).parents[1]
_CONFIG = _ROOT / 'benchmarks' / 'configs' / 'stops.py'
# Seconds in which processes must have ended after a signal. One that has lost
# another hears of it within a minute, or 100 s where JAX tells it.
_PATIENCE = 150.0
# Seconds after which the others get the stop that one has followed alone.
_ALONE = 20.0
# Seconds for a plan without a signal.
_PLAN = 1800.0
_TERM, _KILL = 'SIGTERM', 'SIGKILL'
# What two equal plans may differ in: times, and counts and digests that depend
# on threads or on times.
_VOLATILE = frozenset({
    'time', 'seconds', 'examples_per_second', 'waiting_for_batch',
    'compilations', 'digest',
})  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Stop:
  """A signal that was sent, and its outcome.

  Attributes:
    signal: its name.
    processes: how many there were.
    listened: whether the process that got it listened for it already, as it
      does from a tenth of a second after its start.
    after: seconds after the start of the processes.
    took: seconds until all of them had ended.
    finished: runs that were finished then.
    begun: the run that was begun last, if any is unfinished.
    step: the latest checkpoint of that run.
    codes: exit codes, that of the process that got it first.
    right: whether they are as documented.
  """

  signal: str
  processes: int
  listened: bool
  after: float
  took: float
  finished: int
  begun: str
  step: int | None
  codes: tuple[int, ...]
  right: bool


@dataclasses.dataclass(frozen=True)
class Plan:
  """A plan that was stopped, and finished.

  Attributes:
    processes: that carried it out.
    stops: what it met.
    code: exit code of the command that nothing disturbed any more.
    differences: files that differ from those of an undisturbed plan.
  """

  processes: int
  stops: tuple[Stop, ...]
  code: int
  differences: tuple[str, ...]

  @property
  def right(self) -> bool:
    stops_right = all(stop.right for stop in self.stops)
    return stops_right and self.code == 0 and not self.differences


class Command:
  """The processes of one command, as a context manager that ends them."""

  def __init__(self, workdir: Path, processes: int, config: Path):
    workdir.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
      'JAX_PLATFORMS': 'cpu',
      'JAX_NUM_CPU_DEVICES': '1',
      # They compile much and compute little.
      'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
      'PYTHONPATH': str(_ROOT),
    }
    environment.pop('XLA_FLAGS', None)
    address = f'127.0.0.1:{_free_port()}'
    self.processes = []
    self._log = workdir.with_name(f'{workdir.name}.log')
    for index in range(processes):
      join = (
        f'--coordinator={address}',
        f'--num_processes={processes}',
        f'--process_id={index}',
      )
      with self._log.open('a') as log:
        self.processes.append(
          subprocess.Popen(
            [
              *(sys.executable, '-m', 'bam_jax.main'),
              f'--config={config}',
              f'--workdir={workdir}',
              *(join if processes > 1 else ()),
            ],
            cwd=_ROOT,
            env=environment,
            stdout=log,
            stderr=log,
          )
        )

  def __enter__(self) -> 'Command':
    return self

  def __exit__(self, *unused_exception: object) -> None:
    for process in self.processes:
      process.kill()
      process.wait()

  @property
  def codes(self) -> list[int | None]:
    return [process.poll() for process in self.processes]

  def has_ended(self) -> bool:
    return None not in self.codes

  def wait(self, seconds: float) -> bool:
    """Whether all of them have ended within some seconds."""
    end = time.monotonic() + seconds
    while not self.has_ended() and time.monotonic() < end:
      time.sleep(0.01)
    return self.has_ended()

  def log(self) -> str:
    return self._log.read_text(errors='replace')


def _free_port() -> int:
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    return s.getsockname()[1]


def _listens(pid: int) -> bool:
  """Whether a process has a handler for SIGTERM."""
  try:
    status = Path(f'/proc/{pid}/status').read_text()
  except OSError:
    return True  # It has ended.
  caught = status.partition('SigCgt:')[2].split()
  return not caught or bool(int(caught[0], 16) >> signal.SIGTERM - 1 & 1)


def _is_right(
  name: str, victim: int, listened: bool, codes: Sequence[int | None]
) -> bool:
  """Whether exit codes are those of docs/reliability.md."""
  if None in codes:
    return False
  if set(codes) == {0}:
    return True  # The signal came when all was done.
  own, others = codes[victim], [*codes[:victim], *codes[victim + 1 :]]
  if name == _TERM:
    expected = 75 if listened else -signal.SIGTERM
    return own == expected and set(others) <= {75, -signal.SIGTERM}
  # JAX aborts the others at once where process 0 is gone.
  gone = {1, 75, -signal.SIGABRT} if victim == 0 else {1, 75}
  return own == -signal.SIGKILL and set(others) <= gone


class Campaign:
  """Stops plans at random; each worker runs one plan after the other."""

  def __init__(
    self,
    directory: Path,
    config: Path,
    processes: int,
    seed: int,
    deadline: float,
  ):
    """Runs nothing yet.

    Args:
      directory: for the work directories.
      config: of the plan.
      processes: that carry out each plan.
      seed: of the moments, and of who gets a signal.
      deadline: of `time.monotonic`; no plan is begun, and no signal sent, when
        it has come.
    """
    self._directory = directory
    self._config = config
    self._processes = processes
    self._seed = seed
    self._deadline = deadline
    self._undisturbed = directory / f'undisturbed-{processes}'
    self._takes = 0.0

  def prepare(self, jobs: int) -> float:
    """Runs plans undisturbed; returns the seconds that one takes.

    The first compiles. As many more as there will be workers are compared with
    it: they run side by side, so that the seconds are those of a busy machine.
    """
    self._finish(self._undisturbed)

    def again(number: int) -> float:
      workdir = self._fresh(f'again-{self._processes}-{number}')
      started = time.monotonic()
      self._finish(workdir)
      took = time.monotonic() - started
      if found := differences(workdir, self._undisturbed):
        raise ValueError(f'two undisturbed plans differ: {found}')
      shutil.rmtree(workdir)
      return took

    with futures.ThreadPoolExecutor(jobs) as pool:
      self._takes = float(np.mean(list(pool.map(again, range(jobs)))))
    return self._takes

  def stop_plans(self, worker: int, signals: Sequence[str]) -> Iterator[Plan]:
    """Begins, stops and finishes plans until all signals have been sent."""
    rng = np.random.default_rng([self._seed, self._processes, worker])
    left = list(signals)
    number = 0
    while left and time.monotonic() < self._deadline:
      name = f'plan-{self._processes}-{worker}-{number}'
      plan = self._stop_plan(self._fresh(name), left, rng)
      if plan.right:
        shutil.rmtree(self._directory / name)
      yield plan
      number += 1

  def _stop_plan(
    self, workdir: Path, left: list[str], rng: np.random.Generator
  ) -> Plan:
    """Stops and finishes one plan; removes the signals it sends from `left`."""
    stops: list[Stop] = []
    code = None
    while code is None:
      with Command(workdir, self._processes, self._config) as command:
        if left and time.monotonic() < self._deadline:
          if stop := self._stop(command, workdir, left[0], rng):
            left.pop(0)
            stops.append(stop)
            if not stop.right:
              code = next((c for c in stop.codes if c), 0)
          if command.has_ended() and set(command.codes) == {0}:
            code = 0
        else:
          command.wait(_PLAN)
          code = next((c for c in command.codes if c != 0), 0)
          code = -signal.SIGALRM if code is None else code
    return Plan(
      self._processes,
      tuple(stops),
      code,
      differences(workdir, self._undisturbed),
    )

  def _stop(
    self, command: Command, workdir: Path, name: str, rng: np.random.Generator
  ) -> Stop | None:
    """Sends one signal at a random moment; None if all had ended before."""
    started = time.monotonic()
    if rng.random() < 0.5:
      command.wait(rng.uniform(0, self._takes))
    else:
      # Soon after something has come of the start: while runs are trained.
      before = _newest(workdir / 'runs')
      while _newest(workdir / 'runs') == before and not command.wait(0.02):
        pass
      command.wait(rng.uniform(0, self._takes / 8))
    if command.has_ended():
      return None
    victim = int(rng.integers(self._processes))
    process = command.processes[victim]
    listened = _listens(process.pid)
    after = time.monotonic() - started
    process.send_signal(getattr(signal, name))
    sent = time.monotonic()
    if not command.wait(_ALONE if name == _TERM else _PATIENCE):
      if process.poll() is not None:
        for other in command.processes:
          if other.poll() is None:
            other.send_signal(signal.SIGTERM)
      command.wait(_PATIENCE)
    codes = command.codes
    took = time.monotonic() - sent
    finished, begun, step = _state(workdir)
    right = _is_right(name, victim, listened, codes)
    if not right:
      print(
        f'{name} to process {victim} after {after:.1f} s: {codes}\n'
        + '\n'.join(command.log().splitlines()[-15:]),
        file=sys.stderr,
        flush=True,
      )
    codes = (codes[victim], *codes[:victim], *codes[victim + 1 :])
    return Stop(
      name,
      self._processes,
      listened,
      round(after, 2),
      round(took, 2),
      finished,
      begun,
      step,
      tuple(-signal.SIGALRM if code is None else code for code in codes),
      right,
    )

  def _fresh(self, name: str) -> Path:
    """Makes a work directory that holds only the compiled programs."""
    workdir = self._directory / name
    shutil.rmtree(workdir, ignore_errors=True)
    shutil.copytree(self._undisturbed / 'compiled', workdir / 'compiled')
    return workdir

  def _finish(self, workdir: Path) -> None:
    with Command(workdir, self._processes, self._config) as command:
      command.wait(_PLAN)
      if set(command.codes) != {0}:
        raise RuntimeError(
          f'an undisturbed plan ended with {command.codes}:\n{command.log()}'
        )


def _newest(folder: Path) -> float:
  """Returns the time of the latest change below a folder."""
  times = [0.0]
  for path in folder.glob('**/'):
    with contextlib.suppress(OSError):  # It may just have been deleted.
      times.append(path.stat().st_mtime)
  return max(times)


def _state(workdir: Path) -> tuple[int, str, int | None]:
  """Returns `finished`, `begun` and `step` of a `Stop`."""
  runs = workdir.glob('runs/*/config.json')
  left = [path.parent for path in runs if not (path.parent / 'DONE').exists()]
  begun = [path for path in left if (path / 'checkpoints').is_dir()]
  name, step = '', None
  if begun:
    run = max(begun, key=lambda path: (path / 'checkpoints').stat().st_mtime)
    name = run.name
    saved = [path.name for path in (run / 'checkpoints').glob('step_*')]
    numbers = [s.removeprefix('step_') for s in saved]
    step = max((int(n) for n in numbers if n.isdecimal()), default=None)
  return len(list(workdir.glob('runs/*/DONE'))), name, step


def differences(workdir: Path, expected: Path) -> tuple[str, ...]:
  """Lists the files in which two finished work directories differ."""
  found = []
  patterns = (
    'features/**/*',
    'teachers/**/*',
    'runs/*/DONE',
    'runs/*/config.json',
    'runs/*/metrics.jsonl',
    'runs/*/outputs.npz',
    'report.json',
    'scores.csv',
  )
  for pattern in patterns:
    names = {
      str(path.relative_to(root))
      for root in (workdir, expected)
      for path in root.glob(pattern)
      if path.is_file()
    }
    found += [
      name
      for name in sorted(names)
      if _content(workdir / name) != _content(expected / name)
    ]
  return tuple(found)


def _content(path: Path) -> object:
  """Returns what is compared of a file; None if it is missing."""
  if not path.exists():
    return None
  if path.suffix == '.npz':
    with np.load(path) as arrays:
      return {name: arrays[name].tobytes() for name in arrays}
  if path.name == 'DONE':
    return _stable(path.read_text())
  if path.name == 'metrics.jsonl':
    return [_stable(line) for line in path.read_text().splitlines()]
  if path.name == 'report.json':
    report = json.loads(path.read_text())
    return {key: report[key] for key in report if key != 'notes'}
  return path.read_bytes()


def _stable(text: str) -> dict[str, object]:
  """Parses a JSON object without its volatile fields."""
  return {k: v for k, v in json.loads(text).items() if k not in _VOLATILE}


def run(
  directory: Path,
  config: Path,
  processes: int,
  terms: int,
  kills: int,
  seed: int,
  jobs: int,
  seconds: float,
) -> list[Plan]:
  """Stops plans side by side, and reports each on standard output.

  Args:
    directory: for the work directories; those of plans that went wrong stay.
    config: of the plan.
    processes: that carry out each plan.
    terms: SIGTERMs to be sent, in all.
    kills: SIGKILLs.
    seed: of everything that is random.
    jobs: plans that are carried out at the same time.
    seconds: after which no more signals are sent.
  """
  started = time.monotonic()
  campaign = Campaign(directory, config, processes, seed, started + seconds)
  takes = campaign.prepare(jobs)
  print(f'a plan takes {takes:.1f} s beside {jobs - 1} others', flush=True)
  signals = np.array([_TERM] * terms + [_KILL] * kills)
  np.random.default_rng([seed, processes]).shuffle(signals)

  def work(worker: int) -> list[Plan]:
    plans = []
    for plan in campaign.stop_plans(worker, signals[worker::jobs].tolist()):
      plans.append(plan)
      print(
        f'{time.monotonic() - started:5.0f} s: a plan with {len(plan.stops)}'
        f' stops ended {"bit-equal" if plan.right else plan}',
        flush=True,
      )
    return plans

  with futures.ThreadPoolExecutor(jobs) as pool:
    return [plan for plans in pool.map(work, range(jobs)) for plan in plans]


def table(plans: Sequence[Plan]) -> str:
  """Returns Markdown tables of signals and plans, by number of processes."""
  lines = [
    '| processes | signal | sent | ended by it, code right | came when all was'
    ' done | code wrong | until the end, s: median, most |',
    '|--:|---|--:|--:|--:|--:|--:|',
  ]
  stops = [stop for plan in plans for stop in plan.stops]
  for kind in sorted({(s.processes, s.signal) for s in stops}, reverse=True):
    own = [s for s in stops if (s.processes, s.signal) == kind]
    late = sum(s.right and set(s.codes) == {0} for s in own)
    wrong = sum(not s.right for s in own)
    took = [s.took for s in own]
    lines.append(
      f'| {kind[0]} | {kind[1]} | {len(own)} | {len(own) - late - wrong} |'
      f' {late} | {wrong} | {np.median(took):.1f}, {max(took):.1f} |'
    )
  lines += [
    '',
    '| processes | plans | stops of one plan: median, most | ended bit-equal |'
    ' ended otherwise |',
    '|--:|--:|--:|--:|--:|',
  ]
  for number in sorted({plan.processes for plan in plans}):
    own = [plan for plan in plans if plan.processes == number]
    counts = [len(plan.stops) for plan in own]
    good = sum(plan.code == 0 and not plan.differences for plan in own)
    lines.append(
      f'| {number} | {len(own)} | {np.median(counts):.0f}, {max(counts)} |'
      f' {good} | {len(own) - good} |'
    )
  return '\n'.join(lines) + '\n'


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--config', type=Path, default=_CONFIG)
  parser.add_argument('--terms', type=int, default=200)
  parser.add_argument('--kills', type=int, default=50)
  parser.add_argument(
    '--processes', type=int, default=1, help='that carry out each plan'
  )
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument(
    '--jobs', type=int, default=1, help='plans at the same time'
  )
  parser.add_argument(
    '--minutes',
    type=float,
    default=8.0,
    help='after which no more signals are sent; plans are then finished',
  )
  parser.add_argument(
    '--directory',
    type=Path,
    help='for the work directories; default: a temporary one',
  )
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as temporary:
    plans = run(
      args.directory or Path(temporary),
      args.config.absolute(),
      args.processes,
      args.terms,
      args.kills,
      args.seed,
      args.jobs,
      args.minutes * 60,
    )
  print(table(plans))
  sys.exit(not all(plan.right for plan in plans))


if __name__ == '__main__':
  main()
