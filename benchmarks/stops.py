"""Stops a plan at random moments, many times over; it must end bit-equal.

  python -m benchmarks.stops --terms=200 --kills=50 --jobs=8 --output=stops

A plan with evaluations and checkpoints on the way is begun, gets SIGTERM or
SIGKILL at a random moment, and the same command is given again, until it is
finished; then the next plan is begun, until all signals have been sent. Each
exit code must be right, and each plan must end as one that was not disturbed:
`benchmarks.faults` says in which files and fields.

Of several processes one gets the signal. Before they have met, a stop is sent
to the others too, as a launcher does, since they would wait for that one.

OUTPUT.json has every signal, OUTPUT.md the table. What OUTPUT.json holds from
earlier calls, with other seeds, is added up.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
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

from benchmarks import faults

_ROOT = Path(__file__).parents[1]
_CONFIG = _ROOT / 'benchmarks' / 'configs' / 'stops.py'
# Seconds in which processes must have ended after a signal. One that has lost
# another hears of it within a minute, or 100 s where JAX tells it.
_PATIENCE = 150.0
# Seconds after which the others get the stop that one has followed alone.
_ALONE = 20.0
# Seconds for a plan without a signal.
_PLAN = 420.0
_TERM, _KILL = 'SIGTERM', 'SIGKILL'


@dataclasses.dataclass(frozen=True)
class Stop:
  """A signal, and what came of it.

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
    seed: of the campaign.
    processes: that carried it out.
    stops: what it met.
    code: exit code of the command that nothing disturbed any more.
    differences: files that differ from those of an undisturbed plan.
  """

  seed: int
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
  """Whether exit codes are as docs/reliability.md has them."""
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
  """Plans that are stopped at random, each worker's one after the other."""

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
      if found := faults.differences(workdir, self._undisturbed):
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
    """One plan; takes the signals that it sends off `left`."""
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
      self._seed,
      self._processes,
      tuple(stops),
      code,
      faults.differences(workdir, self._undisturbed),
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
    finished, begun, step = faults.state(workdir)
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
    return faults.fresh(self._undisturbed, self._directory / name)

  def _finish(self, workdir: Path) -> None:
    with Command(workdir, self._processes, self._config) as command:
      command.wait(_PLAN)
      if set(command.codes) != {0}:
        raise RuntimeError(
          f'an undisturbed plan ended with {command.codes}:\n{command.log()}'
        )


def _newest(folder: Path) -> float:
  """When a folder of a folder was last changed."""
  times = [0.0]
  for path in folder.glob('**/'):
    with contextlib.suppress(OSError):  # It may just have been deleted.
      times.append(path.stat().st_mtime)
  return max(times)


def run(
  directory: Path,
  config: Path,
  processes: int,
  terms: int,
  kills: int,
  seed: int,
  jobs: int,
  seconds: float,
) -> Iterator[Plan]:
  """Stops plans side by side.

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
  campaign = Campaign(
    directory, config, processes, seed, time.monotonic() + seconds
  )
  takes = campaign.prepare(jobs)
  print(
    f'{processes} processes: a plan takes {takes:.1f} s beside'
    f' {jobs - 1} others',
    flush=True,
  )
  signals = np.array([_TERM] * terms + [_KILL] * kills)
  np.random.default_rng([seed, processes]).shuffle(signals)
  shares = [signals[worker::jobs].tolist() for worker in range(jobs)]

  with futures.ThreadPoolExecutor(jobs) as pool:
    # A plan is handed over when it is finished, whoever's it is.
    plans = [
      _Handed(pool, campaign.stop_plans(worker, share))
      for worker, share in enumerate(shares)
    ]
    waiting = {plan.next(): plan for plan in plans}
    while waiting:
      done, _ = futures.wait(waiting, return_when=futures.FIRST_COMPLETED)
      for future in done:
        worker = waiting.pop(future)
        if (plan := future.result()) is not None:
          yield plan
          waiting[worker.next()] = worker


class _Handed:
  """An iterator whose next item is made in a thread."""

  def __init__(self, pool: futures.ThreadPoolExecutor, plans: Iterator[Plan]):
    self._pool = pool
    self._plans = plans

  def next(self) -> futures.Future:
    """The next plan, in the future; None when there are no more."""
    return self._pool.submit(next, self._plans, None)


def table(plans: Iterable[Plan]) -> str:
  """Markdown: the signals by number of processes, and what came of them."""
  lines = [
    '| processes | signal | sent | ended by it, code right | came when all was'
    ' done | code wrong | until the end, s: median, most |',
    '|--:|---|--:|--:|--:|--:|--:|',
  ]
  plans = list(plans)
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


def _read(path: Path) -> list[Plan]:
  """The plans that an earlier call has written."""
  if not path.exists():
    return []
  return [
    Plan(
      **{
        **plan,
        'stops': tuple(
          Stop(**{**stop, 'codes': tuple(stop['codes'])})
          for stop in plan['stops']
        ),
        'differences': tuple(plan['differences']),
      }
    )
    for plan in json.loads(path.read_text())
  ]


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
    '--output', type=Path, help='without .json and .md; default: not written'
  )
  parser.add_argument(
    '--directory',
    type=Path,
    help='for the work directories; default: a temporary one',
  )
  args = parser.parse_args()
  earlier = _read(args.output.with_suffix('.json')) if args.output else []
  plans: list[Plan] = []
  started = time.monotonic()
  with tempfile.TemporaryDirectory() as temporary:
    for plan in run(
      args.directory or Path(temporary),
      args.config.absolute(),
      args.processes,
      args.terms,
      args.kills,
      args.seed,
      args.jobs,
      args.minutes * 60,
    ):
      plans.append(plan)
      stops = [stop for each in plans for stop in each.stops]
      print(
        f'{time.monotonic() - started:5.0f} s:'
        f' {sum(s.signal == _TERM for s in stops)} SIGTERM,'
        f' {sum(s.signal == _KILL for s in stops)} SIGKILL sent; a plan ended'
        f' after {len(plan.stops)} stops:'
        f' {"bit-equal" if plan.right else plan}',
        flush=True,
      )
      if args.output:
        _write(args.output, [*earlier, *plans])
  print(table([*earlier, *plans]))
  sys.exit(not all(plan.right for plan in plans))


def _write(output: Path, plans: Sequence[Plan]) -> None:
  values = [dataclasses.asdict(plan) for plan in plans]
  output.with_suffix('.json').write_text(json.dumps(values, indent=1) + '\n')
  output.with_suffix('.md').write_text(table(plans))


if __name__ == '__main__':
  main()
