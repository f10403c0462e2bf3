"""Logs metrics to JSON lines, TensorBoard and trackers."""

from collections.abc import Mapping
import importlib
import json
import math
import os
from pathlib import Path
import time
from typing import Self

from bam_jax import errors
from bam_jax import files
from bam_jax.runtime import trackers as trackers_lib

METRICS_FILE = 'metrics.jsonl'
TENSORBOARD_DIR = 'tensorboard'

_MAX_BYTES = 1 << 29


class Telemetry:
  """Log of one run's metrics, as JSON lines and as TensorBoard events.

  If the process is killed, at most the last line is incomplete. The next
  process that opens the log removes that line.

    with Telemetry(run_dir, tensorboard=True, run='multi-0') as log:
      log.truncate(step)  # On resume: removes lines after the checkpoint.
      log.write(step, {'loss': 0.7})
  """

  def __init__(
    self,
    directory: Path,
    tensorboard: bool,
    run: str,
    writes: bool = True,
    trackers: trackers_lib.Trackers | None = None,
  ):
    """Opens the log of a run.

    Args:
      directory: folder of the run, created if missing. Lines go to its file
        `metrics.jsonl`, and events go to its folder `tensorboard/`.
      tensorboard: whether to write TensorBoard events too.
      run: name of the run, for the names of its event files.
      writes: False if another process writes the log; then this object changes
        no file.
      trackers: trackers of the run, which also receive each line.

    Raises:
      errors.UserError: a line of an existing metrics file is not JSON.
    """
    self._path = directory / METRICS_FILE
    self._writes = writes
    self._tensorboard = tensorboard
    self._run = run.replace(os.sep, '-')
    self._events = None
    self._trackers = trackers
    self._purge_step: int | None = None
    if not writes:
      return
    if tensorboard:
      # The import takes half a second, or more if torch is installed. So it is
      # done before any step.
      importlib.import_module('tensorboardX')
    directory.mkdir(parents=True, exist_ok=True)
    if self._path.exists():
      lines, is_torn = _parse(self._path)
      if is_torn:
        self._rewrite(lines)

  def __enter__(self) -> Self:
    return self

  def __exit__(
    self, kind: type[BaseException] | None, *unused_exception: object
  ) -> None:
    if self._events is not None:
      self._events.close()
    if self._trackers is not None:
      self._trackers.close(is_finished=kind is None)

  def truncate(self, step: int, score: str = 'dev_score') -> None:
    """Removes the lines of `step` and of later steps.

    Call it before the first `write`; TensorBoard then hides its old events too.

    Args:
      step: the first step that will be logged again.
      score: name of a score. Lines of `step` that have this score are kept,
        because a score belongs to the state before the step. If `score` is '',
        no line of `step` is kept.
    """
    if self._events is not None:
      raise ValueError('TensorBoard events exist: call truncate before write')
    self._purge_step = step
    if self._writes and self._path.exists():
      kept = [
        line
        for line in read(self._path)
        if line['step'] < step or (score in line and line['step'] == step)
      ]
      self._rewrite(kept)

  def _rewrite(self, lines: list[dict[str, float]]) -> None:
    files.write_text(self._path, ''.join(map(_encode, lines)))

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Appends one line `{"step": step, "time": unix seconds, **values}`.

    Values that are not finite are written as null, because JSON has no NaN;
    TensorBoard and trackers do not get them.
    """
    if not self._writes:
      return
    step, seconds = int(step), time.time()
    values = {name: float(value) for name, value in values.items()}
    with files.open_file(self._path, 'a', encoding='utf-8') as file:
      file.write(_encode({'step': step, 'time': seconds} | values))
    finite = {k: v for k, v in values.items() if math.isfinite(v)}
    if self._tensorboard:
      self._write_events(step, seconds, finite)
    if self._trackers is not None:
      self._trackers.write(step, seconds, finite)

  def _write_events(
    self, step: int, seconds: float, values: Mapping[str, float]
  ) -> None:
    """Writes TensorBoard events; the first call opens their file.

    tensorboardX's SummaryWriter is not used, because it writes in a thread. If
    the disk is full, this thread dies, and SummaryWriter waits for it forever.
    """
    from tensorboardX import event_file_writer
    from tensorboardX import summary
    from tensorboardX.proto import event_pb2

    if self._events is None:
      directory = self._path.parent / TENSORBOARD_DIR
      directory.mkdir(exist_ok=True)
      # tensorboardX adds the time in seconds to the file name. The number makes
      # the name unique.
      count = len(list(directory.iterdir()))
      self._events = event_file_writer.EventsWriter(
        str(directory / 'events'), f'.{self._run}.{count}'
      )
      if self._purge_step is not None:
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._events.write_event(
          event_pb2.Event(
            step=self._purge_step, wall_time=seconds, session_log=start
          )
        )
    for name, value in values.items():
      scalar = summary.scalar(name, value)
      self._events.write_event(
        event_pb2.Event(step=step, wall_time=seconds, summary=scalar)
      )
    self._events.flush()


def read(path: Path) -> list[dict[str, float]]:
  """Reads the lines of a metrics file as dicts; null becomes nan.

  An incomplete last line is skipped, so that a file can be read while another
  process writes it.

  Raises:
    errors.UserError: an earlier line is not a JSON object with a step.
  """
  return _parse(path)[0]


def _encode(line: Mapping[str, float]) -> str:
  return json.dumps(files.finite(line), allow_nan=False) + '\n'


def _parse(path: Path) -> tuple[list[dict[str, float]], bool]:
  """Returns the parsed lines, and whether the last line is incomplete."""
  try:
    raw = files.read_bytes(path, _MAX_BYTES).split(b'\n')
  except ValueError as e:
    raise errors.UserError(
      f'{path}: is too large for a log ({e}); move it away, and raise'
      ' config.train.log_every'
    ) from e
  torn = raw.pop() != b''  # What follows the last newline.
  lines = []
  for number, text in enumerate(raw, 1):
    try:
      values = files.parse_json(text.decode())
      line = {key: _number(value) for key, value in values.items()}
      line['step'] = int(line['step'])
    except (ValueError, TypeError, KeyError, OverflowError) as error:
      if number == len(raw) and not torn:
        # A crash of the machine can fill the last line with zeros.
        return lines, True
      raise errors.UserError(
        f'{path}:{number}: {text[:40]!r} is not a JSON object with a step;'
        ' remove the line'
      ) from error
    lines.append(line)
  return lines, torn


def _number(value: object) -> float:
  """Converts a JSON number or null; raises `TypeError` for other values."""
  if type(value) not in (int, float, type(None)):
    raise TypeError(f'{value!r} is not a number')
  return math.nan if value is None else float(value)
