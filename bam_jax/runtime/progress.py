"""Shows the progress of long work, as a bar or as plain lines."""

from collections.abc import Callable
import math
import time
from typing import Self

import rich.console
import rich.progress
import rich.text

from bam_jax.runtime import processes

_LINE_INTERVAL = 10.0  # seconds between two plain progress lines
_CONSOLE = rich.console.Console(stderr=True)
_QUIET = rich.console.Console(quiet=True)


class Progress:
  """Shows the progress of long work: percentage done, rate and time left.

  On a terminal this is a bar; elsewhere (CI, a log file) it is a plain line at
  most every ten seconds and one at the end.
  """

  def __init__(
    self,
    description: str,
    total: int,
    unit: str,
    console: rich.console.Console = _CONSOLE,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Prepares a display for `total` units of work, such as `examples`."""
    self._description = description
    self._total = total
    self._unit = unit
    self._console = console
    self._clock = clock
    self._shown = ''
    self._bar = None

  def __enter__(self) -> Self:
    if self._console.is_terminal:
      self._bar = rich.progress.Progress(
        rich.progress.TextColumn('{task.description}', markup=False),
        rich.progress.BarColumn(),
        rich.progress.TaskProgressColumn(),
        _RateColumn(self._unit),
        rich.progress.TimeRemainingColumn(),
        rich.progress.TextColumn('{task.fields[shown]}', markup=False),
        console=self._console,
        refresh_per_second=4,
      )
      self._task = self._bar.add_task(self._description, total=self._total)
    self.start_at(0)
    if self._bar is not None:
      self._bar.start()
    return self

  def __exit__(
    self, kind: type[BaseException] | None, *unused_exception: object
  ) -> None:
    if self._bar is not None:
      self._bar.stop()
    elif kind is None:
      seconds = self._clock() - self._begin
      rate = (self._done - self._first) / max(seconds, 1e-9)
      self._print(f'{_rate(rate)} {self._unit}/s, took {duration(seconds)}')

  def start_at(self, done: int) -> None:
    """Sets how many units were done earlier; the rate excludes these units."""
    self._first = self._done = self._line_done = done
    self._begin = self._line_time = self._clock()
    if self._bar is not None:
      self._bar.reset(self._task, completed=done, shown='')

  def advance(self, count: int, **shown: float) -> None:
    """Adds finished units; `shown` are values to show, such as the loss."""
    self._done += count
    if shown:
      self._shown = ' '.join(f'{k} {v:.4g}' for k, v in shown.items())
    if self._bar is not None:
      self._bar.update(self._task, advance=count, shown=self._shown)
      return
    now = self._clock()
    seconds = now - self._line_time
    if seconds >= _LINE_INTERVAL and self._done < self._total:
      rate = (self._done - self._line_done) / seconds
      left = (self._total - self._done) / rate if rate else math.inf
      self._print(f'{_rate(rate)} {self._unit}/s, {duration(left)} left')
      self._line_time, self._line_done = now, self._done

  def _print(self, text: str) -> None:
    percent = math.floor(100 * self._done / max(self._total, 1))
    line = f'{self._description}: {percent}%, {text}'
    line += f', {self._shown}' if self._shown else ''
    # With `soft_wrap`, rich does not break the line at the console's width.
    self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def show(description: str, total: int, unit: str) -> Progress:
  """Returns a progress display on standard error of the first process.

  with progress.show('train multi-0', total, 'examples') as bar:
    bar.advance(128, loss=0.7)
  """
  console = _CONSOLE if processes.is_first() else _QUIET
  return Progress(description, total, unit, console)


class _RateColumn(rich.progress.ProgressColumn):
  """Shows the units per second over the last 30 s.

  The rate is computed only when the bar is drawn. To compute it in each call of
  `Progress.advance` would take longer than the rest of that method.
  """

  def __init__(self, unit: str):
    super().__init__()
    self._unit = unit

  def render(self, task: rich.progress.Task) -> rich.text.Text:
    speed = task.finished_speed or task.speed
    return rich.text.Text(f'{_rate(speed)} {self._unit}/s' if speed else '')


def _rate(value: float) -> str:
  return f'{value:,.0f}' if value >= 10 else f'{value:.2g}'


def duration(seconds: float) -> str:
  """Formats seconds as `42s`, `3m 05s` or `2h 07m`; `?` if not finite."""
  if not math.isfinite(seconds):
    return '?'
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}h {minutes:02d}m'
  return f'{minutes}m {rest:02d}s' if minutes else f'{rest}s'
