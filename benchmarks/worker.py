"""Timed processes that take turns, and what starts them.

A worker prepares and compiles, says that it is ready, waits for its turn on
the device, and prints its figures as one line of JSON.
"""

import argparse
from collections.abc import Callable, Mapping
import json
import os
from pathlib import Path
import queue
import resource
import statistics
import subprocess
import sys
import threading
import time

# The nine tasks of GLUE, each step drawn by size^0.75.
BATCH_SIZE = 128
ROW_LENGTH = 128
# Rows of another length hold generated texts of 20 to 500 tokens, of which
# fewer make a step of about as many tokens.
LONG_BATCH_SIZE = 32


def arguments(description: str | None) -> argparse.Namespace:
  """Parses the arguments that `train_step` gives to each process."""
  parser = argparse.ArgumentParser(
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--mode', required=True)
  parser.add_argument(
    '--size',
    required=True,
    help='such as bert-large; of step_jax also a folder with weights',
  )
  parser.add_argument('--data', required=True, help='GLUE as TSV files')
  parser.add_argument('--vocab', required=True, help="BERT's vocab.txt")
  parser.add_argument('--workdir', required=True, type=Path)
  parser.add_argument('--steps', required=True, type=int)
  parser.add_argument('--row_length', type=int, default=ROW_LENGTH)
  return parser.parse_args()


def environ(devices: int = 1) -> dict[str, str]:
  """Returns the environment of a process that sees only the first GPUs."""
  environ = dict(os.environ)
  # Several processes share the memory.
  environ['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'
  seen = environ.get('CUDA_VISIBLE_DEVICES')
  numbers = seen.split(',') if seen else [str(i) for i in range(devices)]
  environ['CUDA_VISIBLE_DEVICES'] = ','.join(numbers[:devices])
  return environ


class Process:
  """A process whose output is read line by line."""

  def __init__(self, name: str, call: list[str], environ: Mapping[str, str]):
    self.name = name
    self._process = subprocess.Popen(
      call,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env=environ,
    )
    self._lines = queue.SimpleQueue()
    threading.Thread(target=self._read, daemon=True).start()

  def _read(self) -> None:
    for line in self._process.stdout:
      self._lines.put(line)
    self._lines.put(None)

  def figures(self, timeout: float | None = None) -> dict[str, float] | None:
    """Waits for a line of figures; prints other lines; None at the end."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
      left = None if deadline is None else max(deadline - time.monotonic(), 0)
      try:
        line = self._lines.get(timeout=left)
      except queue.Empty:
        print(f'{self.name}: not ready in time', flush=True)
        return None
      if line is None:
        print(f'{self.name}: ended with {self._process.wait()}', flush=True)
        return None
      if line.startswith('{'):
        return json.loads(line)
      print(f'{self.name}: {line}', end='', flush=True)

  def go(self) -> None:
    """Lets the process run its timings."""
    self._process.stdin.write('go\n')
    self._process.stdin.flush()

  def end(self) -> None:
    self._process.kill()
    self._process.wait()


def wait_for_turn() -> None:
  """Reports that all is compiled, and waits until the GPU is free."""
  print('{"ready": true}', flush=True)
  sys.stdin.readline()


def inference_arguments(description: str | None) -> argparse.Namespace:
  """Parses the arguments that `inference` gives to each process."""
  parser = argparse.ArgumentParser(
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--mode', required=True)
  parser.add_argument('--workdir', required=True, type=Path)
  parser.add_argument('--batch_size', required=True, type=int)
  return parser.parse_args()


def run_inference(
  run: Callable[[], object], path: Path, peak_bytes: Callable[[], int]
) -> None:
  """Runs twice, then whenever the parent process asks; reports the seconds.

  Args:
    run: returns the predictions, once the device has computed them.
    path: where they are written as JSON.
    peak_bytes: returns the most bytes in use on the accelerator so far; 0 if
      there is none, and then the memory of this process counts.
  """
  run()
  path.write_text(json.dumps(run()))
  print('{"ready": true}', flush=True)
  for _ in sys.stdin:
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    report(seconds=seconds, peak_bytes=peak_bytes() or own)


def milliseconds(
  run: Callable[[], None], wait: Callable[[], None], steps: int
) -> float:
  """Returns milliseconds per step: the median of five timings.

  Args:
    run: takes `steps` steps, without waiting for the device.
    wait: waits for the device.
    steps: how many.
  """
  run()
  wait()
  times = []
  for _ in range(5):
    start = time.perf_counter()
    run()
    wait()
    times.append((time.perf_counter() - start) * 1000 / steps)
  return statistics.median(times)


def report(**figures: float) -> None:
  """Prints the figures as a line of JSON."""
  print(json.dumps(figures), flush=True)
