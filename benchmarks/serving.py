"""Measures a server under load on the loopback: requests/s, p50, p99.

  python -m benchmarks.serving --config=configs/demo.py --workdir=DIR

Starts `--mode=serve` on a finished work directory with the same arguments.
Clients, each on a connection of its own, send one request after the other: a
pair of generated texts to every task at once (`--task`: to one alone).
The first request of each client is not counted.
"""

import argparse
from collections.abc import Sequence
from concurrent import futures
import contextlib
import http.client
import itertools
import json
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np

from bam_jax.tasks import demo

_PAIRS = 'demo_paraphrase'


def _bodies(task: str | None) -> list[bytes]:
  """Makes request bodies with different texts."""
  rows = demo.generate(_PAIRS, 'test')
  asked = {} if task is None else {'task': task}
  is_single = task in demo.TASKS and not demo.TASKS[task].is_pair
  return [
    json.dumps(
      asked
      | {'inputs': [row.text_a if is_single else [row.text_a, row.text_b]]}
    ).encode()
    for row in rows
  ]


def _client(
  port: int,
  bodies: Sequence[bytes],
  numbers: 'itertools.count[int]',
  count: int,
  together: threading.Barrier,
) -> tuple[list[float], int]:
  """Sends requests; returns seconds of each answer, and the failures."""
  seconds, failed = [], 0
  with contextlib.closing(
    http.client.HTTPConnection('127.0.0.1', port, timeout=120)
  ) as connection:
    _ask(connection, bodies[0])
    together.wait()
    while (number := next(numbers)) < count:
      begin = time.perf_counter()
      if _ask(connection, bodies[number % len(bodies)]):
        seconds.append(time.perf_counter() - begin)
      else:
        failed += 1
  return seconds, failed


def _ask(connection: http.client.HTTPConnection, body: bytes) -> bool:
  try:
    connection.request('POST', '/v1/predict', body)
    response = connection.getresponse()
    answer = json.loads(response.read())
  except (OSError, http.client.HTTPException, ValueError) as e:
    print(f'failed: {e!r}', file=sys.stderr)
    connection.close()
    return False
  if response.status != 200:
    print(f'{response.status}: {answer}', file=sys.stderr)
    return False
  return len(answer['predictions']) == 1


def measure(
  port: int, task: str | None, clients: int, count: int
) -> dict[str, float]:
  """Measures `count` requests from some clients."""
  bodies = _bodies(task)
  numbers = itertools.count()
  together = threading.Barrier(clients + 1)
  with futures.ThreadPoolExecutor(clients) as pool:
    running = [
      pool.submit(_client, port, bodies, numbers, count, together)
      for _ in range(clients)
    ]
    together.wait()
    begin = time.perf_counter()
    results = [each.result() for each in running]
    took = time.perf_counter() - begin
  seconds = np.array([s for answered, _ in results for s in answered])
  p50, p99 = np.percentile(seconds, (50, 99)) * 1000
  return {
    'clients': clients,
    'requests': count,
    'errors': sum(failed for _, failed in results),
    'requests/s': round(len(seconds) / took, 1),
    'p50 ms': round(float(p50), 1),
    'p99 ms': round(float(p99), 1),
  }


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--clients', type=int, default=32)
  parser.add_argument('--requests', type=int, default=1000)
  parser.add_argument('--task', help='default: every task')
  arguments, command = parser.parse_known_args()
  begin = time.perf_counter()
  server = subprocess.Popen(
    [
      *(sys.executable, '-m', 'bam_jax.main', '--mode=serve', '--port=0'),
      *command,
    ],
    stderr=subprocess.PIPE,
    text=True,
  )
  try:
    port = None
    for line in server.stderr:
      if found := re.search(r' is served at http://.*:(\d+)$', line):
        port = int(found[1])
        break
      print(line, end='', file=sys.stderr)
    if port is None:
      sys.exit(server.wait())
    ready = time.perf_counter() - begin
    # Alone first: what a request takes that shares its batch with none.
    for clients, count in (
      (1, arguments.requests // 10),
      (arguments.clients, arguments.requests),
    ):
      print(json.dumps(measure(port, arguments.task, clients, count)))
    print(
      f'{os.cpu_count()} CPU cores, {platform.machine()},'
      f' ready in {ready:.0f} s, load average {os.getloadavg()[0]:.1f}'
    )
  finally:
    server.send_signal(signal.SIGTERM)
    server.communicate()


if __name__ == '__main__':
  main()
