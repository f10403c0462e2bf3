"""Helpers of the timed processes of `train_step`.

A worker prepares and compiles, says that it is ready, waits for its turn on
the GPU, and prints its figures as one line of JSON.
"""

import argparse
from collections.abc import Callable
import json
from pathlib import Path
import statistics
import sys
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
  parser.add_argument('--size', required=True, help='bert-large or minilm-l6')
  parser.add_argument('--data', required=True, help='GLUE as TSV files')
  parser.add_argument('--vocab', required=True, help="BERT's vocab.txt")
  parser.add_argument('--workdir', required=True, type=Path)
  parser.add_argument('--steps', required=True, type=int)
  parser.add_argument('--row_length', type=int, default=ROW_LENGTH)
  return parser.parse_args()


def wait_for_turn() -> None:
  """Reports that all is compiled, and waits until the GPU is free."""
  print('{"ready": true}', flush=True)
  sys.stdin.readline()


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
